"""Requests whose answers are lost, or that are accepted late: until it is certain, the batch stays."""

import io
import json
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from local.fake_platform.app import output_of
from local.fake_platform.state import Fault, SimulatedJob
from tests.integration.fault_injection import PassThrough
from tests.integration.harness import OPEN, Harness
from workflow_trigger.adapters.unstructured import client as platform_client
from workflow_trigger.adapters.unstructured import responses
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.errors import Busy, as_stored
from workflow_trigger.domain.job import JobState
from workflow_trigger.domain.model import Phase, Status, Transition, Workflow
from workflow_trigger.domain.retry import ROUNDS
from workflow_trigger.services.submit import Queue, submit

SHOWN = ["ids", "documents", "nothing"]


def show(harness: Harness, how: str) -> None:
    """By what the platform tells the files of a job: `ids` in the list, `documents` of the job, or `nothing`."""
    harness.state.behaviour.list_shows_files = how == "ids"
    harness.state.behaviour.has_file_status = how == "documents"


def run_to_the_end(harness: Harness) -> None:
    for _ in range(3_000):
        harness.tick(after_seconds=10)
        if not harness.rows(*OPEN):
            return
    raise AssertionError("some rows never came to an end")


def assert_each_ran_once(harness: Harness, documents: list[ObjectVersion]) -> None:
    assert {harness.accepted(each) for each in documents} == {1}
    assert {harness.status(each) for each in documents} == {"COMPLETED"}


