"""The query of docs/operations.md, run on what the functions really log, shows a document's whole life."""

import json
import logging
import re
from dataclasses import replace
from typing import Any

import pytest

from local.fake_platform.state import Fault
from local.stack import ROOT
from tests.integration.harness import Harness
from workflow_trigger.adapters.s3_events import ParsedEvent
from workflow_trigger.bootstrap import logger
from workflow_trigger.services.register import register


def query() -> str:
    """The query, as it is printed."""
    found = re.search(r"<!-- query -->\n```text\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def run(text: str, lines: list[str]) -> list[dict[str, Any]]:
    """As much of CloudWatch Logs Insights as the query needs: fields, filter by `like`, sort, limit."""
    shown: list[str] = []
    found = lines
    for command in text.strip().replace("\n|", "|").split("|"):
        name, _, rest = command.strip().partition(" ")
        match name:
            case "fields":
                shown = [each.strip() for each in rest.split(",")]
            case "filter":
                (wanted,) = re.findall(r'@message like "(.*)"$', rest.strip())
                found = [line for line in found if wanted.replace('\\"', '"').replace("\\\\", "\\") in line]
            case "sort":
                assert rest.strip() == "@timestamp asc"
            case "limit":
                found = found[: int(rest)]
            case _:
                raise AssertionError(f"not known here: {command}")

    def value(line: dict[str, Any], path: str) -> Any:
        for part in path.split("."):
            line = line.get(part) or {} if isinstance(line, dict) else {}
        return line or None

    return [{name: value(json.loads(line), name) for name in shown} for line in found]


KEY = "in/a b+ü.pdf"


def life(harness: Harness, fault: Fault | None) -> dict[str, Any]:
    if fault:
        harness.state.faults.append(fault)
    version = harness.upload(KEY, b"1")
    record = {
        "eventName": "ObjectCreated:Put",
        "eventTime": "2026-11-26T11:36:41Z",
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810"},
        "s3": {
            "bucket": {"name": version.bucket},
            "object": {"key": "in/a+b%2B%C3%BC.pdf", "eTag": version.etag, "size": 1, "sequencer": "1"},
        },
    }
    register(ParsedEvent.of({"Records": [record]}), harness.context())
    harness.tick()
    harness.settle(minutes=90)
    harness.deliver(replace(harness.upload("other.pdf", b"2")))
    return harness.row(version)


@pytest.mark.parametrize(
    ("fault", "steps"),
    [
        (None, ["registered", "sending", "accepted", "finished"]),
        (  # uncertain: the same batch again
            Fault("run", "status", status=503),
            ["registered", "sending", "not accepted", "not accepted so far", "accepted", "finished"],
        ),
        (Fault("run", "drop-after"), ["registered", "sending", "not accepted", "settled", "finished"]),
    ],
)
def test_query_shows_a_documents_life(
    harness: Harness, caplog: pytest.LogCaptureFixture, fault: Fault | None, steps: list[str]
) -> None:
    caplog.set_level(logging.INFO)
    row = life(harness, fault)
    formatter = logger.registered_formatter
    written = [formatter.format(record) for record in caplog.records if "workflow_trigger" in record.name]
    url = json.dumps(row["object"])[1:-1].replace("\\", "\\\\")
    found = run(query().replace("s3://BUCKET/KEY", url), written)
    assert [each["message"] for each in found] == steps
    by_step = {each["message"]: each for each in found}
    assert by_step["finished"]["job_id"] == row["job_id"]
    assert by_step["finished"]["status"] == "COMPLETED"
    assert {each["attempt_id"] for each in found[-2:]} == {row["attempt_id"]}
    assert "C3D13FE58DE4C810" in next(line for line in written if '"registered"' in line)
    assert row["request_id"] == "C3D13FE58DE4C810"
