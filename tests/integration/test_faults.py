"""The table of what may come back, line by line: nothing is lost, nothing runs twice, whatever is at fault."""

import contextlib
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.fake_platform.state import Fault
from tests.integration.fault_injection import Direct, Gate
from tests.integration.harness import World
from workflow_trigger.adapters.s3_reader import CHUNK_BYTES
from workflow_trigger.adapters.unstructured import client as platform_client
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.errors import ConflictError, LedgerUnavailable
from workflow_trigger.domain.model import Phase, Transition
from workflow_trigger.domain.retry import COUNTED_FAILURES_LIMIT
from workflow_trigger.services import recover
from workflow_trigger.services.reconcile import gauges


def three(world: World) -> list[ObjectVersion]:
    return [world.upload(f"{name}.pdf", name.encode()) for name in "abc"]


def assert_each_ran_once(world: World, documents: list[ObjectVersion]) -> None:
    assert [world.accepted(each) for each in documents] == [1] * len(documents)
    assert [world.status(each) for each in documents] == ["COMPLETED"] * len(documents)
    by_ours = {job.id for job in world.state.jobs.values() if job.ours}
    assert {world.row(each)["job_id"] for each in documents} <= by_ours


# -- answers that hold, and lose nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["run", "jobs"])
@pytest.mark.parametrize("status", [302, 401, 402, 403, 404, 405, 410, 418])
def test_answer_that_is_no_documents_fault_holds_the_workflow(world: World, call: str, status: int) -> None:
    documents = three(world)
    world.state.faults.append(Fault(call, "status", status=status, times=4, body='{"detail": "no"}'))
    world.deliver(*documents)
    assert {world.status(each) for each in documents} == {"PENDING"}
    assert world.counts["Held"] == 1
    error = world.workflow().last_error
    assert error is not None
    assert str(status) in error["message"]
    assert not world.workflow().is_free(world.clock.now())
    world.settle()
    assert_each_ran_once(world, documents)
    assert all(int(world.row(each)["failures"]) == 0 for each in documents)
    assert len(world.state.jobs) == 1


def test_rotated_key_is_read_again_at_once(world: World) -> None:
    first, second = world.upload("1.pdf", b"1"), world.upload("2.pdf", b"2")
    world.deliver(first)
    world.settle()
    world.state.behaviour.api_key = "rotated"
    world.secrets.put_secret_value(SecretId=world.secret, SecretString="rotated")
    world.deliver(second)
    assert world.status(second) == "SCHEDULED"
    assert world.counts["Held"] == 0


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "200"}, "", 200),
        ({}, '{"retry_after": 90}', 90),
        ({}, "", 30),
        ({"retry-after": "99999"}, "", 900),
    ],
)
@pytest.mark.parametrize("call", ["run", "jobs"])
def test_throttled_waits_as_long_as_it_is_told(
    world: World, call: str, headers: dict[str, str], body: str, seconds: float
) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault(call, "status", status=429, headers=headers, body=body))
    world.deliver(document)
    assert world.status(document) == "PENDING"
    world.tick(after_seconds=seconds - 10)
    assert world.status(document) == "PENDING"
    world.tick(after_seconds=20)
    assert world.status(document) == "SCHEDULED"
    assert int(world.row(document)["failures"]) == 0


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_one_refused_file_is_rejected_with_the_platforms_reason(world: World, status: int) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "status", status=status, body='{"detail": "not this file"}'))
    world.deliver(document)
    row = world.row(document)
    assert (row["status"], row["error"]["type"]) == ("REJECTED", "Refused")
    assert "not this file" in row["error"]["message"]
    assert world.workflow().phase is Phase.IDLE


def test_of_several_only_the_culprit_is_rejected(world: World) -> None:
    documents = [world.upload(f"{name}.pdf", name.encode()) for name in ("good", "culprit", "fine")]
    world.state.faults.append(Fault("run", "status", status=422, document="culprit", times=1_000))
    world.deliver(*documents)
    world.settle()
    assert [world.status(each) for each in documents] == ["COMPLETED", "REJECTED", "COMPLETED"]
    assert_each_ran_once(world, [documents[0], documents[2]])


def test_platform_that_refuses_everything_does_not_reject_the_backlog(world: World) -> None:
    world.configure(max_files_per_run=1)
    documents = [world.upload(f"{number}.pdf", bytes([number])) for number in range(8)]
    fault = Fault("run", "status", status=422, times=1_000)
    world.state.faults.append(fault)
    world.deliver(*documents)
    for _ in range(60):
        world.tick(after_seconds=60)
    statuses = [world.status(each) for each in documents]
    assert (statuses.count("REJECTED"), statuses.count("PENDING")) == (3, 5)
    assert world.counts["Held"] > 0
    fault.times = 0
    world.settle(minutes=200)
    assert [world.status(each) for each in documents].count("COMPLETED") == 5


