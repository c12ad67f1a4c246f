"""Each file has an end of its own, whatever its job calls itself; what does not fit is waited for, and not for ever."""

import json
import uuid
from typing import Any
from unittest.mock import patch

import pytest

from local.fake_platform.state import Fault
from tests.integration.harness import REASON, Harness
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.domain.errors import Unavailable
from workflow_trigger.domain.model import Phase


@pytest.fixture(params=[False, True], ids=["without results", "with results"])
def stored(harness: Harness, request: pytest.FixtureRequest) -> Harness:
    if request.param:
        harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
        harness.configure(results_bucket=f"results-{harness.bucket}")
    return harness


@pytest.mark.parametrize("summary", [True, False], ids=["summary", "no summary"])
@pytest.mark.parametrize("processing", ["FAILED", "COMPLETED_WITH_ERRORS"])
@pytest.mark.parametrize("has_file_status", [True, False])
def test_failed_job_with_one_failed_file_completes_the_others(
    stored: Harness, summary: bool, processing: str, has_file_status: bool
) -> None:
    """Cases 1 and 2: FAILED means less than 90 % by one of the vendor's pages."""
    stored.state.behaviour.has_file_status = has_file_status
    documents, job = stored.job_with(5)
    stored.fail(job, documents[2])
    job.ending = processing
    job.summary = {"total_docs": 5, "total_docs_succeeded": 4, "total_docs_failed": 1} if summary else None
    stored.settle()
    assert [stored.status(each) for each in documents] == ["COMPLETED"] * 2 + ["FAILED"] + ["COMPLETED"] * 2
    assert stored.row(documents[2])["error"] == {"type": "FileFailed", "message": REASON}
    if stored.settings.results_bucket:
        rows = [stored.row(each) for each in documents if each is not documents[2]]
        assert all("key" in entry for row in rows for entry in row["results"])


def test_failed_job_of_which_nothing_is_known_fails_all_its_files(stored: Harness) -> None:
    documents, job = stored.job_with(5)
    job.ending, job.status = "FAILED", "FAILED"
    stored.settle()
    assert {stored.status(each) for each in documents} == {"FAILED"}
    assert {stored.row(each)["error"]["type"] for each in documents} == {"JobFailed"}


def test_file_without_an_output_in_a_failed_job_failed_too(stored: Harness) -> None:
    documents, job = stored.job_with(5)
    stored.fail(job, documents[0])
    job.has_no_outputs = True
    stored.settle()
    assert {stored.status(each) for each in documents} == {"FAILED"}


@pytest.mark.parametrize("how", ["file-status", "summary", "nothing"])
def test_file_that_succeeded_before_its_job_was_stopped_is_completed(stored: Harness, how: str) -> None:
    documents, job = stored.job_with(5)
    stored.state.behaviour.has_file_status = how == "file-status"
    job.summary = {"total_docs": 5, "total_docs_succeeded": 2, "total_docs_failed": 1} if how == "summary" else None
    names = [stored.row(each)["upload_name"] for each in documents]
    job.done, job.failed, job.ending = set(names[:2]), {names[2]: REASON}, "STOPPED"
    stored.settle()
    ends = ["STOPPED" if how == "nothing" else "COMPLETED"] * 2 + ["FAILED"] + ["STOPPED"] * 2
    assert [stored.status(each) for each in documents] == ends
    assert stored.row(documents[4])["error"]["type"] == "JobStopped"


@pytest.mark.parametrize("how", ["empty", "404"])
def test_errors_without_names_are_waited_for(stored: Harness, how: str) -> None:
    """Case 3."""
    documents, job = stored.job_with(5)
    job.ending = "COMPLETED_WITH_ERRORS"
    job.failed = {stored.row(documents[1])["upload_name"]: REASON}
    if how == "empty":
        job.names_hidden_until = stored.clock.epoch_seconds() + 45
    else:
        stored.state.behaviour.has_file_status = False
        stored.state.faults.append(Fault("failed-files", "status", status=404))
    stored.tick(after_seconds=30)
    assert {stored.status(each) for each in documents} <= {"SCHEDULED", "IN_PROGRESS"}
    stored.settle()
    assert [stored.status(each) for each in documents] == ["COMPLETED", "FAILED"] + ["COMPLETED"] * 3


