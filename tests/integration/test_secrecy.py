"""The API key is in Secrets Manager and in memory, nowhere else: every way to fail, at DEBUG, with a canary."""

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from local.fake_platform.state import Fault
from local.template import template
from tests.integration.harness import Harness
from workflow_trigger import bootstrap
from workflow_trigger.adapters.eventbridge import detail_of

CANARY = "canary-4f9c1d7e-never-shown"
ECHO = json.dumps({"detail": f"the key {CANARY} is not good"})

FAULTS = [
    *(Fault("run", "status", status=status, body=ECHO, times=3) for status in (307, 400, 401, 402, 403, 404, 409, 413)),
    *(Fault("run", "status", status=status, body=ECHO, times=3) for status in (415, 422, 429, 500, 502, 503)),
    *(Fault("run", kind, times=2) for kind in ("drop", "drop-after", "truncate")),
    Fault("run", "answer-after", status=200, body=ECHO),
    Fault("run", "answer-after", status=200, body=f"{CANARY} is no JSON"),
    Fault("run", "late", seconds=100),
    Fault("run-early", "cut"),
    Fault("run-early", "status", status=401, body=ECHO),
    Fault("run", "job", job={"ending": "FAILED", "failed": {"a.pdf": CANARY}}),
    *(
        Fault(call, "status", status=status, body=ECHO, times=3)
        for call in ("jobs", "job", "details", "failed-files", "file-status", "download")
        for status in (401, 404, 422, 429, 500)
    ),
    *(Fault(call, kind, times=3) for call in ("jobs", "job", "details", "download") for kind in ("drop", "truncate")),
]


@contextlib.contextmanager
def all_output() -> Iterator[io.StringIO]:
    """Whatever anybody logs or prints, down to DEBUG."""
    written = io.StringIO()
    listener = logging.StreamHandler(written)
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    ours = [each for each in loggers if "botocore" not in each.name and "boto3" not in each.name]
    before = [(each, each.level) for each in ours]
    for each in ours:
        each.setLevel(logging.DEBUG)
        each.addHandler(listener)
    try:
        with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
            yield written
    finally:
        for each, level in before:
            each.setLevel(level)
            each.removeHandler(listener)


@pytest.fixture
def watched(harness: Harness) -> Harness:
    harness.state.behaviour.api_key = CANARY
    harness.secrets.put_secret_value(SecretId=harness.secret, SecretString=CANARY)
    harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
    harness.configure(results_bucket=f"results-{harness.bucket}")
    return harness


def stored(harness: Harness) -> str:
    """Everything that the product has written down."""
    rows = harness.rows()
    items = harness.dynamodb.scan(TableName=harness.settings.workflows_table)["Items"]
    return f"{rows} {items} {[detail_of(row, 'stack') for row in rows]}"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.call}-{fault.kind}-{fault.status}")
def test_key_is_neither_logged_nor_stored_whatever_goes_wrong(watched: Harness, fault: Fault) -> None:
    watched.state.faults.append(fault)
    if fault.call == "file-status":  # which is asked about only when an answer was lost
        watched.state.faults.append(Fault("run", "drop-after"))
        watched.state.behaviour.list_shows_files = False
    seen: list[str] = []
    with all_output() as output:
        documents = [watched.upload(f"{name}.pdf", name.encode()) for name in "ab"]
        watched.deliver(*documents)
        for _ in range(8):
            watched.tick(after_seconds=60)
            seen.append(stored(watched))
    logged = output.getvalue()
    assert len(logged) > 1_000, "nothing was captured"
    assert any(met.startswith(fault.call) for met in watched.state.shown), "the fault was never met"
    assert CANARY not in logged
    assert CANARY not in "".join(seen)


@pytest.mark.parametrize("secret", [f'{{"a": "{CANARY}", "b": "{CANARY}"}}', f"{CANARY} with space", f"{CANARY}\x00"])
def test_unusable_secret_is_not_shown_either(watched: Harness, secret: str) -> None:
    watched.secrets.put_secret_value(SecretId=watched.secret, SecretString=secret)
    with all_output() as output:
        document = watched.upload("a.pdf", b"a")
        watched.deliver(document)
        watched.tick(after_seconds=60)
    assert "put-secret-value" in stored(watched)
    assert CANARY not in output.getvalue() + stored(watched)


def test_debug_lines_of_the_sdk_which_would_show_the_secret_are_off(
    watched: Harness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even when Lambda's own log level makes the root logger tell everything."""
    logging.getLogger().setLevel(logging.DEBUG)
    monkeypatch.setattr(logging.getLogger("botocore"), "level", logging.getLogger("botocore").level)
    with all_output() as output:
        watched.api_key.invalidate()
        assert watched.api_key.value() == CANARY
    assert bootstrap.logger is not None
    assert logging.getLogger("botocore").level == logging.INFO
    assert CANARY not in output.getvalue() + capsys.readouterr().out


def test_key_is_in_no_variable_of_the_functions() -> None:
    variables: dict[str, Any] = template()["Globals"]["Function"]["Environment"]["Variables"]
    with_key = [name for name in variables if "KEY" in name]
    assert with_key == ["API_KEY_SECRET_ARN", "RESULTS_KMS_KEY_ARN", "KEY_PREFIX", "KEY_SUFFIX"]
    assert "resolve:secretsmanager" not in json.dumps(template())