# -- answers that tell nothing -----------------------------------------------------------------------------------------

NOTHING_STARTED = [
    Fault("run", "status", status=500),
    Fault("run", "status", status=503, body="<html>busy</html>"),
    Fault("run", "drop"),
    Fault("run", "status", status=202, body="not JSON"),
    Fault("run", "status", status=202, body="[]"),
    Fault("run", "status", status=202, body=""),
    Fault("run-early", "cut"),
]
STARTED = [
    Fault("run", "drop-after"),
    Fault("run", "truncate"),
    Fault("run", "answer-after", status=502, body="bad gateway"),
    Fault("run", "answer-after", status=202, body="[" * 5_000),
    Fault("run", "answer-after", status=202, body="null"),
    Fault("run", "answer-after", status=202, body='{"detail": "There is a running job in progress. No new job run."}'),
]


def fresh(fault: Fault) -> Fault:
    return Fault(fault.call, fault.kind, status=fault.status, body=fault.body)


@pytest.mark.parametrize("fault", NOTHING_STARTED + STARTED, ids=lambda fault: f"{fault.kind}-{fault.status}")
@pytest.mark.parametrize("several", [False, True])
def test_lost_answer_is_settled_and_each_file_runs_once(world: World, fault: Fault, several: bool) -> None:
    documents = three(world) if several else three(world)[:1]
    world.state.faults.append(fresh(fault))
    world.deliver(*documents)
    assert {world.status(each) for each in documents} <= {"SUBMITTING", "PENDING", "SCHEDULED"}
    world.settle()
    assert_each_ran_once(world, documents)
    assert len(world.state.jobs) == 1, "what went together the first time goes together again"


def test_answer_larger_than_its_bound_is_not_taken_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform_client, "_ANSWER_LIMIT_BYTES", 10_000)
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "answer-after", status=202, body=json.dumps({"id": "x", "y": "z" * 20_000})))
    world.deliver(document)
    assert world.status(document) == "SUBMITTING"
    world.settle()
    assert_each_ran_once(world, [document])


@pytest.mark.parametrize(("status", "ends"), [(413, "REJECTED"), (503, "COMPLETED")])
def test_answer_that_comes_before_the_body_is_sent(world: World, status: int, ends: str) -> None:
    document = world.upload("a.pdf", bytes(30_000_000))
    world.state.faults.append(Fault("run-early", "status", status=status, body='{"detail": "early"}'))
    world.deliver(document)
    world.settle()
    # An early refusal may be lost in the reset of the connection that follows it: then the file simply goes again.
    assert world.status(document) in {ends, "COMPLETED"}
    assert world.accepted(document) == (world.status(document) == "COMPLETED")


def test_accepted_with_a_status_that_nobody_knows_is_running(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "job", job={"status": "POLISHING"}))
    world.deliver(document)
    assert world.status(document) == "SCHEDULED"
    world.settle()
    assert_each_ran_once(world, [document])


# -- settle ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", ["ids", "documents", "nothing"])
def test_job_of_a_lost_answer_is_found_by_whatever_the_platform_shows(world: World, shown: str) -> None:
    world.state.behaviour.list_shows_files = shown == "ids"
    world.state.behaviour.has_file_status = shown == "documents"
    documents = three(world)
    world.state.faults.append(Fault("run", "drop-after"))
    world.deliver(*documents)
    world.settle()
    assert_each_ran_once(world, documents)
    assert [bool(world.row(each).get("inferred")) for each in documents] == [shown == "nothing"] * 3


def test_stranger_with_hidden_files_is_not_taken_for_ours_when_its_documents_say_so(world: World) -> None:
    world.state.behaviour.list_shows_files = False
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "drop"))
    world.deliver(document)
    world.stranger()
    world.settle()
    assert_each_ran_once(world, [document])


def test_list_that_fails_or_breaks_off_proves_nothing(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "drop-after"))
    world.deliver(document)
    world.state.faults += [Fault("jobs", kind, status=500, times=2) for kind in ("truncate", "status", "drop")]
    for _ in range(6):
        world.tick(after_seconds=60)
        assert world.status(document) == "SUBMITTING"
    world.settle()
    assert_each_ran_once(world, [document])


