"""What the product is for, and what it does in ordinary life."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.conftest import load_event
from tests.integration.harness import World
from workflow_trigger import handlers
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.errors import UnreadableEvent
from workflow_trigger.domain.job import Look
from workflow_trigger.services.submit import submit_now


class Context:
    """What Lambda passes beside the event."""

    function_name = "on-upload"
    memory_limit_in_mb = 256
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:on-upload"
    aws_request_id = "00000000-0000-0000-0000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


@pytest.fixture
def handler(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """on_upload over the world's adapters."""
    monkeypatch.setattr(handlers, "context_of", lambda _invocation: world.context())
    return lambda event: handlers.on_upload(event, Context())


def s3_event(*versions: ObjectVersion) -> dict[str, Any]:
    records = []
    for version in versions:
        (record,) = load_event("s3-put")["Records"]
        record["s3"]["bucket"]["name"] = version.bucket
        record["s3"]["object"] = {"key": version.key, "eTag": version.etag, "sequencer": version.sequencer, "size": 1}
        records.append(record)
    return {"Records": records}


def test_s3_event_downloads_object_posts_it_and_writes_job_information(world: World, handler: Any) -> None:
    document = world.upload("minutes/sample.pdf", b"%PDF-1.7 a document")

    answer = handler(s3_event(document))

    (job,) = world.state.jobs.values()
    (file,) = job.files
    assert file.path.read_bytes() == b"%PDF-1.7 a document"
    assert file.content_type == "application/pdf"
    (row,) = answer["rows"]
    assert row["job_id"] == job.id
    assert row["status"] == row["job_status"] == "SCHEDULED"
    posted = world.state.information(job, posted=True, files=True)
    for name in ("workflow_id", "workflow_name", "created_at", "job_type", "input_file_ids", "output_node_files"):
        assert row[name] == posted[name], name
    assert row["input_file_id"] == file.file_id
    assert row["upload_name"] == file.filename


