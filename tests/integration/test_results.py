"""Outputs come home before a row is COMPLETED, while its workflow goes on."""

import base64
import json
import threading
import uuid
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ConnectTimeoutError

from local.fake_platform.app import output_of
from local.fake_platform.state import Fault, SimulatedJob
from tests.integration.fault_injection import Denied, PassThrough
from tests.integration.harness import Harness
from tests.integration.test_faults import WhileTheAnswerIsOnItsWay
from workflow_trigger.adapters.s3_results import result_key
from workflow_trigger.adapters.unstructured import client as platform_client
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.adapters.unstructured.responses import job_from
from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.errors import LedgerUnavailable, Misconfigured, NotFound, Unavailable
from workflow_trigger.domain.job import Job
from workflow_trigger.domain.model import Phase
from workflow_trigger.services.reconcile import Reconciler
from workflow_trigger.services.results import collect
from workflow_trigger.services.track import track


@pytest.fixture
def results(harness: Harness) -> Harness:
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}", results_prefix="out/")
    return harness


def test_outputs_of_a_completed_job_are_stored_byte_for_byte(results: Harness) -> None:
    documents = [results.upload(key, key.encode()) for key in ("a b/c+d.pdf", "ü.pdf")]
    results.deliver(*documents)
    results.settle()
    for document in documents:
        row = results.row(document)
        assert row["status"] == "COMPLETED"
        assert len(row["results"]) == 2
        (file,) = [
            file for job in results.state.jobs.values() for file in job.files if file.file_id == row["input_file_id"]
        ]
        for entry in row["results"]:
            assert entry["key"].startswith(f"out/{document.key}/{document.document_key.version}/{row['job_id']}/")
            stored = results.s3.get_object(Bucket=entry["bucket"], Key=entry["key"])
            assert json.loads(stored["Body"].read()) == output_of(file.sha256, entry["node_id"])
            assert stored["ContentType"] == "application/json"
            assert stored["Metadata"]["job-id"] == row["job_id"]


NO_OUTPUTS = ["", " ", "null", '{"detail": "not ready"}', "upstream connect error", '[{"type": "Title"}, {"ty']


@pytest.mark.parametrize("body", NO_OUTPUTS)
def test_what_is_no_output_is_not_stored_as_one(results: Harness, body: str) -> None:
    document = results.upload("a.pdf", b"a")
    results.state.faults.append(Fault("download", "status", status=200, body=body, times=3))
    results.deliver(document)
    results.settle(minutes=10)
    row = results.row(document)
    assert (row["status"], len(row["results"])) == ("COMPLETED", 2)
    for entry in row["results"]:
        assert json.loads(results.s3.get_object(Bucket=entry["bucket"], Key=entry["key"])["Body"].read())


@pytest.mark.parametrize("body", NO_OUTPUTS)
@pytest.mark.parametrize("stored", [False, True])
def test_what_is_no_output_proves_no_success(harness: Harness, body: str, stored: bool) -> None:
    if stored:
        harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
        harness.configure(results_bucket=f"results-{harness.bucket}")
    documents, job = harness.job_with(3)
    job.ending = job.status = "FAILED"
    harness.state.faults += [Fault(each, "status", status=404, times=10**6) for each in ("failed-files", "file-status")]
    harness.state.faults.append(Fault("download", "status", status=200, body=body, times=10**6))
    harness.settle(minutes=120)
    assert {harness.status(each) for each in documents} == {"FAILED"}


def test_download_that_fails_is_tried_again_without_a_new_run(results: Harness) -> None:
    results.state.faults += [
        Fault("download", "drop"),
        Fault("download", "truncate"),
        Fault("download", "status", status=503),
    ]
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    results.settle()
    assert results.status(document) == "COMPLETED"
    assert all("key" in entry for entry in results.row(document)["results"])
    assert results.accepted(document) == 1
    assert results.state.shown.total() == 3


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 202, "body": '{"detail": "not ready"}'},
        {"status": 200, "body": "<html>Please log in</html>", "headers": {"content-type": "text/html; charset=utf-8"}},
    ],
)
def test_answer_without_an_output_is_none(results: Harness, answer: dict[str, Any]) -> None:
    results.state.faults.append(Fault("download", "status", times=2, **answer))
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    results.settle()
    for entry in results.row(document)["results"]:
        stored = results.s3.get_object(Bucket=entry["bucket"], Key=entry["key"])
        assert json.loads(stored["Body"].read())[0]["type"]


def test_output_that_is_not_there_right_away_is_fetched_a_little_later(results: Harness) -> None:
    results.state.faults += [Fault("download", "status", status=404, times=2)]
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    results.tick(after_seconds=30)
    assert results.status(document) == "IN_PROGRESS"
    results.tick(after_seconds=10)
    assert results.status(document) == "COMPLETED"
    assert all("key" in entry for entry in results.row(document)["results"])


