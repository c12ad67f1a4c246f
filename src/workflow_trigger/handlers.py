"""The two entry points of the Lambda functions: parse, compose, call one use case, shape the answer."""

import json
import logging
import os
import warnings
from collections.abc import Iterable, Mapping
from functools import cache, partial
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from workflow_trigger.announce import Announcer
from workflow_trigger.api_key import ApiKey
from workflow_trigger.clock import Clock, Deadline, parse_time
from workflow_trigger.errors import UnreadableEvent
from workflow_trigger.invocation import Invocation
from workflow_trigger.items import plain
from workflow_trigger.ledger import Ledger
from workflow_trigger.model import Phase, Row, Status
from workflow_trigger.notifications import Notice
from workflow_trigger.objects import ObjectVersion
from workflow_trigger.platform_api import Platform, connection_pool
from workflow_trigger.reconcile import Reconciler
from workflow_trigger.results import Results
from workflow_trigger.settings import Settings
from workflow_trigger.source import Source
from workflow_trigger.submit import Submitter

RECONCILE_SECONDS = 50.0  # of every minute: the next run of the schedule takes over

# An invocation without anything to count is an ordinary one.
warnings.filterwarnings("ignore", message="No application metrics to publish")

# Its debug lines show whole answers, the secret among them.
logging.getLogger("botocore").setLevel(logging.INFO)

# Escaped throughout: an object key may hold letters that turn the direction of a whole line of a log.
logger = Logger(json_serializer=partial(json.dumps, default=str))
metrics = Metrics(namespace="UnstructuredWorkflowTrigger")


@logger.inject_lambda_context
@metrics.log_metrics
def on_upload(event: Any, context: LambdaContext) -> dict[str, Any]:
    """Fired by S3 object events, downloads the new object, posts it to the workflow's run endpoint, records the job.

    The job information is written to DynamoDB. Takes what the upload queue delivers, and answers with the messages that
    failed; or an S3 notification or EventBridge event itself, and answers with its rows.

    Raises:
        UnreadableEvent: an event that came by itself has a record that names no object version.
    """
    invocation = _invocation(context)
    if _is_from_sqs(event):
        return _on_messages(event["Records"], invocation)
    rows = _register(Notice.of(event), invocation)
    _submit(rows, invocation)
    items = (invocation.ledger.item(row.key) for row in rows)
    answer: dict[str, Any] = json.loads(
        json.dumps({"rows": [each for each in items if each is not None]}, default=plain)
    )
    return answer


@logger.inject_lambda_context
@metrics.log_metrics
def on_schedule(_event: Any, context: LambdaContext) -> None:
    """Fired every minute, follows running jobs to their end, settles what is unknown, and submits what waits."""
    invocation = _invocation(context)
    try:
        Reconciler(invocation, _results()).run(RECONCILE_SECONDS)
    finally:
        _gauge(invocation)


def _gauge(invocation: Invocation) -> None:
    """How long the line has been waiting, and whether it waits although no workflow is at work; how long jobs take."""
    waiting = invocation.ledger.line.longest_wait_seconds()
    workflows = invocation.ledger.all_workflows(invocation.settings.workflow_ids)  # those that left the pool too
    started = [moment for each in workflows if each.is_at_work and (moment := parse_time(each.started_at))]
    longest = (invocation.clock.now() - min(started)).total_seconds() if started else 0.0
    pool = [each for each in workflows if each.workflow_id in invocation.settings.workflow_ids]
    idle = all(workflow.phase is Phase.IDLE for workflow in pool)
    metrics.add_metric(name="OldestWaitingSeconds", unit=MetricUnit.Seconds, value=waiting)
    metrics.add_metric(name="IdleWaitingSeconds", unit=MetricUnit.Seconds, value=waiting if idle else 0.0)
    metrics.add_metric(name="LongestRunSeconds", unit=MetricUnit.Seconds, value=longest)


# -- uploads -----------------------------------------------------------------------------------------------------------


def _is_from_sqs(event: Any) -> bool:
    records = event.get("Records") if isinstance(event, Mapping) else None
    return (
        isinstance(records, list)
        and bool(records)
        and all(isinstance(record, Mapping) and record.get("eventSource") == "aws:sqs" for record in records)
    )