class BetweenLookAndRequest(PassThrough):
    """Something happens once, when the attempt opens its objects."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act: Callable[[], Any] | None = act

    def around[T](self, name: str, call: Callable[[], T]) -> T:
        if name == "s3 get_object" and self._act is not None:
            act, self._act = self._act, None
            act()
        return call()


def accept_late(harness: Harness, names: dict[str, bytes]) -> SimulatedJob:
    files = [harness.state.store(name, None, io.BytesIO(content)) for name, content in names.items()]
    job = harness.state.start(harness.settings.workflow_ids[0], files, is_late=True)
    assert job is not None
    return job


def names_of(harness: Harness, *documents: ObjectVersion) -> dict[str, bytes]:
    return {harness.row(each)["upload_name"]: harness.versions[each.document_key] for each in documents}


def lose(harness: Harness, *documents: ObjectVersion, times: int = 1) -> None:
    """One attempt with these documents gets no answer."""
    harness.state.faults.append(Fault("run", "drop", times=times))
    harness.deliver(*documents)
    assert {harness.status(each) for each in documents} == {"SUBMITTING"}


def let_go(harness: Harness, *documents: ObjectVersion) -> dict[str, bytes]:
    """Every try of an attempt is lost; the names under which it was sent."""
    lose(harness, *documents, times=ROUNDS)
    names = names_of(harness, *documents)
    while harness.workflow().phase is not Phase.IDLE:
        harness.tick(after_seconds=30)
    assert {harness.status(each) for each in documents} == {"PENDING"}
    return names


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("seconds", [0, 30, 110])
def test_fresh_file_is_not_taken_into_the_job_of_lost_ones(harness: Harness, shown: str, seconds: float) -> None:
    show(harness, shown)
    lost, fresh = [harness.upload(f"{name}.pdf", name.encode()) for name in "ab"], harness.upload("c.pdf", b"c")
    lose(harness, *lost)
    harness.deliver(fresh)
    assert harness.status(fresh) == "PENDING"
    harness.clock.sleep(seconds)
    accept_late(harness, names_of(harness, *lost))
    harness.settle()
    assert_each_ran_once(harness, [*lost, fresh])
    assert [bool(harness.row(each).get("inferred")) for each in lost] == [shown == "nothing"] * 2


@pytest.mark.parametrize("shown", SHOWN)
def test_batch_without_any_answer_goes_back_after_three_tries_over_minutes(harness: Harness, shown: str) -> None:
    show(harness, shown)
    documents = [harness.upload(f"{name}.pdf", name.encode()) for name in "ab"]
    began = harness.clock.now()
    names = let_go(harness, *documents)
    assert harness.state.requests["run"] == ROUNDS
    assert (harness.clock.now() - began).total_seconds() > 180
    assert all(int(harness.row(each)["failures"]) == 1 for each in documents)
    harness.settle()
    assert_each_ran_once(harness, documents)
    assert not names.keys() & names_of(harness, *documents), "another attempt has other names"


def test_documents_that_are_let_go_are_free_for_the_other_workflow(harness: Harness) -> None:
    sick, well = harness.grow_pool(2)
    harness.state.faults.append(Fault("run", "drop", times=1_000, workflow_id=sick))
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.settle(minutes=20)
    assert_each_ran_once(harness, [document])
    assert [job.workflow_id for job in harness.state.jobs.values()] == [well]


def test_acceptance_after_letting_go_is_reported_by_its_name(harness: Harness) -> None:
    document, other = harness.upload("a.pdf", b"a"), harness.upload("b.pdf", b"b")
    names = let_go(harness, document)
    harness.clock.sleep(10)  # the workflow backs off
    job = accept_late(harness, names)
    harness.deliver(other)
    assert harness.counts["LateAcceptance"] == 1
    assert job.id in (harness.workflow().last_error or {})["message"]
    harness.settle()
    assert (harness.accepted(document), harness.accepted(other)) == (2, 1)
    assert {harness.status(each) for each in (document, other)} == {"COMPLETED"}


def test_nameless_job_is_not_taken_for_ours_for_an_hour_after_letting_go(harness: Harness) -> None:
    show(harness, "nothing")
    harness.state.behaviour.default_job_seconds = 5
    document = harness.upload("a.pdf", b"a")
    names = let_go(harness, document)
    harness.clock.sleep(10)  # the workflow backs off
    lose(harness, document)
    accept_late(harness, names)  # of the attempt before: nothing tells it from the present one's
    harness.settle()
    assert harness.status(document) == "COMPLETED"
    assert "inferred" not in harness.row(document)


def test_key_that_is_taken_away_while_names_are_asked_for_proves_nothing(harness: Harness) -> None:
    show(harness, "documents")
    document, other = harness.upload("a.pdf", b"a"), harness.upload("b.pdf", b"b")
    lose(harness, document)
    harness.clock.sleep(30)
    accept_late(harness, names_of(harness, document))

    class TakenAway(PassThrough):
        done = False

        def around[T](self, name: str, call: Callable[[], T]) -> T:
            if name == "platform GET file-status" and not self.done:
                self.done = True
                harness.secrets.put_secret_value(SecretId=harness.secret, SecretString="{}")
                harness.state.behaviour.api_key = "another-key"
            return call()

    harness.deliver(other)
    harness.step_all(hook=TakenAway())
    assert (harness.status(document), harness.status(other)) == ("SUBMITTING", "PENDING")
    harness.secrets.put_secret_value(SecretId=harness.secret, SecretString="another-key")
    harness.settle()
    assert_each_ran_once(harness, [document, other])
    assert "inferred" not in harness.row(document)


@pytest.mark.parametrize("seconds", [0, 30])
def test_foreign_job_before_a_fresh_file_is_not_treated_as_its_own(harness: Harness, seconds: float) -> None:
    show(harness, "nothing")
    harness.state.behaviour.default_job_seconds = seconds

    def foreign() -> None:
        files = [harness.state.store("x.pdf", None, io.BytesIO(b"x"))]
        assert harness.state.start(harness.settings.workflow_ids[0], files, ours=False)

    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "status", status=202, body='{"detail": "There is a running job."}'))
    harness.deliver(document, hook=BetweenLookAndRequest(foreign))
    assert harness.status(document) == "PENDING"
    assert int(harness.row(document)["failures"]) == 0
    harness.settle()
    assert_each_ran_once(harness, [document])


def others_meanwhile(harness: Harness, jobs: int) -> None:
    """So many jobs of somebody else, whose names have to be asked for."""
    for number in range(jobs):
        files = [harness.state.store(f"x{number}.pdf", None, io.BytesIO(b"x"))]
        harness.state.start(harness.settings.workflow_ids[0], files, ours=False)
        harness.clock.sleep(3)


@pytest.mark.parametrize("jobs", [10, 11, 12])
def test_job_that_is_not_asked_about_is_not_treated_as_nameless(harness: Harness, jobs: int) -> None:
    show(harness, "documents")
    harness.state.behaviour.default_job_seconds = 2
    document = harness.upload("a.pdf", b"a")
    lose(harness, document)
    others_meanwhile(harness, jobs)
    harness.settle()
    assert_each_ran_once(harness, [document])


@pytest.mark.parametrize("job_seconds", [5, 600])
def test_doubt_that_comes_back_with_every_try_has_an_end(harness: Harness, job_seconds: float) -> None:
    """No answer ever comes, and nothing tells whose a job is."""
    show(harness, "nothing")
    harness.state.behaviour.default_job_seconds = job_seconds
    documents = [harness.upload(f"{name}.pdf", name.encode()) for name in "bc"]
    harness.deliver(*documents, submit=False)
    harness.state.faults.append(Fault("run", "drop-after", times=10_000))
    for _ in range(40):
        harness.tick(after_seconds=60)
    assert_each_ran_once(harness, documents)
    assert all(harness.row(each)["inferred"] for each in documents)


def test_late_job_is_found_among_many_while_few_questions_are_answered(harness: Harness) -> None:
    """The vendor answers twelve questions a minute for the names of a job's files."""
    show(harness, "documents")
    harness.state.behaviour.default_job_seconds = 2
    document = harness.upload("a.pdf", b"a")
    lose(harness, document)
    others_meanwhile(harness, 16)
    accept_late(harness, names_of(harness, document))
    harness.clock.sleep(3)
    asked: deque[float] = deque()

    def limited(call: str) -> Fault | None:
        if call != "file-status":
            return None
        now = harness.state.clock()
        while asked and now - asked[0] > 60:
            asked.popleft()
        if len(asked) >= 12:
            return Fault("file-status", "status", status=429, headers={"Retry-After": "60"})
        asked.append(now)
        return None

    harness.state.chance = limited
    for _ in range(6):
        harness.tick(after_seconds=61)
    assert_each_ran_once(harness, [document])