def test_job_is_followed_to_its_end_without_losing_what_get_leaves_out(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    world.deliver(document)
    first = world.row(document)
    world.tick(after_seconds=10)
    assert world.status(document) == "IN_PROGRESS"
    world.tick(after_seconds=20)
    row = world.row(document)
    assert row["status"] == row["job_status"] == "COMPLETED"
    for name in ("input_file_ids", "output_node_files", "created_at", "job_id", "workflow_name"):
        assert row[name] == first[name], name
    assert row["expires_at"] > world.clock.epoch_seconds()
    assert "eligible_at" not in row
    assert world.workflow().phase == "idle"


def test_several_records_travel_in_one_run(world: World) -> None:
    documents = [world.upload(f"{number}.pdf", bytes([number]) * 1000) for number in range(12)]
    world.deliver(*documents)
    (job,) = world.state.jobs.values()
    assert len(job.files) == 10
    assert [world.status(each) for each in documents].count("SCHEDULED") == 10
    for document in documents[:10]:
        row = world.row(document)
        assert row["input_file_ids"] == [row["input_file_id"]]
        assert {node["file_id"] for node in row["output_node_files"]} == {row["input_file_id"]}
    world.settle()
    assert [world.accepted(each) for each in documents] == [1] * 12
    assert len(world.state.jobs) == 2


def test_second_event_for_same_version_does_not_post_again(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    for _ in range(3):
        world.deliver(document)
    world.settle()
    world.deliver(document)
    world.settle()
    assert world.accepted(document) == 1
    assert len(world.rows()) == 1


def test_busy_is_a_202_and_the_rows_wait(world: World) -> None:
    first, second = world.upload("1.pdf", b"1"), world.upload("2.pdf", b"2")
    world.deliver(first)
    world.deliver(second)
    assert world.status(second) == "PENDING"
    world.settle()
    assert (world.accepted(first), world.accepted(second)) == (1, 1)


def test_stranger_that_comes_between_look_and_post_drops_nothing(world: World) -> None:
    document = world.upload("a.pdf", b"a")
    context = world.context()
    looked = context.client.look

    def look_then_lose(workflow_id: str) -> Look:
        look = looked(workflow_id)
        if not world.state.jobs:
            world.stranger()
        return look

    context.client.look = look_then_lose  # type: ignore[method-assign]
    submit_now(context, [context.ledger.register(document)[0]])
    assert world.status(document) == "PENDING"
    assert "failures" not in world.row(document) or world.row(document)["failures"] == 0
    world.settle()
    assert world.accepted(document) == 1
    assert world.row(document)["job_id"] not in {job.id for job in world.state.jobs.values() if not job.ours}


def test_overwritten_object_is_a_new_row_and_the_old_one_superseded(world: World) -> None:
    old = world.upload("a.pdf", b"old")
    new = world.upload("a.pdf", b"new")
    world.deliver(new)
    world.deliver(old)  # out of order
    world.settle()
    assert (world.status(old), world.status(new)) == ("SUPERSEDED", "COMPLETED")
    assert world.accepted(new) == 1
    assert world.accepted(old) == 0


def test_same_bytes_uploaded_again_reopen_a_final_row_and_keep_its_history(world: World) -> None:
    first = world.upload("a.pdf", b"same")
    world.deliver(first)
    world.settle()
    job_id = world.row(first)["job_id"]
    again = world.upload("a.pdf", b"same")
    world.deliver(again)
    world.deliver(first)  # the old event once more
    world.settle()
    row = world.row(first)
    assert row["status"] == "COMPLETED"
    assert row["job_id"] != job_id
    assert [run["job_id"] for run in row["runs"]] == [job_id]
    assert world.accepted(first) == 2
    world.deliver(again)
    world.settle()
    assert world.accepted(first) == 2


def test_upload_after_a_backfill_runs_again_but_the_event_of_what_the_backfill_found_does_not(world: World) -> None:
    event = world.upload("a.pdf", b"same")
    before, after = (iso(world.clock.now() + timedelta(minutes=minutes)) for minutes in (-5, 5))
    world.deliver(replace(event, sequencer=None, uploaded_at=before))
    world.settle()
    world.deliver(replace(event, uploaded_at=before))  # late
    world.deliver(replace(event, sequencer=None, uploaded_at=after))  # another backfill
    world.settle()
    assert world.accepted(event) == 1
    again = replace(world.upload("a.pdf", b"same"), uploaded_at=after)
    world.deliver(again)
    world.deliver(again)
    world.settle()
    assert world.accepted(event) == 2
    assert len(world.row(event)["runs"]) == 1


def test_object_that_is_gone_is_rejected_and_its_neighbours_go_on(world: World) -> None:
    gone, here = world.upload("gone.pdf", b"g"), world.upload("here.pdf", b"h")
    world.s3.delete_object(Bucket=world.bucket, Key="gone.pdf")
    world.deliver(gone, here)
    row = world.row(gone)
    assert (row["status"], row["error"]["type"]) == ("REJECTED", "ObjectGone")
    world.settle()
    assert (world.status(here), world.accepted(here)) == ("COMPLETED", 1)


def test_no_key_yet_keeps_files_waiting_until_it_is_set(world: World) -> None:
    world.secrets.put_secret_value(SecretId=world.secret, SecretString=" ")
    document = world.upload("a.pdf", b"a")
    world.deliver(document)
    assert world.status(document) == "PENDING"
    error = world.workflow().last_error
    assert error is not None
    assert "put-secret-value --region us-east-1 --secret-id arn:" in error["message"]
    world.secrets.put_secret_value(SecretId=world.secret, SecretString='{"key": "local-key"}')
    world.tick(after_seconds=60)
    assert world.status(document) == "SCHEDULED"


@pytest.mark.parametrize(
    ("attributes", "status", "kind"),
    [
        ({"ending": "FAILED"}, "FAILED", "JobFailed"),
        ({"ending": "STOPPED"}, "STOPPED", "JobStopped"),
        ({"ending": "COMPLETED_WITH_ERRORS", "has_no_outputs": True}, "FAILED", "Unattributed"),
    ],
)
def test_job_that_calls_itself_completed_is_not_believed(
    world: World, attributes: dict[str, Any], status: str, kind: str
) -> None:
    document = world.upload("a.pdf", b"a")
    world.deliver(document)
    (job,) = world.state.jobs.values()
    for name, value in attributes.items():
        setattr(job, name, value)
    world.settle()
    row = world.row(document)
    assert (row["status"], row["error"]["type"]) == (status, kind)


def test_one_failed_file_of_a_run_fails_alone(world: World) -> None:
    good, bad = world.upload("good.pdf", b"g"), world.upload("bad.pdf", b"b")
    world.deliver(good, bad)
    (job,) = world.state.jobs.values()
    job.ending = "COMPLETED_WITH_ERRORS"
    job.failed = {world.row(bad)["upload_name"]: "page 3 cannot be read"}
    world.settle()
    assert world.status(good) == "COMPLETED"
    assert world.row(bad)["error"] == {"type": "FileFailed", "message": "page 3 cannot be read"}


def test_sqs_messages_fail_one_by_one(world: World, handler: Any) -> None:
    event = load_event("sqs-one-bad-message")
    answer = handler(event)
    assert answer == {"batchItemFailures": [{"itemIdentifier": event["Records"][1]["messageId"]}]}
    assert len(world.rows()) == 2


def test_event_that_comes_by_itself_raises_for_what_cannot_be_read_after_registering_the_rest(
    world: World, handler: Any
) -> None:
    with pytest.raises(UnreadableEvent, match="no bucket"):
        handler(load_event("s3-one-bad-record"))
    assert sorted(row["key"] for row in world.rows()) == ["good/after.pdf", "good/before.pdf"]


def test_results_never_become_work(world: World, handler: Any) -> None:
    world.configure(results_bucket=world.bucket, results_prefix="results/")
    result, document = world.upload("results/a.json", b"[]"), world.upload("a.pdf", b"a")
    handler(s3_event(result, document))
    assert [row["key"] for row in world.rows()] == ["a.pdf"]


def test_every_type_of_bytes_arrives_unchanged(world: World) -> None:
    contents = [b"", b"\r\n--", b"\x00" * 3_000_000, bytes(range(256)) * 9_000]
    documents = [world.upload(f"{number}.bin", content) for number, content in enumerate(contents)]
    world.deliver(*documents)
    (job,) = world.state.jobs.values()
    received = {file.filename: file.sha256 for file in job.files}
    for document, content in zip(documents, contents, strict=True):
        assert received[world.row(document)["upload_name"]] == hashlib.sha256(content).hexdigest()