@pytest.mark.parametrize("how", [{"truncated": True}, {"index_finished": False}], ids=["truncated", "unfinished"])
@pytest.mark.parametrize("comes", ["failed-files", "file-status", "nothing"])
def test_list_of_files_that_is_not_complete_proves_nothing(stored: Harness, how: dict[str, bool], comes: str) -> None:
    """Two of five failed, and the list names the first; without a summary."""
    documents, job = stored.job_with(5)
    names = [stored.row(each)["upload_name"] for each in documents]
    job.ending = "COMPLETED_WITH_ERRORS"
    job.failed = {names[0]: REASON, names[3]: REASON}
    first = {"document": names[0], "status": "FAILURE", "error": REASON}
    listed = [first, *({"document": name, "status": "SUCCESS"} for name in names[1:3])]
    times = {call: 4 if call == comes else 10_000 for call in ("failed-files", "file-status")}
    part = json.dumps({"files": listed, **how})
    stored.state.faults += [
        Fault("file-status", "status", status=200, body=part, times=times["file-status"]),
        Fault("failed-files", "status", status=404, times=times["failed-files"]),
    ]
    stored.tick(after_seconds=30)
    assert {stored.status(each) for each in documents} <= {"SCHEDULED", "IN_PROGRESS"}
    stored.settle()
    # Where nothing comes, outputs are the witnesses of what is not named; in the simulation a failed file has none.
    assert [stored.status(each) for each in documents] == ["FAILED", "COMPLETED", "COMPLETED", "FAILED", "COMPLETED"]


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 422])
def test_job_ends_where_failed_files_cannot_be_asked_for(harness: Harness, status: int) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.state.faults.append(Fault("failed-files", "status", status=status, times=10_000))
    harness.settle()
    assert harness.status(document) == "COMPLETED"


def test_doubt_of_another_kind_begins_anew(harness: Harness) -> None:
    """Case 4: details 503 for 17 minutes, then one 404, then right."""
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    outage = Fault("details", "status", status=503, times=1_000)
    harness.state.faults.append(outage)
    for _ in range(17):
        harness.tick(after_seconds=60)
    outage.times = 0
    harness.state.faults.append(Fault("details", "status", status=404))
    harness.tick(after_seconds=60)
    assert harness.status(document) == "SCHEDULED"
    harness.settle()
    assert harness.status(document) == "COMPLETED"


def test_silence_now_and_then_does_not_begin_a_doubt_anew(harness: Harness) -> None:
    """Names never come, and every third look finds the platform unavailable."""
    documents, job = harness.job_with(5)
    job.ending = "COMPLETED_WITH_ERRORS"
    for minute in range(25):
        if minute % 3 == 2:
            harness.state.faults.append(Fault("details", "status", status=503))
        harness.tick(after_seconds=60)
    assert {harness.status(each) for each in documents} == {"COMPLETED"}, "outputs decide after a quarter of an hour"


@pytest.mark.parametrize("question", ["details", "job"])
def test_silence_does_not_count_and_is_told(harness: Harness, question: str) -> None:
    """Names come later than a quarter of an hour, most of which was an outage."""
    documents, job = harness.job_with(5)
    job.ending, job.has_no_outputs = "COMPLETED_WITH_ERRORS", True
    job.failed = {harness.row(documents[1])["upload_name"]: REASON}
    job.names_hidden_until = harness.clock.epoch_seconds() + 20 * 60
    harness.tick(after_seconds=30)
    assert "does not say which" in (harness.workflow().last_error or {})["message"]
    outage = Fault(question, "status", status=503, times=1_000)
    harness.state.faults.append(outage)
    for _ in range(16):
        harness.tick(after_seconds=60)
    assert "503" in (harness.workflow().last_error or {})["message"]
    outage.times = 0
    harness.settle()
    assert [harness.status(each) for each in documents] == ["COMPLETED", "FAILED"] + ["COMPLETED"] * 3


def test_job_ends_although_the_platform_hardly_ever_answers(harness: Harness) -> None:
    documents, job = harness.job_with(5)
    job.ending, job.names_hidden_until = "COMPLETED_WITH_ERRORS", float("inf")
    for minute in range(150):
        if minute % 7:
            harness.state.faults.append(Fault("details", "status", status=503))
        harness.tick(after_seconds=60)
    assert {harness.status(each) for each in documents} == {"COMPLETED"}, "outputs decide"


@pytest.mark.parametrize(("status", "ending"), [("FAILED", "STOPPED"), ("STOPPED", "FAILED")])
def test_success_in_a_job_that_failed_and_was_stopped_is_believed(stored: Harness, status: str, ending: str) -> None:
    documents, job = stored.job_with(5)
    names = [stored.row(each)["upload_name"] for each in documents]
    job.status, job.ending, job.has_all_outputs = status, ending, True
    files = [{"document": name, "status": "SUCCESS" if name in names[:2] else "READY"} for name in names]
    body = json.dumps({"files": files, "truncated": False, "index_finished": True})
    stored.state.faults.append(Fault("file-status", "status", status=200, body=body, times=100))
    stored.settle()
    assert [stored.status(each) for each in documents] == ["COMPLETED"] * 2 + ["STOPPED"] * 3


def test_ended_job_without_results_is_finished_in_the_same_run(harness: Harness) -> None:
    documents, job = harness.job_with(5)
    harness.fail(job, documents[2])
    harness.tick(window_seconds=50)
    assert [harness.status(each) for each in documents] == ["COMPLETED"] * 2 + ["FAILED"] + ["COMPLETED"] * 2


def test_file_that_a_stopped_job_has_not_finished_is_stopped(stored: Harness) -> None:
    """Its first outputs are there, and the platform tells which files succeeded."""
    documents, job = stored.job_with(5)
    names = [stored.row(each)["upload_name"] for each in documents]
    job.done, job.ending, job.has_all_outputs = set(names[:2]), "STOPPED", True
    stored.settle()
    assert [stored.status(each) for each in documents] == ["COMPLETED"] * 2 + ["STOPPED"] * 3


