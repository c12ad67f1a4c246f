"""The built function in the real Lambda runtime."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.event import function_variables, s3_event, sequencer_of
from local.invoke import Runtime, runtime, seed
from tests.conftest import load_event
from tests.integration.conftest import DeployedHarness

FAILS = {
    "not-an-event": "neither an S3 notification",
    "s3-missing-etag": "neither a version id nor an etag",
    "s3-missing-key": "has no key",
    "s3-one-bad-record": "has no bucket",
    "s3-wrong-types": "size is not a number",
}
WITHOUT_ROWS = {"s3-removed", "s3-test-event", "eventbridge-deleted"}


@pytest.fixture(scope="module")
def function(deployed: DeployedHarness, package: Path) -> Iterator[Runtime]:
    deployed.stack.set_key(deployed.state.behaviour.api_key)
    variables = function_variables(deployed.stack, "OnUploadFunction")
    with runtime(package.parent / "OnUploadFunction", "workflow_trigger.handlers.on_upload", variables) as running:
        yield running


def test_every_shipped_event_runs_in_the_real_runtime(
    function: Runtime, deployed: DeployedHarness, event_file: Path
) -> None:
    name = event_file.stem
    event = load_event(name)
    seed(deployed.stack.aws, event)
    answer = function.invoke(event)
    if name in FAILS:
        assert answer["errorType"] == "UnreadableEvent"
        assert FAILS[name] in answer["errorMessage"]
    elif name.startswith("sqs"):
        failed = [event["Records"][1]["messageId"]] if name == "sqs-one-bad-message" else []
        assert answer == {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}
    elif name in WITHOUT_ROWS:
        assert answer == {"rows": []}
    else:
        assert answer["rows"]
        json.dumps(answer)


def test_true_event_of_an_uploaded_object_answers_with_its_row(function: Runtime, deployed: DeployedHarness) -> None:
    s3 = deployed.stack.aws.client("s3")
    s3.create_bucket(Bucket="for-a-true-event")
    s3.put_object(Bucket="for-a-true-event", Key="a b+c.pdf", Body=b"content")
    head = s3.head_object(Bucket="for-a-true-event", Key="a b+c.pdf")
    (row,) = function.invoke(s3_event("for-a-true-event", "a b+c.pdf", head))["rows"]
    assert row["key"] == "a b+c.pdf"
    assert row["status"] in {"PENDING", "SUBMITTING", "SCHEDULED", "IN_PROGRESS", "COMPLETED"}


def test_true_event_of_a_document_that_was_taken_in_runs_nothing_again(
    function: Runtime, deployed: DeployedHarness
) -> None:
    stack, key = deployed.stack, "once-more.pdf"
    s3 = stack.aws.client("s3")
    s3.put_object(Bucket=stack["SourceBucket"], Key=key, Body=b"taken in")
    until = time.monotonic() + 120
    while not (before := [row for row in stack.rows() if row["key"] == key and row["status"] == "COMPLETED"]):
        assert time.monotonic() < until, "the upload did not come to its end"
        time.sleep(1)
    head = s3.head_object(Bucket=stack["SourceBucket"], Key=key)
    event = s3_event(stack["SourceBucket"], key, head, sequencer_of(stack, key, head))
    seed(stack.aws, event)
    (answered,) = function.invoke(event)["rows"]
    assert answered["status"] == "COMPLETED"
    after = [row for row in stack.rows() if row["key"] == key]
    of_the_run = ("version", "status", "upload_name", "job_id")
    assert [[row.get(each) for each in of_the_run] for row in after] == [[before[0][each] for each in of_the_run]]
