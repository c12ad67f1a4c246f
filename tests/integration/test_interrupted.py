"""Ctrl-C: a command says so, ends with 130, and the same command goes on from there."""

import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient
from typer.testing import CliRunner

from local.stack import REGION, Deployed
from tests.integration.commands import command, started
from tests.integration.conftest import DeployedHarness
from tests.integration.deployed import rows_under, until, url_of
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger_cli.main import app
from workflow_trigger_cli.stack import Stack


@pytest.fixture
def stack(deployed: DeployedHarness, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    """A stack that begins nothing, also for commands in this process."""
    found = deployed.stack
    for name, value in found.aws.environment.items():
        monkeypatch.setenv(name, value)
    command(found, "pause", "--reason", "nothing may begin")
    yield found
    command(found, "resume")


def register(stack: Deployed, prefix: str, number: int) -> None:
    """Rows of objects that nobody will ask for."""
    ledger = Stack.find(stack.name, region=REGION, profile=None).ledger()
    unknown: dict[str, Any] = {"version_id": "1", "etag": "e", "size_bytes": 1, "sequencer": None, "uploaded_at": None}
    for each in range(number):
        ledger.register(ObjectVersion(bucket=stack["SourceBucket"], key=f"{prefix}{each}.pdf", **unknown))


def waiting(stack: Deployed) -> int:
    """How many documents wait, counted by the index: a look at all rows would take as long as the command."""
    counted = {"IndexName": "open-rows", "Select": "COUNT", "KeyConditionExpression": "#s = :s"}
    values = {"ExpressionAttributeNames": {"#s": "status"}, "ExpressionAttributeValues": {":s": {"S": "PENDING"}}}
    found = stack.aws.client("dynamodb").query(TableName=stack["LedgerTable"], **counted, **values)
    return int(found["Count"])


def statuses(stack: Deployed, prefix: str) -> Counter[str]:
    return Counter(row["status"] for row in rows_under(stack, prefix).values())


def test_signal_leaves_the_others_as_they_were(stack: Deployed) -> None:
    number, prefix = 400, url_of(stack, "signal/")
    register(stack, "signal/", number)
    for name, before, after in (("cancel", "PENDING", "STOPPED"), ("retry", "STOPPED", "PENDING")):
        at_first = waiting(stack)
        with started(stack, name, "--prefix", prefix, "--yes") as running:
            until(lambda at_first=at_first: waiting(stack) != at_first, every=0.02)  # type: ignore[misc]
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=60)
        assert running.returncode == 130, said
        assert "the rest is unchanged. Run the same command again." in said
        counts = statuses(stack, "signal/")
        assert set(counts) == {before, after}
        again = command(stack, name, "--prefix", prefix, "--yes", "--json")
        assert (again.code, again.json["selected"]) == (0, counts[before])
        assert statuses(stack, "signal/") == {after: number}
    assert command(stack, "cancel", "--prefix", prefix, "--yes").code == 0


@pytest.mark.parametrize(
    ("typed", "after"),
    [
        ("status", "PENDING"),
        ("doctor", "PENDING"),
        ("report", "PENDING"),
        ("find {url}/0.pdf", "PENDING"),
        ("pause --reason again", "PENDING"),
        ("backfill {url}/ --yes", "PENDING"),
        ("redrive --yes", "PENDING"),
        ("cancel --prefix {url}/ --yes", "STOPPED"),
        ("retry --prefix {url}/ --yes", "PENDING"),
        ("forget {url}/0.pdf --with-object --yes", "STOPPED"),
    ],
)
def test_command_that_is_interrupted_at_every_call_comes_to_its_end(
    stack: Deployed, monkeypatch: pytest.MonkeyPatch, typed: str, after: str
) -> None:
    ask, left = BaseClient._make_api_call, 0  # type: ignore[attr-defined]

    def interrupting(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return ask(*arguments)

    name = re.sub(r"\W+", "-", typed)
    register(stack, f"{name}/", 2)
    if typed.startswith(("retry", "forget")):
        command(stack, "cancel", "--prefix", url_of(stack, f"{name}/"), "--yes")
    monkeypatch.setattr(BaseClient, "_make_api_call", interrupting)
    for calls in range(1, 60):
        left = calls
        arguments = typed.format(url=url_of(stack, name)).split()
        ended = CliRunner().invoke(app, [*arguments, "--stack", stack.name])
        if left > 0:  # it needed fewer
            break
        assert (ended.exit_code, "Traceback" in ended.output) == (130, False), (calls, ended.output, ended.exception)
    left = 0
    assert calls > 2
    assert ended.exit_code in {0, 1}, ended.output
    assert rows_under(stack, f"{name}/")[f"{name}/0.pdf"]["status"] == after
    command(stack, "cancel", "--prefix", url_of(stack, f"{name}/"), "--yes")


@pytest.mark.parametrize("typed", ["wait --batch b", "fetch --batch b --to results"])
def test_commands_that_follow_a_batch_end_with_130(
    stack: Deployed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typed: str
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("workflow_trigger_cli.commands.batches.named", interrupt)
    ended = CliRunner().invoke(app, [*typed.split(), "--stack", stack.name])
    assert (ended.exit_code, "Run the same command again." in ended.output) == (130, True), ended.output


def test_batch_that_nobody_knows_is_no_success(stack: Deployed, tmp_path: Path) -> None:
    for typed in (["status"], ["fetch", "--to", str(tmp_path)], ["wait", "--timeout", "1s"]):
        ended = command(stack, *typed, "--batch", "unknown")
        assert (ended.code, ended.out) == (3, ""), ended
