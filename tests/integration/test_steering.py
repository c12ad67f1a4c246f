"""Pause and resume, cancel, forget: what an operator steers, while everything else goes on."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.integration.commands import command
from tests.integration.conftest import DeployedHarness
from tests.integration.deployed import rows_under, run_to_the_end, until, upload, url_of
from tests.integration.harness import Harness
from workflow_trigger.domain.model import ALL_ROUTES, FINAL, Pause, Transition, Workflow
from workflow_trigger.settings import routes_in
from workflow_trigger_cli.commands import forget
from workflow_trigger_cli.errors import CommandError
from workflow_trigger_cli.stack import Stack


def paused(harness: Harness, route: str = ALL_ROUTES) -> Pause:
    pause = Pause(route=route, reason="a migration", since=harness.context().iso_later())
    assert harness.ledger().pause(pause)
    return pause


# -- pause and resume --------------------------------------------------------------------------------------------------


def test_pause_begins_nothing_and_follows_what_runs(harness: Harness) -> None:
    running = harness.upload("running.pdf", b"1")
    harness.deliver(running)
    pause = paused(harness)
    waiting = harness.upload("waiting.pdf", b"2")
    harness.deliver(waiting)
    harness.settle(until=lambda: harness.status(running) == "COMPLETED")
    harness.tick(after_seconds=3_600, window_seconds=30)
    assert (harness.status(waiting), harness.accepted(waiting)) == ("PENDING", 0)
    measured = harness.gauges()[""]
    assert measured["PausedSeconds"] > 3_600
    assert measured["OldestWaitingSeconds"] > 3_600
    assert measured["IdleWaitingSeconds"] == 0  # a pause is no fault
    assert harness.ledger().resume(pause)
    harness.settle()
    assert (harness.status(waiting), harness.accepted(waiting)) == ("COMPLETED", 1)
    assert "PausedSeconds" not in harness.gauges()[""]


def test_pause_of_a_route_holds_no_other(harness: Harness) -> None:
    other = harness.grow_pool(2)[1]
    harness.configure(workflow_ids=harness.settings.workflow_ids[:1], routes=routes_in(f"legal/:{other}"))
    paused(harness, "legal/")
    held, free = harness.upload("legal/a.pdf", b"1"), harness.upload("b.pdf", b"2")
    harness.ledger().register(held, route="legal/")
    harness.deliver(free)
    harness.settle(until=lambda: harness.status(free) == "COMPLETED")
    harness.tick(after_seconds=600, window_seconds=30)
    assert (harness.status(held), harness.accepted(held)) == ("PENDING", 0)


def test_first_reason_of_a_pause_stays(harness: Harness) -> None:
    first = paused(harness)
    assert not harness.ledger().pause(Pause(route=ALL_ROUTES, reason="another", since="2026-01-01T00:00:00.000000Z"))
    assert harness.ledger().snapshot([]).pauses == (first,)
    assert harness.ledger().resume(first)
    assert not harness.ledger().resume(first)


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_cancelled_document_never_runs_and_can_be_retried(harness: Harness) -> None:
    version = harness.upload("a.pdf", b"1")
    harness.deliver(version, submit=False)
    assert harness.ledger().cancel(harness.row(version), "not wanted after all")
    harness.tick(window_seconds=30)
    row = harness.row(version)
    assert (row["status"], row["error"]["type"], row["error"]["message"]) == (
        "STOPPED",
        "Cancelled",
        "not wanted after all",
    )
    assert ("expires_at" in row, "eligible_at" in row) == (True, False)
    harness.deliver(version)  # a duplicate of its event
    assert (harness.status(version), harness.accepted(version)) == ("STOPPED", 0)
    assert harness.ledger().reopen(harness.row(version))
    harness.settle()
    assert (harness.status(version), harness.accepted(version)) == ("COMPLETED", 1)


def test_of_a_cancellation_and_a_claim_one_wins(harness: Harness) -> None:
    version = harness.upload("a.pdf", b"1")
    harness.deliver(version, submit=False)
    seen = harness.row(version)
    harness.tick()  # claimed, after the operator had looked
    assert not harness.ledger().cancel(seen, "too late")
    harness.settle()
    assert (harness.status(version), harness.accepted(version)) == ("COMPLETED", 1)


# -- forget ------------------------------------------------------------------------------------------------------------

KEPT = {"object", "version", "bucket", "key", "etag", "size", "status", "registered_at", "updated_at", "forgotten_at"}
KEPT |= {"sequencer", "expires_at", "failures", "job_id", "workflow_id", "created_at"}


def completed(harness: Harness, **more: Any) -> Any:
    version = harness.upload("a.pdf", b"1", **more)
    harness.deliver(version)
    harness.settle()
    harness.tick()  # publishes
    return version


def test_forgotten_row_names_the_version_and_its_jobs_alone(harness: Harness) -> None:
    version = completed(harness, Metadata={"patient": "Jane Doe"})
    before = harness.row(version)
    assert before["metadata"] == {"patient": "Jane Doe"}
    assert harness.ledger().forget(before)
    row = harness.row(version)
    assert set(row) == KEPT
    assert {name: row[name] for name in ("status", "job_id", "registered_at", "expires_at")} == {
        name: before[name] for name in ("status", "job_id", "registered_at", "expires_at")
    }
    harness.deliver(version)  # a late duplicate
    harness.tick(window_seconds=30)
    assert (harness.row(version), harness.accepted(version)) == (row, 1)


def test_forgotten_object_that_is_uploaded_again_runs_again(harness: Harness) -> None:
    version = completed(harness)
    assert harness.ledger().forget(harness.row(version))
    again = harness.upload("a.pdf", b"1")
    harness.deliver(again)
    harness.settle()
    assert ("forgotten_at" in harness.row(again), harness.accepted(again)) == (False, 2)


def test_row_that_changed_meanwhile_is_not_forgotten(harness: Harness) -> None:
    version = completed(harness)
    seen = harness.row(version)
    assert harness.ledger().reopen(seen)
    assert not harness.ledger().forget(seen)
    harness.settle()
    assert harness.status(version) == "COMPLETED"


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.fixture
def stack(deployed: DeployedHarness) -> Any:
    deployed.stack.set_key(deployed.state.behaviour.api_key)
    return deployed.stack


def test_pause_cancel_resume_and_retry_as_commands(deployed: DeployedHarness, stack: Any) -> None:
    assert command(stack, "pause").code == 2  # a reason is needed
    assert command(stack, "pause", "--reason", "prices", "--route", "none/").code == 2
    assert command(stack, "pause", "--reason", "prices").code == 0
    try:
        assert "prices" in command(stack, "pause", "--reason", "others").out
        upload(stack, [f"steer/{number}.pdf" for number in range(3)])
        until(lambda: len(rows_under(stack, "steer/")) == 3)
        shown = command(stack, "status")
        assert "all routes paused" in shown.out
        assert "prices" in shown.out
        assert command(stack, "status", "--json").json["pauses"][0]["reason"] == "prices"
        assert "resume" in command(stack, "doctor").out
        prefix = url_of(stack, "steer/")
        asked = command(stack, "cancel", "--prefix", prefix)
        assert (asked.code, "--yes" in asked.err) == (3, True)
        counted = command(stack, "cancel", "--prefix", prefix, "--dry-run", "--json")
        assert counted.json == {"selected": 3, "cancelled": 0}
        done = command(stack, "cancel", "--prefix", prefix, "--reason", "tried", "--yes", "--json")
        assert done.json == {"selected": 3, "cancelled": 3}
        assert {row["status"] for row in rows_under(stack, "steer/").values()} == {"STOPPED"}
    finally:
        resumed = command(stack, "resume", "--json")
    assert [each["reason"] for each in resumed.json["ended"]] == ["prices"]
    assert "Nothing was paused" in command(stack, "resume").out
    found = command(stack, "find", url_of(stack, "steer/0.pdf"))
    assert (found.code, "tried" in found.out, "retry" in found.out) == (1, True, True)
    assert command(stack, "retry", "--prefix", prefix, "--yes").code == 0
    rows = run_to_the_end(stack, "steer/", 3)
    assert {row["status"] for row in rows.values()} == {"COMPLETED"}


def test_running_job_is_cancelled_with_all_its_files_shown(deployed: DeployedHarness, stack: Any) -> None:
    before = dict(deployed.state.behaviour.job_seconds)
    deployed.state.behaviour.job_seconds.update(dict.fromkeys(deployed.workflow_ids, 120.0))
    try:
        command(stack, "pause", "--reason", "so that they travel together")
        upload(stack, ["running/a.pdf", "running/b.pdf"])
        until(lambda: len(rows_under(stack, "running/")) == 2)
        command(stack, "resume")
        until(lambda: {row["status"] for row in rows_under(stack, "running/").values()} <= {"SCHEDULED", "IN_PROGRESS"})
        arguments = ("cancel", "--running", "--object", url_of(stack, "running/a.pdf"))
        shown = command(stack, *arguments, "--dry-run", "--json")
        (job,) = shown.json
        assert (job["selected"], job["others"]) == ([url_of(stack, "running/a.pdf")], [url_of(stack, "running/b.pdf")])
        assert "not selected, but in the same job" in shown.err
        done = command(stack, *arguments, "--yes", "--json")
        assert (done.code, done.json[0]["answer"]) == (0, "told to stop"), done.err
        until(lambda: all(row["status"] in FINAL for row in rows_under(stack, "running/").values()))
        assert {row["status"] for row in rows_under(stack, "running/").values()} == {"STOPPED"}
        assert command(stack, *arguments, "--yes", "--json").json == []
    finally:
        deployed.state.behaviour.job_seconds.clear()
        deployed.state.behaviour.job_seconds.update(before)


def test_forget_deletes_results_and_object_and_refuses_what_runs(deployed: DeployedHarness, stack: Any) -> None:
    s3 = stack.aws.client("s3")
    upload(stack, ["forget/a b.pdf", "forget/a b.pdf/deeper.pdf"])
    rows = run_to_the_end(stack, "forget/", 2)
    url, row = url_of(stack, "forget/a b.pdf"), rows["forget/a b.pdf"]
    kept = rows["forget/a b.pdf/deeper.pdf"]["results"]
    planned = command(stack, "forget", url, "--dry-run", "--json")
    assert planned.json == {"rows": 1, "results": 2, "objects": 0, "changed": 0}
    done = command(stack, "forget", url, "--with-object", "--yes", "--json")
    assert (done.code, done.json) == (0, {"rows": 1, "results": 2, "objects": 1, "changed": 0}), done.err
    for entry in row["results"]:
        with pytest.raises(s3.exceptions.NoSuchKey):
            s3.get_object(Bucket=entry["bucket"], Key=entry["key"])
    for entry in kept:
        s3.head_object(Bucket=entry["bucket"], Key=entry["key"])
    versions = s3.list_object_versions(Bucket=stack["SourceBucket"], Prefix="forget/a b.pdf")["Versions"]
    assert [each["Key"] for each in versions] == ["forget/a b.pdf/deeper.pdf"]
    found = command(stack, "find", url)
    assert (found.code, "forgotten" in found.out) == (0, True)
    assert command(stack, "forget", url_of(stack, "forget/never.pdf"), "--yes").code == 3
    command(stack, "pause", "--reason", "to have one that waits")
    try:
        upload(stack, ["forget/waits.pdf"])
        until(lambda: "forget/waits.pdf" in rows_under(stack, "forget/"))
        refused = command(stack, "forget", url_of(stack, "forget/waits.pdf"), "--yes")
        assert (refused.code, "cancel" in refused.err) == (3, True)
    finally:
        command(stack, "resume")
    run_to_the_end(stack, "forget/", 3)


def test_items_of_pauses_are_no_workflows(harness: Harness) -> None:
    paused(harness)
    assert [each.workflow_id for each in harness.workflows()] == list(harness.settings.workflow_ids)
    assert harness.ledger().workflow(harness.settings.workflow_ids[0]) == Workflow(
        workflow_id=harness.settings.workflow_ids[0]
    )
    harness.ledger().commit(Transition(harness.workflow(), harness.workflow()))
    assert len(harness.ledger().snapshot([]).pauses) == 1


def test_forget_takes_what_was_asked_about(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload while the question is on the screen stays. A stack without results has none to delete."""
    harness.s3.put_bucket_versioning(Bucket=harness.bucket, VersioningConfiguration={"Status": "Enabled"})
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.settle()
    monkeypatch.setattr(forget, "rows_of", lambda *_: [harness.row(document)])
    stack: Any = SimpleNamespace(
        name="x", outputs={}, parameters={}, routes=(), client=lambda _: harness.s3, ledger=harness.ledger
    )
    work = forget.Forget(stack, f"s3://{harness.bucket}/a.pdf", None, with_object=True)
    planned = work.plan()
    assert (planned.rows, planned.results, planned.objects) == (1, 0, 1)
    harness.upload("a.pdf", b"newer")
    assert work.run() == planned
    assert harness.s3.get_object(Bucket=harness.bucket, Key="a.pdf")["Body"].read() == b"newer"