def test_output_of_an_early_node_alone_is_no_success(stored: Harness) -> None:
    documents, job = stored.job_with(5)
    stored.fail(job, documents[2])
    job.has_early_outputs, job.names_hidden_until = True, float("inf")
    stored.settle()
    assert [stored.status(each) for each in documents] == ["COMPLETED"] * 2 + ["FAILED"] + ["COMPLETED"] * 2


LEFT = ("00000000-0000-4000-8000-000000000000",)


@pytest.mark.parametrize("has_left", [False, True], ids=["in the pool", "left the pool"])
def test_first_job_under_a_key_of_another_workspace_waits_and_says_so(harness: Harness, has_left: bool) -> None:
    """Case 12."""
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    pool = harness.settings.workflow_ids
    harness.configure(workflow_ids=LEFT if has_left else pool)
    harness.state.behaviour.is_another_workspace = True
    for _ in range(40):
        harness.tick(after_seconds=60)
    assert harness.status(document) == "SCHEDULED"
    (workflow,) = (each for each in harness.workflows() if each.workflow_id in pool)
    assert "another workspace" in (workflow.last_error or {})["message"]
    assert harness.counts["Held"] > 10
    harness.state.behaviour.is_another_workspace = False
    harness.settle()
    assert harness.status(document) == "COMPLETED"
    assert harness.accepted(document) == 1


@pytest.mark.parametrize("has_left", [False, True], ids=["in the pool", "left the pool"])
def test_lost_answer_under_a_key_of_another_workspace_is_not_sent_again(harness: Harness, has_left: bool) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(document)
    harness.configure(workflow_ids=LEFT if has_left else harness.settings.workflow_ids)
    harness.state.behaviour.is_another_workspace = True
    for _ in range(20):
        harness.tick(after_seconds=60)
    assert harness.status(document) == "SUBMITTING"
    harness.state.behaviour.is_another_workspace = False
    harness.settle()
    assert harness.accepted(document) == 1


@pytest.mark.parametrize("has_left", [False, True], ids=["in the pool", "left the pool"])
def test_workflow_that_cannot_be_asked_about_holds_no_lost_answer(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, has_left: bool
) -> None:
    """Its list is told; whether it is still there, never."""
    first, second = harness.grow_pool(2)
    has_workflow = PlatformClient.has_workflow

    def asked(self: PlatformClient, workflow_id: str) -> bool | None:
        if workflow_id == first:
            raise Unavailable("HTTP 500")
        return has_workflow(self, workflow_id)

    monkeypatch.setattr(PlatformClient, "has_workflow", asked)
    harness.state.faults = [Fault("run", "status", status=500, times=10**6, workflow_id=first)]
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    if has_left:
        harness.configure(workflow_ids=(second,))
    harness.settle(minutes=180)
    assert harness.accepted(document) == 1


@pytest.mark.parametrize("silent", ["its own", "a witness"])
@pytest.mark.parametrize("has_left", [False, True], ids=["in the pool", "left the pool"])
def test_silence_under_a_key_of_another_workspace_lets_nothing_go(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, has_left: bool, silent: str
) -> None:
    first, second = harness.grow_pool(2)
    document = harness.upload("a.pdf", b"a")
    harness.state.behaviour.default_job_seconds = 10**6
    harness.state.faults.append(Fault("run", "drop-after"))
    harness.deliver(document)
    (job,) = harness.state.jobs.values()
    other = second if job.workflow_id == first else first
    if has_left:
        harness.configure(workflow_ids=(other,))
    harness.state.behaviour.is_another_workspace = True
    has_workflow = PlatformClient.has_workflow

    def asked(self: PlatformClient, workflow_id: str) -> bool | None:
        if workflow_id == (job.workflow_id if silent == "its own" else other):
            raise Unavailable("HTTP 500")
        return has_workflow(self, workflow_id)

    with monkeypatch.context() as patch:
        patch.setattr(PlatformClient, "has_workflow", asked)
        for _ in range(120):
            harness.tick(after_seconds=60)
        assert harness.status(document) == "SUBMITTING"
    harness.state.behaviour.is_another_workspace = False
    for _ in range(10):
        harness.tick(after_seconds=60)
    assert harness.accepted(document) == 1


def test_job_of_a_workflow_that_was_deleted_comes_to_an_end(harness: Harness) -> None:
    deleted, other = harness.grow_pool(2)
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    (job,) = harness.state.jobs.values()
    job.vanished = True
    harness.state.behaviour.known_workflows = [other]
    assert 15 <= harness.settle(minutes=30) <= 18
    assert harness.row(document)["error"]["type"] == "JobVanished"
    assert deleted not in {each.workflow_id for each in harness.workflows() if each.phase is not Phase.IDLE}


