"""The operators' commands, without AWS: words, numbers, choices."""

import inspect
import math
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import trustme
from botocore.exceptions import ClientError
from rich.console import Console
from typer.testing import CliRunner

import workflow_trigger
from local.stack import ROOT
from workflow_trigger.domain import errors
from workflow_trigger.domain.document import Lane, ObjectVersion, Selection
from workflow_trigger.domain.model import FINAL, Document, Pause, Status, Workflow
from workflow_trigger_cli import advice, terminal, views
from workflow_trigger_cli.advice import Advice
from workflow_trigger_cli.commands.backfill import Backfill
from workflow_trigger_cli.commands.batches import BatchState
from workflow_trigger_cli.commands.doctor import Doctor
from workflow_trigger_cli.commands.find import Findings, Version
from workflow_trigger_cli.commands.findings import Finding, Health
from workflow_trigger_cli.commands.forget import Forget
from workflow_trigger_cli.commands.redrive import redrive
from workflow_trigger_cli.commands.retry import UNSUCCESSFUL, final
from workflow_trigger_cli.commands.selection import Choice, error_types, moment_before_now, select
from workflow_trigger_cli.commands.status import StackState, WorkflowState, _attention, _standstill, _workflow_state
from workflow_trigger_cli.commands.workflows import DEFAULT_URL, deploy_line, workspace_of
from workflow_trigger_cli.errors import CommandError, UsageError
from workflow_trigger_cli.main import app
from workflow_trigger_cli.platform_workflows import WorkflowInformation
from workflow_trigger_cli.stack import Stack, split_url

NOW = "2026-05-05T12:00:00.000000Z"

# Which classes end up in `error.type`: those of the object and of the platform, by `fault`.
NEVER_STORED = {"SourceError", "PlatformError"}


def stored_types() -> set[str]:
    classes = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.SourceError | errors.PlatformError)
    }
    named: set[str] = set()
    for path in Path(workflow_trigger.__file__).parent.rglob("*.py"):
        text = path.read_text()
        named |= set(re.findall(r'"(FileFailed)"', text))
        named |= set(re.findall(r'"type": "([A-Z]\w+)"', text))
        named |= set(re.findall(r'_end(?:ed)?\((?:row, [\w.]+, )?"(\w+)"', text))
        named |= set(re.findall(r'"type": "\w+" if [\w. ]+ else "(\w+)"', text))
    return (classes - NEVER_STORED) | named


def test_every_type_of_error_has_an_advice() -> None:
    assert stored_types() == set(advice.OF_ERROR)


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_an_advice_and_a_command_where_one_helps(status: Status) -> None:
    found = advice.for_row({"status": status})
    assert found.meaning
    assert bool(found.todo) == (status in {Status.FAILED, Status.STOPPED, Status.REJECTED})


@pytest.mark.parametrize("kind", sorted(advice.OF_ERROR))
def test_advice_fits_the_status_whatever_the_error(kind: str) -> None:
    for status in (Status.FAILED, Status.STOPPED, Status.REJECTED):
        found = advice.for_row({"status": status, "error": {"type": kind, "message": "any"}})
        assert "automatically" not in found.meaning
        assert found.todo
    waits = advice.for_row({"status": "PENDING", "error": {"type": kind, "message": "any"}})
    assert "workflow-trigger retry" not in waits.type, "only what is final can be retried"


def test_advice_can_be_pasted_into_a_shell() -> None:
    found = advice.filled(
        advice.OF_STATUS[Status.FAILED], stack="s", object_url="s3://b/it's $(rm) {x}.pdf", version="v"
    )
    assert found.todo.endswith("""retry --stack s --object 's3://b/it'"'"'s $(rm) {x}.pdf' --version v""")


