"""The table of what may come back, line by line: nothing is lost, nothing runs twice, whatever is at fault."""

import contextlib
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.fake_platform.state import Fault
from tests.integration.fault_injection import HookedClient, PassThrough, StepThrough
from tests.integration.harness import Harness
from workflow_trigger.adapters.s3_reader import CHUNK_BYTES
from workflow_trigger.adapters.unstructured import client as platform_client
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.errors import ConflictError, LedgerUnavailable
from workflow_trigger.domain.model import Phase, Transition
from workflow_trigger.domain.retry import COUNTED_FAILURES_LIMIT
from workflow_trigger.services import recover


def three(harness: Harness) -> list[ObjectVersion]:
    return [harness.upload(f"{name}.pdf", name.encode()) for name in "abc"]


def assert_each_ran_once(harness: Harness, documents: list[ObjectVersion]) -> None:
    assert [harness.accepted(each) for each in documents] == [1] * len(documents)
    assert [harness.status(each) for each in documents] == ["COMPLETED"] * len(documents)
    by_ours = {job.id for job in harness.state.jobs.values() if job.ours}
    assert {harness.row(each)["job_id"] for each in documents} <= by_ours


# -- answers that hold, and lose nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["run", "jobs"])
@pytest.mark.parametrize("status", [302, 401, 402, 403, 404, 405, 410, 418])
def test_answer_that_is_no_documents_fault_holds_the_workflow(harness: Harness, call: str, status: int) -> None:
    documents = three(harness)
    harness.state.faults.append(Fault(call, "status", status=status, times=4, body='{"detail": "no"}'))
    harness.deliver(*documents)
    assert {harness.status(each) for each in documents} == {"PENDING"}
    assert harness.counts["Held"] == 1
    error = harness.workflow().last_error
    assert error is not None
    assert str(status) in error["message"]
    assert not harness.workflow().is_free(harness.clock.now())
    harness.settle()
    assert_each_ran_once(harness, documents)
    assert all(int(harness.row(each)["failures"]) == 0 for each in documents)
    assert len(harness.state.jobs) == 1


def test_rotated_key_is_read_again_at_once(harness: Harness) -> None:
    first, second = harness.upload("1.pdf", b"1"), harness.upload("2.pdf", b"2")
    harness.deliver(first)
    harness.settle()
    harness.state.behaviour.api_key = "rotated"
    harness.secrets.put_secret_value(SecretId=harness.secret, SecretString="rotated")
    harness.deliver(second)
    assert harness.status(second) == "SCHEDULED"
    assert harness.counts["Held"] == 0


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
    harness: Harness, call: str, headers: dict[str, str], body: str, seconds: float
) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault(call, "status", status=429, headers=headers, body=body))
    harness.deliver(document)
    assert harness.status(document) == "PENDING"
    harness.tick(after_seconds=seconds - 10)
    assert harness.status(document) == "PENDING"
    harness.tick(after_seconds=20)
    assert harness.status(document) == "SCHEDULED"
    assert int(harness.row(document)["failures"]) == 0


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_one_refused_file_is_rejected_with_the_platforms_reason(harness: Harness, status: int) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "status", status=status, body='{"detail": "not this file"}'))
    harness.deliver(document)
    row = harness.row(document)
    assert (row["status"], row["error"]["type"]) == ("REJECTED", "Refused")
    assert "not this file" in row["error"]["message"]
    assert harness.workflow().phase is Phase.IDLE


def test_of_several_only_the_culprit_is_rejected(harness: Harness) -> None:
    documents = [harness.upload(f"{name}.pdf", name.encode()) for name in ("good", "culprit", "fine")]
    harness.state.faults.append(Fault("run", "status", status=422, document="culprit", times=1_000))
    harness.deliver(*documents)
    harness.settle()
    assert [harness.status(each) for each in documents] == ["COMPLETED", "REJECTED", "COMPLETED"]
    assert_each_ran_once(harness, [documents[0], documents[2]])


def test_platform_that_refuses_everything_does_not_reject_the_backlog(harness: Harness) -> None:
    harness.configure(max_files_per_run=1)
    documents = [harness.upload(f"{number}.pdf", bytes([number])) for number in range(8)]
    fault = Fault("run", "status", status=422, times=1_000)
    harness.state.faults.append(fault)
    harness.deliver(*documents)
    for _ in range(60):
        harness.tick(after_seconds=60)
    statuses = [harness.status(each) for each in documents]
    assert (statuses.count("REJECTED"), statuses.count("PENDING")) == (3, 5)
    assert harness.counts["Held"] > 0
    fault.times = 0
    harness.settle(minutes=200)
    assert [harness.status(each) for each in documents].count("COMPLETED") == 5


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
    Fault("run", "answer-after", status=202, body='{"id": 7}'),
    Fault("run", "answer-after", status=202, body=json.dumps({"id": "x" * 300})),
    Fault("run", "answer-after", status=202, body=json.dumps({"id": "one\nline"})),
    Fault("run", "answer-after", status=202, body='{"detail": "There is a running job in progress. No new job run."}'),
]