@pytest.mark.parametrize("status", ["COMPLETED", "FINISHED"])
def test_an_outage_is_no_refusal_of_the_details(harness: Harness, status: str) -> None:
    """Names are missing; an outage of an hour; one 503 of the details; then the name."""
    documents, job = harness.job_with(5)
    job.ending, job.status, job.has_all_outputs = "COMPLETED_WITH_ERRORS", status, True
    job.failed = {harness.row(documents[1])["upload_name"]: REASON}
    job.names_hidden_until = harness.clock.epoch_seconds() + 66 * 60
    harness.tick(after_seconds=30)
    assert harness.workflow().doubts
    outage = Fault("job", "status", status=503, times=100_000)
    harness.state.faults.append(outage)
    for _ in range(65):
        harness.tick(after_seconds=60)
    outage.times = 0
    harness.state.faults.append(Fault("details", "status", status=503))
    harness.settle()
    assert [harness.status(each) for each in documents] == ["COMPLETED", "FAILED"] + ["COMPLETED"] * 3


def test_an_outage_does_not_take_the_successes_of_a_stopped_job(harness: Harness) -> None:
    documents, job = harness.job_with(5)
    job.done = {harness.row(each)["upload_name"] for each in documents[:2]}
    job.ending, job.status, job.details_lag_seconds = "STOPPED", "STOPPED", 70
    harness.tick(after_seconds=30)
    assert harness.workflow().doubts
    outage = Fault("job", "status", status=503, times=100_000)
    harness.state.faults.append(outage)
    for _ in range(62):
        harness.tick(after_seconds=60)
    outage.times = 0
    harness.state.faults.append(Fault("details", "status", status=503))
    harness.settle()
    assert [harness.status(each) for each in documents] == ["COMPLETED"] * 2 + ["STOPPED"] * 3


@pytest.mark.parametrize("how", [{"truncated": True}, {"index_finished": False}], ids=["truncated", "unfinished"])
def test_successes_may_be_left_out_of_the_list_of_a_stopped_job(stored: Harness, how: dict[str, bool]) -> None:
    documents, job = stored.job_with(5)
    names = [stored.row(each)["upload_name"] for each in documents]
    job.done, job.ending = set(names[:2]), "STOPPED"
    body = json.dumps({"files": [{"document": names[4], "status": "READY"}], **how})
    stored.state.faults.append(Fault("file-status", "status", status=200, body=body, times=3))
    stored.settle()
    assert [stored.status(each) for each in documents] == ["COMPLETED"] * 2 + ["STOPPED"] * 3


@pytest.mark.parametrize("tells_a_success", [True, False])
def test_files_that_an_unfinished_list_shows_at_work_may_have_succeeded(stored: Harness, tells_a_success: bool) -> None:
    documents, job = stored.job_with(5)
    names = [stored.row(each)["upload_name"] for each in documents]
    job.done, job.ending = set(names[:3]), "STOPPED"
    files = [{"document": name, "status": "IN_PROGRESS"} for name in names[:2]]
    files += [{"document": names[2], "status": "SUCCESS"}] if tells_a_success else []
    body = json.dumps({"files": files, "index_finished": False})
    stored.state.faults.append(Fault("file-status", "status", status=200, body=body))
    stored.settle()
    assert [stored.status(each) for each in documents] == ["COMPLETED"] * 3 + ["STOPPED"] * 2


def test_job_in_a_status_that_nobody_knows_is_followed_without_details(harness: Harness) -> None:
    documents, job = harness.job_with(5)
    job.seconds, job.status = 3 * 3_600, "PAUSED"
    harness.state.faults.append(
        Fault("job", "status", status=200, times=10**6, body=json.dumps({"id": job.id, "status": "PAUSED"}))
    )
    harness.state.faults.append(Fault("details", "status", status=503, times=10**6))
    for _ in range(80):
        harness.tick(after_seconds=60)
    assert {harness.status(each) for each in documents} <= {"SCHEDULED", "IN_PROGRESS"}


@pytest.mark.parametrize("status", [400, 404])
def test_successes_of_a_failed_job_that_nobody_can_download(stored: Harness, status: int) -> None:
    """Its destination is a remote one. The summary, the failed files and the status of each file agree."""
    documents, job = stored.job_with(3)
    stored.fail(job, documents[0])
    job.summary = {"total_docs": 3, "total_docs_succeeded": 2, "total_docs_failed": 1}
    stored.state.faults.append(Fault("download", "status", status=status, times=10**6))
    stored.settle()
    assert [stored.status(each) for each in documents] == ["FAILED", "COMPLETED", "COMPLETED"]


def test_file_that_a_summary_does_not_count_is_looked_for(stored: Harness) -> None:
    """Files are dropped without an error; the job and its details speak of success."""
    documents, job = stored.job_with(4)
    job.summary = {"total_docs": 3, "total_docs_succeeded": 3, "total_docs_failed": 0}
    job.files.remove(next(each for each in job.files if each.filename == stored.row(documents[3])["upload_name"]))
    stored.settle()
    assert [stored.status(each) for each in documents] == ["COMPLETED"] * 3 + ["FAILED"]
    assert "fewer files" in stored.row(documents[3])["error"]["message"]