def test_list_that_lies_for_less_than_the_settle_time_misleads_nobody(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    hidden_until = world.clock.epoch_seconds() + 50
    world.state.faults += [Fault("run", "job", job={"listed_from": hidden_until})]
    gate = Gate(lambda: world.deliver(document, hook=gate))
    gate.start()
    while world.accepted(document) == 0:
        gate.step()
    gate.kill()
    world.tick(after_seconds=30)
    assert world.status(document) == "SUBMITTING"
    world.settle()
    assert_each_ran_once(world, [document])


@pytest.mark.parametrize("seconds", [20, 90])
def test_late_acceptance_is_found_and_nothing_runs_twice(world: World, seconds: float) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "late", seconds=seconds))
    world.deliver(document)
    world.settle()
    assert_each_ran_once(world, [document])


def test_acceptance_later_than_the_next_attempts_whole_job_is_reported(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "late", seconds=600))
    world.deliver(document)
    world.settle()
    world.clock.sleep(600)
    world.deliver(world.upload("next.pdf", b"n"))
    assert world.accepted(document) == 2
    assert world.counts["LateAcceptance"] == 1
    assert world.status(document) == "COMPLETED"


@pytest.mark.parametrize("lost_before", [1, 2])
def test_late_acceptance_of_any_try_is_found_and_nothing_runs_twice(world: World, lost_before: int) -> None:
    late = world.upload("late.pdf", b"l")
    world.state.faults += [Fault("run", "drop", document="late", times=lost_before), Fault("run", "late", seconds=30)]
    world.deliver(late)
    world.settle()
    assert world.state.requests["run"] == lost_before + 1
    assert_each_ran_once(world, [late])


def test_late_acceptance_that_makes_the_next_try_busy_is_found_by_its_name(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "drop"))
    world.deliver(document)
    name = world.row(document)["upload_name"]

    class BeforeTheSecondTry(Direct):
        """After the list that showed nothing, and before the request, the old request is accepted after all."""

        def around[T](self, call_name: str, call: Any) -> T:  # type: ignore[type-var]
            if call_name == "s3 get_object" and not world.state.jobs:
                files = [world.state.store(name, None, open_bytes(b"a"))]
                world.state.start(world.settings.workflow_ids[0], files, is_late=True)
            answer: T = call()
            return answer

    world.clock.sleep(121)
    world.step_all(hook=BeforeTheSecondTry())
    assert world.status(document) == "SUBMITTING"
    world.settle()
    assert world.state.requests["run"] == 2
    assert_each_ran_once(world, [document])


def open_bytes(content: bytes) -> io.BytesIO:
    return io.BytesIO(content)


def test_two_invocations_may_settle_at_once(world: World) -> None:
    documents = three(world)
    world.state.faults.append(Fault("run", "drop-after"))
    world.deliver(*documents)
    world.clock.sleep(70)
    gates = [gated_tick(world) for _ in range(2)]
    while not all(gate.is_over for gate in gates):
        for gate in gates:
            gate.step()
    assert [gate.failure for gate in gates] == [None, None]
    world.settle()
    assert_each_ran_once(world, documents)


def gated_tick(world: World) -> Gate:
    """on_schedule on the first workflow, one remote call at a time."""
    gate = Gate(lambda: world.step_all(hook=gate))
    gate.start()
    return gate


class WhileTheAnswerIsOnItsWay(Direct):
    """Something else happens between the platform's answer and its arrival."""

    def __init__(self, happens: Any) -> None:
        self.happens = happens

    def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
        answer: T = call()
        if name == "platform POST run" and self.happens:
            happens, self.happens = self.happens, None
            happens()
        return answer