def fresh(fault: Fault) -> Fault:
    return Fault(fault.call, fault.kind, status=fault.status, body=fault.body)


@pytest.mark.parametrize("fault", NOTHING_STARTED + STARTED, ids=lambda fault: f"{fault.kind}-{fault.status}")
@pytest.mark.parametrize("several", [False, True])
def test_lost_answer_is_settled_and_each_file_runs_once(harness: Harness, fault: Fault, several: bool) -> None:
    documents = three(harness) if several else three(harness)[:1]
    harness.state.faults.append(fresh(fault))
    harness.deliver(*documents)
    assert {harness.status(each) for each in documents} <= {"SUBMITTING", "PENDING", "SCHEDULED"}
    harness.settle()
    assert_each_ran_once(harness, documents)
    assert len(harness.state.jobs) == 1, "what went together the first time goes together again"


def test_answer_larger_than_its_bound_is_not_taken_in(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform_client, "_ANSWER_LIMIT_BYTES", 10_000)
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(
        Fault("run", "answer-after", status=202, body=json.dumps({"id": "x", "y": "z" * 20_000}))
    )
    harness.deliver(document)
    assert harness.status(document) == "SUBMITTING"
    harness.settle()
    assert_each_ran_once(harness, [document])


@pytest.mark.parametrize(("status", "ends"), [(413, "REJECTED"), (503, "COMPLETED")])
def test_answer_that_comes_before_the_body_is_sent(harness: Harness, status: int, ends: str) -> None:
    document = harness.upload("a.pdf", bytes(30_000_000))
    harness.state.faults.append(Fault("run-early", "status", status=status, body='{"detail": "early"}'))
    harness.deliver(document)
    harness.settle()
    # An early refusal may be lost in the reset of the connection that follows it: then the file simply goes again.
    assert harness.status(document) in {ends, "COMPLETED"}
    assert harness.accepted(document) == (harness.status(document) == "COMPLETED")


def test_accepted_with_a_status_that_nobody_knows_is_running(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "job", job={"status": "POLISHING"}))
    harness.deliver(document)
    assert harness.status(document) == "SCHEDULED"
    harness.settle()
    assert_each_ran_once(harness, [document])


# -- settle ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", ["ids", "documents", "nothing"])
def test_job_of_a_lost_answer_is_found_by_whatever_the_platform_shows(harness: Harness, shown: str) -> None:
    harness.state.behaviour.list_shows_files = shown == "ids"
    harness.state.behaviour.has_file_status = shown == "documents"
    documents = three(harness)
    harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(*documents)
    harness.settle()
    assert_each_ran_once(harness, documents)
    assert [bool(harness.row(each).get("inferred")) for each in documents] == [shown == "nothing"] * 3


def test_foreign_job_with_hidden_files_is_told_by_its_documents(harness: Harness) -> None:
    harness.state.behaviour.list_shows_files = False
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop"))
    harness.deliver(document)
    harness.foreign_job()
    harness.settle()
    assert_each_ran_once(harness, [document])


def test_kept_connection_that_has_been_closed_is_no_failure(harness: Harness) -> None:
    """A function that was frozen for long finds its connections closed."""
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("jobs", "drop", times=1))
    harness.deliver(document)
    assert harness.status(document) == "SCHEDULED"
    assert (harness.counts["Unanswered"], harness.workflow().consecutive_failures) == (0, 0)


def test_list_that_fails_or_breaks_off_proves_nothing(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(document)
    harness.state.faults += [Fault("jobs", kind, status=500, times=2) for kind in ("truncate", "status")]
    harness.state.faults.append(Fault("jobs", "drop", times=4))  # one that breaks at once is asked again
    for _ in range(6):
        harness.tick(after_seconds=60)
        assert harness.status(document) == "SUBMITTING"
    harness.settle()
    assert_each_ran_once(harness, [document])


def test_list_that_lies_for_less_than_the_settle_time_misleads_nobody(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    hidden_until = harness.clock.epoch_seconds() + 50
    harness.state.faults += [Fault("run", "job", job={"listed_from": hidden_until})]
    flight = StepThrough(lambda: harness.deliver(document, hook=flight))
    flight.start()
    while harness.accepted(document) == 0:
        flight.step()
    flight.kill()
    harness.tick(after_seconds=30)
    assert harness.status(document) == "SUBMITTING"
    harness.settle()
    assert_each_ran_once(harness, [document])


@pytest.mark.parametrize("seconds", [20, 90])
def test_late_acceptance_is_found_and_nothing_runs_twice(harness: Harness, seconds: float) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "late", seconds=seconds))
    harness.deliver(document)
    harness.settle()
    assert_each_ran_once(harness, [document])