def forgetting(harness: Harness, monkeypatch: pytest.MonkeyPatch, client: Any = None, **how: Any) -> forget.Forget:
    """`forget` of a.pdf, which is final, until its question."""
    monkeypatch.setattr(forget, "rows_of", lambda *_: harness.rows())
    outputs = {"ResultsBucket": f"results-{harness.bucket}"}
    parameters = {"ResultsPrefix": harness.settings.results_prefix}
    more: Any = {"client": lambda _: client or harness.s3, "ledger": harness.ledger}
    stack: Any = SimpleNamespace(name="x", outputs=outputs, parameters=parameters, routes=(), **more)
    return forget.Forget(stack, f"s3://{harness.bucket}/a.pdf", None, **how)


@pytest.mark.parametrize("how", ["upload", "retry"])
def test_forget_takes_no_results_of_a_run_that_came_while_it_asked(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}")
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.settle()
    work = forgetting(harness, monkeypatch, with_object=False)
    if how == "upload":
        harness.deliver(harness.upload("a.pdf", b"a"))
    else:
        harness.ledger().reopen(harness.row(document))
    harness.settle()
    done = work.run()
    assert (done.rows, done.results, done.changed) == (0, 0, 1)
    assert len(harness.row(document)["results"]) == 2
    for each in harness.row(document)["results"]:
        harness.s3.head_object(Bucket=each["bucket"], Key=each["key"])