def test_look_that_fails_while_the_sender_waits_does_not_cost_it_its_answer(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.behaviour.list_shows_files = False

    def look() -> None:
        world.state.faults.append(Fault("jobs", "status", status=503))
        world.step_all()

    world.deliver(document, hook=WhileTheAnswerIsOnItsWay(look))
    row = world.row(document)
    assert row["status"] == "SCHEDULED"
    assert row["input_file_ids"]
    assert "inferred" not in row


def test_settling_and_the_sender_may_both_record(world: World) -> None:
    documents = three(world)
    world.deliver(*documents, hook=WhileTheAnswerIsOnItsWay(world.step_all))
    assert {world.status(each) for each in documents} == {"SCHEDULED"}
    world.settle()
    assert_each_ran_once(world, documents)


def test_partial_list_of_documents_does_not_split_an_attempt(world: World) -> None:
    world.state.behaviour.list_shows_files = world.state.behaviour.has_file_status = False
    documents = three(world)
    world.state.faults.append(Fault("run", "drop-after", times=1))
    world.deliver(*documents)
    (job,) = world.state.jobs.values()
    job.ending, job.failed = "COMPLETED_WITH_ERRORS", {world.row(documents[1])["upload_name"]: "broken"}
    world.settle()
    assert [world.accepted(each) for each in documents] == [1, 1, 1]
    assert [world.status(each) for each in documents] == ["COMPLETED", "FAILED", "COMPLETED"]


def test_busy_whose_job_cannot_be_looked_up_may_have_been_our_own(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(
        Fault("run", "answer-after", status=202, body='{"detail": "There is a running job in progress."}')
    )

    def no_list() -> None:
        world.state.faults.append(Fault("jobs", "status", status=503))

    world.deliver(document, hook=WhileTheAnswerIsOnItsWay(no_list))
    assert world.status(document) == "SUBMITTING"
    world.settle()
    assert_each_ran_once(world, [document])


def test_orphan_search_leaves_alone_what_another_attempt_holds_by_now(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.deliver(document)
    before = world.row(document)
    world.clock.sleep(300)
    context = world.context()
    context.ledger.held = lambda status: {document.document_key: ("dead", before["updated_at"])}  # type: ignore[method-assign]
    recover.recover_orphans(context, context.snapshot())
    assert world.row(document) == before


@pytest.mark.parametrize("shown", [True, False])
def test_job_of_an_earlier_run_of_the_same_bytes_is_not_taken_for_the_lost_one(world: World, shown: bool) -> None:
    world.state.behaviour.list_shows_files = world.state.behaviour.has_file_status = shown
    document = world.upload("a.pdf", b"same")
    world.deliver(document)
    world.settle()
    world.state.faults.append(Fault("run", "drop"))
    world.deliver(world.upload("a.pdf", b"same"))
    world.settle()
    row = world.row(document)
    assert (row["status"], world.accepted(document)) == ("COMPLETED", 2)
    assert row["job_id"] != row["runs"][0]["job_id"]


# -- the commit --------------------------------------------------------------------------------------------------------


def test_sender_that_wakes_up_after_its_lease_is_stopped_before_the_last_byte(world: World) -> None:
    world.judge()
    document = world.upload("a.pdf", bytes(3_000_000))
    gate = Gate(lambda: world.deliver(document, hook=gate))
    gate.start()
    while world.status_or_none(document) != "SUBMITTING":
        gate.step()
    for _ in range(3):  # it has opened the object and begun to send
        gate.step()
    world.clock.sleep(3600)
    world.step_all()  # the lease has ended: the documents are free
    world.clock.sleep(3)
    world.step_all()
    assert world.status(document) == "SCHEDULED"
    gate.finish()
    assert gate.failure is None
    assert world.violations == []
    assert world.accepted(document) == 1
    world.settle()
    assert_each_ran_once(world, [document])


def test_rows_of_an_attempt_that_died_before_its_commit_are_free_when_the_lease_ends(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    gate = Gate(lambda: world.deliver(document, hook=gate))
    gate.start()
    while world.status_or_none(document) != "SUBMITTING":
        gate.step()
    gate.kill()
    world.tick(after_seconds=30)
    assert world.status(document) == "SUBMITTING"
    world.tick(after_seconds=31)
    assert world.status(document) == "PENDING"
    world.tick(after_seconds=3)
    assert world.status(document) == "SCHEDULED"


def test_a_workflow_that_changed_since_it_was_read_is_not_written(world: World) -> None:
    (workflow,) = world.workflows()
    ledger = world.ledger()
    ledger.commit(Transition(workflow, workflow))
    with pytest.raises(ConflictError):
        ledger.commit(Transition(workflow, workflow))


# -- later events ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backfilled", [False, True])
def test_same_bytes_that_come_back_during_an_attempt_are_not_lost(world: World, backfilled: bool) -> None:
    document = world.upload("a.pdf", b"same")
    if backfilled:
        document = replace(document, sequencer=None)

    class ThereAndBack(Direct):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name != "s3 get_object" or world.sequence > 1:
                answer: T = call()
                return answer
            world.upload("a.pdf", b"other")
            try:
                return call()  # type: ignore[no-any-return]
            finally:
                back = replace(world.upload("a.pdf", b"same"), uploaded_at=iso(world.clock.now()))
                world.deliver(back, submit=False)

    world.hook = ThereAndBack()
    world.deliver(document)
    assert world.status(document) == "PENDING"
    world.settle()
    assert (world.status(document), world.accepted(document)) == ("COMPLETED", 1)


# -- S3 ----------------------------------------------------------------------------------------------------------------


class FailingS3(Direct):
    """GetObject of one key fails as told."""

    def __init__(self, code: str, times: int) -> None:
        self.code, self.times = code, times

    def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
        if name == "s3 get_object" and self.times:
            self.times -= 1
            raise ClientError({"Error": {"Code": self.code, "Message": ""}}, "GetObject")
        answer: T = call()
        return answer


def test_document_that_is_put_off_again_and_again_is_seen_to_wait(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.hook = FailingS3("AccessDenied", 1_000)
    world.deliver(document)
    for _ in range(6):
        world.tick(after_seconds=300)
    assert world.row(document)["eligible_at"] > iso(world.clock.now())
    assert world.ledger().longest_wait_seconds() > 1_500
    assert world.counts["Held"] == world.counts["ObjectDenied"] > 3


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchKey", "REJECTED", "ObjectGone"),
        ("InvalidObjectState", "REJECTED", "ObjectGone"),
        ("PreconditionFailed", "SUPERSEDED", "ObjectOverwritten"),
        ("AccessDenied", "PENDING", "ObjectDenied"),
        ("SlowDown", "PENDING", "ObjectUnreadable"),
    ],
)
def test_object_that_cannot_be_had_leaves_and_the_rest_goes_on(world: World, code: str, status: str, kind: str) -> None:
    documents = three(world)
    world.hook = FailingS3(code, 1)
    world.deliver(*documents)
    row = world.row(documents[0])
    assert (row["status"], row["error"]["type"]) == (status, kind)
    assert world.counts[kind] == 1
    assert [world.status(each) for each in documents[1:]] == ["SCHEDULED", "SCHEDULED"]
    world.settle()
    assert_each_ran_once(world, documents if status == "PENDING" else documents[1:])


def test_object_that_breaks_in_the_middle_for_good_is_not_sent_and_the_rest_goes_on(world: World) -> None:
    documents = [
        world.upload("a.pdf", b"a"),
        world.upload("b.pdf", bytes(3 * CHUNK_BYTES)),
        world.upload("c.pdf", b"c"),
    ]

    class Breaking(Direct):
        reads = 0

        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            self.reads += name == "s3 read"
            if name == "s3 read" and 3 <= self.reads < 9:
                raise OSError("broken")
            answer: T = call()
            return answer

    world.hook = Breaking()
    world.deliver(*documents)
    assert world.row(documents[1])["error"]["type"] == "ObjectUnreadable"
    world.settle()
    assert_each_ran_once(world, documents)


# -- poison and outage -------------------------------------------------------------------------------------------------


def test_poisonous_file_is_rejected_and_blocks_nobody(world: World) -> None:
    poison = world.upload("poison.pdf", b"p")
    world.state.faults.append(Fault("run", "status", status=500, document="poison", times=1_000))
    others = [world.upload(f"other-{number}.pdf", bytes([number])) for number in range(8)]
    world.configure(max_files_per_run=2)
    world.deliver(poison, *others)
    world.settle(minutes=400, until=lambda: all(world.status(each) == "COMPLETED" for each in others))
    # It is condemned only by failures between which the platform accepted others.
    for number in range(12):
        if world.status(poison) == "REJECTED":
            break
        more = world.upload(f"more-{number}.pdf", b"m%d" % number)
        others.append(more)
        world.deliver(more)
        world.settle(minutes=200, until=lambda more=more: world.status(more) == "COMPLETED")  # type: ignore[misc]
        for _ in range(20):
            world.tick(after_seconds=60)
    assert world.status(poison) == "REJECTED"
    assert int(world.row(poison)["strikes"]) >= 5
    assert_each_ran_once(world, others)


def test_wrong_key_for_a_day_costs_nothing_but_the_day(world: World) -> None:
    right, world.state.behaviour.api_key = world.state.behaviour.api_key, "another"
    documents = three(world)
    world.deliver(*documents)
    for _ in range(24 * 6):
        world.tick(after_seconds=600)
    assert {world.status(each) for each in documents} == {"PENDING"}
    assert world.counts["Held"] > 100
    world.state.behaviour.api_key = right
    world.settle(minutes=10)
    assert_each_ran_once(world, documents)


def test_outage_of_a_day_rejects_nothing(world: World) -> None:
    documents = [world.upload(f"{number}.pdf", bytes([number])) for number in range(5)]
    fault = Fault("run", "status", status=500, times=100_000)
    world.state.faults.append(fault)
    world.deliver(*documents)
    for _ in range(24 * 4):
        world.tick(after_seconds=15 * 60)
    assert all(world.status(each) in {"PENDING", "SUBMITTING"} for each in documents)
    fault.times = 0
    world.settle(minutes=200)
    assert_each_ran_once(world, documents)


# -- the pool ----------------------------------------------------------------------------------------------------------


def test_workflows_of_a_pool_work_at_the_same_time_on_one_line(world: World) -> None:
    ids = world.grow_pool(3)
    world.configure(max_files_per_run=2)
    documents = [world.upload(f"{number}.pdf", bytes([number])) for number in range(12)]
    world.deliver(*documents)
    assert {workflow.phase for workflow in world.workflows()} == {Phase.RUNNING}
    world.settle()
    assert_each_ran_once(world, documents)
    assert {job.workflow_id for job in world.state.jobs.values()} == set(ids)


def test_held_workflow_does_not_stop_the_others(world: World) -> None:
    ids = world.grow_pool(2)
    world.state.behaviour.known_workflows = ids[1:]
    world.configure(max_files_per_run=1)
    documents = three(world)
    world.deliver(*documents)
    world.settle()
    assert_each_ran_once(world, documents)
    held = next(workflow for workflow in world.workflows() if workflow.workflow_id == ids[0])
    assert held.last_error is not None
    assert "404" in held.last_error["message"]


def test_exception_in_one_workflow_does_not_stop_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = world.grow_pool(2)
    world.configure(max_files_per_run=1)
    documents = three(world)
    asked = platform_client.PlatformClient.look

    def broken(self: platform_client.PlatformClient, workflow_id: str) -> Any:
        if workflow_id == ids[0]:
            raise RuntimeError("a defect")
        return asked(self, workflow_id)

    monkeypatch.setattr(platform_client.PlatformClient, "look", broken)
    world.deliver(*documents, submit=False)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a defect")):
        world.tick()
    world.has_a_defect = True
    world.settle()
    assert_each_ran_once(world, documents)
    assert world.counts["ReconcileErrors"] > 0


def test_workflow_that_left_the_pool_is_followed_to_the_end_of_its_job(world: World) -> None:
    documents = three(world)
    world.deliver(*documents)
    world.configure(workflow_ids=("00000000-0000-4000-8000-000000000000",))
    world.settle()
    assert_each_ran_once(world, documents)


def test_rows_bound_to_a_workflow_that_left_the_pool_are_not_stranded(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "drop"))
    world.deliver(document)
    world.configure(workflow_ids=("00000000-0000-4000-8000-000000000000",))
    world.settle()
    assert_each_ran_once(world, [document])


# -- the database ------------------------------------------------------------------------------------------------------


class Conflicting(Direct):
    """Transactions fail for a while, as they do on AWS when two touch an item."""

    def __init__(self, times: int, code: str = "TransactionConflict") -> None:
        self.times, self.code = times, code

    def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
        if name == "dynamodb transact_write_items" and self.times:
            self.times -= 1
            if self.code != "TransactionConflict":
                raise ClientError({"Error": {"Code": self.code, "Message": ""}}, "TransactWriteItems")
            response: Any = {
                "Error": {"Code": "TransactionCanceledException", "Message": ""},
                "CancellationReasons": [{"Code": "None"}, {"Code": "TransactionConflict"}],
            }
            raise ClientError(response, "TransactWriteItems")
        answer: T = call()
        return answer


@pytest.mark.parametrize(
    "code", ["TransactionConflict", "ThrottlingException", "ProvisionedThroughputExceededException"]
)
def test_transaction_conflicts_and_throttling_are_tried_again(world: World, code: str) -> None:
    documents = three(world)
    world.hook = Conflicting(5, code)
    world.deliver(*documents)
    assert {world.status(each) for each in documents} == {"SCHEDULED"}
    world.hook = Conflicting(5, code)
    world.settle()
    assert_each_ran_once(world, documents)


class Throttling(Direct):
    """Every call to the database is refused."""

    def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
        if name.startswith("dynamodb "):
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": ""}}, name)
        answer: T = call()
        return answer


def test_database_that_throttles_everything_for_an_hour_loses_nothing(world: World) -> None:
    documents = three(world)
    world.hook = Throttling()
    with pytest.raises((ClientError, LedgerUnavailable)):
        world.deliver(*documents)  # not acknowledged: the queue hands it out again
    world.hook = Direct()
    world.deliver(*documents)
    world.hook = Throttling()
    for _ in range(60):
        with contextlib.suppress(ClientError, ExceptionGroup):
            world.tick(after_seconds=60)
    world.hook = Direct()
    world.settle()
    assert_each_ran_once(world, documents)


def test_known_job_survives_a_database_that_fails_until_the_invocations_end(world: World) -> None:
    document = world.upload("a.pdf", b"a")

    class FailsToRecord(Conflicting):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if world.accepted(document) and not self.times:
                self.times = 10_000
            return super().around(name, call)

    world.hook = FailsToRecord(0)
    world.deliver(document)
    assert world.status(document) == "SUBMITTING"
    world.hook = Direct()
    world.settle()
    assert_each_ran_once(world, [document])


def test_write_that_succeeded_unseen_and_is_repeated_is_recognised(world: World) -> None:
    class Repeating(Direct):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name == "dynamodb put_item":
                call()
            answer: T = call()
            return answer

    document = world.upload("a.pdf", b"a")
    world.hook = Repeating()
    world.deliver(document)
    assert world.status(document) == "SCHEDULED"
    assert world.counts["LateAcceptance"] == 0
    world.settle()
    assert_each_ran_once(world, [document])


def test_lagging_index_takes_nothing_twice_and_hides_nothing_for_ever(world: World) -> None:
    class Lagging(Direct):
        """The index answers with what it answered so many queries ago."""

        def __init__(self) -> None:
            self.answers: list[Any] = []

        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            answer: T = call()
            if name != "dynamodb query" or any("bucket" not in item for item in answer["Items"]):  # type: ignore[index]
                return answer
            self.answers.append(answer)
            late: T = self.answers[max(0, len(self.answers) - 6)]
            return late

    world.grow_pool(2)
    world.configure(max_files_per_run=2)
    world.hook = Lagging()
    documents = [world.upload(f"{number}.pdf", bytes([number])) for number in range(9)]
    for document in documents:
        world.deliver(document)
    world.settle()
    assert_each_ran_once(world, documents)


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_job_that_vanishes_fails_its_rows_after_a_quarter_of_an_hour(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.deliver(document)
    (job,) = world.state.jobs.values()
    job.vanished = True
    world.tick(after_seconds=60)
    world.tick(after_seconds=800)
    assert world.status(document) == "SCHEDULED"
    world.tick(after_seconds=200)
    row = world.row(document)
    assert (row["status"], row["error"]["type"]) == ("FAILED", "JobVanished")


@pytest.mark.parametrize("silent", ["job", "jobs", None])
def test_jobs_that_do_not_end_are_told_by_their_age(world: World, silent: str | None) -> None:
    """One that hangs, one that nothing is told about, one whose answer was lost and that no list shows."""
    said = gauges(world.context())
    assert said["LongestRunSeconds"] == 0
    world.state.behaviour.default_job_seconds = 1e7
    if silent == "jobs":
        world.state.faults.append(Fault("run", "drop-after"))
    world.deliver(world.upload("a.pdf", b"a"))
    if silent:
        world.state.faults.append(Fault(silent, "status", status=500, times=10_000))
    for _ in range(7):
        world.tick(after_seconds=3_600)
    said = gauges(world.context())
    assert 21_600 < said["LongestRunSeconds"] < 28_800
    world.configure(workflow_ids=("another",))
    said = gauges(world.context())
    assert 21_600 < said["LongestRunSeconds"] < 28_800


def test_job_that_is_missing_for_a_while_is_followed_on(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.deliver(document)
    (job,) = world.state.jobs.values()
    job.vanished = True
    world.tick(after_seconds=60)
    job.vanished = False
    world.settle()
    assert_each_ran_once(world, [document])


def test_unknown_status_is_kept_and_the_details_decide(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "job", job={"status": "ARCHIVED", "details_lag_seconds": 120}))
    world.deliver(document)
    world.tick(after_seconds=60)
    row = world.row(document)
    assert (row["status"], row["job_status"]) == ("IN_PROGRESS", "ARCHIVED")
    world.settle()
    assert_each_ran_once(world, [document])


def test_details_that_lag_behind_are_waited_for(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "job", job={"details_lag_seconds": 300, "ending": "FAILED"}))
    world.deliver(document)
    world.tick(after_seconds=60)
    assert world.status(document) == "SCHEDULED"
    world.settle()
    assert world.status(document) == "FAILED"


def test_end_that_is_never_confirmed_is_not_called_completed(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.state.faults.append(Fault("run", "job", job={"details_lag_seconds": 10**9}))
    world.deliver(document)
    world.settle()
    row = world.row(document)
    assert (row["status"], row["error"]["type"]) == ("FAILED", "Unconfirmed")


@pytest.mark.parametrize("call", ["job", "details", "failed-files"])
def test_platform_that_does_not_answer_changes_nothing(world: World, call: str) -> None:
    document = world.upload("a.pdf", b"a")
    world.deliver(document)
    world.state.faults += [Fault(call, "status", status=503, times=25), Fault(call, "drop", times=15)]
    for _ in range(30):
        world.tick(after_seconds=60)
    assert world.status(document) == "SCHEDULED"
    world.settle()
    assert_each_ran_once(world, [document])


@pytest.mark.parametrize("call", ["details", "failed-files"])
def test_end_that_nobody_tells_of_for_an_hour_is_not_called_completed(world: World, call: str) -> None:
    document = world.upload("a.pdf", b"a")
    world.deliver(document)
    world.state.faults.append(Fault(call, "status", status=503, times=10_000))
    assert 55 < world.settle(minutes=100) < 70
    row = world.row(document)
    assert (row["status"], row["error"]["type"]) == ("FAILED", "Unconfirmed")


def test_job_of_ours_with_an_unknown_last_status_does_not_stop_its_workflow(world: World) -> None:
    first, second = world.upload("1.pdf", b"1"), world.upload("2.pdf", b"2")
    world.state.faults.append(Fault("run", "job", job={"status": "ARCHIVED"}))
    world.deliver(first)
    world.settle()
    world.deliver(second)
    world.settle()
    assert_each_ran_once(world, [first, second])


def test_key_of_another_workspace_proves_nothing_about_our_jobs(world: World) -> None:
    first, second = world.upload("1.pdf", b"1"), world.upload("2.pdf", b"2")
    world.deliver(first)
    world.settle()
    world.deliver(second)
    for job in world.state.jobs.values():
        job.vanished = True
    for _ in range(40):
        world.tick(after_seconds=60)
    assert world.status(second) == "SCHEDULED"
    error = world.workflow().last_error
    assert error is not None
    assert "another workspace" in error["message"]
    for job in world.state.jobs.values():
        job.vanished = False
    world.settle()
    assert_each_ran_once(world, [first, second])


def test_strangers_job_is_waited_for_and_appears_in_no_row(world: World) -> None:
    stranger = world.stranger()
    document = world.upload("a.pdf", b"a")
    world.deliver(document)
    assert stranger in (world.workflow().last_error or {})["message"]
    world.settle()
    assert_each_ran_once(world, [document])


@pytest.mark.parametrize("moment", ["running", "submitting"])
def test_rows_whose_workflow_item_was_deleted_are_taken_up_again(world: World, moment: str) -> None:
    document = world.upload("a.pdf", b"a")
    if moment == "submitting":
        world.state.faults.append(Fault("run", "drop-after"))
    world.deliver(document)
    key = {"workflow_id": {"S": world.settings.workflow_ids[0]}}
    world.dynamodb.delete_item(TableName=world.settings.workflows_table, Key=key)
    world.settle()
    assert_each_ran_once(world, [document])


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_invocation_near_its_end_takes_no_new_work(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.deliver(document, seconds=200)
    assert world.status(document) == "PENDING"
    world.tick(seconds=200)
    assert world.status(document) == "PENDING"
    world.tick()
    assert world.status(document) == "SCHEDULED"


def test_file_that_cannot_be_streamed_in_one_invocation_ends_while_others_are_accepted(world: World) -> None:
    class Slow(Direct):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name == "s3 read":
                world.clock.sleep(400)
            answer: T = call()
            return answer

    slow = world.upload("slow.pdf", bytes(4 * CHUNK_BYTES))
    world.hook = Slow()
    world.deliver(slow)
    row = world.row(slow)
    assert (row["status"], row["error"]["type"], row["failures"]) == ("PENDING", "TooSlow", 1)
    for number in range(20):
        if world.status(slow) == "REJECTED":
            break
        world.hook = Direct()
        world.deliver(world.upload(f"{number}.pdf", b"small"))
        world.hook = Slow()
        world.settle(until=lambda: world.row(slow)["failures"] > number + 1)  # noqa: B023
    world.hook = Direct()
    world.settle()
    row = world.row(slow)
    assert row["strikes"] == COUNTED_FAILURES_LIMIT
    assert (row["status"], row["error"]["type"]) == ("REJECTED", "TooSlow")
    assert world.accepted(slow) == 0


def test_lease_is_renewed_while_a_large_file_is_streamed(world: World) -> None:
    class Slow(Direct):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name == "s3 read":
                world.clock.sleep(30)
                world.step_all()  # another invocation looks, and leaves it alone
            answer: T = call()
            return answer

    document = world.upload("large.pdf", bytes(8_000_000))
    world.hook = Slow()
    world.deliver(document)
    assert world.status(document) == "SCHEDULED"
    world.hook = Direct()
    world.settle()
    assert_each_ran_once(world, [document])