def test_file_that_a_summary_does_not_count_fails_no_other(stored: Harness) -> None:
    """The destination is a remote one; the status of each file calls the others successes."""
    documents, job = stored.job_with(4)
    job.summary = {"total_docs": 3, "total_docs_succeeded": 3, "total_docs_failed": 0}
    job.files.remove(next(each for each in job.files if each.filename == stored.row(documents[3])["upload_name"]))
    stored.state.faults.append(Fault("download", "status", status=400, times=10**6))
    stored.settle()
    assert [stored.status(each) for each in documents] == ["COMPLETED"] * 3 + ["FAILED"]


@pytest.mark.parametrize("question", ["details", "failed-files", "file-status"])
@pytest.mark.parametrize(("pause_seconds", "minutes"), [(5, 180), (600, 360)])
def test_question_that_is_always_answered_429_holds_no_job_for_ever(
    harness: Harness, pause_seconds: int, minutes: int, question: str
) -> None:
    documents, job = harness.job_with(5)
    harness.fail(job, documents[1])
    wait = {"Retry-After": str(pause_seconds)}
    harness.state.faults.append(Fault(question, "status", status=429, times=10**6, headers=wait))
    harness.settle(minutes=minutes)


@pytest.mark.parametrize("quota", [12, 10**6])
def test_quota_of_file_status_stops_no_other_question(harness: Harness, quota: int) -> None:
    """It is answered twelve times a minute; seven jobs wait for names."""
    harness.grow_pool(8)
    answered: list[float] = []
    ask = PlatformClient.file_status

    def counted(client: PlatformClient, job_id: str) -> Any:
        now = harness.clock.epoch_seconds()
        recent = [each for each in answered if each > now - 60]
        if len(recent) >= quota:
            wait = {"Retry-After": str(int(recent[0] + 61 - now))}
            harness.state.faults.append(Fault("file-status", "status", status=429, headers=wait))
        else:
            answered.append(now)
        return ask(client, job_id)

    harness.configure(max_files_per_run=1)
    harness.deliver(*(harness.upload(f"{number}.pdf", bytes([number])) for number in range(7)))
    for job in harness.state.jobs.values():
        job.ending, job.names_hidden_until = "COMPLETED_WITH_ERRORS", float("inf")
    others = [harness.upload(f"other{number}.pdf", b"other%d" % number) for number in range(20)]
    harness.deliver(*others, submit=False)
    with patch.object(PlatformClient, "file_status", counted):
        for _ in range(14):
            harness.tick(after_seconds=5, window_seconds=55)
    assert {harness.status(each) for each in others} == {"COMPLETED"}


@pytest.mark.parametrize("is_lost", [False, True])
def test_workflow_made_anew_under_its_key_while_its_job_ran(harness: Harness, is_lost: bool) -> None:
    key, old, new = f"made-anew-{is_lost}".lower(), str(uuid.uuid4()), str(uuid.uuid4())
    behaviour = harness.state.behaviour
    behaviour.workflow_keys[key], behaviour.known_workflows = old, [old]
    harness.configure(workflow_ids=(key,))
    harness.state.faults += [Fault("run", "status", status=500)] if is_lost else []
    harness.deliver(harness.upload("a.pdf", b"a"))
    behaviour.workflow_keys[key], behaviour.known_workflows = new, [new]
    for job in harness.state.jobs.values():
        job.vanished = True
    later = harness.upload("b.pdf", b"b")
    harness.deliver(later)
    harness.settle(minutes=60)
    assert harness.status(later) == "COMPLETED"


def test_doubts_that_take_turns_have_an_end(harness: Harness) -> None:
    """Names never come, and every other look finds no details."""
    documents, job = harness.job_with(5)
    job.ending, job.names_hidden_until = "COMPLETED_WITH_ERRORS", float("inf")
    for minute in range(20):
        if minute % 2:
            harness.state.faults.append(Fault("details", "status", status=404))
        harness.tick(after_seconds=60)
    assert {harness.status(each) for each in documents} == {"COMPLETED"}, "outputs decide after a quarter of an hour"


def test_file_of_a_failed_job_whose_details_tell_success_is_looked_for(stored: Harness) -> None:
    document = stored.upload("a.pdf", b"a")
    stored.deliver(document)
    (job,) = stored.state.jobs.values()
    job.status, job.ending = "FAILED", "SUCCESS"
    stored.settle()
    assert stored.status(document) == "COMPLETED"


@pytest.mark.parametrize("ending", ["SUCCESS", "COMPLETED_WITH_ERRORS"])
@pytest.mark.parametrize("silent", ["failed-files", "file-status"])
def test_details_of_a_job_in_an_unknown_status_say_that_it_has_ended(
    harness: Harness, ending: str, silent: str
) -> None:
    """What is never answered holds it for an hour at most."""
    documents, job = harness.job_with(5)
    job.status, job.ending = "FINISHED", ending
    if ending != "SUCCESS":
        job.failed = {harness.row(documents[1])["upload_name"]: REASON}
    harness.state.faults.append(Fault(silent, "status", status=503, times=10**6))
    harness.settle(minutes=70)
    good = [each for each in documents if ending == "SUCCESS" or each is not documents[1]]
    assert {harness.status(each) for each in good} == {"COMPLETED"}