@pytest.mark.parametrize("waiting", [12, 59])
@pytest.mark.parametrize("shown", SHOWN)
def test_batch_that_was_lost_before_the_backlog_is_found_whole(harness: Harness, shown: str, waiting: int) -> None:
    show(harness, shown)
    documents = [harness.upload(f"{number:03}.pdf", f"{number}".encode()) for number in range(waiting)]
    harness.deliver(*documents, submit=False)
    harness.state.faults += [Fault("run", "drop"), Fault("run", "late", seconds=65)]
    run_to_the_end(harness)
    assert_each_ran_once(harness, documents)
    (late,) = [job for job in harness.state.jobs.values() if job.is_late]
    assert len(late.files) == 10
    assert {harness.row(each)["job_id"] for each in documents[:10]} == {late.id}


@pytest.mark.parametrize("fails", [False, True])
def test_files_of_a_job_accepted_late_get_their_own_outputs_and_ends(harness: Harness, fails: bool) -> None:
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}")
    documents = [harness.upload(f"{number:03}.pdf", f"{number}".encode()) for number in range(25)]
    harness.deliver(*documents, submit=False)
    harness.state.faults += [Fault("run", "drop"), Fault("run", "late", seconds=65)]
    while not any(job.is_late for job in harness.state.jobs.values()):
        harness.tick(after_seconds=10)
    (late,) = [job for job in harness.state.jobs.values() if job.is_late]
    broken = late.files[-1].filename
    if fails:
        late.ending, late.failed = "COMPLETED_WITH_ERRORS", {broken: "broken page"}
    run_to_the_end(harness)
    for job in harness.state.jobs.values():
        for file in job.files:
            (row,) = [row for row in harness.rows() if row["upload_name"] == file.filename]
            assert row["status"] == ("FAILED" if fails and file.filename == broken else "COMPLETED")
            stored = [
                json.loads(harness.s3.get_object(Bucket=entry["bucket"], Key=entry["key"])["Body"].read())
                for entry in row.get("results", [])
            ]
            assert stored == [output_of(file.sha256, entry["node_id"]) for entry in row.get("results", [])]


@pytest.mark.parametrize("shown", SHOWN)
def test_last_try_accepted_late_is_found_while_another_upload_waits(harness: Harness, shown: str) -> None:
    show(harness, shown)
    document = harness.upload("a.pdf", b"a")
    harness.state.faults += [Fault("run", "drop", times=ROUNDS - 1), Fault("run", "late", seconds=61.5)]
    harness.deliver(document)
    while not harness.state.late:
        harness.tick(after_seconds=5)
    harness.clock.sleep(60)
    other = harness.upload("b.pdf", b"b")
    harness.deliver(other)
    harness.settle()
    assert_each_ran_once(harness, [document, other])