def test_acceptance_later_than_the_next_attempts_whole_job_is_reported(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "late", seconds=600))
    harness.deliver(document)
    harness.settle()
    harness.clock.sleep(600)
    harness.deliver(harness.upload("next.pdf", b"n"))
    assert harness.accepted(document) == 2
    assert harness.counts["LateAcceptance"] == 1
    assert harness.status(document) == "COMPLETED"


@pytest.mark.parametrize("lost_before", [1, 2])
def test_late_acceptance_of_any_try_is_found_and_nothing_runs_twice(harness: Harness, lost_before: int) -> None:
    late = harness.upload("late.pdf", b"l")
    harness.state.faults += [Fault("run", "drop", document="late", times=lost_before), Fault("run", "late", seconds=30)]
    harness.deliver(late)
    harness.settle()
    assert harness.state.requests["run"] == lost_before + 1
    assert_each_ran_once(harness, [late])


def test_late_acceptance_that_makes_the_next_try_busy_is_found_by_its_name(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop"))
    harness.deliver(document)
    name = harness.row(document)["upload_name"]

    class BeforeTheSecondTry(PassThrough):
        """After the list that showed nothing, and before the request, the old request is accepted after all."""

        def around[T](self, call_name: str, call: Any) -> T:  # type: ignore[type-var]
            if call_name == "s3 get_object" and not harness.state.jobs:
                files = [harness.state.store(name, None, open_bytes(b"a"))]
                harness.state.start(harness.settings.workflow_ids[0], files, is_late=True)
            answer: T = call()
            return answer

    harness.clock.sleep(121)
    harness.step_all(hook=BeforeTheSecondTry())
    assert harness.status(document) == "SUBMITTING"
    harness.settle()
    assert harness.state.requests["run"] == 2
    assert_each_ran_once(harness, [document])


def open_bytes(content: bytes) -> io.BytesIO:
    return io.BytesIO(content)


def test_two_invocations_may_settle_at_once(harness: Harness) -> None:
    documents = three(harness)
    harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(*documents)
    harness.clock.sleep(70)
    gates = [gated_tick(harness) for _ in range(2)]
    while not all(flight.is_over for flight in gates):
        for flight in gates:
            flight.step()
    assert [flight.failure for flight in gates] == [None, None]
    harness.settle()
    assert_each_ran_once(harness, documents)


def gated_tick(harness: Harness) -> StepThrough:
    """on_schedule on the first workflow, one remote call at a time."""
    flight = StepThrough(lambda: harness.step_all(hook=flight))
    flight.start()
    return flight


class WhileTheAnswerIsOnItsWay(PassThrough):
    """Something else happens between the platform's answer and its arrival."""

    def __init__(self, happens: Any) -> None:
        self.happens = happens

    def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
        answer: T = call()
        if name == "platform POST run" and self.happens:
            happens, self.happens = self.happens, None
            happens()
        return answer


def test_failed_look_while_the_sender_waits_does_not_cost_the_answer(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.behaviour.list_shows_files = False

    def look() -> None:
        harness.state.faults.append(Fault("jobs", "status", status=503))
        harness.step_all()

    harness.deliver(document, hook=WhileTheAnswerIsOnItsWay(look))
    row = harness.row(document)
    assert row["status"] == "SCHEDULED"
    assert row["input_file_ids"]
    assert "inferred" not in row


def test_settling_and_the_sender_may_both_record(harness: Harness) -> None:
    documents = three(harness)
    harness.deliver(*documents, hook=WhileTheAnswerIsOnItsWay(harness.step_all))
    assert {harness.status(each) for each in documents} == {"SCHEDULED"}
    harness.settle()
    assert_each_ran_once(harness, documents)


def test_partial_list_of_documents_does_not_split_an_attempt(harness: Harness) -> None:
    harness.state.behaviour.list_shows_files = harness.state.behaviour.has_file_status = False
    documents = three(harness)
    harness.state.faults.append(Fault("run", "drop-after", times=1))
    harness.deliver(*documents)
    (job,) = harness.state.jobs.values()
    job.ending, job.failed = "COMPLETED_WITH_ERRORS", {harness.row(documents[1])["upload_name"]: "broken"}
    harness.settle()
    assert [harness.accepted(each) for each in documents] == [1, 1, 1]
    assert [harness.status(each) for each in documents] == ["COMPLETED", "FAILED", "COMPLETED"]


def test_busy_whose_job_cannot_be_looked_up_may_have_been_our_own(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(
        Fault("run", "answer-after", status=202, body='{"detail": "There is a running job in progress."}')
    )

    def no_list() -> None:
        harness.state.faults.append(Fault("jobs", "status", status=503))

    harness.deliver(document, hook=WhileTheAnswerIsOnItsWay(no_list))
    assert harness.status(document) == "SUBMITTING"
    harness.settle()
    assert_each_ran_once(harness, [document])


def test_orphan_search_leaves_alone_what_another_attempt_holds_by_now(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    before = harness.row(document)
    harness.clock.sleep(300)
    context = harness.context()
    context.ledger.held = lambda status: {document.document_key: ("dead", before["updated_at"])}  # type: ignore[method-assign]
    assert recover.orphans(context, context.snapshot()) == []
    assert harness.row(document) == before


@pytest.mark.parametrize("shown", [True, False])
def test_job_of_an_earlier_run_of_the_same_bytes_is_not_the_lost_one(harness: Harness, shown: bool) -> None:
    harness.state.behaviour.list_shows_files = harness.state.behaviour.has_file_status = shown
    document = harness.upload("a.pdf", b"same")
    harness.deliver(document)
    harness.settle()
    harness.state.faults.append(Fault("run", "drop"))
    harness.deliver(harness.upload("a.pdf", b"same"))
    harness.settle()
    row = harness.row(document)
    assert (row["status"], harness.accepted(document)) == ("COMPLETED", 2)
    assert row["job_id"] != row["runs"][0]["job_id"]


# -- the commit --------------------------------------------------------------------------------------------------------


def test_sender_that_wakes_after_its_lease_never_sends_the_last_byte(harness: Harness) -> None:
    harness.check_invariants()
    document = harness.upload("a.pdf", bytes(3_000_000))
    flight = StepThrough(lambda: harness.deliver(document, hook=flight))
    flight.start()
    while harness.status_or_none(document) != "SUBMITTING":
        flight.step()
    for _ in range(3):  # it has opened the object and begun to send
        flight.step()
    harness.clock.sleep(3600)
    harness.step_all()  # the lease has ended: the documents are free
    harness.clock.sleep(3)
    harness.step_all()
    assert harness.status(document) == "SCHEDULED"
    flight.finish()
    assert flight.failure is None
    assert harness.violations == []
    assert harness.accepted(document) == 1
    harness.settle()
    assert_each_ran_once(harness, [document])


def test_attempt_that_died_before_its_commit_frees_its_documents(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    flight = StepThrough(lambda: harness.deliver(document, hook=flight))
    flight.start()
    while harness.status_or_none(document) != "SUBMITTING":
        flight.step()
    flight.kill()
    harness.tick(after_seconds=30)
    assert harness.status(document) == "SUBMITTING"
    harness.tick(after_seconds=31)
    assert harness.status(document) == "PENDING"
    harness.tick(after_seconds=3)
    assert harness.status(document) == "SCHEDULED"


def test_a_workflow_that_changed_since_it_was_read_is_not_written(harness: Harness) -> None:
    (workflow,) = harness.workflows()
    ledger = harness.ledger()
    ledger.commit(Transition(workflow, workflow))
    with pytest.raises(ConflictError):
        ledger.commit(Transition(workflow, workflow))


# -- later events ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backfilled", [False, True])
def test_same_bytes_that_come_back_during_an_attempt_are_not_lost(harness: Harness, backfilled: bool) -> None:
    document = harness.upload("a.pdf", b"same")
    if backfilled:
        document = replace(document, sequencer=None)

    class ThereAndBack(PassThrough):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name != "s3 get_object" or harness.sequence > 1:
                answer: T = call()
                return answer
            harness.upload("a.pdf", b"other")
            try:
                return call()  # type: ignore[no-any-return]
            finally:
                back = replace(harness.upload("a.pdf", b"same"), uploaded_at=iso(harness.clock.now()))
                harness.deliver(back, submit=False)

    harness.hook = ThereAndBack()
    harness.deliver(document)
    assert harness.status(document) == "PENDING"
    harness.settle()
    assert (harness.status(document), harness.accepted(document)) == ("COMPLETED", 1)


# -- S3 ----------------------------------------------------------------------------------------------------------------


class FailingS3(PassThrough):
    """GetObject of one key fails as told."""

    def __init__(self, code: str, times: int) -> None:
        self.code, self.times = code, times

    def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
        if name == "s3 get_object" and self.times:
            self.times -= 1
            raise ClientError({"Error": {"Code": self.code, "Message": ""}}, "GetObject")
        answer: T = call()
        return answer


def test_document_that_is_put_off_again_and_again_is_seen_to_wait(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.hook = FailingS3("AccessDenied", 1_000)
    harness.deliver(document)
    for _ in range(6):
        harness.tick(after_seconds=300)
    assert harness.row(document)["eligible_at"] > iso(harness.clock.now())
    assert harness.ledger().longest_wait_seconds() > 1_500
    assert harness.counts["Held"] == harness.counts["ObjectDenied"] > 3


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
def test_object_that_cannot_be_had_leaves_and_the_rest_goes_on(
    harness: Harness, code: str, status: str, kind: str
) -> None:
    documents = three(harness)
    harness.hook = FailingS3(code, 1)
    harness.deliver(*documents)
    row = harness.row(documents[0])
    assert (row["status"], row["error"]["type"]) == (status, kind)
    assert harness.counts[kind] == 1
    assert [harness.status(each) for each in documents[1:]] == ["SCHEDULED", "SCHEDULED"]
    harness.settle()
    assert_each_ran_once(harness, documents if status == "PENDING" else documents[1:])


def test_reason_is_told_before_a_key_of_any_length(harness: Harness) -> None:
    document = harness.upload("x" * 1_000 + ".pdf", b"a")
    harness.hook = FailingS3("NoSuchKey", 1)
    harness.deliver(document)
    assert harness.row(document)["error"]["message"].startswith("Not there any more (NoSuchKey): s3://")


def test_object_that_breaks_in_the_middle_leaves_and_the_rest_goes_on(harness: Harness) -> None:
    documents = [
        harness.upload("a.pdf", b"a"),
        harness.upload("b.pdf", bytes(3 * CHUNK_BYTES)),
        harness.upload("c.pdf", b"c"),
    ]

    class Breaking(PassThrough):
        reads = 0

        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            self.reads += name == "s3 read"
            if name == "s3 read" and 3 <= self.reads < 9:
                raise OSError("broken")
            answer: T = call()
            return answer

    harness.hook = Breaking()
    harness.deliver(*documents)
    assert harness.row(documents[1])["error"]["type"] == "ObjectUnreadable"
    harness.settle()
    assert_each_ran_once(harness, documents)


# -- poison and outage -------------------------------------------------------------------------------------------------


def test_poisonous_file_is_rejected_and_blocks_nobody(harness: Harness) -> None:
    poison = harness.upload("poison.pdf", b"p")
    harness.state.faults.append(Fault("run", "status", status=500, document="poison", times=1_000))
    others = [harness.upload(f"other-{number}.pdf", bytes([number])) for number in range(8)]
    harness.configure(max_files_per_run=2)
    harness.deliver(poison, *others)
    harness.settle(minutes=400, until=lambda: all(harness.status(each) == "COMPLETED" for each in others))
    # It is condemned only by failures between which the platform accepted others.
    for number in range(12):
        if harness.status(poison) == "REJECTED":
            break
        more = harness.upload(f"more-{number}.pdf", b"m%d" % number)
        others.append(more)
        harness.deliver(more)
        harness.settle(minutes=200, until=lambda more=more: harness.status(more) == "COMPLETED")  # type: ignore[misc]
        for _ in range(20):
            harness.tick(after_seconds=60)
    assert harness.status(poison) == "REJECTED"
    assert int(harness.row(poison)["strikes"]) >= 5
    assert_each_ran_once(harness, others)


def test_wrong_key_for_a_day_costs_nothing_but_the_day(harness: Harness) -> None:
    right, harness.state.behaviour.api_key = harness.state.behaviour.api_key, "another"
    documents = three(harness)
    harness.deliver(*documents)
    for _ in range(24 * 6):
        harness.tick(after_seconds=600)
    assert {harness.status(each) for each in documents} == {"PENDING"}
    assert harness.counts["Held"] > 100
    harness.state.behaviour.api_key = right
    harness.settle(minutes=10)
    assert_each_ran_once(harness, documents)


def test_outage_of_a_day_rejects_nothing(harness: Harness) -> None:
    documents = [harness.upload(f"{number}.pdf", bytes([number])) for number in range(5)]
    fault = Fault("run", "status", status=500, times=100_000)
    harness.state.faults.append(fault)
    harness.deliver(*documents)
    for _ in range(24 * 4):
        harness.tick(after_seconds=15 * 60)
    assert all(harness.status(each) in {"PENDING", "SUBMITTING"} for each in documents)
    fault.times = 0
    harness.settle(minutes=200)
    assert_each_ran_once(harness, documents)


# -- the pool ----------------------------------------------------------------------------------------------------------


def test_workflows_of_a_pool_work_at_the_same_time_on_one_line(harness: Harness) -> None:
    ids = harness.grow_pool(3)
    harness.configure(max_files_per_run=2)
    documents = [harness.upload(f"{number}.pdf", bytes([number])) for number in range(12)]
    harness.deliver(*documents)
    assert {workflow.phase for workflow in harness.workflows()} == {Phase.RUNNING}
    harness.settle()
    assert_each_ran_once(harness, documents)
    assert {job.workflow_id for job in harness.state.jobs.values()} == set(ids)


def test_held_workflow_does_not_stop_the_others(harness: Harness) -> None:
    ids = harness.grow_pool(2)
    harness.state.behaviour.known_workflows = ids[1:]
    harness.configure(max_files_per_run=1)
    documents = three(harness)
    harness.deliver(*documents)
    harness.settle()
    assert_each_ran_once(harness, documents)
    held = next(workflow for workflow in harness.workflows() if workflow.workflow_id == ids[0])
    assert held.last_error is not None
    assert "404" in held.last_error["message"]


def test_exception_in_one_workflow_does_not_stop_the_others(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = harness.grow_pool(2)
    harness.configure(max_files_per_run=1)
    documents = three(harness)
    asked = platform_client.PlatformClient.look

    def broken(self: platform_client.PlatformClient, workflow_id: str) -> Any:
        if workflow_id == ids[0]:
            raise RuntimeError("a defect")
        return asked(self, workflow_id)

    monkeypatch.setattr(platform_client.PlatformClient, "look", broken)
    harness.deliver(*documents, submit=False)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a defect")):
        harness.tick()
    harness.has_a_defect = True
    harness.settle()
    assert_each_ran_once(harness, documents)
    assert harness.counts["ReconcileErrors"] > 0


def test_workflow_that_left_the_pool_is_followed_to_the_end_of_its_job(harness: Harness) -> None:
    documents = three(harness)
    harness.deliver(*documents)
    harness.configure(workflow_ids=("00000000-0000-4000-8000-000000000000",))
    harness.settle()
    assert_each_ran_once(harness, documents)


def test_rows_bound_to_a_workflow_that_left_the_pool_are_not_stranded(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop"))
    harness.deliver(document)
    harness.configure(workflow_ids=("00000000-0000-4000-8000-000000000000",))
    harness.settle()
    assert_each_ran_once(harness, [document])


# -- the database ------------------------------------------------------------------------------------------------------


class Conflicting(PassThrough):
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
def test_transaction_conflicts_and_throttling_are_tried_again(harness: Harness, code: str) -> None:
    documents = three(harness)
    harness.hook = Conflicting(5, code)
    harness.deliver(*documents)
    assert {harness.status(each) for each in documents} == {"SCHEDULED"}
    harness.hook = Conflicting(5, code)
    harness.settle()
    assert_each_ran_once(harness, documents)


class Throttling(PassThrough):
    """Every call to the database is refused."""

    def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
        if name.startswith("dynamodb "):
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": ""}}, name)
        answer: T = call()
        return answer


def test_database_that_throttles_everything_for_an_hour_loses_nothing(harness: Harness) -> None:
    documents = three(harness)
    harness.hook = Throttling()
    with pytest.raises((ClientError, LedgerUnavailable)):
        harness.deliver(*documents)  # not acknowledged: the queue hands it out again
    harness.hook = PassThrough()
    harness.deliver(*documents)
    harness.hook = Throttling()
    for _ in range(60):
        with contextlib.suppress(ClientError, ExceptionGroup):
            harness.tick(after_seconds=60)
    harness.hook = PassThrough()
    harness.settle()
    assert_each_ran_once(harness, documents)


def test_known_job_survives_a_database_that_fails_until_the_end(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")

    class FailsToRecord(Conflicting):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if harness.accepted(document) and not self.times:
                self.times = 10_000
            return super().around(name, call)

    harness.hook = FailsToRecord(0)
    harness.deliver(document)
    assert harness.status(document) == "SUBMITTING"
    harness.hook = PassThrough()
    harness.settle()
    assert_each_ran_once(harness, [document])


class Repeating(PassThrough):
    """Every write of one item succeeds unseen, and is repeated, as botocore does it."""

    def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
        if name in {"dynamodb put_item", "dynamodb update_item", "dynamodb delete_item"}:
            call()
        answer: T = call()
        return answer


def test_write_that_succeeded_unseen_and_is_repeated_is_recognised(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.hook = Repeating()
    harness.deliver(document)
    assert harness.status(document) == "SCHEDULED"
    harness.settle()
    assert_each_ran_once(harness, [document])
    assert harness.counts["LateAcceptance"] == harness.counts["ReconcileErrors"] == 0


def test_operators_write_that_is_repeated_is_told_as_done(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.settle()
    ledger = harness.ledger(client=HookedClient(harness.dynamodb, Repeating, "dynamodb"))
    for write in (ledger.reopen, lambda row: ledger.cancel(row, "a test"), ledger.forget):
        row = ledger.item(document.document_key)
        assert row is not None
        harness.clock.sleep(1)
        assert write(row)
        assert not write(row), "it is not as it was read"


def test_lagging_index_takes_nothing_twice_and_hides_nothing_for_ever(harness: Harness) -> None:
    class Lagging(PassThrough):
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

    harness.grow_pool(2)
    harness.configure(max_files_per_run=2)
    harness.hook = Lagging()
    documents = [harness.upload(f"{number}.pdf", bytes([number])) for number in range(9)]
    for document in documents:
        harness.deliver(document)
    harness.settle()
    assert_each_ran_once(harness, documents)


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_job_that_vanishes_fails_its_rows_after_a_quarter_of_an_hour(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    (job,) = harness.state.jobs.values()
    job.vanished = True
    harness.tick(after_seconds=60)
    harness.tick(after_seconds=800)
    assert harness.status(document) == "SCHEDULED"
    harness.tick(after_seconds=200)
    row = harness.row(document)
    assert (row["status"], row["error"]["type"]) == ("FAILED", "JobVanished")


@pytest.mark.parametrize("silent", ["job", "jobs", None])
def test_jobs_that_do_not_end_are_told_by_their_age(harness: Harness, silent: str | None) -> None:
    """One that hangs, one that nothing is told about, one whose answer was lost and that no list shows."""
    said = harness.gauges()[""]
    assert said["LongestRunSeconds"] == 0
    harness.state.behaviour.default_job_seconds = 1e7
    if silent == "jobs":
        harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(harness.upload("a.pdf", b"a"))
    if silent:
        harness.state.faults.append(Fault(silent, "status", status=500, times=10_000))
    for _ in range(7):
        harness.tick(after_seconds=3_600)
    said = harness.gauges()[""]
    assert 21_600 < said["LongestRunSeconds"] < 28_800
    harness.configure(workflow_ids=("another",))
    said = harness.gauges()[""]
    assert 21_600 < said["LongestRunSeconds"] < 28_800


def test_job_that_is_missing_for_a_while_is_followed_on(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    (job,) = harness.state.jobs.values()
    job.vanished = True
    harness.tick(after_seconds=60)
    job.vanished = False
    harness.settle()
    assert_each_ran_once(harness, [document])


def test_unknown_status_is_kept_and_the_details_decide(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "job", job={"status": "ARCHIVED", "details_lag_seconds": 120}))
    harness.deliver(document)
    harness.tick(after_seconds=60)
    row = harness.row(document)
    assert (row["status"], row["job_status"]) == ("IN_PROGRESS", "ARCHIVED")
    harness.settle()
    assert_each_ran_once(harness, [document])


def test_details_that_lag_behind_are_waited_for(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "job", job={"details_lag_seconds": 300, "ending": "FAILED"}))
    harness.deliver(document)
    harness.tick(after_seconds=60)
    assert harness.status(document) == "SCHEDULED"
    harness.settle()
    assert harness.status(document) == "FAILED"


@pytest.mark.parametrize(
    ("ending", "has_outputs", "end"),
    [
        ("COMPLETED", True, ("COMPLETED", None)),
        ("COMPLETED", False, ("FAILED", "Unconfirmed")),
        ("FAILED", False, ("FAILED", "Unconfirmed")),
        ("STOPPED", False, ("STOPPED", "Unconfirmed")),
    ],
)
def test_outputs_decide_where_an_end_is_never_confirmed(
    harness: Harness, ending: str, has_outputs: bool, end: tuple[str, str | None]
) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "job", job={"details_lag_seconds": 10**9, "ending": ending}))
    harness.state.faults += [] if has_outputs else [Fault("download", "status", status=404, times=10_000)]
    harness.deliver(document)
    harness.settle()
    row = harness.row(document)
    assert (row["status"], row.get("error", {}).get("type")) == end


@pytest.mark.parametrize("status", [400, 403, 405, 410, 422])
def test_details_that_are_refused_hold_the_workflow_for_an_hour_at_most(harness: Harness, status: int) -> None:
    first, second = harness.upload("1.pdf", b"1"), harness.upload("2.pdf", b"2")
    harness.deliver(first)
    harness.state.faults.append(Fault("details", "status", status=status, times=10_000))
    assert 55 < harness.settle(minutes=100) < 70
    harness.state.faults.clear()
    harness.deliver(second)
    harness.settle()
    assert_each_ran_once(harness, [first, second])


def test_job_with_an_unknown_status_and_no_details_is_followed_on(harness: Harness) -> None:
    """The platform may learn a word for a job that waits; its files did not fail."""
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "job", job={"status": "QUEUED"}))
    harness.state.faults.append(Fault("details", "status", status=404, times=40))
    harness.deliver(document)
    for _ in range(30):
        harness.tick(after_seconds=60)
    assert harness.row(document)["status"] in {"SCHEDULED", "IN_PROGRESS"}
    harness.settle()
    assert_each_ran_once(harness, [document])


def test_error_of_a_question_is_gone_once_it_is_answered(harness: Harness) -> None:
    harness.state.behaviour.default_job_seconds = 600
    harness.deliver(harness.upload("a.pdf", b"a"))
    harness.state.faults.append(Fault("job", "status", status=503, times=1))
    harness.tick(after_seconds=30)
    assert (harness.workflow().last_error or {})["type"] == "Unavailable"
    harness.tick(after_seconds=30)
    assert harness.workflow().last_error is None


@pytest.mark.parametrize("call", ["job", "details", "failed-files"])
def test_platform_that_does_not_answer_changes_nothing(harness: Harness, call: str) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.state.faults += [Fault(call, "status", status=503, times=25), Fault(call, "drop", times=15)]
    for _ in range(30):
        harness.tick(after_seconds=60)
    assert harness.status(document) == "SCHEDULED"
    harness.settle()
    assert_each_ran_once(harness, [document])


@pytest.mark.parametrize("call", ["details", "failed-files"])
def test_end_that_nobody_tells_of_for_an_hour_is_not_called_completed(harness: Harness, call: str) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.state.faults.append(Fault(call, "status", status=503, times=10_000))
    harness.state.faults.append(Fault("download", "status", status=404, times=10_000))
    assert 55 < harness.settle(minutes=100) < 70
    row = harness.row(document)
    assert (row["status"], row["error"]["type"]) == ("FAILED", "Unconfirmed")


def test_job_with_an_unknown_last_status_does_not_stop_its_workflow(harness: Harness) -> None:
    first, second = harness.upload("1.pdf", b"1"), harness.upload("2.pdf", b"2")
    harness.state.faults.append(Fault("run", "job", job={"status": "ARCHIVED"}))
    harness.deliver(first)
    harness.settle()
    harness.deliver(second)
    harness.settle()
    assert_each_ran_once(harness, [first, second])


def test_key_of_another_workspace_proves_nothing_about_our_jobs(harness: Harness) -> None:
    first, second = harness.upload("1.pdf", b"1"), harness.upload("2.pdf", b"2")
    harness.deliver(first)
    harness.settle()
    harness.deliver(second)
    harness.state.behaviour.is_another_workspace = True
    for job in harness.state.jobs.values():
        job.vanished = True
    for _ in range(40):
        harness.tick(after_seconds=60)
    assert harness.status(second) == "SCHEDULED"
    error = harness.workflow().last_error
    assert error is not None
    assert "another workspace" in error["message"]
    harness.state.behaviour.is_another_workspace = False
    for job in harness.state.jobs.values():
        job.vanished = False
    harness.settle()
    assert_each_ran_once(harness, [first, second])


def test_platform_that_forgets_all_jobs_holds_no_workflow(harness: Harness) -> None:
    """The workflow itself is shown, so the key is of its workspace."""
    first, second, third = (harness.upload(f"{name}.pdf", name.encode()) for name in "abc")
    harness.deliver(first)
    harness.settle()
    harness.deliver(second)
    for job in harness.state.jobs.values():
        job.vanished = True
    harness.settle()
    assert (harness.status(second), harness.row(second)["error"]["type"]) == ("FAILED", "JobVanished")
    harness.deliver(third)
    harness.settle()
    assert harness.status(third) == "COMPLETED"


@pytest.mark.parametrize("call", ["failed-files", "file-status"])
def test_question_that_is_not_implemented_holds_no_workflow(harness: Harness, call: str) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault(call, "status", status=501, times=10_000))
    harness.deliver(document)
    assert harness.settle() < 5
    assert_each_ran_once(harness, [document])


def test_foreign_jobs_job_is_waited_for_and_appears_in_no_row(harness: Harness) -> None:
    foreign_job = harness.foreign_job()
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    assert foreign_job in (harness.workflow().last_error or {})["message"]
    harness.settle()
    assert_each_ran_once(harness, [document])


@pytest.mark.parametrize("moment", ["running", "submitting"])
def test_rows_whose_workflow_item_was_deleted_are_taken_up_again(harness: Harness, moment: str) -> None:
    document = harness.upload("a.pdf", b"a")
    if moment == "submitting":
        harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(document)
    key = {"workflow_id": {"S": harness.settings.workflow_ids[0]}}
    harness.dynamodb.delete_item(TableName=harness.settings.workflows_table, Key=key)
    harness.settle()
    assert_each_ran_once(harness, [document])


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_invocation_near_its_end_takes_no_new_work(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document, seconds=200)
    assert harness.status(document) == "PENDING"
    harness.tick(seconds=200)
    assert harness.status(document) == "PENDING"
    harness.tick()
    assert harness.status(document) == "SCHEDULED"


def test_file_too_slow_for_an_invocation_ends_while_others_are_accepted(harness: Harness) -> None:
    class Slow(PassThrough):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name == "s3 read":
                harness.clock.sleep(400)
            answer: T = call()
            return answer

    slow = harness.upload("slow.pdf", bytes(4 * CHUNK_BYTES))
    harness.hook = Slow()
    harness.deliver(slow)
    row = harness.row(slow)
    assert (row["status"], row["error"]["type"], row["failures"]) == ("PENDING", "TooSlow", 1)
    for number in range(20):
        if harness.status(slow) == "REJECTED":
            break
        harness.hook = PassThrough()
        harness.deliver(harness.upload(f"{number}.pdf", b"small"))
        harness.hook = Slow()
        harness.settle(until=lambda: harness.row(slow)["failures"] > number + 1)  # noqa: B023
    harness.hook = PassThrough()
    harness.settle()
    row = harness.row(slow)
    assert row["strikes"] == COUNTED_FAILURES_LIMIT
    assert (row["status"], row["error"]["type"]) == ("REJECTED", "TooSlow")
    assert harness.accepted(slow) == 0


def test_lease_is_renewed_while_a_large_file_is_streamed(harness: Harness) -> None:
    class Slow(PassThrough):
        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name == "s3 read":
                harness.clock.sleep(30)
                harness.step_all()  # another invocation looks, and leaves it alone
            answer: T = call()
            return answer

    document = harness.upload("large.pdf", bytes(8_000_000))
    harness.hook = Slow()
    harness.deliver(document)
    assert harness.status(document) == "SCHEDULED"
    harness.hook = PassThrough()
    harness.settle()
    assert_each_ran_once(harness, [document])
