"""Clients, logger and metrics of the functions, made once, and the context of one invocation."""

import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from workflow_trigger.adapters.dynamodb.ledger import Ledger
from workflow_trigger.adapters.eventbridge import EventPublisher
from workflow_trigger.adapters.s3_listing import listed_versions
from workflow_trigger.adapters.s3_owner import expect_owner
from workflow_trigger.adapters.s3_reader import ObjectReader
from workflow_trigger.adapters.s3_results import ResultsBucket
from workflow_trigger.adapters.unstructured.api_key import ApiKey
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.adapters.unstructured.connections import Connections, Throttle, ca_certificates
from workflow_trigger.domain.clock import Clock, Deadline
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.services.context import Context
from workflow_trigger.settings import Settings, patterns

_IDLE_MEGABYTES = 128  # of a function that does nothing, and some room
_WORKER_MEGABYTES = 32  # of a stream and a copy
_MOST_WORKERS = 16

# An invocation without anything to count is an ordinary one.
warnings.filterwarnings("ignore", message="No application metrics to publish")

# Its debug lines show whole answers, the secret among them.
logging.getLogger("botocore").setLevel(logging.INFO)

# Escaped throughout: an object key may hold characters that turn the direction of a whole line of a log.
logger = Logger(json_serializer=partial(json.dumps, default=str))
metrics = Metrics(namespace="UnstructuredWorkflowTrigger")


@cache
def settings() -> Settings:
    """The function's environment."""
    return Settings.from_environment()


@cache
def client(service: str) -> Any:
    """A client of an AWS service. That of EventBridge gives up early: its events are published again anyway."""
    is_patient = service != "events"
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 4 if is_patient else 2},
        connect_timeout=5,
        read_timeout=20 if is_patient else 5,
        max_pool_connections=50,
        parameter_validation=False,  # half of the work of a transaction, and AWS validates anyway
        user_agent="unstructured-workflow-trigger",  # botocore puts its own together anew for every call
        # TLS and the pin guard the bytes. A checksum as well would cost as much as the relay itself.
        response_checksum_validation="when_required",
        request_checksum_calculation="when_required",
    )
    made = boto3.client(service, config=config)  # type: ignore[call-overload]
    if service == "s3" and os.environ.get("EXPECTED_BUCKET_OWNER"):
        expect_owner(made, patterns(os.environ.get("FOREIGN_BUCKETS", "")), os.environ["EXPECTED_BUCKET_OWNER"])
    return made


@cache
def _platform() -> tuple[ApiKey, Connections, Throttle]:
    """What lives as long as the function: the key, the connections, and a pause that the platform asked for."""
    given, secrets = settings(), client("secretsmanager")
    trusted = partial(ca_certificates, secrets, given.ca_bundle_secret_arn)
    return ApiKey(secrets, given.api_key_secret_arn), Connections(given.api_url, trusted), Throttle()


def worker_threads() -> int:
    """How many streams, and as many copies, fit into the function's memory at once."""
    megabytes = int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"))
    return max(2, min((megabytes - _IDLE_MEGABYTES) // _WORKER_MEGABYTES, _MOST_WORKERS))


def context_of(invocation: LambdaContext) -> Context:
    """What an invocation works with."""
    given = settings()
    clock = Clock()
    deadline = Deadline.in_seconds(clock, invocation.get_remaining_time_in_millis() / 1_000)
    api_key, connections, throttle = _platform()
    return Context(
        ledger=Ledger(
            client("dynamodb"),
            ledger_table=given.ledger_table,
            workflows_table=given.workflows_table,
            retention_days=given.retention_days,
            deadline=deadline,
        ),
        reader=ObjectReader(client("s3"), reads_tags=given.reads_tags),
        client=PlatformClient(
            api_url=given.api_url, api_key=api_key, connections=connections, deadline=deadline, throttle=throttle
        ),
        results=ResultsBucket(client("s3"), given.results_kms_key_arn) if given.results_bucket else None,
        events=EventPublisher(client("events"), stack=given.stack_name, bus=given.event_bus_name),
        settings=given,
        clock=clock,
        deadline=deadline,
        wake_poller=_wake_poller,
    )


def listing() -> Iterator[ObjectVersion]:
    """The objects that the stack listens to."""
    return listed_versions(client("s3"), settings().source_bucket, settings().key_prefix)


def _wake_poller() -> None:
    """Invoke on_schedule now, without waiting for it."""
    client("lambda").invoke(FunctionName=settings().on_schedule_function, InvocationType="Event", Payload=b"{}")


def report(context: Context, gauges: Mapping[str, Mapping[str, float]] = MappingProxyType({})) -> None:
    """Hand what was counted to the metrics, of all routes together and of each; only the thread of the handler does."""
    counts = {name: each.counts.taken() for name, each in context.by_route().items()}
    names = {metric for own in gauges.values() for metric in own}
    longest = {metric: max(own.get(metric, 0.0) for own in gauges.values()) for metric in names}
    _add(metrics, sum(map(Counter, counts.values()), Counter[str]()), longest)
    for route, own in counts.items() if context.settings.routes else ():
        of_route = EphemeralMetrics(namespace=metrics.namespace)
        of_route.add_dimension(name="route", value=route or "(all others)")
        if _add(of_route, own, gauges.get(route, {})):
            of_route.flush_metrics()


def _add(to: Metrics | EphemeralMetrics, counts: Mapping[str, int], seconds: Mapping[str, float]) -> bool:
    """Add metrics; False where there are none."""
    for unit, values in ((MetricUnit.Count, counts), (MetricUnit.Seconds, seconds)):
        for name, value in values.items():
            to.add_metric(name=name, unit=unit, value=value)
    return bool(counts or seconds)


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    # While it starts, Lambda gives a function a whole processor, and later a fraction of one.
    for _service in ("dynamodb", "s3", "secretsmanager"):
        client(_service)