@pytest.mark.parametrize("names_are_told", [True, False])
@pytest.mark.parametrize(
    "style", ["01JDZ8Q2M7X{:010d}AAAAAA", "file_{:08d}", "doc-{:06d}", "{:08d}-0000-4000-8000-000000000000.pdf"]
)
def test_lost_answer_where_ids_are_drawn(harness: Harness, style: str, names_are_told: bool) -> None:
    """In a way of the platform's own: such an id is no name of somebody else's file."""
    harness.state.behaviour.has_file_status = names_are_told
    information = harness.state.information

    def drawn(job: SimulatedJob, *, posted: bool, files: bool) -> dict[str, Any]:
        told = information(job, posted=posted, files=files) | {"output_node_files": None}
        return told | {"input_file_ids": [style.format(number) for number in range(len(told["input_file_ids"] or []))]}

    with patch.object(harness.state, "information", drawn):
        document = harness.upload("a.pdf", b"a")
        harness.state.faults.append(Fault("run", "drop-after"))
        harness.deliver(document)
        harness.settle(minutes=30)
    assert_each_ran_once(harness, [document])


def test_names_that_are_never_told_do_not_stop_the_workflow(harness: Harness) -> None:
    show(harness, "documents")
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "late", seconds=65))
    harness.state.faults.append(Fault("file-status", "status", status=500, times=10_000))
    harness.deliver(document)
    for _ in range(7):
        harness.tick(after_seconds=9)
    others = [harness.upload(f"{number}.pdf", bytes([number])) for number in range(5)]
    harness.deliver(*others, submit=False)
    for _ in range(60):
        harness.tick(after_seconds=60)
    assert {harness.status(each) for each in others} == {"COMPLETED"}
    assert harness.row(document)["inferred"]


@pytest.mark.parametrize("status", [408, 499])
@pytest.mark.parametrize("shown", SHOWN)
def test_somebody_on_the_way_who_gives_up_proves_nothing(harness: Harness, shown: str, status: int) -> None:
    show(harness, shown)
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "answer-after", status=status, body="{}"))
    harness.deliver(document)
    harness.settle()
    assert_each_ran_once(harness, [document])


@pytest.mark.parametrize("shown", SHOWN)
def test_workflow_id_in_another_spelling_is_the_same(harness: Harness, shown: str) -> None:
    """Case 13: redeployed in capitals, a lost answer, names hidden: found, and once."""
    show(harness, shown)
    lower = harness.settings.workflow_ids[0]
    harness.configure(workflow_ids=(lower.upper(),))
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(document)
    harness.settle()
    assert_each_ran_once(harness, [document])
    assert {job.workflow_id for job in harness.state.jobs.values()} == {lower}


@pytest.mark.parametrize("how", [str.upper, lambda _: str(uuid.uuid4()), lambda _: uuid.uuid4().hex])
@pytest.mark.parametrize("has_file_status", [True, False])
def test_ids_of_another_form_hide_no_job(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, how: Callable[[str], str], has_file_status: bool
) -> None:
    """The contract says that ids are texts. What they look like is up to the platform."""
    harness.state.behaviour.has_file_status = has_file_status
    store = harness.state.store

    def stored(*arguments: Any) -> Any:
        file = store(*arguments)
        file.file_id = how(file.file_id)
        return file

    monkeypatch.setattr(harness.state, "store", stored)
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(document)
    harness.settle()
    assert_each_ran_once(harness, [document])


@pytest.mark.parametrize("shown", SHOWN)
def test_unsettled_batch_holds_its_workflow_in_another_spelling(harness: Harness, shown: str) -> None:
    show(harness, shown)
    lower = harness.settings.workflow_ids[0]
    lost, fresh = harness.upload("a.pdf", b"a"), harness.upload("b.pdf", b"b")
    harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(lost)
    harness.configure(workflow_ids=(lower.upper(),))
    harness.deliver(fresh)
    assert (harness.status(lost), harness.status(fresh)) == ("SUBMITTING", "PENDING")
    harness.settle()
    assert_each_ran_once(harness, [lost, fresh])
    assert [each.workflow_id for each in harness.workflows()] == [lower]