def test_output_that_the_platform_no_longer_has_needs_somebody() -> None:
    row = {"status": "COMPLETED", "results": [{"key": "k", "bucket": "b"}, {"missing": "HTTP 404"}]}
    assert "--status COMPLETED" in advice.for_row(row).todo


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.9, "59 s"), (200, "3 min 20 s"), (7_500, "2 h 5 min"), (349_300, "4 d 1 h")],
)
def test_durations_have_two_units(seconds: float, shown: str) -> None:
    assert views.duration(seconds) == shown


def test_remote_texts_control_no_terminal() -> None:
    assert views.visible("a\x1b[31m\u202e[bold]\n") == "a\\x1b[31m\\u202e\\[bold]\\n"


@pytest.mark.parametrize("age", ["soon", "1w", "-3d", "3", "1.5h", "", "999999d"])
def test_age_that_cannot_be_read_is_refused(age: str) -> None:
    with pytest.raises(CommandError, match="90s, 30m, 2h or 7d"):
        moment_before_now(age)


@pytest.mark.parametrize("url", ["bucket/key", "https://b/k", "s3://", "s3:///key", ""])
def test_address_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(CommandError, match="s3://bucket/key"):
        split_url(url)


def test_key_is_taken_as_it_is() -> None:
    assert split_url("s3://b/a b+c%20/d?e") == ("b", "a b+c%20/d?e")


ROW: dict[str, Any] = {
    "status": "FAILED",
    "object": "s3://b/in/a.pdf",
    "version": "v1",
    "updated_at": NOW,
    "error": {"type": "X"},
    "batch": "june",
}


@pytest.mark.parametrize(
    ("choice", "is_chosen"),
    [
        ({}, True),
        ({"statuses": (Status.REJECTED,)}, False),
        ({"batch": "june"}, True),
        ({"batch": "july"}, False),
        ({"error_types": ("X", "Y")}, True),
        ({"error_types": ("Y",)}, False),
        ({"prefix": "s3://b/in/"}, True),
        ({"prefix": "s3://b/out/"}, False),
        ({"object": "s3://b/in/a.pdf", "version": "v1"}, True),
        ({"object": "s3://b/in/a.pdf", "version": "v2"}, False),
        ({"after": "2026-05-05T11:00:00.000000Z"}, True),
        ({"after": "2026-05-05T13:00:00.000000Z"}, False),
        ({"before": "2026-05-05T11:00:00.000000Z"}, False),
    ],
)
def test_retry_chooses_by_status_error_prefix_and_age(choice: dict[str, Any], is_chosen: bool) -> None:
    assert (
        Choice(**{"statuses": UNSUCCESSFUL, "before": "2026-05-05T12:30:00.000000Z", **choice}).includes(ROW)
        is is_chosen
    )


@pytest.mark.parametrize("status", sorted(set(Status) - FINAL))
def test_rows_on_their_way_cannot_be_chosen(status: Status) -> None:
    with pytest.raises(CommandError, match="on its way"):
        final([status])