def test_forget_deletes_no_upload_that_came_while_it_deleted(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket without versions: the upload has the name of what was counted."""
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}")
    harness.deliver(harness.upload("a.pdf", b"a"))
    harness.settle()

    def delete_objects(**request: Any) -> Any:
        answer = harness.s3.delete_objects(**request)
        harness.upload("a.pdf", b"newer")
        return answer

    client = SimpleNamespace(get_paginator=harness.s3.get_paginator, delete_objects=delete_objects)
    work = forgetting(harness, monkeypatch, client, with_object=True)
    with pytest.raises(CommandError, match="uploaded again"):
        work.run()
    assert harness.s3.get_object(Bucket=harness.bucket, Key="a.pdf")["Body"].read() == b"newer"


def test_forget_leaves_the_object_of_a_row_that_it_leaves(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was retried while the command asked, and is to be read again."""
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.settle()
    work = forgetting(harness, monkeypatch, with_object=True)
    assert harness.ledger().reopen(harness.row(document))
    done = work.run()
    assert (done.rows, done.objects, done.changed) == (0, 0, 1)
    harness.settle()
    assert harness.status(document) == "COMPLETED"


def test_resume_ends_no_pause_that_came_since(harness: Harness) -> None:
    one, another = (Pause(route="*", reason=each, since=f"2026-0{each}-01T00:00:00.000000Z") for each in "12")
    ledger = harness.ledger()
    assert ledger.pause(one)
    assert ledger.resume(one)
    assert ledger.pause(another)
    assert not ledger.resume(one)
    assert ledger.snapshot([]).pauses == (another,)


def test_schedule_of_the_poller_is_told_from_that_of_the_comparison() -> None:
    kind = "AWS::Scheduler::Schedule"
    resources = [
        {"ResourceType": kind, "LogicalResourceId": f"{name}Function{event}", "PhysicalResourceId": name}
        for name, event in (("Compare", "Regularly"), ("OnSchedule", "EveryMinute"))
    ]
    client = SimpleNamespace(describe_stack_resources=lambda **_: {"StackResources": resources})
    stack: Any = SimpleNamespace(name="x", client=lambda _: client)
    assert Stack.physical_id(stack, kind, of="OnScheduleFunction") == "OnSchedule"


@pytest.mark.parametrize("how", ["another upload", "retry", "forget"])
@pytest.mark.parametrize("name", ["note", "reviewed-by", "aws:rep:updatetime"])
def test_attribute_of_somebody_else_keeps_no_row_from_being_opened_again(harness: Harness, name: str, how: str) -> None:
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document)
    harness.settle()
    harness.dynamodb.update_item(
        TableName=harness.settings.ledger_table,
        Key={part: {"S": value} for part, value in document.document_key._asdict().items()},
        UpdateExpression="SET #name = :value",
        ExpressionAttributeNames={"#name": name},
        ExpressionAttributeValues={":value": {"S": "1"}},
    )
    if how == "forget":
        assert harness.ledger().forget(harness.row(document))
        assert name not in harness.row(document)
    elif how == "retry":
        assert harness.ledger().reopen(harness.row(document))
    else:
        harness.deliver(harness.upload("a.pdf", b"a"))
        assert harness.accepted(document) == 2