def test_file_status_that_is_never_answered_costs_no_reason(stored: Harness) -> None:
    documents, job = stored.job_with(5)
    stored.fail(job, documents[1])
    job.summary = {"total_docs": 5, "total_docs_succeeded": 4, "total_docs_failed": 1}
    stored.state.faults.append(Fault("file-status", "status", status=503, times=10**6))
    stored.settle(minutes=5)
    assert [stored.status(each) for each in documents] == ["COMPLETED", "FAILED"] + ["COMPLETED"] * 3
    assert stored.row(documents[1])["error"]["message"] == REASON


@pytest.mark.parametrize("question", ["details", "job"])
def test_doubt_has_an_end_although_outages_come_and_go(harness: Harness, question: str) -> None:
    """Names never come; of every 14 minutes the platform is away for seven."""
    documents, job = harness.job_with(5)
    job.ending, job.names_hidden_until = "COMPLETED_WITH_ERRORS", float("inf")
    for minute in range(60):
        harness.state.faults = [Fault(question, "status", status=503, times=10**6)] if minute % 14 >= 7 else []
        harness.tick(after_seconds=60)
    assert {harness.status(each) for each in documents} == {"COMPLETED"}, "outputs decide"


def test_stopped_job_is_waited_for_until_its_list_is_complete(stored: Harness) -> None:
    """Whose outputs nobody can have: a remote destination."""
    documents, job = stored.job_with(5)
    names = [stored.row(each)["upload_name"] for each in documents]
    job.done, job.ending = set(names[:2]), "STOPPED"
    part = json.dumps({"files": [], "index_finished": False})
    stored.state.faults += [
        Fault("file-status", "status", status=200, body=part, times=2),
        Fault("download", "status", status=400, times=10**6),
    ]
    stored.settle()
    assert [stored.status(each) for each in documents] == ["COMPLETED"] * 2 + ["STOPPED"] * 3


def test_outputs_do_not_decide_where_the_summary_says_that_all_failed(stored: Harness) -> None:
    documents, job = stored.job_with(5)
    job.ending, job.has_all_outputs = "COMPLETED_WITH_ERRORS", True
    job.summary = {"total_docs": 5, "total_docs_succeeded": 0, "total_docs_failed": 5}
    body = json.dumps({"failed_files": [{"document": f"Document {each}", "error": REASON} for each in range(5)]})
    stored.state.faults.append(Fault("failed-files", "status", status=200, body=body, times=10**6))
    stored.state.behaviour.has_file_status = False
    stored.settle()
    assert {stored.status(each) for each in documents} == {"FAILED"}


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
def test_outputs_decide_where_the_summary_does_not_count_all_files(stored: Harness, status: str) -> None:
    documents, job = stored.job_with(5)
    job.status, job.has_all_outputs = status, True
    job.ending = "COMPLETED_WITH_ERRORS" if status == "COMPLETED" else "FAILED"
    job.summary = {"total_docs": 5, "total_docs_succeeded": 0, "total_docs_failed": 1}
    body = json.dumps({"failed_files": [{"document": "Document 1", "error": REASON}]})
    stored.state.faults.append(Fault("failed-files", "status", status=200, body=body, times=10**6))
    stored.state.behaviour.has_file_status = False
    stored.settle()
    assert {stored.status(each) for each in documents} == {"COMPLETED"}


UNFINISHED = json.dumps({"files": [], "index_finished": False})


@pytest.mark.parametrize(("status", "body"), [(503, ""), (200, UNFINISHED)], ids=["no answer", "unfinished"])
@pytest.mark.parametrize("count", [1, 5])
def test_failure_that_is_named_at_the_second_look_is_heeded(
    stored: Harness, status: int, body: str, count: int
) -> None:
    """Else a file that failed, and whose first node has an output, would be COMPLETED, or lose its reason."""
    documents = [stored.upload(f"{each}.pdf", bytes([each])) for each in range(count)]
    stored.deliver(*documents)
    (job,) = stored.state.jobs.values()
    stored.fail(job, documents[-1])
    job.has_all_outputs = True
    stored.state.faults.append(Fault("failed-files", "status", status=200, body='{"failed_files": []}'))
    stored.state.faults.append(Fault("file-status", "status", status=status, body=body))
    stored.settle()
    assert [stored.status(each) for each in documents] == ["COMPLETED"] * (count - 1) + ["FAILED"]
    assert stored.row(documents[-1])["error"]["message"] == REASON


@pytest.mark.parametrize("how", ["failed", "alone", "stopped"])
def test_list_that_never_is_complete_holds_nobody_for_nothing(harness: Harness, how: str) -> None:
    documents = [harness.upload(f"{each}.pdf", bytes([each])) for each in range(1 if how == "alone" else 5)]
    harness.deliver(*documents)
    (job,) = harness.state.jobs.values()
    names = [harness.row(each)["upload_name"] for each in documents]
    job.ending = job.status = "STOPPED" if how == "stopped" else "FAILED"
    files = [{"document": name, "status": "SUCCESS"} for name in names] if how == "stopped" else []
    body = json.dumps({"files": files, "index_finished": False})
    harness.state.faults.append(Fault("file-status", "status", status=200, body=body, times=10**6))
    harness.settle(minutes=4)
    assert {harness.status(each) for each in documents} == {"COMPLETED" if how == "stopped" else "FAILED"}