def test_list_that_takes_long_to_come_slows_the_settling_and_nothing_else(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 19: 65 s, here by a smaller measure. What submits never reads the whole list."""
    assert platform_client._LIST_SECONDS > 65 > platform_client._QUESTION_SECONDS
    monkeypatch.setattr(platform_client, "_QUESTION_SECONDS", 1)
    harness.state.behaviour.list_seconds = 2.5
    harness.grow_pool(2)
    lost, other = (harness.upload(f"{name}.pdf", name.encode()) for name in ("lost", "other"))
    harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(lost)
    harness.deliver(other)
    assert (harness.status(lost), harness.status(other)) == ("SUBMITTING", "SCHEDULED")
    harness.tick()
    assert harness.status(lost) == "SCHEDULED"
    harness.settle()
    assert_each_ran_once(harness, [lost, other])


def ready_keys(harness: Harness) -> set[str]:
    """The documents whose turn has come: those that failed alone wait a while first."""
    now = iso(harness.clock.now())
    return {row["key"] for row in harness.rows(Status.PENDING) if row["eligible_at"] <= now}


def test_sick_workflow_does_not_keep_the_backlog_from_the_others(harness: Harness) -> None:
    sick, well = harness.grow_pool(2)
    harness.state.behaviour.job_seconds[well] = 600
    harness.state.faults.append(Fault("run", "status", status=500, times=10_000, workflow_id=sick))
    documents = [harness.upload(f"{number:03}.pdf", f"{number}".encode()) for number in range(100)]
    harness.deliver(*documents, submit=False)
    for minute in range(200):
        ready = ready_keys(harness)
        harness.tick(after_seconds=60)
        waiting = ready & ready_keys(harness)
        at_work = next(each for each in harness.workflows() if each.workflow_id == well).phase is not Phase.IDLE
        assert at_work or not waiting, f"minute {minute}: {waiting} wait, and a healthy workflow is idle"
        assert len(harness.rows(Status.SUBMITTING)) <= 10
    assert {row["status"] for row in harness.rows()} <= {"COMPLETED", "PENDING", "SUBMITTING"}
    assert len([row for row in harness.rows() if row["status"] != "COMPLETED"]) < 15


def test_known_jobs_are_kept_when_the_message_is_the_same(harness: Harness) -> None:
    """Otherwise the same late acceptance counts at every poll."""
    context = harness.context()
    noted = context.note(Workflow(workflow_id=harness.settings.workflow_ids[0]), as_stored(Busy("job x is active")))
    later = context.note(noted, as_stored(Busy("job x is active")), known_job_ids=("x",))
    assert later.known_job_ids == ("x",)
    assert context.note(later, as_stored(Busy("job x is active")), known_job_ids=("x",)) is later


def test_batch_of_a_claim_that_is_lost_is_handed_out_again(harness: Harness) -> None:
    """The first claim finds its document cancelled; the second one is lost to another invocation."""
    harness.configure(max_files_per_run=1)
    first, second = harness.upload("a.pdf", b"a"), harness.upload("b.pdf", b"b")
    harness.deliver(first, second, submit=False)
    ledger, claims = harness.ledger(), iter([False, True])

    class Meddler(PassThrough):
        def around[T](self, name: str, call: Callable[[], T]) -> T:
            if name == "dynamodb transact_write_items":
                if next(claims):
                    ledger.commit(Transition(harness.workflow(), harness.workflow()))
                else:
                    assert ledger.cancel(harness.row(first), "a test")
            return call()

    context = harness.context(hook=Meddler())
    context.snapshot()
    queue = Queue(context)
    submit(context, harness.workflow(), queue)
    assert [each.key for each in queue.take(harness.workflow())] == [second.document_key]


def test_nameless_job_in_a_state_that_nobody_knows_holds_the_batch(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word that the platform may gain. Nothing may be inferred, for a batch was let go here not long ago."""
    harness.grow_pool(2)
    harness.state.behaviour.list_shows_files = harness.state.behaviour.has_file_status = False
    for each in harness.workflows():
        let_go_at = harness.context().iso_later()
        harness.ledger().commit(Transition(each, replace(each, let_go_at=let_go_at)))
    harness.state.behaviour.default_job_seconds = 1_200
    harness.state.faults.append(Fault("run", "drop-after"))
    document = harness.upload("a.pdf", b"1")
    harness.deliver(document)
    with monkeypatch.context() as patch:
        for word in responses.ACTIVE:
            patch.setitem(responses._JOB_STATES, word, JobState.UNKNOWN)
        for _ in range(15):
            harness.tick(after_seconds=60)
        assert (harness.status(document), harness.accepted(document)) == ("SUBMITTING", 1)
    harness.settle(minutes=120)
    assert harness.status(document) == "COMPLETED"


def test_names_that_are_not_all_told_prove_nothing(harness: Harness) -> None:
    """Something on the way has asked twice: the first request is accepted, and the second one's answer is busy."""
    harness.state.behaviour.list_shows_files = False
    document = harness.upload("a.pdf", b"a")
    busy = '{"detail": "There is a running job."}'
    nothing = json.dumps({"files": [], "truncated": False, "index_finished": False})
    harness.state.faults += [
        Fault("run", "answer-after", status=202, body=busy),
        Fault("file-status", "status", status=200, body=nothing),
    ]
    harness.deliver(document)
    harness.settle()
    assert harness.accepted(document) == 1


@pytest.mark.parametrize("how", ["ids", "documents"])
def test_batch_that_ran_twice_is_reported_however_it_is_named(harness: Harness, how: str) -> None:
    show(harness, how)
    document, other = harness.upload("a.pdf", b"a"), harness.upload("b.pdf", b"b")
    names = let_go(harness, document)
    harness.clock.sleep(10)
    accept_late(harness, names)
    harness.deliver(other)
    assert harness.counts["LateAcceptance"] == 1


@pytest.mark.parametrize("style", ["file_{:08d}.pdf", "01JDZ8Q2M7X{:010d}AAAAAA.pdf"])
def test_lost_answer_where_drawn_ids_have_an_extension(harness: Harness, monkeypatch: Any, style: str) -> None:
    """`/file-status` names the files; the list shows ids that look like names of somebody else's."""
    store = harness.state.store
    monkeypatch.setattr(harness.state, "store", lambda *given: replace(store(*given), file_id=style.format(7)))
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(document)
    harness.settle(minutes=40)
    assert harness.accepted(document) == 1


def busy_with_a_foreign_job(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, *faults: Fault, seconds: float = 5
) -> None:
    """A foreign job begins between the first look and the request; from then on there are faults."""
    start = harness.state.start

    def after_a_foreign_one(workflow_id: str, files: Any, **more: Any) -> Any:
        if not harness.state.jobs:
            job = start(workflow_id, files, ours=False)
            assert job is not None
            job.seconds = seconds
            harness.state.faults[:0] = faults
        return start(workflow_id, files, **more)

    monkeypatch.setattr(harness.state, "start", after_a_foreign_one)


def hide_names(harness: Harness, told: str) -> None:
    """Neither the list nor `/file-status` shows the names of a job's files."""
    harness.state.behaviour.list_shows_files = False
    harness.state.behaviour.has_file_status = told != "404"
    if told != "404":
        harness.state.faults.append(Fault("file-status", "status", status=200, body=told, times=10**6))


@pytest.mark.parametrize("told", ["404", '{"files": []}', '{"files": null}', '{"detail": "not ready"}', "{}"])
def test_job_that_makes_a_workflow_busy_is_not_taken_for_the_batchs(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """The answer says that the files were dropped."""
    hide_names(harness, told)
    busy_with_a_foreign_job(harness, monkeypatch)
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.settle()
    assert (harness.status(document), harness.accepted(document)) == ("COMPLETED", 1)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("file-status", "status", status=500),
        Fault("file-status", "status", status=429, headers={"Retry-After": "5"}),
        Fault("jobs", "status", status=503),
    ],
)
def test_question_that_fails_after_a_busy_answer_makes_no_foreign_job_ours(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    hide_names(harness, '{"files": null}')
    busy_with_a_foreign_job(harness, monkeypatch, fault)
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.settle()
    assert (harness.status(document), harness.accepted(document)) == ("COMPLETED", 1)


@pytest.mark.parametrize("seconds", [100, 600, 1_800])
def test_busy_answer_to_a_request_calls_no_person(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """However long the foreign job runs, one request was dropped, and none was lost."""
    hide_names(harness, '{"files": null}')
    busy_with_a_foreign_job(harness, monkeypatch, seconds=seconds)
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.settle()
    assert harness.accepted(document) == 1
    assert harness.counts["Held"] == 0