def _on_messages(records: list[dict[str, Any]], invocation: Invocation) -> dict[str, Any]:
    """Register each message by itself, then submit once. Registered is acknowledged: from then on the ledger has it."""
    rows: list[Row] = []

    def register(record: SQSRecord) -> None:
        rows.extend(_register(Notice.of_message(record.raw_event.get("body")), invocation))

    processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
    with processor(records, register):
        processor.process()
    _submit(rows, invocation)
    return dict(processor.response())


def _register(notice: Notice, invocation: Invocation) -> list[Row]:
    """Put what can be read into the ledger; then fail for what cannot: it comes again, and ends in the dead letters.

    Raises:
        UnreadableEvent: with the reason of every record that could not be read.
    """
    for reason in notice.skipped:
        logger.info("skipped", reason=reason)
    rows = [_registered(version, invocation) for version in notice.versions if not _is_result(version, invocation)]
    if notice.unreadable:
        invocation.count("Unreadable", len(notice.unreadable))
        raise UnreadableEvent("; ".join(notice.unreadable))
    return rows


def _registered(version: ObjectVersion, invocation: Invocation) -> Row:
    row, is_news = invocation.ledger.register(version)
    logger.info("registered" if is_news else "duplicate", object_key=row.key.object, version=row.key.version)
    invocation.count("Registered" if is_news else "Duplicate", 1)
    return row


def _is_result(version: ObjectVersion, invocation: Invocation) -> bool:
    """Our own results never become work, whatever the bucket's notifications say."""
    settings = invocation.settings
    ours = version.bucket == settings.results_bucket and version.key.startswith(settings.results_prefix)
    if ours:
        logger.info("skipped", reason="a result of ours", object_key=version.row_key.object)
    return ours


def _submit(rows: Iterable[Row], invocation: Invocation) -> None:
    """Submit at once if a workflow is free. The rows are safe: what fails here, the next minute's run repeats."""
    try:
        Submitter(invocation).fill([row for row in rows if row.status is Status.PENDING])
    except Exception:
        logger.exception("could not submit; the next run of the schedule does")
        invocation.count("SubmitErrors", 1)


# -- composition -------------------------------------------------------------------------------------------------------


@cache
def _settings() -> Settings:
    return Settings.from_environment()


@cache
def _client(service: str) -> Any:
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=5,
        read_timeout=20,
        max_pool_connections=50,
        # TLS and the pin guard the bytes; a checksum beside them would cost as much as the relay itself.
        response_checksum_validation="when_required",
        request_checksum_calculation="when_required",
    )
    return boto3.client(service, config=config)  # type: ignore[call-overload]


@cache
def _api_key() -> ApiKey:
    return ApiKey(_client("secretsmanager"), _settings().api_key_secret_arn)


@cache
def _connections() -> Any:
    return connection_pool(_settings().api_url)


def _results() -> Results | None:
    settings = _settings()
    if settings.results_bucket is None:
        return None
    return Results(_client("s3"), bucket=settings.results_bucket, prefix=settings.results_prefix)


def _invocation(context: LambdaContext) -> Invocation:
    settings = _settings()
    clock = Clock()
    deadline = Deadline.in_seconds(clock, context.get_remaining_time_in_millis() / 1_000)
    return Invocation(
        ledger=Ledger(
            _client("dynamodb"),
            ledger_table=settings.ledger_table,
            workflows_table=settings.workflows_table,
            retention_days=settings.retention_days,
            clock=clock,
            deadline=deadline,
            announce=lambda rows: Announcer(_client("events"), stack=settings.stack_name).put(rows),
        ),
        source=Source(_client("s3")),
        platform=Platform(api_url=settings.api_url, api_key=_api_key(), pool=_connections(), deadline=deadline),
        settings=settings,
        clock=clock,
        deadline=deadline,
        count=_count,
    )


def _count(name: str, value: int) -> None:
    metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    # While it starts, Lambda gives a function a whole processor, and later a fraction of one.
    for _service in ("dynamodb", "s3", "secretsmanager"):
        _client(_service)