@pytest.mark.parametrize("status", [200, 403, 500, 501])
def test_job_that_is_never_told_of_ends_by_its_details(harness: Harness, status: int) -> None:
    """One job cannot be asked for; its details can, and so can every other job."""
    first, second = harness.upload("1.pdf", b"1"), harness.upload("2.pdf", b"2")
    harness.deliver(first)
    (odd,) = harness.state.jobs
    harness.deliver(second)
    harness.state.faults.append(Fault("job", "status", status=status, body="{}", times=10_000))
    harness.settle(minutes=100, until=lambda: harness.status(first) == "COMPLETED")
    assert harness.row(first)["job_id"] == odd
    harness.state.faults.clear()
    harness.settle()
    assert harness.status(second) == "COMPLETED"


@pytest.mark.parametrize("fails", [False, True])
def test_list_of_failed_files_that_is_null_holds_no_workflow(harness: Harness, fails: bool) -> None:
    documents, job = harness.job_with(2)
    if fails:
        harness.fail(job, documents[0])
    harness.state.faults.append(
        Fault("failed-files", "status", status=200, body='{"failed_files": null}', times=10_000)
    )
    assert harness.settle(minutes=100) < 5
    assert [harness.status(each) for each in documents] == ["FAILED" if fails else "COMPLETED", "COMPLETED"]
    assert not fails or harness.row(documents[0])["error"]["message"] == REASON


@pytest.mark.parametrize("ending", ["FAILED", "COMPLETED_WITH_ERRORS"])
def test_successes_that_the_summary_counts_are_believed(harness: Harness, ending: str) -> None:
    """No failure is named, and nothing can be downloaded: the destination is a remote one."""
    documents, job = harness.job_with(5)
    names = [harness.row(each)["upload_name"] for each in documents]
    job.ending = ending
    job.summary = {"total_docs": 5, "total_docs_succeeded": 3, "total_docs_failed": 2}
    files = [{"document": name, "status": "SUCCESS" if name in names[:3] else "READY"} for name in names]
    body = json.dumps({"files": files, "truncated": False, "index_finished": True})
    harness.state.faults += [
        Fault("file-status", "status", status=200, body=body, times=10**6),
        Fault("download", "status", status=400, times=10**6),
    ]
    harness.settle()
    assert [harness.status(each) for each in documents] == ["COMPLETED"] * 3 + ["FAILED"] * 2


@pytest.mark.parametrize("has_file_status", [True, False])
def test_file_that_was_dropped_beside_one_that_failed_is_looked_for(harness: Harness, has_file_status: bool) -> None:
    documents, job = harness.job_with(4)
    harness.state.behaviour.has_file_status = has_file_status
    names = [harness.row(each)["upload_name"] for each in documents]
    job.ending, job.failed = "COMPLETED_WITH_ERRORS", {names[0]: REASON}
    job.summary = {"total_docs": 3, "total_docs_succeeded": 2, "total_docs_failed": 1}
    job.files.remove(next(each for each in job.files if each.filename == names[3]))
    harness.settle()
    assert [harness.status(each) for each in documents] == ["FAILED", "COMPLETED", "COMPLETED", "FAILED"]
    assert "fewer files" in harness.row(documents[3])["error"]["message"]


def test_job_ends_although_the_platform_asks_for_pauses(harness: Harness) -> None:
    """Every second look is answered with a pause of ten minutes, and the names of failed files never come."""
    documents, job = harness.job_with(5)
    job.ending, job.names_hidden_until = "COMPLETED_WITH_ERRORS", float("inf")
    for minute in range(120):
        harness.tick(after_seconds=60)
        if not minute % 11:  # the next look is in vain
            harness.state.faults.append(Fault("job", "status", status=429, headers={"Retry-After": "600"}))
    assert {harness.status(each) for each in documents} == {"COMPLETED"}, "outputs decide"


def test_job_ends_although_the_platform_hardly_ever_tells_of_it(harness: Harness) -> None:
    documents, job = harness.job_with(5)
    job.ending, job.names_hidden_until = "COMPLETED_WITH_ERRORS", float("inf")
    for minute in range(150):
        if minute % 7:
            harness.state.faults.append(Fault("job", "status", status=503))
        harness.tick(after_seconds=60)
    assert {harness.status(each) for each in documents} == {"COMPLETED"}, "outputs decide"


def test_look_in_vain_at_an_old_job_is_written_down_and_changes_nothing(harness: Harness) -> None:
    documents, job = harness.job_with(1)
    job.seconds = 3 * 3_600
    for _ in range(70):
        harness.tick(after_seconds=60)
    before = harness.row(documents[0])
    harness.state.faults.append(Fault("job", "status", status=500))
    harness.tick(after_seconds=60)
    assert harness.row(documents[0]) == before
    assert harness.workflow().last_error, "written down"


