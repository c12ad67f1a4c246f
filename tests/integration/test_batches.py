"""Batches: documents that are followed together are counted once for each run, whatever happens on the way."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from boto3.dynamodb.conditions import Key

from tests.integration.commands import command
from tests.integration.conftest import DeployedHarness
from tests.integration.deployed import rows_under, until, upload, url_of
from tests.integration.harness import Harness
from tests.published import FOLDER, KINDS, check, schema
from workflow_trigger.adapters.dynamodb.mapping import batch_key
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import Lane, ObjectVersion
from workflow_trigger.domain.model import ALL_ROUTES, FINAL, Batch, Pause, Status
from workflow_trigger.services import recover

STATUS_CHANGED, BATCH_FINISHED = KINDS


def in_batch(harness: Harness, number: int, name: str = "june") -> list[ObjectVersion]:
    return [replace(harness.upload(f"{each}.pdf", b"%d" % each), batch=name) for each in range(number)]


def told(harness: Harness) -> list[dict[str, Any]]:
    return [detail for kind, detail in harness.events.details if kind == BATCH_FINISHED]


def let_pass(harness: Harness, minutes: int = 3) -> None:
    for _ in range(minutes):
        harness.tick(after_seconds=61)


def test_finished_batch_is_told_once_and_again_when_more_join_it(harness: Harness) -> None:
    documents = in_batch(harness, 12)
    harness.deliver(*documents)
    assert harness.ledger().batch("june") == Batch(name="june", registered=12)
    harness.settle()
    let_pass(harness)
    batch = harness.ledger().batch("june")
    assert batch is not None
    assert (batch.registered, batch.finished, batch.finished_at is not None) == (12, 12, True)
    assert told(harness) == [{"schema_version": 1, "stack": "test", "batch": "june", "documents": 12}]
    harness.deliver(*documents)  # duplicates of their events
    let_pass(harness)
    assert len(told(harness)) == 1
    harness.deliver(replace(harness.upload("more.pdf", b"more"), batch="june"))
    item = harness.ledger().item(batch_key("june")) or {}
    assert not {"finished_at", "expires_at"} & set(item), "it is on its way again"
    harness.settle()
    let_pass(harness)
    assert [each["documents"] for each in told(harness)] == [12, 13]


def test_batches_that_wait_hide_none_that_is_finished(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than a run reads."""
    monkeypatch.setattr("workflow_trigger.adapters.dynamodb.ledger._BATCH_PAGES", 1)
    for number in range(120):
        harness.deliver(replace(harness.upload(f"{number}.pdf", b"%d" % number), batch=f"batch-{number}"), submit=False)
    harness.settle(until=lambda: bool(harness.rows(Status.COMPLETED)), minutes=30)
    assert harness.ledger().pause(Pause(route=ALL_ROUTES, reason="a test", since=iso(harness.clock.now())))
    let_pass(harness)
    assert len(told(harness)) == len(harness.rows(Status.COMPLETED)) < 120


