"""The numbers that the documents tell are those of the source."""

import json
import re
import statistics
from typing import Any

import pytest

from local.stack import ROOT
from local.template import template
from workflow_trigger.adapters import s3_results
from workflow_trigger.adapters.dynamodb import mapping
from workflow_trigger.adapters.unstructured import responses
from workflow_trigger.domain import document, errors, retry
from workflow_trigger.domain.doubt import PATIENCE_SECONDS, DoubtKind
from workflow_trigger.services import reconcile, results, send, settle

TEMPLATE = template()
RESOURCES = TEMPLATE["Resources"]
WORDS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
)
SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
ALARMS = [name for name, each in RESOURCES.items() if each["Type"] == "AWS::CloudWatch::Alarm"]


def amount(text: str) -> float:
    """`15 minutes` → 900, `an hour` → 3600, `three` → 3."""
    number, _, unit = text.replace(",", "").replace("a quarter of an hour", "15 minutes").partition(" ")
    count = {"a": 1, "an": 1, **{word: place for place, word in enumerate(WORDS)}}.get(number.lower())
    return (float(number) if count is None else count) * SECONDS.get(unit.rstrip("s"), 1)


def queue(name: str) -> Any:
    return RESOURCES[name]["Properties"]


NUMBERS = [
    ("README.md", r"is free, and sends (\d+) in one job", TEMPLATE["Parameters"]["MaxFilesPerRun"]["Default"]),
    ("README.md", r"in one job by default, up to (\d+)", TEMPLATE["Parameters"]["MaxFilesPerRun"]["MaxValue"]),
    ("README.md", r"one Lambda invocation of (\d+ minutes)", TEMPLATE["Globals"]["Function"]["Timeout"]),
    ("README.md", r"`MaxFilesPerRun` \| (\d+)", TEMPLATE["Parameters"]["MaxFilesPerRun"]["Default"]),
    ("README.md", r"With `MemorySize` (\d+)", TEMPLATE["Parameters"]["MemorySize"]["Default"]),
    ("README.md", r"`LedgerRetentionDays`, (\d+) by default", TEMPLATE["Parameters"]["LedgerRetentionDays"]["Default"]),
    ("docs/operations.md", r"There are (\w+) alarms", len(ALARMS)),
    ("docs/operations.md", r"`WaitingAlarm` \| .* for (an hour)", queue("WaitingAlarm")["Threshold"]),
    ("docs/operations.md", r"`RunningAlarm` \| .* for (six hours)", queue("RunningAlarm")["Threshold"]),
    ("docs/operations.md", r"missing, or (a quarter of an hour) late", results._LATE_SECONDS),
    ("docs/operations.md", r"back off, up to (a quarter of an hour)", retry.BACKOFF_LIMIT_SECONDS),
    ("docs/operations.md", r"`IdleAlarm` rings after (\d+\s+minutes)", queue("IdleAlarm")["Threshold"]),
    ("docs/operations.md", r"`ObjectDenied` .* retried every (\w+ minutes)", retry._DENIED_SECONDS),
    ("docs/operations.md", r"tried again for (an hour), then", PATIENCE_SECONDS[DoubtKind.REFUSED]),
    ("docs/operations.md", r"and returns them, (\w+) times", queue("UploadQueue")["RedrivePolicy"]["maxReceiveCount"]),
    ("docs/operations.md", r"dead-letter queue, for (\d+ days)", queue("DeadLetterQueue")["MessageRetentionPeriod"]),
    ("docs/architecture.md", r"keeps events for (\d+ days)", queue("UploadQueue")["MessageRetentionPeriod"]),
    ("docs/architecture.md", r"poller is older than (\d+ seconds)", reconcile._HANDOVER_SECONDS),
    ("docs/ledger.md", r"at most (\d+) KB of `output_node_files`", mapping._LIST_LIMIT_BYTES / 1_000),
    ("docs/ledger.md", r"results for about (\d+) KB", s3_results._ROOM_BYTES / 1_000),
    ("docs/ledger.md", r"its tags; at most (\d+) KB each", document.LABELS_LIMIT_BYTES / 1_024),
    ("docs/failures.md", r"`Throttled` .* at most (\d+ minutes)", responses._THROTTLE_LIMIT_SECONDS),
    ("docs/failures.md", r"`Misconfigured` .* again every (\d+ minutes)", errors.Misconfigured.retry_after_seconds),
    ("docs/failures.md", r"`KeyNotSet` .* again every (\d+ seconds)", errors.KeyNotSet.retry_after_seconds),
    ("docs/failures.md", r"`ObjectDenied` .* again every (\d+ minutes)", retry._DENIED_SECONDS),
    ("docs/failures.md", r"`OutcomeUnknown` .* \| (\w+) counted failures", retry.COUNTED_FAILURES_LIMIT),
    ("docs/failures.md", r"shows nothing (\w+ minutes) after the last byte", send.SETTLE_SECONDS),
    ("docs/failures.md", r"After (\w+) such rounds", retry.ROUNDS),
    ("docs/failures.md", r"For (an hour) this workflow infers", settle._INFER_NOTHING_SECONDS),
    (
        "docs/failures.md",
        r"waits up to (\d+ minutes) for a job that vanished",
        PATIENCE_SECONDS[DoubtKind.JOB_VANISHED],
    ),
    ("docs/failures.md", r"not finished; (\d+ seconds) if all files", PATIENCE_SECONDS[DoubtKind.REASONS_MISSING]),
    ("docs/failures.md", r"waits up to (an hour) for details", PATIENCE_SECONDS[DoubtKind.UNANSWERED]),
    ("docs/failures.md", r"not have is retried for (\d+\s+seconds)", PATIENCE_SECONDS[DoubtKind.ABSENT]),
    ("docs/failures.md", r"not deliver is retried for (an hour)", PATIENCE_SECONDS[DoubtKind.DELAYED]),
    ("docs/failures.md", r"bucket refuses for (an hour)", PATIENCE_SECONDS[DoubtKind.REFUSED]),
]


@pytest.mark.parametrize(
    ("page", "pattern", "value"), NUMBERS, ids=[f"{page} {pattern}" for page, pattern, _ in NUMBERS]
)
def test_number_in_prose_is_that_of_the_source(page: str, pattern: str, value: float) -> None:
    found = re.search(pattern, (ROOT / page).read_text())
    assert found, "the sentence is gone: take it out of the table, or change the pattern"
    assert amount(" ".join(found[1].split())) == value


def test_range_of_the_relay_is_that_of_the_last_measurement() -> None:
    """The quartiles of the turns, not the best of them."""
    turns = json.loads((ROOT / "bench/results/relay.json").read_text())["data"]["by_turn"]
    pairs = zip(turns["ours"], turns["raw_socket"], strict=True)
    ratios = [ours["processor_seconds"] / raw["processor_seconds"] for ours, raw in pairs]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    assert f"at {low:.2f} to {high:.2f} times the processor time of raw TLS sockets" in (ROOT / "README.md").read_text()


def test_dollars_are_those_of_the_last_computation() -> None:
    bills = json.loads((ROOT / "bench/results/cost.json").read_text())["data"]["bills"]
    idle, _, some, many = (sum(bill["items"].values()) for bill in bills)
    said = (
        f"{idle:.2f} dollars a month for an idle stack, {some:.2f} with 10,000 documents, and {many:.2f} with a million"
    )
    assert said in (ROOT / "README.md").read_text()


def test_every_alarm_has_its_line() -> None:
    assert sorted(re.findall(r"^\| `(\w+Alarm)`", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)) == sorted(
        ALARMS
    )