def test_job_that_goes_on_is_not_ended_by_one_look_in_vain(harness: Harness) -> None:
    """Its details speak of success too early."""
    (document,), _ = harness.job_with(1, seconds=10_000)
    early = '{"processing_status": "SUCCESS"}'
    harness.state.faults.append(Fault("details", "status", status=200, body=early, times=10**6))
    harness.tick(after_seconds=4_000)
    harness.state.faults.append(Fault("job", "status", status=503))
    harness.tick(after_seconds=60)
    assert harness.status(document) == "IN_PROGRESS"


def test_names_that_are_missing_do_not_hold_a_job_that_is_never_told_of(harness: Harness) -> None:
    documents, job = harness.job_with(5)
    job.ending, job.names_hidden_until = "COMPLETED_WITH_ERRORS", float("inf")
    harness.state.faults.append(Fault("job", "status", status=500, times=10**6))
    harness.settle(minutes=240)
    assert {harness.status(each) for each in documents} == {"COMPLETED"}, "outputs decide"


@pytest.mark.parametrize("question", ["failed-files", "details"])
def test_one_answer_in_vain_does_not_hold_a_job_that_is_never_told_of(harness: Harness, question: str) -> None:
    """Just when its details were to end it."""
    (document,), _ = harness.job_with(1)
    harness.state.faults.append(Fault("job", "status", status=500, times=10**6))
    for _ in range(58):
        harness.tick(after_seconds=60)
    harness.state.faults.append(Fault(question, "status", status=503, times=3))
    harness.settle(minutes=180)
    assert harness.status(document) == "COMPLETED"


def test_doubt_does_not_hold_a_job_that_is_not_told_of_any_more(harness: Harness) -> None:
    """Names of failed files are waited for when it begins, and come a minute later."""
    documents, job = harness.job_with(5)
    job.ending = "COMPLETED_WITH_ERRORS"
    job.failed = {harness.row(documents[1])["upload_name"]: "page 3"}
    job.names_hidden_until = harness.clock.epoch_seconds() + 60
    harness.tick(after_seconds=30)
    assert harness.workflow().doubts
    harness.state.faults.append(Fault("job", "status", status=500, times=10**6))
    harness.settle(minutes=180)
    assert [harness.status(each) for each in documents] == ["COMPLETED", "FAILED"] + ["COMPLETED"] * 3


def test_errors_that_are_worded_anew_each_time_hold_no_job(harness: Harness) -> None:
    """Each names its request, as those of gateways do."""
    (document,), _ = harness.job_with(1)
    for minute in range(180):
        body = json.dumps({"detail": f"request {minute} failed"})
        harness.state.faults = [Fault("job", "status", status=500, body=body, times=10**6)]
        harness.tick(after_seconds=60)
    assert harness.status(document) == "COMPLETED"


def test_pause_now_and_then_holds_no_job_that_is_never_told_of(harness: Harness) -> None:
    (document,), _ = harness.job_with(1)
    for minute in range(180):
        status, headers = (429, {"Retry-After": "1"}) if minute % 30 == 29 else (500, {})
        harness.state.faults = [Fault("job", "status", status=status, headers=headers, times=10**6)]
        harness.tick(after_seconds=60)
    assert harness.status(document) == "COMPLETED"


def test_hour_of_a_wrong_key_is_no_hour_of_silence_about_a_job(harness: Harness) -> None:
    """Its details speak of success too early; when the key is right again, one look is in vain."""
    (document,), _ = harness.job_with(1, seconds=10_000)
    early = '{"processing_status": "SUCCESS"}'
    harness.state.faults.append(Fault("details", "status", status=200, body=early, times=10**6))
    wrong_key = Fault("job", "status", status=401, body='{"detail": "no such key"}', times=10**6)
    harness.state.faults.append(wrong_key)
    for _ in range(65):
        harness.tick(after_seconds=60)
    wrong_key.times = 0
    harness.state.faults.append(Fault("job", "status", status=503))
    harness.tick(after_seconds=60)
    assert harness.status(document) in {"SCHEDULED", "IN_PROGRESS"}


@pytest.mark.parametrize("body", ['{"detail": "not ready"}', '{"files": null}', "[]", "null", "{}"])
def test_answer_without_a_list_takes_no_success_of_a_stopped_job(harness: Harness, body: str) -> None:
    documents, job = harness.job_with(5)
    names = [harness.row(each)["upload_name"] for each in documents]
    job.done, job.ending = set(names[:2]), "STOPPED"
    harness.state.faults.append(Fault("file-status", "status", status=200, body=body))
    harness.settle()
    assert [harness.status(each) for each in documents] == ["COMPLETED"] * 2 + ["STOPPED"] * 3


def test_error_of_a_job_that_is_never_told_of_names_what_was_answered(harness: Harness) -> None:
    harness.job_with(1)
    harness.state.faults += [
        Fault("job", "status", status=500, times=10**6),
        Fault("failed-files", "status", status=503, times=10**6),
    ]
    harness.settle(minutes=90, until=lambda: len(harness.workflow().doubts) > 1)
    said = (harness.workflow().last_error or {})["message"]
    assert "the job says" not in said
    assert "HTTP 500" in said
    assert "HTTP 503" in said