def test_batches_that_are_half_done_hide_none_that_is_finished(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflow_trigger.adapters.dynamodb.ledger._BATCH_PAGES", 1)
    ledger = harness.ledger()
    assert ledger.pause(Pause(route=ALL_ROUTES, reason="a test", since=iso(harness.clock.now())))
    for number in range(120):
        pair = [harness.upload(f"{number}-{each}.pdf", b"%d-%d" % (number, each)) for each in range(2)]
        harness.deliver(*(replace(each, batch=f"batch-{number}") for each in pair), submit=False)
        assert ledger.cancel(harness.row(pair[0]), "a test")
    harness.tick(after_seconds=60)
    harness.tick(after_seconds=60)
    last = replace(harness.upload("last.pdf", b"last"), batch="last")
    harness.deliver(last, submit=False)
    assert ledger.cancel(harness.row(last), "a test")
    let_pass(harness, 5)
    assert [each["batch"] for each in told(harness)] == ["last"]


def test_batches_that_never_finish_hide_no_other(harness: Harness) -> None:
    ledger = harness.ledger()
    assert ledger.pause(Pause(route=ALL_ROUTES, reason="a test", since=iso(harness.clock.now())))
    for each in in_batch(harness, 120):
        ledger.register(replace(each, batch=f"stuck-{each.key}"))
    harness.clock.sleep(60)
    document = replace(harness.upload("late.pdf", b"late"), batch="june")
    ledger.register(document)
    assert ledger.cancel(harness.row(document), "a test")
    let_pass(harness)
    assert [each["batch"] for each in told(harness)] == ["june"]


def test_metadata_of_an_upload_name_its_batch(harness: Harness) -> None:
    version = harness.upload("a.pdf", b"1", Metadata={"batch": "june", "case": "17"})
    harness.deliver(version)
    harness.settle()
    let_pass(harness)
    assert (harness.row(version)["batch"], harness.row(version)["metadata"]["case"]) == ("june", "17")
    assert [each["documents"] for each in told(harness)] == [1]


@pytest.mark.parametrize("name", ["", " ", "x" * 201])
def test_what_cannot_be_a_name_makes_no_batch(harness: Harness, name: str) -> None:
    version = harness.upload("a.pdf", b"1", Metadata={"batch": name})
    harness.deliver(version)
    harness.settle()
    assert "batch" not in harness.row(version)


@pytest.mark.parametrize("is_published", [True, False])
def test_document_that_runs_again_counts_again_once_its_end_was(harness: Harness, is_published: bool) -> None:
    harness.events.refuses = not is_published
    (document,) = in_batch(harness, 1)
    harness.deliver(document)
    harness.settle()
    assert harness.ledger().reopen(harness.row(document))
    harness.events.refuses = False
    harness.settle()
    let_pass(harness)
    batch = harness.ledger().batch("june")
    assert batch is not None
    assert (batch.registered, batch.finished) == ((2, 2) if is_published else (1, 1))


def test_upload_of_the_same_bytes_is_in_the_batch_that_it_names(harness: Harness) -> None:
    for name in ("june", "july", None):
        document = harness.upload("a.pdf", b"1", Metadata={"batch": name} if name else {})
        harness.deliver(document)
        harness.settle()
        let_pass(harness)
        assert harness.row(document).get("batch") == name
    batches = [harness.ledger().batch(name) for name in ("june", "july")]
    assert [each and (each.registered, each.finished) for each in batches] == [(1, 1), (1, 1)]
    assert [detail["batch"] for detail in told(harness)] == ["june", "july"]


@pytest.mark.parametrize("has_ended", [False, True])
def test_backfill_names_a_document_whose_own_event_came_first(harness: Harness, has_ended: bool) -> None:
    document = harness.upload("a.pdf", b"1")
    harness.deliver(document)
    if has_ended:
        harness.settle()
    harness.deliver(replace(document, sequencer=None, lane=Lane.BULK, batch="june"), submit=False)
    harness.settle()
    let_pass(harness)
    found = harness.ledger().batch("june")
    assert (found and (found.registered, found.finished)) == (None if has_ended else (1, 1))
    assert harness.row(document).get("batch") == (None if has_ended else "june")


def test_retry_while_the_end_is_being_published_is_refused(harness: Harness) -> None:
    """The row that the retry has read says that its end was not counted; by now it was."""
    harness.events.refuses = True
    (document,) = in_batch(harness, 1)
    harness.deliver(document)
    harness.settle()
    seen = harness.row(document)
    harness.events.refuses = False
    harness.tick()
    assert not harness.ledger().reopen(seen)
    assert harness.ledger().reopen(harness.row(document))
    assert harness.ledger().batch("june") == Batch(name="june", registered=2, finished=1)


def test_events_that_wait_are_published_in_one_run(harness: Harness) -> None:
    harness.events.refuses = True
    ledger = harness.ledger()
    for each in in_batch(harness, 120):
        ledger.register(each)
        assert ledger.cancel(harness.row(each), "a test")
    harness.events.refuses = False
    harness.tick()
    assert ledger.batch("june") == Batch(name="june", registered=120, finished=120)


def test_document_that_two_invocations_publish_counts_once(harness: Harness) -> None:
    harness.events.refuses = True
    documents = in_batch(harness, 2)
    harness.deliver(*documents)
    harness.settle()
    ledger = harness.ledger()
    both = [ledger.unpublished([each.document_key for each in documents]) for _ in range(2)]
    assert [len(rows) for rows in both] == [2, 2]
    for rows in both:
        ledger.mark_published(rows)
    assert ledger.batch("june") == Batch(name="june", registered=2, finished=2)


def test_skipped_document_is_not_waited_for(harness: Harness) -> None:
    version = replace(harness.upload("a.pdf", b"1"), batch="june")
    harness.ledger().register(version, skipped="not wanted")
    assert harness.ledger().batch("june") is None
    assert harness.row(version)["batch"] == "june"


def test_batch_that_is_on_its_way_is_not_told(harness: Harness) -> None:
    harness.state.behaviour.default_job_seconds = 600
    harness.deliver(*in_batch(harness, 2))
    let_pass(harness)
    assert told(harness) == []


def test_every_final_status_has_an_example_of_its_event() -> None:
    examples = [json.loads(path.read_text()) for path in FOLDER.glob("*.json") if ".schema." not in path.name]
    for event in examples:
        check(event["detail-type"], event["detail"])
    told = {event["detail"]["status"] for event in examples if event["detail-type"] == STATUS_CHANGED}
    assert told == set(schema(STATUS_CHANGED)["properties"]["status"]["enum"]) == FINAL - {Status.SKIPPED}
    assert BATCH_FINISHED in {event["detail-type"] for event in examples}


def test_event_of_a_document_has_the_fields_of_its_example(harness: Harness) -> None:
    version = replace(harness.upload("a.pdf", b"1", Metadata={"tenant": "acme"}), uploaded_at="2026-11-26T11:36:41Z")
    harness.deliver(version)
    harness.settle()
    (told,) = [detail for kind, detail in harness.events.details if kind == STATUS_CHANGED]
    example = json.loads((FOLDER / "completed.json").read_text())["detail"]
    assert set(example) - {"results"} == set(told)


# -- the commands ------------------------------------------------------------------------------------------------------


def test_backfill_wait_and_fetch_a_batch_as_commands(deployed: DeployedHarness, tmp_path: Path) -> None:
    stack, state = deployed.stack, deployed.state
    stack.set_key(state.behaviour.api_key)
    stack.aws.client("sqs").purge_queue(QueueUrl=stack["UploadQueueUrl"])
    command(stack, "pause", "--reason", "so that the batch is seen while it waits")
    try:
        upload(stack, ["batch/a b.pdf", "batch/../c.pdf", "batch/d.pdf"])
        until(lambda: len(rows_under(stack, "batch/")) == 3)
        client = stack.aws.client("dynamodb")
        for row in rows_under(stack, "batch/").values():  # as if nobody had been listening
            client.delete_item(
                TableName=stack["LedgerTable"], Key={"object": {"S": row["object"]}, "version": {"S": row["version"]}}
            )
        sent = command(stack, "backfill", url_of(stack, "batch/"), "--batch", "june", "--yes", "--json")
        assert (sent.code, sent.json["sent"]) == (0, 3)
        until(lambda: len(rows_under(stack, "batch/")) == 3)
        shown = command(stack, "status", "--batch", "june", "--json")
        assert (shown.code, shown.json["registered"], shown.json["rows"]["PENDING"]) == (0, 3, 3)
        late = command(stack, "wait", "--batch", "june", "--documents", "3", "--timeout", "1s")
        assert (late.code, "0 of 3" in late.err) == (3, True)
    finally:
        command(stack, "resume")
    done = command(stack, "wait", "--batch", "june", "--documents", "3", "--json")
    assert (done.code, done.json["finished"], done.json["rows"]["COMPLETED"]) == (0, 3, 3), done.err
    fetched = command(stack, "fetch", "--batch", "june", "--to", str(tmp_path / "out"), "--json")
    assert fetched.code == 0, fetched.err
    assert fetched.json["stored"] == 6
    names = sorted(path.relative_to(tmp_path / "out") for path in tmp_path.rglob("*.json"))
    assert len(names) == 6
    assert {name.name.partition(".pdf.")[0] for name in names} == {"a b", "c", "d"}
    assert {name.parts[0] for name in names} == {"batch"}
    again = command(stack, "fetch", "--batch", "june", "--to", str(tmp_path / "out"), "--json")
    assert (again.json["stored"], again.json["already_there"], again.json["gone"], again.code) == (0, 6, 0, 0)
    entry = rows_under(stack, "batch/")["batch/d.pdf"]["results"][0]
    stack.aws.client("s3").delete_object(Bucket=entry["bucket"], Key=entry["key"])
    partly = command(stack, "fetch", "--batch", "june", "--to", str(tmp_path / "partly"), "--json")
    assert (partly.json["stored"], partly.json["gone"], partly.code) == (5, 1, 1)
    assert "batch/d.pdf" in partly.err
    unknown = command(stack, "status", "--batch", "never")
    assert (unknown.code, "metadata" in unknown.err) == (3, True)
    waited = command(stack, "wait", "--batch", "never")  # and no document waits that may be of it
    assert (waited.code, "metadata" in waited.err) == (3, True)
    assert (
        command(stack, "retry", "--batch", "june", "--status", "COMPLETED", "--dry-run", "--json").json["selected"] == 3
    )


def test_batch_whose_documents_0_2_0_ended_after_a_rollback_is_finished(harness: Harness) -> None:
    documents = [replace(harness.upload(f"{number}.pdf", b"%d" % number), batch="june") for number in range(3)]
    harness.deliver(*documents, submit=False)
    for each in documents[:2]:
        harness.end_as_0_2_0(each, iso(harness.clock.now()))
    harness.settle()
    for _ in range(3):
        harness.tick(after_seconds=61)
    assert len(told(harness)) == 1


def test_late_index_counts_no_document_of_0_2_0_twice(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows a final row in its queue again, whose event has been published by then."""
    documents = [replace(harness.upload(f"{number}.pdf", b"%d" % number), batch="june") for number in range(2)]
    harness.deliver(*documents, submit=False)
    harness.end_as_0_2_0(documents[0], iso(harness.clock.now()))
    context = harness.context()
    ledger = context.ledger
    shown = list(ledger._rows.pages("queues", Key("queue").eq("fresh"), Limit=7))
    ledger.ready_in(Lane.FRESH, "", 7)
    recover.publish_late_events(context)
    with monkeypatch.context() as late:
        late.setattr(ledger._rows, "pages", lambda *_, **__: iter(shown))
        ledger.ready_in(Lane.FRESH, "", 7)
    recover.publish_late_events(context)
    assert ledger.batch("june") == Batch(name="june", registered=2, finished=1)