@pytest.mark.parametrize("status", [403, 410, 422, 429])
def test_download_that_is_refused_does_not_hold_the_workflow_for_ever(results: Harness, status: int) -> None:
    results.state.faults += [Fault("download", "status", status=status, times=10_000)]
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    results.settle(minutes=100)
    assert results.status(document) == "COMPLETED"
    assert str(status) in results.row(document)["results"][0]["missing"]


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("late_seconds", [2, 15])
def test_outputs_that_are_named_after_the_job_has_ended_are_fetched(
    results: Harness, late_seconds: float, *, failed: bool
) -> None:
    """The lists of a job are null for a while, also when it says that it ended."""
    results.state.behaviour.get_shows_files = True
    documents, job = results.job_with(
        3, seconds=10, files_hidden_until=results.clock.epoch_seconds() + 10 + late_seconds
    )
    if failed:
        results.fail(job, documents[0])
    results.clock.sleep(11)
    results.tick(window_seconds=50)
    ends = [results.status(each) for each in documents]
    assert ends == ["FAILED" if failed else "COMPLETED", "COMPLETED", "COMPLETED"]
    for each in documents[failed:]:
        row = results.row(each)
        assert [("key" in entry, entry["file_id"]) for entry in row["results"]] == [(True, row["input_file_id"])] * 2


def named_in_part(results: Harness, monkeypatch: pytest.MonkeyPatch, is_named: Callable[[str, int], bool]) -> None:
    """The platform names outputs by an upload name's beginning, and its seconds since the job's end."""
    state, information = results.state, results.state.information
    state.behaviour.get_shows_files = True

    def partly(job: SimulatedJob, *, posted: bool, files: bool) -> dict[str, Any]:
        answer, since = information(job, posted=posted, files=files), int(state.clock() - job.created - job.seconds)
        nodes = answer["output_node_files"] or []
        named = [each for each in nodes if not posted and is_named(each["file_id"], since)]
        return answer | {"output_node_files": named, "input_file_ids": None}

    monkeypatch.setattr(state, "information", partly)


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("late_seconds", [15, 45])
def test_outputs_are_named_for_one_file_after_the_other(
    results: Harness, monkeypatch: pytest.MonkeyPatch, late_seconds: int, *, failed: bool
) -> None:
    named_in_part(results, monkeypatch, lambda file, since: file.startswith("0-") or since >= late_seconds)
    documents, job = results.job_with(3, seconds=10)
    if failed:
        results.fail(job, documents[2])
    for _ in range(3):
        results.tick(after_seconds=5, window_seconds=55)
    for number, each in enumerate(documents[: 3 - failed]):
        row = results.row(each)
        assert row["status"] == "COMPLETED"
        assert {entry["file_id"][:2] for entry in row["output_node_files"]} == {f"{number}-"}
        assert all("key" in entry for entry in row["results"])


