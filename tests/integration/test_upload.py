"""What the product is for, and what it does in ordinary life."""

import gzip
import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from local.fake_platform.state import Fault
from tests.conftest import load_event
from tests.integration.harness import Harness
from workflow_trigger import handlers
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import ObjectVersion, Selection
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
def handler(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Any:
    """on_upload over the harness's adapters."""
    monkeypatch.setattr(handlers, "context_of", lambda _invocation: harness.context())
    return lambda event: handlers.on_upload(event, Context())


def s3_event(*versions: ObjectVersion) -> dict[str, Any]:
    records = []
    for version in versions:
        (record,) = load_event("s3-put")["Records"]
        record["s3"]["bucket"]["name"] = version.bucket
        record["s3"]["object"] = {"key": version.key, "eTag": version.etag, "sequencer": version.sequencer, "size": 1}
        records.append(record)
    return {"Records": records}


def test_s3_event_downloads_object_posts_it_and_writes_job_information(harness: Harness, handler: Any) -> None:
    document = harness.upload("minutes/sample.pdf", b"%PDF-1.7 a document")

    answer = handler(s3_event(document))

    (job,) = harness.state.jobs.values()
    (file,) = job.files
    assert file.path.read_bytes() == b"%PDF-1.7 a document"
    assert file.content_type == "application/pdf"
    (row,) = answer["rows"]
    assert row["job_id"] == job.id
    assert row["status"] == row["job_status"] == "SCHEDULED"
    posted = harness.state.information(job, posted=True, files=True)
    for name in ("workflow_id", "workflow_name", "created_at", "job_type", "input_file_ids", "output_node_files"):
        assert row[name] == posted[name], name
    assert row["input_file_id"] == file.file_id
    assert row["upload_name"] == file.filename


def test_job_is_followed_to_its_end_without_losing_what_get_leaves_out(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    first = harness.row(document)
    harness.tick(after_seconds=10)
    assert harness.status(document) == "IN_PROGRESS"
    harness.tick(after_seconds=20)
    row = harness.row(document)
    assert row["status"] == row["job_status"] == "COMPLETED"
    for name in ("input_file_ids", "output_node_files", "created_at", "job_id", "workflow_name"):
        assert row[name] == first[name], name
    assert row["expires_at"] > harness.clock.epoch_seconds()
    assert "eligible_at" not in row
    assert harness.workflow().phase == "idle"


def test_several_records_travel_in_one_run(harness: Harness) -> None:
    documents = [harness.upload(f"{number}.pdf", bytes([number]) * 1000) for number in range(12)]
    harness.deliver(*documents)
    (job,) = harness.state.jobs.values()
    assert len(job.files) == 10
    assert [harness.status(each) for each in documents].count("SCHEDULED") == 10
    for document in documents[:10]:
        row = harness.row(document)
        assert row["input_file_ids"] == [row["input_file_id"]]
        assert {node["file_id"] for node in row["output_node_files"]} == {row["input_file_id"]}
    harness.settle()
    assert [harness.accepted(each) for each in documents] == [1] * 12
    assert len(harness.state.jobs) == 2


def test_second_event_for_same_version_does_not_post_again(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    for _ in range(3):
        harness.deliver(document)
    harness.settle()
    harness.deliver(document)
    harness.settle()
    assert harness.accepted(document) == 1
    assert len(harness.rows()) == 1


def test_busy_is_a_202_and_the_rows_wait(harness: Harness) -> None:
    first, second = harness.upload("1.pdf", b"1"), harness.upload("2.pdf", b"2")
    harness.deliver(first)
    harness.deliver(second)
    assert harness.status(second) == "PENDING"
    harness.settle()
    assert (harness.accepted(first), harness.accepted(second)) == (1, 1)


def test_foreign_job_that_comes_between_look_and_post_drops_nothing(harness: Harness) -> None:
    document = harness.upload("a.pdf", b"a")
    context = harness.context()
    looked = context.client.look

    def look_then_lose(workflow_id: str) -> Look:
        look = looked(workflow_id)
        if not harness.state.jobs:
            harness.foreign_job()
        return look

    context.client.look = look_then_lose  # type: ignore[method-assign]
    submit_now(context, [context.ledger.register(document)[0]])
    assert harness.status(document) == "PENDING"
    assert "failures" not in harness.row(document) or harness.row(document)["failures"] == 0
    harness.settle()
    assert harness.accepted(document) == 1
    assert harness.row(document)["job_id"] not in {job.id for job in harness.state.jobs.values() if not job.ours}


def test_overwritten_object_is_a_new_row_and_the_old_one_superseded(harness: Harness) -> None:
    old = harness.upload("a.pdf", b"old")
    new = harness.upload("a.pdf", b"new")
    harness.deliver(new)
    harness.deliver(old)  # out of order
    harness.settle()
    assert (harness.status(old), harness.status(new)) == ("SUPERSEDED", "COMPLETED")
    assert harness.accepted(new) == 1
    assert harness.accepted(old) == 0


def test_same_bytes_uploaded_again_reopen_a_final_row_and_keep_its_history(harness: Harness) -> None:
    first = harness.upload("a.pdf", b"same")
    harness.deliver(first)
    harness.settle()
    job_id = harness.row(first)["job_id"]
    again = harness.upload("a.pdf", b"same")
    harness.deliver(again)
    harness.deliver(first)  # the old event once more
    harness.settle()
    row = harness.row(first)
    assert row["status"] == "COMPLETED"
    assert row["job_id"] != job_id
    assert [run["job_id"] for run in row["runs"]] == [job_id]
    assert harness.accepted(first) == 2
    harness.deliver(again)
    harness.settle()
    assert harness.accepted(first) == 2


def test_upload_after_a_backfill_runs_again_but_a_late_event_does_not(harness: Harness) -> None:
    event = harness.upload("a.pdf", b"same")
    before, after = (iso(harness.clock.now() + timedelta(minutes=minutes)) for minutes in (-5, 5))
    harness.deliver(replace(event, sequencer=None, uploaded_at=before))
    harness.settle()
    harness.deliver(replace(event, uploaded_at=before))  # late
    harness.deliver(replace(event, sequencer=None, uploaded_at=after))  # another backfill
    harness.settle()
    assert harness.accepted(event) == 1
    again = replace(harness.upload("a.pdf", b"same"), uploaded_at=after)
    harness.deliver(again)
    harness.deliver(again)
    harness.settle()
    assert harness.accepted(event) == 2
    assert len(harness.row(event)["runs"]) == 1


def test_object_that_is_gone_is_rejected_and_its_neighbours_go_on(harness: Harness) -> None:
    gone, here = harness.upload("gone.pdf", b"g"), harness.upload("here.pdf", b"h")
    harness.s3.delete_object(Bucket=harness.bucket, Key="gone.pdf")
    harness.deliver(gone, here)
    row = harness.row(gone)
    assert (row["status"], row["error"]["type"]) == ("REJECTED", "ObjectGone")
    harness.settle()
    assert (harness.status(here), harness.accepted(here)) == ("COMPLETED", 1)


def test_no_key_yet_keeps_files_waiting_until_it_is_set(harness: Harness) -> None:
    harness.secrets.put_secret_value(SecretId=harness.secret, SecretString=" ")
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    assert harness.status(document) == "PENDING"
    error = harness.workflow().last_error
    assert error is not None
    assert "put-secret-value --region us-east-1 --secret-id arn:" in error["message"]
    harness.secrets.put_secret_value(SecretId=harness.secret, SecretString='{"key": "local-key"}')
    harness.tick(after_seconds=60)
    assert harness.status(document) == "SCHEDULED"


@pytest.mark.parametrize(
    ("attributes", "status", "kind"),
    [
        ({"ending": "FAILED"}, "FAILED", "JobFailed"),
        ({"ending": "STOPPED"}, "STOPPED", "JobStopped"),
        ({"ending": "COMPLETED_WITH_ERRORS", "has_no_outputs": True}, "FAILED", "Unattributed"),
    ],
)
def test_job_that_calls_itself_completed_is_not_believed(
    harness: Harness, attributes: dict[str, Any], status: str, kind: str
) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    (job,) = harness.state.jobs.values()
    for name, value in attributes.items():
        setattr(job, name, value)
    harness.settle()
    row = harness.row(document)
    assert (row["status"], row["error"]["type"]) == (status, kind)


def test_one_failed_file_of_a_run_fails_alone(harness: Harness) -> None:
    good, bad = harness.upload("good.pdf", b"g"), harness.upload("bad.pdf", b"b")
    harness.deliver(good, bad)
    (job,) = harness.state.jobs.values()
    job.ending = "COMPLETED_WITH_ERRORS"
    job.failed = {harness.row(bad)["upload_name"]: "page 3 cannot be read"}
    harness.settle()
    assert harness.status(good) == "COMPLETED"
    assert harness.row(bad)["error"] == {"type": "FileFailed", "message": "page 3 cannot be read"}


def test_sqs_messages_fail_one_by_one(harness: Harness, handler: Any) -> None:
    event = load_event("sqs-one-bad-message")
    answer = handler(event)
    assert answer == {"batchItemFailures": [{"itemIdentifier": event["Records"][1]["messageId"]}]}
    assert len(harness.rows()) == 2


def test_event_without_an_envelope_registers_what_it_can_then_raises(harness: Harness, handler: Any) -> None:
    with pytest.raises(UnreadableEvent, match="no bucket"):
        handler(load_event("s3-one-bad-record"))
    assert sorted(row["key"] for row in harness.rows()) == ["good/after.pdf", "good/before.pdf"]


def test_results_never_become_work(harness: Harness, handler: Any) -> None:
    harness.configure(results_bucket=harness.bucket, results_prefix="results/")
    result, document = harness.upload("results/a.json", b"[]"), harness.upload("a.pdf", b"a")
    handler(s3_event(result, document))
    assert [row["key"] for row in harness.rows()] == ["a.pdf"]


def test_every_type_of_bytes_arrives_unchanged(harness: Harness) -> None:
    contents = [b"", b"\r\n--", b"\x00" * 3_000_000, bytes(range(256)) * 9_000]
    documents = [harness.upload(f"{number}.bin", content) for number, content in enumerate(contents)]
    harness.deliver(*documents)
    (job,) = harness.state.jobs.values()
    received = {file.filename: file.sha256 for file in job.files}
    for document, content in zip(documents, contents, strict=True):
        assert received[harness.row(document)["upload_name"]] == hashlib.sha256(content).hexdigest()


def test_what_is_not_wanted_is_skipped_on_record_and_costs_no_run(harness: Harness, handler: Any) -> None:
    harness.configure(selection=Selection(exclude=("tmp/*",)))
    wanted, marker, empty = harness.upload("a.pdf", b"a"), harness.upload("x/", b""), harness.upload("empty.pdf", b"")
    excluded = harness.upload("tmp/b.pdf", b"b")
    event = s3_event(wanted, marker, empty, excluded)
    for record, version in zip(event["Records"], (wanted, marker, empty, excluded), strict=True):
        record["s3"]["object"]["size"] = version.size_bytes
    rows = {row["key"]: row for row in handler(event)["rows"]}
    assert [rows[key]["status"] for key in ("x/", "empty.pdf", "tmp/b.pdf")] == ["SKIPPED"] * 3
    assert rows["tmp/b.pdf"]["error"] == {"type": "Skipped", "message": "matches one of ExcludePatterns"}
    assert all("eligible_at" not in rows[key] and "expires_at" in rows[key] for key in ("x/", "empty.pdf"))
    assert len(harness.state.jobs) == 1
    handler(event)  # a duplicate changes nothing
    harness.configure(selection=Selection())
    handler(event)  # nor does the same event under other parameters
    assert harness.status(excluded) == "SKIPPED"
    harness.configure(selection=Selection(exclude=("tmp/*",)), records_skipped=False)
    unrecorded = harness.upload("tmp/c.pdf", b"c")
    assert handler(s3_event(unrecorded)) == {"rows": []}
    assert harness.status_or_none(unrecorded) is None


def test_object_that_is_stored_encoded_is_sent_as_what_it_is(harness: Harness, handler: Any) -> None:
    """Case 29."""
    content = gzip.compress(b"%PDF-1.7 a document")
    document = harness.upload("a.pdf", content, ContentType="application/pdf", ContentEncoding="gzip")
    handler(s3_event(document))
    (job,) = harness.state.jobs.values()
    (file,) = job.files
    assert (file.content_type, file.path.read_bytes()) == ("application/gzip", content)
    assert file.filename.endswith(".pdf.gz")
    harness.settle()
    row = harness.row(document)
    assert (row["status"], row["upload_name"]) == ("COMPLETED", file.filename)
    assert row["input_file_id"] == file.file_id


def test_workflow_may_be_named_by_its_key(harness: Harness) -> None:
    """Cases 35 and 36: the ledger knows ids alone, and a key and an id of the same workflow are one."""
    workflow_id = harness.settings.workflow_ids[0]
    harness.state.behaviour.workflow_keys["invoice-processing-v2"] = workflow_id
    harness.state.behaviour.known_workflows = [workflow_id]
    harness.configure(workflow_ids=("invoice-processing-v2", workflow_id.upper(), "no-such-workflow"))
    context = harness.context()
    assert [each.workflow_id for each in context.snapshot().workflows] == [workflow_id]
    assert context.is_pool_complete, "a key that nobody knows is no workflow"
    assert harness.counts["Held"] == 1
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.settle()
    assert (harness.status(document), harness.row(document)["workflow_id"]) == ("COMPLETED", workflow_id)


def test_workflow_that_was_made_anew_under_its_key_is_found(harness: Harness) -> None:
    old, new = harness.settings.workflow_ids[0], "00000000-0000-4000-8000-000000000000"
    harness.state.behaviour.workflow_keys["uploads-1"] = old
    harness.state.behaviour.known_workflows = [old]
    harness.configure(workflow_ids=("uploads-1",))
    first = harness.upload("a.pdf", b"a")
    harness.deliver(first)
    harness.settle()
    harness.state.behaviour.workflow_keys["uploads-1"] = new
    harness.state.behaviour.known_workflows = [new]
    second = harness.upload("b.pdf", b"b")
    harness.deliver(second)
    harness.settle()
    assert [harness.row(each)["workflow_id"] for each in (first, second)] == [old, new]
    assert [harness.status(each) for each in (first, second)] == ["COMPLETED", "COMPLETED"]


def test_key_that_nobody_knows_is_written_down_until_it_is_corrected(harness: Harness) -> None:
    """Nothing else would tell: the documents wait, and there is no workflow that could show an error."""
    workflow_id = harness.settings.workflow_ids[0]
    harness.state.behaviour.known_workflows = [workflow_id]
    harness.configure(workflow_ids=("uplods-1",))
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.tick(after_seconds=60)
    assert harness.status(document) == "PENDING"
    assert harness.ledger().snapshot([]).poller.unresolved == "uplods-1: HTTP 404: Not Found"
    harness.state.behaviour.workflow_keys["uplods-1"] = workflow_id
    harness.settle()
    assert harness.status(document) == "COMPLETED"
    assert harness.ledger().snapshot([]).poller.unresolved is None


def test_key_that_cannot_be_resolved_takes_no_workflow_out_of_the_pool(harness: Harness) -> None:
    workflow_id = harness.settings.workflow_ids[0]
    harness.state.behaviour.workflow_keys["key-behind-an-outage"] = workflow_id
    harness.state.faults.append(Fault("run", "drop"))
    lost = harness.upload("a.pdf", b"a")
    harness.deliver(lost)
    harness.configure(workflow_ids=("key-behind-an-outage",))
    harness.api_key.invalidate()
    harness.secrets.put_secret_value(SecretId=harness.secret, SecretString="a-wrong-key")
    context = harness.context()
    context.snapshot()
    assert not context.is_pool_complete
    assert context.is_in_pool(workflow_id)
    harness.tick(after_seconds=150)
    assert harness.status(lost) == "SUBMITTING", "nothing is let go because the key is wrong"
    harness.api_key.invalidate()
    harness.secrets.put_secret_value(SecretId=harness.secret, SecretString=harness.state.behaviour.api_key)
    harness.settle()
    assert (harness.status(lost), harness.accepted(lost)) == ("COMPLETED", 1)
