"""5,000 uploads in one go, through the deployed template on the local stack."""

import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.report import Check, Section
from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, PlatformState
from local.stack import TOOLS, Aws, Deployed, build, deploy

UPLOADS = 5_000
_HANG_SECONDS = 900


def measure(aws: Aws) -> Section:
    """Upload, and wait until every row is there."""
    with tempfile.TemporaryDirectory() as folder:
        state = PlatformState(Path(folder), Behaviour(default_job_seconds=60))
        with serving(state) as url:
            parameters = {"WorkflowIds": str(uuid.uuid4()), "UnstructuredApiUrl": url}
            stack = deploy(build(TOOLS / "bench-burst"), aws, parameters)
            stack.set_key(state.behaviour.api_key)
            return _burst(stack)


def _burst(stack: Deployed) -> Section:
    s3, bucket = stack.aws.client("s3"), stack["SourceBucket"]
    began = time.monotonic()
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: s3.put_object(Bucket=bucket, Key=f"{n:05}.pdf", Body=b"x"), range(UPLOADS)))
    uploaded = time.monotonic() - began
    until = began + _HANG_SECONDS
    while _count(stack) < UPLOADS and time.monotonic() < until:
        time.sleep(0.5)
    registered = time.monotonic() - began
    rows = stack.rows()
    dead = _messages(stack, "DeadLetterQueueUrl")
    invocations = _invocations(stack)
    distinct = len({row["object"] for row in rows})
    return Section(
        name="burst",
        title="A burst of uploads",
        how=f"{UPLOADS:,} uploads by 16 threads to the local stack, whose S3, SQS, Lambda and DynamoDB are one "
        f"process on "
        "the same two cores: the times say little about AWS, the counts do.",
        header=["", ""],
        rows=[
            ["all uploaded after", f"{uploaded:.1f} s"],
            ["all registered after", f"{registered:.1f} s"],
            ["rows", f"{distinct:,}"],
            ["invocations of on_upload", f"{invocations:,}"],
            ["dead letters", str(dead)],
        ],
        checks=[
            Check("uploads of a burst without a row", UPLOADS - distinct, 0),
            Check("dead letters of a burst", dead, 0),
        ],
        data={"uploaded_seconds": uploaded, "registered_seconds": registered, "invocations": invocations},
    )


def _count(stack: Deployed) -> int:
    pages = stack.aws.client("dynamodb").get_paginator("scan").paginate(TableName=stack["LedgerTable"], Select="COUNT")
    return sum(page["Count"] for page in pages)


def _messages(stack: Deployed, output: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = stack.aws.client("sqs").get_queue_attributes(QueueUrl=stack[output], AttributeNames=names)
    return sum(int(answer["Attributes"][name]) for name in names)


def _invocations(stack: Deployed) -> int:
    """By the lines that every invocation's log begins with."""
    logs, now = stack.aws.client("logs"), datetime.now(UTC)
    resources = stack.aws.client("cloudformation").describe_stack_resources(StackName=stack.name)["StackResources"]
    (group,) = [each["PhysicalResourceId"] for each in resources if each["LogicalResourceId"] == "OnUploadLogs"]
    start = int((now - timedelta(hours=1)).timestamp() * 1_000)
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=start)
    return sum(event["message"].startswith("START") for page in pages for event in page["events"])