@pytest.mark.parametrize("choice", [{"object": ""}, {"prefix": ""}, {"version": "v1"}])
def test_choice_that_would_mean_everything_by_accident_is_refused(choice: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Choice(statuses=UNSUCCESSFUL, **choice)


def rendered(what: Any) -> str:
    console = Console(width=100, soft_wrap=True, highlight=False)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def test_status_screen_shows_states_workflows_and_what_needs_somebody() -> None:
    workflow = WorkflowState(
        workflow_id="w-1",
        route="",
        is_in_pool=False,
        phase="running",
        files=3,
        job_id="j-1",
        job_status="IN_PROGRESS",
        since="2026-05-05T11:58:00.000000Z",
        not_before=None,
        accepted_count=1234,
        error={"type": "KeyRejected", "message": "HTTP 401"},
        meaning="the platform does not accept the API key",
        todo="aws secretsmanager put-secret-value",
    )
    state = StackState(
        stack="s",
        region="r",
        at=NOW,
        rows={"PENDING": 12_000, "COMPLETED": None},
        oldest_waiting_seconds=3_700,
        routes={},
        pauses=(Pause(route="*", reason="migration", since="2026-05-05T11:00:00.000000Z"),),
        workflows=[workflow],
        unresolved=None,
        unregistered_events=4,
        dead_letters=2,
        attention=["2 dead letters"],
    )
    shown = rendered(views.status_screen(state))
    parts: tuple[str, ...] = (
        "12,000",
        "--all",
        "1 h 1 min",
        "w-1",
        "3 files",
        "for 2 min 0 s",
        "no longer in the pool",
        "HTTP 401",
    )
    parts += ("all routes paused for 1 h 0 min", "migration")
    for part in parts:
        assert part in shown
    assert "Needs attention" in shown


def test_find_screen_shows_history_and_results_in_one_piece() -> None:
    run = {"status": "FAILED", "job_id": "j-0", "updated_at": NOW, "error": {"type": "JobFailed", "message": "why"}}
    long_key = "results/" + "x" * 300 + ".json"
    row = {
        **ROW,
        "status": "COMPLETED",
        "version": "v1",
        "size": 2_553,
        "uploaded_at": NOW,
        "error": None,
        "job_id": "j-1",
        "results": [{"bucket": "b", "key": long_key}, {"missing": "HTTP 404"}],
        "runs": [run],
    }
    findings = Findings(
        object="s3://b/in/a.pdf",
        versions=[Version(meaning="m", todo="t", row=row)],
        in_bucket=None,
        meaning="",
        todo="",
    )
    shown = rendered(views.find_screen(findings))
    for part in ("2.6 kB", "j-1", long_key, "missing: HTTP 404", "FAILED  job j-0", "JobFailed why"):
        assert part in shown


def test_finding_shows_what_mends_it() -> None:
    shown = rendered(views.finding_line(Finding(check="events", health=Health.FAILED, says="off", fix="do [this]")))
    assert shown.splitlines()[:2] == ["✗ events: off", "    do [this]"]


@pytest.mark.parametrize("console", [terminal.stdout, terminal.stderr], ids=["stdout", "stderr"])
@pytest.mark.parametrize(
    "text", ["arn:aws:secretsmanager:us-east-1:000000000000:secret:stack-ApiKey", "s3://b/:smile:/a :fire:.pdf"]
)
def test_words_between_colons_become_no_pictures(console: Console, text: str) -> None:
    with console.capture() as capture:
        console.print(views.finding_line(Finding(check="c", health=Health.OK, says="s", fix=text)))
        console.print(views.batch_screen(BatchState(batch=text, registered=0, finished=0, finished_at=None, rows={})))
    assert capture.get().count(text) == 2


def test_report_of_large_numbers_fits_a_narrow_terminal() -> None:
    line: dict[str, Any] = {each.lower(): 1_000_000 for each in views.FINAL_IN_ORDER}
    line |= {"group": "total", "documents": 7_000_000, "bytes": 10**13, "pages": 10**8, "jobs": 10**6}
    line |= {"wait_p50_seconds": 356_400.0, "wait_p95_seconds": None, "cost": 1_000_000.0}
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(views.report_screen([line], "day", console.width), soft_wrap=True)
    title, *shown = capture.get().splitlines()
    assert (title, max(map(len, shown)) <= 80, {each[:2] for each in shown}) == ("total", True, {"  "})
    assert all(f"{each.lower()} 1,000,000" in " ".join(capture.get().split()) for each in views.FINAL_IN_ORDER)


@pytest.mark.parametrize(("is_terminal", "lines"), [(True, 3), (False, 1)])
def test_finding_breaks_between_words_in_a_terminal_alone(is_terminal: bool, lines: int) -> None:
    says, fix = "twelve words " * 5 + "and-one-word-that-is-longer-than-the-terminal-is-wide", "a command " * 9
    finding = Finding(check="c", health=Health.OK, says=says, fix=fix)
    console = Console(width=40, force_terminal=is_terminal, color_system=None)
    with console.capture() as capture:
        console.print(views.finding_line(finding), soft_wrap=True)
    *shown, last = capture.get().splitlines()
    assert (len(shown), " ".join(shown).split()[2:], last) == (lines, says.split(), f"    {fix}")


def ledger_with(pages: float) -> tuple[Stack, MagicMock]:
    """A stack whose ledger has so many pages in each segment, with one item each: the number of its segment."""

    def scan(*, TableName: str, Segment: int, ExclusiveStartKey: int = 1, **_: Any) -> dict[str, Any]:  # noqa: N803
        assert TableName == "ledger"
        more = {"LastEvaluatedKey": ExclusiveStartKey + 1} if ExclusiveStartKey < pages else {}
        return {"Items": [{"segment": Segment}], **more}

    session = MagicMock()
    session.client.return_value.scan.side_effect = scan
    stack = Stack("s", "eu-central-1", "CREATE_COMPLETE", datetime.now(UTC), {"LedgerTable": "ledger"}, {}, session)
    return stack, session.client.return_value.scan


def test_all_pages_of_all_segments_are_read_once() -> None:
    stack, _ = ledger_with(pages=3)
    assert sorted(item["segment"] for item in stack.scanned()) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_ledger_is_read_no_further_than_somebody_wants_it() -> None:
    stack, scan = ledger_with(pages=math.inf)
    items = stack.scanned()
    next(items)
    items.close()  # as an interruption does; that of `status` waited for the end of the ledger
    assert scan.call_count <= 5  # a page of each segment, and the one that follows the first


def test_doctor_names_the_route_of_a_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = MagicMock(
        workflow_ids=["id-1", "id-2"], parameters={"UnstructuredApiUrl": "https://platform.unstructuredapp.io"}
    )
    stack.__getitem__.return_value = "arn"
    stack.client.return_value.get_secret_value.return_value = {"SecretString": "a-key"}
    stack.route_of = {"id-1": "", "id-2": "legal/"}.get
    found = Finding(check="workflow", health=Health.OK, says="fine")
    monkeypatch.setattr(Doctor, "_workflow", lambda _, __, name: replace(found, check=name.removesuffix("-key")))
    says = [each.says for each in Doctor(stack)._key_and_workflows()]
    assert says == ["set and accepted by the platform", "fine", "fine (route legal/)"]
    stack.workflow_ids = ["id-1", "id-1-key"]
    says = [each.says for each in Doctor(stack)._key_and_workflows()]
    assert says[1:] == ["fine", "id-1-key is the same workflow as id-1, and counts once"]


def settings_stack(**variables: str) -> MagicMock:
    stack = MagicMock(workflow_ids=["a"], region="eu-central-1")
    stack.name = "stack"
    given = {"UNSTRUCTURED_API_URL": "https://platform.unstructuredapp.io", "WORKFLOW_IDS": "a", **variables}
    given |= dict.fromkeys(("API_KEY_SECRET_ARN", "LEDGER_TABLE", "WORKFLOWS_TABLE"), "any")
    stack.client.return_value.get_function_configuration.return_value = {"Environment": {"Variables": given}}
    return stack


def test_doctor_reads_the_settings_as_the_functions_do() -> None:
    """What the template cannot refuse: with it no function starts."""
    stack = settings_stack(ROUTES="a/: id-1; a/: id-2")
    (found,) = Doctor(stack)._settings_are_right()
    assert found.health is Health.FAILED
    assert "ROUTES: 'a/' is there twice" in found.says
    assert found.fix.startswith("sam deploy --stack-name stack --region eu-central-1")


@pytest.mark.parametrize(
    ("variables", "warnings"),
    [
        ({}, ["MaxMegabytesPerFile is not set"]),
        ({"MAX_MEGABYTES_PER_FILE": "50"}, []),
        ({"MAX_MEGABYTES_PER_FILE": "50.5", "MAX_FILES_PER_RUN": "11"}, ["MaxFilesPerRun is 11", "is 50.5"]),
    ],
)
def test_doctor_warns_of_the_vendors_limits(variables: dict[str, str], warnings: list[str]) -> None:
    doctor = Doctor(settings_stack(**variables))
    assert [each.health for each in doctor._settings_are_right()] == [Health.OK]
    others = list(doctor._limits())
    assert len(others) == len(warnings)
    for each, text in zip(others, warnings, strict=True):
        assert each.health is Health.UNKNOWN
        assert text in each.says
        assert "the vendor's limits" in each.says


def test_status_says_which_workflows_get_no_documents() -> None:
    stack = MagicMock()
    stack.name = "stack"
    (text,) = _attention(stack, [], "uplods-1: HTTP 404: Not Found", 0)
    assert "uplods-1: HTTP 404" in text
    assert "workflow-trigger doctor --stack stack" in text


@pytest.mark.parametrize(("waiting_seconds", "is_shown"), [(5.0, True), (0.0, False)])
def test_error_that_somebody_corrects_is_shown_while_something_waits(waiting_seconds: float, is_shown: bool) -> None:
    """The key may have been set since; that nothing has tried it does not make it wrong."""
    stack = MagicMock()
    stack.route_of.return_value = ""
    workflow = Workflow(workflow_id="w", last_error={"type": "KeyNotSet", "message": "No usable API key is set"})
    state = _workflow_state(stack, workflow, waiting_seconds)
    assert ((state.error is not None), (state.todo is not None)) == (is_shown, is_shown)
    busy = replace(workflow, last_error={"type": "Busy", "message": "a running job"})
    assert _workflow_state(stack, busy, waiting_seconds).error is not None


def test_every_advice_is_filled_in() -> None:
    """A command that is printed can be typed."""
    every = [each for each in vars(advice).values() if isinstance(each, Advice)]
    for each in (*every, *advice.OF_STATUS.values(), *advice.OF_ERROR.values()):
        names = {"stack": "s", "set_key": "k", "object_url": "s3://b/k", "version": "v"}
        assert "{" not in advice.filled(each, **names).todo
    assert "--status SKIPPED" in advice.for_row({"status": "SKIPPED", "error": {"type": "Skipped"}}).todo


def skipped_row(key: str) -> dict[str, Any]:
    return {"object": f"s3://b/{key}", "version": "v", "status": "SKIPPED", "size": 1, "updated_at": NOW}


def test_retry_of_what_was_skipped_takes_what_is_wanted_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another pattern was added: what is still excluded stays where it is, unless its object is named."""
    stack = MagicMock(selection=Selection(include=("*.docx",)))
    rows = [skipped_row("a.docx"), skipped_row("b.tif")]
    monkeypatch.setattr("workflow_trigger_cli.commands.selection._scanned", lambda *_: iter(rows))
    monkeypatch.setattr("workflow_trigger_cli.commands.selection.rows_of", lambda *_: rows[1:])
    assert [each["object"] for each in select(stack, Choice(statuses=(Status.SKIPPED,)))] == ["s3://b/a.docx"]
    named = Choice(statuses=(Status.SKIPPED,), object="s3://b/b.tif")
    assert [each["object"] for each in select(stack, named)] == ["s3://b/b.tif"]


def test_backfill_counts_what_was_skipped_and_is_wanted_now(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = MagicMock(parameters={"IncludePatterns": "*.docx"}, outputs={}, selection=Selection(include=("*.docx",)))
    stack.__getitem__.return_value, stack.retention = "b", timedelta()
    version = ObjectVersion(
        bucket="b", key="a.docx", version_id=None, etag="e", size_bytes=1, sequencer=None, uploaded_at=NOW
    )
    document = Document(source=version, status=Status.SKIPPED, read_at=NOW)
    stack.ledger.return_value.documents.return_value = {version.document_key: document}
    work = Backfill(stack, "s3://b/", all_versions=False, include_expired=True, lane=Lane.BULK)
    monkeypatch.setattr("workflow_trigger_cli.commands.backfill.listed_versions", lambda *_, **__: iter([version]))
    tally = work.run(send=True, progress=lambda _: None)
    assert (tally.known, tally.skipped_before, tally.new) == (1, 1, 0)
    assert "1 known (1 of them SKIPPED, and wanted now)" in views.tally_line(tally)


def test_command_waits_for_no_answer_that_never_comes() -> None:
    """Ctrl-C ended `status` after minutes where the network had gone."""
    stack, scan = ledger_with(pages=math.inf)
    answers, never = scan.side_effect, threading.Event()
    scan.side_effect = lambda **query: never.wait(60) if "ExclusiveStartKey" in query else answers(**query)
    items = stack.scanned()
    next(items)
    began = time.monotonic()
    items.close()
    never.set()
    assert time.monotonic() - began < 30, "it waited for the answer"


@pytest.mark.parametrize(
    "text", ["a b", "it's $(rm) {x}", "", "Müller 漢字 🎉", "a\x1b[31m\n'b\"\\", "\x01", "tab\there"]
)
def test_typed_text_is_what_a_shell_reads(text: str) -> None:
    read = subprocess.run(["bash", "-c", f"printf %s {advice.typed(text)}"], capture_output=True, check=True)
    assert read.stdout.decode() == text
    assert views.visible(advice.typed(text)).replace("\\[", "[") == advice.typed(text), "nothing is left to be escaped"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cancel", "--running", "--reason", "mine"), "--reason does not go with --running"),
        (("cancel", "--reason", " "), "--reason is a text"),
        (("pause", "--reason", ""), "--reason is a text"),
        (("pause", "--reason", "x" * 501), "--reason is a text"),
        (("pause", "--reason", "a\x1bb"), "--reason is a text"),
        (("retry", "--error", "Nonsense"), "There is no error Nonsense"),
        (("status", "--watch", "--html", "f"), "--watch goes with neither"),
        (("status", "--watch", "--batch", "b"), "--watch goes with neither"),
        (("status", "--stack", ""), "--stack names no stack"),
        (("workflows", "create", "--name", " "), "--name is empty"),
    ],
)
def test_wrong_input_is_a_usage_error(arguments: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(app, list(arguments))
    assert isinstance(done.exception, UsageError)
    assert says in str(done.exception)


def test_redrive_gives_back_what_it_holds_when_it_is_interrupted() -> None:
    sqs = MagicMock()
    messages = [{"MessageId": str(number), "ReceiptHandle": f"h{number}", "Body": "{}"} for number in range(3)]
    sqs.receive_message.return_value = {"Messages": messages}
    sqs.exceptions.MessageNotInflight = sqs.exceptions.ReceiptHandleIsInvalid = KeyError
    sqs.exceptions.ClientError = KeyError
    stack = MagicMock()
    stack.client.return_value = sqs
    moved: list[None] = []

    def interrupted() -> None:
        moved.append(None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        redrive(stack, include_unreadable=True, progress=interrupted)
    given_back = [call.kwargs["ReceiptHandle"] for call in sqs.change_message_visibility.call_args_list]
    assert (len(moved), sorted(given_back)) == (1, ["h1", "h2"])


@pytest.mark.parametrize("version", [None, "v"])
@pytest.mark.parametrize("change", [{"ETag": '"new"'}, {"LastModified": 2}], ids=["other", "same content"])
def test_forget_deletes_no_upload_that_came_while_it_asked(
    monkeypatch: pytest.MonkeyPatch, version: str | None, change: dict[str, Any]
) -> None:
    """Without versions, the new object has the name of the old one."""
    stack = MagicMock(outputs={}, parameters={})
    monkeypatch.setattr("workflow_trigger_cli.commands.forget.rows_of", lambda *_: [skipped_row("a.pdf")])
    old = {"Key": "a.pdf", "VersionId": "null", "ETag": '"v"', "LastModified": 1}
    listed = [old]
    stack.client.return_value.get_paginator.return_value.paginate.side_effect = lambda **_: [{"Versions": list(listed)}]
    work = Forget(stack, "s3://b/a.pdf", version, with_object=True)
    listed[0] = {**old, **change}
    with pytest.raises(CommandError, match="uploaded again"):
        work.run()
    stack.client.return_value.delete_objects.assert_not_called()
    listed[0] = old
    stack.client.return_value.delete_objects.return_value = {}
    work.run()
    stack.client.return_value.delete_objects.assert_called_once()


def test_status_tells_of_documents_that_wait_for_nothing() -> None:
    stack = MagicMock()
    stack.name, stack.route_of.return_value = "stack", ""
    idle = _workflow_state(stack, Workflow(workflow_id="w"), 400.0)
    busy = replace(idle, phase="running")
    told = ["Documents wait, and no workflow is at work. workflow-trigger doctor --stack stack"]
    assert _standstill(stack, [idle], (), {"": 1_000.0}) == told
    assert _standstill(stack, [idle], (), {"": 900.0}) == [], "a document may be put off for so long"
    assert _standstill(stack, [idle, busy], (), {"": 1_000.0}) == []
    old = replace(idle, error={"type": "NotSent", "message": "days ago"})
    assert _standstill(stack, [old], (), {"": 1_000.0}) == told
    for_another = replace(idle, error={"type": "Busy", "message": "a job of somebody else"})
    assert _standstill(stack, [for_another], (), {"": 1_000.0}) == []
    paused = Pause(route="legal/", reason="any", since=NOW)
    legal = replace(busy, route="legal/")
    assert _standstill(stack, [idle, legal], (paused,), {"": 1_000.0, "legal/": 5.0}) == told
    assert _standstill(stack, [idle], (replace(paused, route="*"),), {"": 1_000.0}) == []


def test_many_idle_workflows_take_one_line() -> None:
    stack = MagicMock()
    stack.route_of.return_value = ""
    states = [_workflow_state(stack, Workflow(workflow_id=f"w-{number}"), 0.0) for number in range(102)]
    busy = replace(states[-1], phase="running")
    state = StackState(
        stack="s",
        region="r",
        at=NOW,
        rows={},
        oldest_waiting_seconds=0.0,
        routes={},
        pauses=(),
        workflows=[*states[:-1], busy],
        unresolved=None,
        unregistered_events=0,
        dead_letters=0,
        attention=[],
    )
    shown = rendered(views.status_screen(state))
    assert "w-101" in shown
    assert "and 96 more idle workflows" in shown
    assert shown.count("w-") == 6


def test_error_is_chosen_by_its_name_of_any_release() -> None:
    assert error_types(["OutOfTime", "Refused"]) == ("TooSlow", "Refused")
    choice = Choice(statuses=UNSUCCESSFUL, error_types=error_types(["OutOfTime"]))
    for name in ("OutOfTime", "TooSlow"):
        assert choice.includes({**skipped_row("a.pdf"), "status": "REJECTED", "error": {"type": name}})


def test_deploy_line_takes_the_shorter_names_where_ids_do_not_fit() -> None:
    def made(count: int, key: str | None) -> list[WorkflowInformation]:
        flags = {"has_source": False, "has_destination": False, "is_scheduled": False, "is_active": True}
        return [
            WorkflowInformation(id=f"{n:036}", name="n", key=key and f"{key}-{n}", kind="custom", **flags)
            for n in range(count)
        ]

    def names(created: list[WorkflowInformation]) -> str:
        return deploy_line(created, DEFAULT_URL, None).rpartition("=")[2].partition(",")[0]

    assert names(made(70, "uploads")) == f"{0:036}"
    assert names(made(71, "uploads")) == "uploads-0"
    assert names(made(71, "x" * 47)) == f"{0:036}"
    assert names(made(71, None)) == f"{0:036}"
    stack = Stack("s", "eu-central-1", "", datetime.now(UTC), {}, {"WorkflowIds": "a, b,"}, MagicMock())
    line = f"sam build && sam deploy --stack-name s --region eu-central-1 --parameter-overrides WorkflowIds=a,b,{0:036}"
    assert deploy_line(made(1, None), "https://vpc.example.com", stack) == line, "it keeps its pool and its address"


def test_process_ends_although_a_thread_waits_for_an_answer() -> None:
    """As a scan does whose network has gone: Ctrl-C and errors end the command nevertheless."""
    code = (
        "import threading, typer; from workflow_trigger_cli import main\n"
        "def hang():\n    threading.Thread(target=threading.Event().wait).start(); raise typer.Exit(3)\n"
        "main.app = hang_app = typer.Typer(); hang_app.command()(hang); main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, env={"PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 3


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "GetBucketLocation")


def test_doctor_names_an_owner_that_is_not_the_buckets() -> None:
    stack = MagicMock(parameters={"ExpectedBucketOwner": "111122223333"}, region="eu-central-1")
    stack.name, stack.__getitem__.return_value = "stack", "their-bucket"
    stack.client.return_value.get_bucket_location.side_effect = refused("AccessDenied")
    (found,) = Doctor(stack)._bucket_is_here()
    assert (found.health, found.says) == (Health.FAILED, "their-bucket is not owned by ExpectedBucketOwner")
    stack.session.client.return_value.get_bucket_location.side_effect = refused("AccessDenied")
    with pytest.raises(ClientError):  # then it is not the owner: unknown, as any other refusal
        list(Doctor(stack)._bucket_is_here())


@pytest.mark.parametrize(
    ("secret", "health"),
    [
        ({"SecretString": "no certificate"}, Health.FAILED),
        ({"SecretBinary": b"no certificate"}, Health.FAILED),
        ({"SecretBinary": trustme.CA().cert_pem.bytes()}, None),
    ],
)
def test_doctor_says_whether_the_bundle_of_certificates_can_be_used(
    secret: dict[str, Any], health: Health | None
) -> None:
    bundle = {"UnstructuredApiUrl": "https://platform.unstructuredapp.io", "CaBundleSecretArn": "arn:bundle"}
    stack = MagicMock(parameters=bundle, region="eu-central-1")
    stack.name, stack.__getitem__.return_value = "stack", "arn:key"
    stack.client.return_value.get_secret_value.side_effect = lambda *, SecretId: (  # noqa: N803
        secret if SecretId == "arn:bundle" else {"SecretString": "a-key"}
    )
    found = Doctor(stack)._platform()
    if health is None:
        assert not isinstance(found, Finding)
    else:
        assert isinstance(found, Finding)
        assert (found.check, found.health) == ("certificates", health)
        assert "CaBundleSecretArn" in found.says + found.fix


def test_bundle_of_a_stack_that_cannot_be_read_is_no_wrong_command_line() -> None:
    stack = MagicMock(parameters={"UnstructuredApiUrl": DEFAULT_URL, "CaBundleSecretArn": "arn:bundle"})
    stack.__getitem__.return_value = "arn:key"
    broken = {"SecretString": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"}
    stack.client.return_value.get_secret_value.side_effect = lambda *, SecretId: (  # noqa: N803
        broken if SecretId == "arn:bundle" else {"SecretString": "a-key"}
    )
    with pytest.raises(CommandError, match="CaBundleSecretArn") as raised:
        workspace_of(stack)
    assert not isinstance(raised.value, UsageError)
