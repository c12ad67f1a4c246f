"""Documents whose workflow's item was lost are taken up again: whole batches, and for what they are."""

import json
import uuid
from dataclasses import replace
from typing import Any

import pytest

from local.fake_platform.state import Fault, SimulatedJob
from tests.integration.harness import Harness
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.model import Workflow
from workflow_trigger.services import recover

REASON = "page 3 cannot be read"


def sent(harness: Harness, count: int) -> tuple[list[ObjectVersion], SimulatedJob]:
    documents = [harness.upload(f"{number}.pdf", bytes([number])) for number in range(count)]
    harness.deliver(*documents)
    (job,) = harness.state.jobs.values()
    return documents, job


def lose_everything(harness: Harness) -> None:
    """As a hand that empties the table of workflows."""
    table = harness.settings.workflows_table
    for item in harness.dynamodb.scan(TableName=table)["Items"]:
        harness.dynamodb.delete_item(TableName=table, Key={"workflow_id": item["workflow_id"]})


def upload_again(harness: Harness, document: ObjectVersion) -> None:
    """Another event for the same bytes: the row is written, and too young to be judged for a while."""
    harness.deliver(replace(document, sequencer="F" * 16), submit=False)


@pytest.mark.parametrize("lists", [True, False])
def test_batch_is_taken_up_whole_although_one_row_was_written_just_now(harness: Harness, *, lists: bool) -> None:
    """Alone, a document would be told the failure of its neighbour."""
    harness.state.behaviour.get_shows_files = lists
    documents, job = sent(harness, 5)
    job.seconds, job.ending = 4_000, "COMPLETED_WITH_ERRORS"
    job.failed = {harness.row(documents[2])["upload_name"]: REASON}
    harness.tick(after_seconds=30)
    lose_everything(harness)
    harness.clock.sleep(700)
    upload_again(harness, documents[0])
    harness.settle(minutes=120)
    assert [harness.status(each) for each in documents] == ["COMPLETED"] * 2 + ["FAILED"] + ["COMPLETED"] * 2
    assert {harness.accepted(each) for each in documents} == {1}


def test_document_gets_no_outputs_of_others_where_ids_are_drawn(harness: Harness, monkeypatch: Any) -> None:
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}")
    harness.state.behaviour.has_file_status = False
    store = harness.state.store

    def drawn(*args: Any) -> Any:
        file = store(*args)
        file.file_id = str(uuid.uuid4())
        return file

    monkeypatch.setattr(harness.state, "store", drawn)
    documents, job = sent(harness, 5)
    job.seconds = 4_000
    harness.tick(after_seconds=30)
    lose_everything(harness)
    harness.clock.sleep(700)
    upload_again(harness, documents[0])
    harness.settle(minutes=120)
    own = {file.filename: file.file_id for file in job.files}
    for row in map(harness.row, documents):
        assert row["status"] == "COMPLETED"
        assert {each.get("file_id") for each in row["results"]} <= {own[row["upload_name"]], None}


@pytest.mark.parametrize(("number", "is_uploaded_again"), [(1, False), (3, False), (3, True)])
def test_lost_answer_of_a_batch_that_lost_its_item_runs_once(
    harness: Harness, number: int, *, is_uploaded_again: bool
) -> None:
    harness.state.behaviour.list_shows_files = harness.state.behaviour.has_file_status = False
    harness.state.faults.append(Fault("run", "drop-after"))
    documents, _ = sent(harness, number)
    lose_everything(harness)
    harness.clock.sleep(300)
    if is_uploaded_again:
        upload_again(harness, documents[0])
    harness.settle()
    assert [(harness.status(each), harness.accepted(each)) for each in documents] == [("COMPLETED", 1)] * number


def test_failure_of_a_neighbour_that_is_final_is_not_the_own_one(harness: Harness) -> None:
    """It waits for its outputs when its ended job is lost; what was noted of them goes with its end."""
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}")
    documents, job = sent(harness, 2)
    job.ending, job.failed = "COMPLETED_WITH_ERRORS", {harness.row(documents[1])["upload_name"]: REASON}
    outage = Fault("download", "status", status=503, times=10**6)
    harness.state.faults.append(outage)
    harness.tick(after_seconds=30)
    harness.tick(after_seconds=30)
    assert [harness.status(each) for each in documents] == ["IN_PROGRESS", "FAILED"]
    lose_everything(harness)
    outage.times = 0
    harness.clock.sleep(700)
    harness.settle()
    assert [harness.status(each) for each in documents] == ["COMPLETED", "FAILED"]
    assert all("key" in entry for entry in harness.row(documents[0])["results"])


def test_what_is_noted_of_outputs_does_not_outlive_a_failure(harness: Harness) -> None:
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}")
    (document,), job = sent(harness, 1)
    harness.state.faults.append(Fault("download", "status", status=503, times=10**6))
    harness.tick(after_seconds=30)
    assert "delayed" in harness.row(document)["results"][0]
    lose_everything(harness)
    job.ending, job.status = "FAILED", "FAILED"
    harness.clock.sleep(700)
    harness.settle()
    assert (harness.status(document), harness.row(document).get("results")) == ("FAILED", None)


def test_nothing_is_sent_for_orphans_that_have_all_moved_on(harness: Harness) -> None:
    harness.state.faults.append(Fault("run", "drop-after"))
    (document,), _ = sent(harness, 1)
    lose_everything(harness)
    harness.clock.sleep(300)
    context = harness.context()
    ((workflow_id, found),) = recover.orphans(context, context.snapshot())
    upload_again(harness, document)
    before = harness.state.requests["run"]
    assert not recover.take_up(context, Workflow(workflow_id=workflow_id), found).is_at_work
    assert not harness.workflow().is_at_work
    harness.tick(after_seconds=1)
    assert harness.state.requests["run"] == before


def two_of_which_one_row_is_deleted(harness: Harness) -> tuple[list[ObjectVersion], SimulatedJob]:
    """A job of two files under drawn ids; somebody deletes the row of the first while it runs."""
    store = harness.state.store
    harness.state.store = lambda *file: replace(store(*file), file_id=str(uuid.uuid4()))  # type: ignore[method-assign]
    documents, job = harness.job_with(2)
    key = {name: {"S": value} for name, value in documents[0].document_key._asdict().items()}
    harness.dynamodb.delete_item(TableName=harness.settings.ledger_table, Key=key)
    harness.tick(after_seconds=10)
    return documents, job


def test_document_whose_neighbour_is_gone_gets_none_of_its_outputs(harness: Harness) -> None:
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}")
    documents, job = two_of_which_one_row_is_deleted(harness)
    harness.settle()
    other = next(each.file_id for each in job.files if each.filename.startswith("0-"))
    assert other not in {entry.get("file_id") for entry in harness.row(documents[1])["results"]}


def test_document_whose_neighbour_is_gone_does_not_fail_for_it(harness: Harness) -> None:
    documents, job = two_of_which_one_row_is_deleted(harness)
    other = next(each.file_id for each in job.files if each.filename.startswith("0-"))
    job.ending, job.failed = "COMPLETED_WITH_ERRORS", {other: REASON}
    body = json.dumps({"failed_files": [{"document": "Document 1", "error": REASON}]})
    harness.state.faults.append(Fault("failed-files", "status", status=200, body=body, times=10**6))
    harness.settle()
    assert harness.status(documents[1]) == "COMPLETED"