def test_file_without_outputs_is_given_none_of_its_neighbours(
    results: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    named_in_part(results, monkeypatch, lambda file, _: not file.startswith("1-"))
    results.state.behaviour.has_file_status = False
    documents, job = results.job_with(3, seconds=10)
    job.names_hidden_until = 1e12
    results.fail(job, documents[1])
    results.settle(minutes=40)
    assert [results.status(each) for each in documents] == ["COMPLETED", "FAILED", "COMPLETED"]
    assert not results.row(documents[1]).get("output_node_files")


@pytest.mark.parametrize("place", [0, 1])
def test_output_that_is_absent_is_not_held_by_one_that_is_delayed(
    results: Harness, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    documents, _ = results.job_with(2, seconds=10)
    absent = results.row(documents[place])["input_file_id"]

    def download(_self: Any, _job_id: str, file_id: str, _node_id: str) -> Any:
        raise NotFound("HTTP 404") if file_id == absent else Unavailable("HTTP 503")

    monkeypatch.setattr(PlatformClient, "download", download)
    for _ in range(3):
        results.tick(after_seconds=5, window_seconds=55)
    assert [results.status(documents[each]) for each in (place, 1 - place)] == ["COMPLETED", "IN_PROGRESS"]


@pytest.mark.parametrize("failed", [False, True])
def test_question_for_names_that_is_not_answered_is_no_answer(results: Harness, *, failed: bool) -> None:
    """The job cannot be asked about for ten minutes; the list and downloads work."""
    results.state.behaviour.get_shows_files = True
    documents, job = results.job_with(3, seconds=10, files_hidden_until=results.clock.epoch_seconds() + 15)
    if failed:
        results.fail(job, documents[0])
    results.clock.sleep(11)
    results.step_all()
    results.state.faults = [Fault("job", "status", status=503, times=10**6)]
    for _ in range(10):
        results.tick(after_seconds=5, window_seconds=55)
    results.state.faults = []
    results.settle()
    assert [results.status(each) for each in documents[1:]] == ["COMPLETED"] * 2
    assert all("key" in entry for each in documents[1:] for entry in results.row(each)["results"])


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("status", [400, 404, 422])
def test_output_that_is_asked_for_before_its_node_is_named_is_no_output(
    results: Harness, monkeypatch: pytest.MonkeyPatch, status: int, *, failed: bool
) -> None:
    """The platform refuses a download without the id of a node."""
    state, information = results.state, results.state.information
    state.behaviour.get_shows_files = True

    def late(job: SimulatedJob, *, posted: bool, files: bool) -> dict[str, Any]:
        is_late = posted or state.clock() - job.created - job.seconds < 15
        return information(job, posted=posted, files=files) | ({"output_node_files": None} if is_late else {})

    download = PlatformClient.download

    def refusing(self: Any, job_id: str, file_id: str, node_id: str | None) -> Any:
        if not node_id:
            raise (NotFound if status == 404 else Misconfigured)(f"HTTP {status}")
        return download(self, job_id, file_id, node_id)

    monkeypatch.setattr(state, "information", late)
    monkeypatch.setattr(PlatformClient, "download", refusing)
    documents, job = results.job_with(3, seconds=10)
    if failed:
        results.fail(job, documents[0])
    results.clock.sleep(10.5)
    for _ in range(3):
        results.tick(after_seconds=5, window_seconds=55)
    assert [results.status(each) for each in documents[failed:]] == ["COMPLETED"] * (3 - failed)
    assert all("key" in entry for each in documents[failed:] for entry in results.row(each)["results"])


def test_document_gets_no_input_file_id_of_a_neighbour(results: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """`input_file_ids` names the first file alone; the outputs of the second are named when the first is final."""
    state, information = results.state, results.state.information
    state.behaviour.get_shows_files = True

    def partly(job: SimulatedJob, *, posted: bool, files: bool) -> dict[str, Any]:
        answer, is_late = information(job, posted=posted, files=files), state.clock() - job.created - job.seconds >= 25
        shown: dict[str, Any] = {"input_file_ids": [], "output_node_files": []}
        if not posted and answer["input_file_ids"]:
            shown["input_file_ids"] = answer["input_file_ids"][:1]
            nodes = answer["output_node_files"]
            shown["output_node_files"] = [each for each in nodes if is_late or each["file_id"].startswith("0-")]
        return answer | shown

    monkeypatch.setattr(state, "information", partly)
    documents, _ = results.job_with(2, seconds=10)
    for _ in range(3):
        results.tick(after_seconds=5, window_seconds=55)
    row = results.row(documents[1])
    assert {entry["file_id"][:2] for entry in row["results"]} == {"1-"}
    assert not row.get("input_file_id", "").startswith("0-")


@pytest.mark.parametrize("list_status", [404, 500])
def test_outputs_of_a_deleted_workflow_come_to_an_end(results: Harness, list_status: int) -> None:
    results.grow_pool(2)
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    results.state.faults = [Fault("download", "status", status=404, times=10**6)]
    results.tick(after_seconds=30)
    (ended,) = results.ended_jobs()
    others = [each for each in results.settings.workflow_ids if each != ended.workflow_id]
    results.state.behaviour.known_workflows = others
    results.state.faults += [
        Fault("job", "status", status=404, times=10**6),
        Fault("jobs", "status", status=list_status, times=10**6, workflow_id=ended.workflow_id),
    ]
    assert results.settle(minutes=30) <= 10
    assert results.status(document) == "COMPLETED"


def test_outputs_that_only_the_last_answer_names_are_fetched(results: Harness) -> None:
    results.state.behaviour.list_shows_files = False
    results.state.behaviour.get_shows_files = True
    results.state.faults.append(Fault("run", "drop-after"))
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    results.settle()
    assert [bool(entry.get("key")) for entry in results.row(document)["results"]] == [True, True]


def test_answer_that_comes_after_its_job_was_found_still_tells_the_files(results: Harness) -> None:
    """A look at the jobs while the sender waits: they show no files, and the answer alone does."""
    results.state.behaviour.list_shows_files = False
    document = results.upload("a.pdf", b"a")
    results.deliver(document, hook=WhileTheAnswerIsOnItsWay(results.step_all))
    assert results.workflow().phase is Phase.RUNNING
    results.settle()
    row = results.row(document)
    assert len(row["input_file_ids"]) == 1
    assert [bool(entry.get("key")) for entry in row["results"]] == [True, True]


@pytest.mark.parametrize("outputs_of_one_file_alone", [False, True])
def test_ids_that_do_not_tell_whose_outputs_they_are_give_nobody_anothers(
    results: Harness, monkeypatch: pytest.MonkeyPatch, outputs_of_one_file_alone: bool
) -> None:
    if outputs_of_one_file_alone:

        def of_the_first(answer: Mapping[str, Any]) -> Job | None:
            nodes = answer.get("output_node_files")
            return job_from({**answer, "output_node_files": nodes and nodes[:1]})

        monkeypatch.setattr(platform_client, "job_from", of_the_first)
    store = results.state.store
    results.state.store = lambda *file: replace(store(*file), file_id=str(uuid.uuid4()))  # type: ignore[method-assign]
    together = [results.upload(f"{number}.pdf", bytes([number])) for number in range(3)]
    results.deliver(*together)
    results.settle()
    for document in together:
        (entry,) = results.row(document)["results"]
        assert "do not tell" in entry["missing"]
    alone = results.upload("alone.pdf", b"alone")
    results.deliver(alone)
    results.settle()
    assert all("key" in entry for entry in results.row(alone)["results"])


def test_doubt_about_the_end_does_not_shorten_the_wait_for_outputs(results: Harness) -> None:
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    (job,) = results.state.jobs.values()
    job.details_lag_seconds = 40
    results.tick(after_seconds=30)
    assert results.workflow().doubts
    results.state.faults.append(Fault("download", "status", status=404, times=2))
    results.tick(after_seconds=35)
    results.settle()
    assert all("key" in entry for entry in results.row(document)["results"])


def test_what_came_is_not_fetched_again(results: Harness) -> None:
    documents = [results.upload(f"{number}.pdf", bytes([number])) for number in range(5)]
    results.deliver(*documents)
    results.state.faults.append(Fault("download", "status", status=500, times=3))
    results.settle()
    assert results.state.requests["download"] == 5 * 2 + 3
    assert all("key" in entry for each in documents for entry in results.row(each)["results"])


def test_what_the_platform_has_no_more_is_said_in_the_row(results: Harness) -> None:
    results.state.faults += [Fault("download", "status", status=404, body='{"detail": "Not Found"}', times=1_000)]
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    results.settle()
    row = results.row(document)
    assert row["status"] == "COMPLETED"
    assert [entry["missing"] for entry in row["results"]] == ["HTTP 404: Not Found"] * 2


def test_download_that_never_works_does_not_hold_the_workflow_for_ever(results: Harness) -> None:
    results.state.faults += [Fault("download", "status", status=500, times=10_000)]
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    assert 55 < results.settle(minutes=100) < 75
    assert "missing" in results.row(document)["results"][0]


def test_outage_of_half_an_hour_loses_no_output(results: Harness) -> None:
    outage = Fault("download", "status", status=503, times=10_000)
    results.state.faults.append(outage)
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    for _ in range(35):
        results.tick(after_seconds=60)
    outage.times = 0
    results.settle()
    assert results.status(document) == "COMPLETED"
    assert all("key" in entry for entry in results.row(document)["results"])


def test_bucket_that_refuses_results_keeps_the_row_open_until_it_accepts(results: Harness) -> None:
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    bucket = results.settings.results_bucket
    results.s3.delete_bucket(Bucket=bucket)
    for _ in range(30):
        results.tick(after_seconds=60)
    row = results.row(document)
    assert (row["status"], row["error"]["type"]) == ("IN_PROGRESS", "ResultsRefused")
    assert "cannot be stored" in row["error"]["message"]
    assert results.workflow().phase is Phase.IDLE, "the workflow goes on meanwhile"
    assert results.counts["ResultsMissing"] > 0, "the alarm rings"
    results.s3.create_bucket(Bucket=bucket)
    results.settle()
    assert "key" in results.row(document)["results"][0]


@pytest.mark.parametrize(("count", "length"), [(70, 10), (60, 900)], ids=["of the results", "of the nodes alone"])
def test_more_outputs_than_a_row_has_room_for_are_said_to_be_missing(
    results: Harness, monkeypatch: pytest.MonkeyPatch, count: int, length: int
) -> None:
    nodes = [{"node_type": "chunk", "node_subtype": "x" * length, "node_id": str(number)} for number in range(count)]
    monkeypatch.setattr(
        type(results.state),
        "outputs",
        lambda _, job: [{**node, "file_id": file.file_id} for file in job.files for node in nodes],
    )
    documents = [results.upload(key, key.encode()) for key in ("a" * 800, "b" * 800)]
    results.deliver(*documents)
    results.settle()
    named = set()
    for document in documents:
        row = results.row(document)
        assert row["status"] == "COMPLETED"
        *copied, left_out = row["results"]
        assert left_out == {"missing": "more outputs than a row has room for"}
        assert 30 < len(copied) < count
        named |= {entry["key"] for entry in copied}
    stored = results.s3.get_paginator("list_objects_v2").paginate(Bucket=results.settings.results_bucket)
    assert {each["Key"] for page in stored for each in page["Contents"]} == named


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b.pdf", "a/b.pdf/v/j/partition-n.json"),
        ("../../x", "%2E%2E/%2E%2E/x/v/j/partition-n.json"),
        ("a\r\nb", "a%0D%0Ab/v/j/partition-n.json"),
        ("\u202efdp.exe", "%E2%80%AEfdp.exe/v/j/partition-n.json"),
    ],
)
def test_hostile_keys_give_harmless_paths(key: str, path: str) -> None:
    assert result_key(DocumentKey(f"s3://b/{key}", "v"), "j", {"node_id": "n", "node_type": "partition"}, 1000) == path


def test_key_that_leaves_no_room_is_replaced_by_its_token() -> None:
    path = result_key(DocumentKey(f"s3://b/{'x' * 1024}", "v"), "j", {"node_id": "n"}, 1000)
    assert len(path) < 50


# -- a step of its own -------------------------------------------------------------------------------------------------


def test_workflow_takes_the_next_batch_while_outputs_are_waited_for(results: Harness) -> None:
    first, second = results.upload("1.pdf", b"1"), results.upload("2.pdf", b"2")
    results.state.faults.append(Fault("download", "status", status=503, times=4))
    results.deliver(first)
    results.tick(after_seconds=30)
    assert (results.status(first), results.workflow().phase) == ("IN_PROGRESS", Phase.IDLE)
    results.deliver(second)
    assert results.status(second) == "SCHEDULED"
    results.settle()
    assert all("key" in entry for each in (first, second) for entry in results.row(each)["results"])


def test_bucket_that_refuses_for_an_hour_leaves_the_outputs_missing(results: Harness) -> None:
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    results.s3.delete_bucket(Bucket=results.settings.results_bucket)
    assert 58 <= results.settle(minutes=80) <= 65
    row = results.row(document)
    assert row["status"] == "COMPLETED"
    assert "cannot be stored" in row["results"][0]["missing"]
    assert "error" not in row


def test_bucket_that_refuses_fails_no_file_of_a_failed_job(results: Harness) -> None:
    good, bad = results.upload("good.pdf", b"g"), results.upload("bad.pdf", b"b")
    results.deliver(good, bad)
    (job,) = results.state.jobs.values()
    results.fail(job, bad)
    results.s3.delete_bucket(Bucket=results.settings.results_bucket)
    results.settle(minutes=80)
    assert (results.status(good), results.status(bad)) == ("COMPLETED", "FAILED")
    assert "cannot be stored" in results.row(good)["results"][0]["missing"]


@pytest.mark.parametrize("status", [301, 400, 403, 405, 410, 422])
def test_download_that_never_will_work_completes_at_once_with_the_reason(results: Harness, status: int) -> None:
    """Case 41: a remote destination."""
    results.state.faults += [Fault("download", "status", status=status, times=1_000)]
    documents = [results.upload(f"{number}.pdf", bytes([number])) for number in range(3)]
    results.deliver(*documents)
    results.tick(after_seconds=30)
    assert {results.status(each) for each in documents} == {"COMPLETED"}
    assert str(status) in results.row(documents[0])["results"][0]["missing"]


def test_silence_and_absence_have_beginnings_of_their_own(results: Harness) -> None:
    """Case 5: downloads 503 for a minute, then one 404, then right."""
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    outage = Fault("download", "status", status=503, times=1_000)
    results.state.faults.append(outage)
    results.tick(after_seconds=30)
    results.tick(after_seconds=60)
    outage.times = 0
    results.state.faults.append(Fault("download", "status", status=404, times=2))
    results.tick(after_seconds=10)
    assert results.status(document) == "IN_PROGRESS"
    results.tick(after_seconds=11)
    assert results.status(document) == "COMPLETED"
    assert all("key" in entry for entry in results.row(document)["results"])


@pytest.mark.parametrize(("status", "headers"), [(503, {}), (429, {"Retry-After": "5"})])
def test_outputs_that_are_not_there_hold_nobody_up(results: Harness, status: int, headers: dict[str, str]) -> None:
    """Once a minute the platform answers otherwise, which says nothing of the output."""
    results.configure(max_files_per_run=1)
    start = results.state.start
    results.state.start = lambda *args, **more: start(*args, **more, has_no_outputs=True)  # type: ignore[method-assign]
    documents = [results.upload(f"{number}.pdf", bytes([number])) for number in range(20)]
    results.deliver(*documents)
    for _ in range(25):
        results.state.faults.append(Fault("download", "status", status=status, headers=headers))
        results.tick(after_seconds=5, window_seconds=55)
    assert {results.status(each) for each in documents} == {"COMPLETED"}
    assert all("missing" in results.row(each)["results"][0] for each in documents)


def test_lease_on_a_copy_outlives_downloads_that_hang(results: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [results.upload(f"{number}.pdf", bytes([number])) for number in range(5)]
    results.deliver(*documents)
    results.clock.sleep(60)
    context = results.context()
    track(context, results.workflow())
    (ended,) = results.ended_jobs()
    left: list[bool] = []

    def hangs(*_: Any) -> Any:
        results.clock.sleep(30)
        left.append((results.ended_jobs()[0].lease_ends_at or "") > context.iso_later())
        raise Unavailable("no answer")

    monkeypatch.setattr(PlatformClient, "download", hangs)
    collect(context, ended)
    assert left == [True] * 10


def test_copy_of_an_old_run_does_not_replace_what_a_newer_one_stored(results: Harness) -> None:
    """Case 23."""
    document = results.upload("a.pdf", b"same")
    results.deliver(document)
    results.settle()
    first = results.row(document)["results"]
    results.deliver(results.upload("a.pdf", b"same"))
    results.settle()
    row = results.row(document)
    assert {entry["key"] for entry in row["results"]}.isdisjoint(entry["key"] for entry in first)
    for entry in row["results"]:
        stored = results.s3.head_object(Bucket=entry["bucket"], Key=entry["key"])
        assert stored["Metadata"]["job-id"] == row["job_id"]


def test_output_is_fetched_once_although_runs_overlap_a_slow_copy(results: Harness) -> None:
    """Case 22: a copy that lasts three minutes, on_schedule every minute."""
    documents = [results.upload(f"{number}.pdf", bytes([number])) for number in range(5)]
    results.deliver(*documents)
    results.clock.sleep(30)
    put = results.s3.put_object

    class Slow(PassThrough):
        calls = 0

        def around[T](self, name: str, call: Any) -> T:  # type: ignore[type-var]
            if name == "s3 put_object" and self.calls < 3:
                self.calls += 1
                results.clock.sleep(60)
                results.step_all()  # the next minute's run
            answer: T = call()
            return answer

    assert put
    results.step_all(hook=Slow())
    results.settle()
    assert results.state.requests["download"] == 5 * 2
    assert all("key" in entry for each in documents for entry in results.row(each)["results"])


@pytest.mark.parametrize(("size", "puts"), [(10, "put_object"), (12_000_000, "upload_part")])
def test_outputs_are_stored_with_checksum_and_encryption(results: Harness, size: int, puts: str) -> None:
    """Cases 39 and 40: object lock demands a checksum, policies demand the header of an encryption."""
    key = results.aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    results.configure(results_kms_key_arn=key)
    results.state.behaviour.output_bytes = size
    seen: dict[str, dict[str, Any]] = {}
    for name in ("PutObject", "UploadPart", "CreateMultipartUpload"):
        results.s3.meta.events.register(
            f"provide-client-params.s3.{name}", lambda params, model, **_: seen.update({model.name: params})
        )
    document = results.upload("a.pdf", b"a")
    seen.clear()
    results.deliver(document)
    results.settle()
    assert all("key" in entry for entry in results.row(document)["results"])
    with_content = seen["PutObject" if puts == "put_object" else "UploadPart"]
    content = bytes(with_content["Body"])
    assert with_content["ChecksumCRC32"] == base64.b64encode(zlib.crc32(content).to_bytes(4)).decode()
    begun = seen["PutObject" if puts == "put_object" else "CreateMultipartUpload"]
    assert (begun["ServerSideEncryption"], begun["SSEKMSKeyId"]) == ("aws:kms", key)
    stored = results.s3.get_object(
        Bucket=results.settings.results_bucket, Key=results.row(document)["results"][0]["key"]
    )
    assert len(stored["Body"].read()) >= size


def test_secret_that_may_not_be_read_costs_no_output(results: Harness) -> None:
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    results.state.faults += [Fault("download", "status", status=503)] * 2
    results.tick(after_seconds=60)
    assert results.ended_jobs()
    results.hook = Denied("secrets get_secret_value")
    results.api_key.invalidate()
    for _ in range(30):
        results.tick(after_seconds=60)
    assert results.status(document) == "IN_PROGRESS"
    assert results.counts["Held"] > 0
    results.hook = PassThrough()
    results.settle()
    row = results.row(document)
    assert row["status"] == "COMPLETED"
    assert all("key" in entry for entry in row["results"])


def test_free_workflow_does_not_wait_until_outputs_are_copied(results: Harness) -> None:
    """As many copies as there are threads are going on; the next batch is posted all the same."""
    results.configure(max_files_per_run=1)
    first, second = results.upload("a.pdf", b"a"), results.upload("b.pdf", b"b")
    results.deliver(first)
    results.deliver(second, submit=False)
    has_posted = threading.Event()

    class SlowCopy(PassThrough):
        waited: bool | None = None

        def around[T](self, name: str, call: Callable[[], T]) -> T:
            if name == "platform GET download" and self.waited is None:
                self.waited = has_posted.wait(60)
            answer = call()
            if name == "platform POST run":
                has_posted.set()
            return answer

    hook = SlowCopy()
    results.clock.sleep(60)
    Reconciler(results.context(hook=hook), worker_threads=1).run(20)
    assert hook.waited, "the copy was over before the next batch was posted"
    results.settle()
    assert {results.status(each) for each in (first, second)} == {"COMPLETED"}


@pytest.mark.parametrize("failed", [False, True])
def test_absence_before_and_after_an_outage_is_no_long_absence(results: Harness, failed: bool) -> None:
    """One 404, three minutes of 503, one 404, then right."""
    documents, job = results.job_with(3)
    if failed:
        results.fail(job, documents[0])
    for status, minutes in ((404, 1), (503, 3), (404, 1)):
        fault = Fault("download", "status", status=status, times=10_000)
        results.state.faults.append(fault)
        for _ in range(minutes):
            results.tick(after_seconds=60)
        fault.times = 0
    results.settle()
    assert [results.status(each) for each in documents[1:]] == ["COMPLETED"] * 2
    assert all("key" in entry for each in documents[1:] for entry in results.row(each)["results"])


def test_absence_and_silence_in_turn_have_an_end(results: Harness) -> None:
    """Passes that are more than a minute apart."""
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    for minute in range(0, 140, 2):
        results.state.faults = [Fault("download", "status", status=503 if minute % 4 else 404, times=10)]
        results.tick(after_seconds=120)
    assert results.status(document) == "COMPLETED"
    assert all("missing" in entry for entry in results.row(document)["results"])


def test_lease_that_cannot_be_renewed_is_no_refusal_of_the_bucket(results: Harness) -> None:
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    results.clock.sleep(60)
    context = results.context()
    track(context, results.workflow())
    (ended,) = results.ended_jobs()

    class TableIsAway(PassThrough):
        is_away = False

        def around[T](self, name: str, call: Callable[[], T]) -> T:
            if name == "platform GET download":
                results.clock.sleep(60)  # the lease is to be renewed
                self.is_away = True
            if name == "dynamodb put_item" and self.is_away:
                raise ConnectTimeoutError(endpoint_url="https://dynamodb")
            return call()

    with pytest.raises(LedgerUnavailable, match="did not answer"):
        collect(results.context(hook=TableIsAway()), ended)
    results.settle()
    assert all("key" in entry for entry in results.row(document)["results"])


QUESTIONS = ("download", "job", "details", "jobs", "failed-files", "file-status")


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize(
    ("statuses", "headers"),
    [
        ([503] * 40, {}),
        ([429] * 30, {"Retry-After": "30"}),
        ([429] * 30, {"Retry-After": "900"}),
        ([503] * 11 + [429] * 3, {"Retry-After": "30"}),
    ],
    ids=["503", "429", "429 for long", "503, then 429"],
)
def test_outage_of_any_length_loses_no_output(
    results: Harness, statuses: list[int], headers: dict[str, str], *, failed: bool
) -> None:
    documents, job = results.job_with(3)
    if failed:
        results.fail(job, documents[0])
    results.state.faults = [Fault("download", "status", status=503, times=10**6)]
    results.tick(after_seconds=60)
    for status in statuses:
        results.state.faults = [
            Fault(each, "status", status=status, headers=headers, times=10**6) for each in QUESTIONS
        ]
        results.tick(after_seconds=300)
    results.state.faults = []
    results.settle()
    assert [results.status(each) for each in documents[1:]] == ["COMPLETED"] * 2
    assert all("key" in entry for each in documents[1:] for entry in results.row(each)["results"])


@pytest.mark.parametrize("minutes", [30, 50, 58])
def test_time_of_an_outage_is_not_that_of_an_output(results: Harness, minutes: int) -> None:
    """All questions for so long, then downloads alone until the hour is over."""
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    results.state.faults = [Fault("download", "status", status=503, times=10**6)]
    results.tick(after_seconds=60)
    for minute in range(62):
        questions = QUESTIONS if minute < minutes else ("download",)
        results.state.faults = [Fault(each, "status", status=503, times=10**6) for each in questions]
        results.tick(after_seconds=5, window_seconds=55)
    results.state.faults = []
    results.settle()
    assert all("key" in entry for entry in results.row(document)["results"])


@pytest.mark.parametrize("has_left", [False, True])
@pytest.mark.parametrize("failed", [False, True])
def test_key_of_another_workspace_loses_no_output(results: Harness, *, failed: bool, has_left: bool) -> None:
    """Everything is 404 then, and no workflow is to be seen; that of the job may have left the pool."""
    documents, job = results.job_with(3)
    if failed:
        results.fail(job, documents[0])
    results.state.faults = [Fault("download", "status", status=503, times=6)]
    results.tick(after_seconds=60)
    assert results.ended_jobs()
    if has_left:
        results.configure(workflow_ids=("00000000-0000-4000-8000-000000000000",))
    results.state.faults, results.state.behaviour.is_another_workspace = [], True
    for _ in range(5):
        results.tick(after_seconds=60)
    assert results.counts["Held"]
    results.state.behaviour.is_another_workspace = False
    results.settle()
    assert [results.status(each) for each in documents[1:]] == ["COMPLETED"] * 2
    assert all("key" in entry for each in documents[1:] for entry in results.row(each)["results"])


def test_one_question_that_is_never_answered_holds_no_outputs(
    results: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the jobs of a workflow whose list is broken would never end, and stop the pool when they are many."""
    document = results.upload("a.pdf", b"a")
    results.deliver(document)
    results.state.faults.append(Fault("download", "status", status=503, times=10**6))
    results.tick(after_seconds=60)
    monkeypatch.setattr(PlatformClient, "look", Mock(side_effect=Unavailable("HTTP 500")))
    results.settle(minutes=100)
    assert results.status(document) == "COMPLETED"


def test_rejected_key_is_not_the_time_of_an_output(results: Harness) -> None:
    """503 for two minutes, two hours of a key that is rejected, 503 for a minute, then right."""
    documents, _ = results.job_with(3)
    delayed = Fault("download", "status", status=503, times=10**6)
    results.state.faults = [delayed]
    results.tick(after_seconds=60)
    results.tick(after_seconds=60)
    assert results.ended_jobs()[0].doubts
    results.state.faults = [Fault(each, "status", status=401, times=10**6) for each in QUESTIONS]
    for _ in range(120):
        results.tick(after_seconds=60)
    results.state.faults = [delayed]
    results.tick(after_seconds=60)
    results.state.faults = []
    results.settle()
    assert all("key" in entry for each in documents for entry in results.row(each)["results"])


def test_refusing_bucket_and_a_rejected_key_cost_no_questions(results: Harness) -> None:
    results.job_with(1)
    results.s3.delete_bucket(Bucket=results.settings.results_bucket)
    for _ in range(3):
        results.tick(after_seconds=60)
    assert [each.kind for each in results.ended_jobs()[0].doubts] == ["refused"]
    results.state.faults = [Fault(each, "status", status=401, times=10**6) for each in QUESTIONS]
    results.tick(after_seconds=60)
    results.state.faults = []
    asked = results.state.requests["job"]
    for _ in range(5):
        results.tick(after_seconds=120)
    assert results.state.requests["job"] == asked


def test_outputs_are_fetched_while_no_question_is_answered(results: Harness) -> None:
    """Downloads are, but for the first one."""
    documents, _ = results.job_with(3)
    results.state.faults = [Fault("download", "status", status=503, times=1)]
    results.tick(after_seconds=60)
    assert results.ended_jobs()
    results.state.faults = [Fault(each, "status", status=503, times=10**6) for each in ("job", "jobs")]
    results.settle(minutes=10)
    assert {results.status(each) for each in documents} == {"COMPLETED"}


@pytest.mark.parametrize("failed", [False, True])
def test_pause_that_another_question_brought_is_not_the_time_of_an_output(results: Harness, *, failed: bool) -> None:
    """404, five minutes of Retry-After, 404, then right; during the pause nothing is asked."""
    results.grow_pool(2)
    documents, job = results.job_with(3, seconds=10)
    if failed:
        results.fail(job, documents[0])
    absent: dict[str, Any] = {"call": "download", "kind": "status", "status": 404, "times": 6 - 2 * failed}
    results.state.faults = [Fault(**absent)]
    results.tick(after_seconds=15)
    assert results.ended_jobs()[0].doubts
    other = results.upload("other.pdf", b"other")
    results.state.faults = [Fault("jobs", "status", status=429, headers={"Retry-After": "300"})]
    results.deliver(other)
    asked = results.state.requests["download"]
    for _ in range(4):
        results.tick(after_seconds=5, window_seconds=55)
    assert results.state.requests["download"] == asked
    results.state.faults = [Fault(**absent)]
    results.settle()
    assert [results.status(each) for each in documents[1:]] == ["COMPLETED"] * 2
    assert all("key" in entry for each in documents[1:] for entry in results.row(each)["results"])


@pytest.mark.parametrize("status", [500, 403])
def test_outputs_of_jobs_that_cannot_be_asked_about_hold_nobody_up(results: Harness, status: int) -> None:
    """While the platform answers otherwise."""
    results.configure(max_files_per_run=1)
    documents = [results.upload(f"{each}.pdf", bytes([each])) for each in range(13)]
    results.deliver(*documents)
    results.state.faults.append(Fault("download", "status", status=503, times=10**6))
    for _ in range(12):
        results.tick(after_seconds=5, window_seconds=55)
    results.state.faults.append(Fault("job", "status", status=status, times=10**6))
    for _ in range(10):
        results.tick(after_seconds=600)
    results.state.faults = []
    results.settle(minutes=15)
    assert {results.status(each) for each in documents} == {"COMPLETED"}


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("suffix", [".json", "-attachment.pdf"])
def test_outputs_under_an_id_that_goes_on_are_fetched(harness: Harness, files: int, suffix: str) -> None:
    """The contract ties no `file_id` of an output to an input's; the token in it does."""
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}")
    outputs = harness.state.outputs

    def longer(job: Any) -> list[dict[str, str]]:
        return [{**node, "file_id": node["file_id"].removesuffix(suffix) + suffix} for node in outputs(job)]

    harness.state.outputs = longer  # type: ignore[method-assign]
    documents, job = harness.job_with(files)
    harness.fail(job, *documents[1:2])
    if files == 1:
        job.status, job.ending = "COMPLETED", "SUCCESS"
    job.files = [replace(file, file_id=file.file_id + suffix) for file in job.files]  # what can be downloaded
    harness.settle()
    for each in [*documents[:1], *documents[2:]]:
        row = harness.row(each)
        assert (row["status"], ["key" in entry for entry in row["results"]]) == ("COMPLETED", [True, True])


@pytest.mark.parametrize("pause", [90, 300])
def test_absent_output_ends_although_the_platform_asks_for_pauses(harness: Harness, pause: int) -> None:
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}")
    (document,), job = harness.job_with(1)
    job.has_no_outputs = True
    harness.tick(after_seconds=30)
    for _ in range(20):
        harness.state.faults.append(Fault("job", "status", status=429, headers={"Retry-After": str(pause)}))
        harness.tick(after_seconds=11)  # in vain
        harness.tick(after_seconds=pause + 1)  # 404
    assert harness.status(document) == "COMPLETED"
