"""A deployed stack, found by its name: outputs, parameters, and what the commands reach through them."""

from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from workflow_trigger.adapters.dynamodb.ledger import Ledger
from workflow_trigger.adapters.s3_owner import expect_owner
from workflow_trigger.domain.clock import Clock, Deadline
from workflow_trigger.domain.document import Route, Selection, canonical_id, is_workflow_key
from workflow_trigger.settings import megabytes, number_between, patterns, routes_in
from workflow_trigger_cli.errors import CommandError, UsageError

_NEEDED = ("SourceBucket", "LedgerTable", "WorkflowsTable", "UploadQueueUrl", "DeadLetterQueueUrl", "ApiKeySecret")
_SEGMENTS = 4
_PATIENCE_SECONDS = 86_400.0  # nobody ends a command after 15 minutes


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack by its outputs and parameters, which tell a command all that it needs."""

    name: str
    region: str
    status: str
    created_at: datetime
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]
    session: boto3.Session

    @classmethod
    def find(cls, name: str, *, region: str | None, profile: str | None) -> Self:
        """Look a stack up.

        Raises:
            CommandError: there is none of that name, or it is not one of ours, or no region is set.
        """
        if not name:
            raise UsageError("--stack names no stack")
        session = boto3.Session(region_name=region, profile_name=profile)
        if session.region_name is None:
            raise CommandError("No region is set. Pass --region, or export AWS_DEFAULT_REGION.")
        try:
            (found,) = session.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        except ValueError as error:  # botocore's, of AWS_ENDPOINT_URL
            raise UsageError(f"The environment has an address that is none: {error}") from error
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            raise CommandError(
                f"There is no stack {name} in {session.region_name}. Pass --stack and --region to name another."
            ) from error
        outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
        missing = [each for each in _NEEDED if each not in outputs]
        if missing:
            raise CommandError(
                f"The stack {name} ({found['StackStatus']}) has no output {missing[0]}: "
                "it is not a workflow trigger, or its deployment did not finish."
            )
        parameters = {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}
        return cls(name, session.region_name, found["StackStatus"], found["CreationTime"], outputs, parameters, session)

    def __getitem__(self, output: str) -> str:
        """The value of an output."""
        return self.outputs[output]

    def client(self, service: str) -> Any:
        """A client in the stack's region."""
        config = Config(retries={"mode": "standard", "total_max_attempts": 5}, max_pool_connections=16)
        made = self.session.client(service, config=config)  # type: ignore[call-overload]
        owner = self.parameters.get("ExpectedBucketOwner")
        if service == "s3" and owner:
            foreign = {self.parameters.get(name) for name in ("SourceBucketName", "ResultsBucketName")} - {None, ""}
            expect_owner(made, {str(name) for name in foreign}, owner)
        return made

    def physical_id(self, kind: str, of: str = "") -> str | None:
        """The physical id of the only resource of a type whose logical id begins with `of`, if the stack has one."""
        resources = self.client("cloudformation").describe_stack_resources(StackName=self.name)["StackResources"]
        found = (
            each for each in resources if each["ResourceType"] == kind and each["LogicalResourceId"].startswith(of)
        )
        return next((each["PhysicalResourceId"] for each in found), None)

    def scanned(self, **query: Any) -> Generator[dict[str, Any]]:
        """The items of the ledger as DynamoDB writes them, page by page; several threads read, each a part of it.

        Who stops reading waits for nothing: an answer may take minutes that never comes.
        """
        scan = partial(self.client("dynamodb").scan, TableName=self["LedgerTable"], TotalSegments=_SEGMENTS, **query)
        threads = ThreadPoolExecutor(_SEGMENTS)
        running = {threads.submit(scan, Segment=number): number for number in range(_SEGMENTS)}
        try:
            while running:
                future = next(iter(running))
                number, answer = running.pop(future), future.result()
                if "LastEvaluatedKey" in answer:
                    following = threads.submit(scan, Segment=number, ExclusiveStartKey=answer["LastEvaluatedKey"])
                    running[following] = number
                yield from answer["Items"]
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def upload_queue_arn(self) -> str:
        """The ARN of the upload queue."""
        answer = self.client("sqs").get_queue_attributes(QueueUrl=self["UploadQueueUrl"], AttributeNames=["QueueArn"])
        return str(answer["Attributes"]["QueueArn"])

    @property
    def default_pool(self) -> list[str]:
        """What `WorkflowIds` names, ids or keys: the workflows of all documents that no route takes."""
        return [each.strip() for each in self.parameters["WorkflowIds"].split(",") if each.strip()]

    @property
    def workflow_ids(self) -> list[str]:
        """The pools of all routes, as they were deployed: ids, or keys; each once."""
        routed = [each for route in self.routes for each in route.workflow_ids]
        spelled: dict[str, str] = {}
        for each in (*self.default_pool, *routed):
            spelled.setdefault(canonical_id(each), each)
        return list(spelled.values())

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes, but for that of all other documents.

        Raises:
            CommandError: the parameter is faulty, as far as it could be deployed so.
        """
        try:
            return routes_in(self.parameters.get("Routes", ""))
        except ValueError as error:
            fix = f"sam deploy --stack-name {self.name} --parameter-overrides Routes=…"
            raise CommandError(f"No function of {self.name} starts: Routes: {error}. Correct it with: {fix}") from error

    def route_of(self, workflow_id: str) -> str:
        """The key prefix of the route that a workflow is in; '' for that of all others, or none."""
        same = canonical_id(workflow_id)
        return next((each.key_prefix for each in self.routes if same in map(canonical_id, each.workflow_ids)), "")

    @property
    def ids_in_pool(self) -> list[str]:
        """The pools without those that are named by a key."""
        return [each for each in self.workflow_ids if not is_workflow_key(each)]

    def is_in_pool(self, workflow_id: str) -> bool:
        """Whether a workflow is in the pool; of a key it cannot be told here, so then every one counts."""
        pool = self.workflow_ids
        return canonical_id(workflow_id) in map(canonical_id, pool) or any(map(is_workflow_key, pool))

    @property
    def selection(self) -> Selection:
        """Which objects the stack processes, as its functions see it."""
        given = self.parameters
        return Selection(
            include=patterns(given.get("IncludePatterns", "")),
            exclude=patterns(given.get("ExcludePatterns", "")),
            min_bytes=number_between(0, 10**12)(given.get("MinBytes", "1")),
            max_bytes=megabytes(0)(given.get("MaxMegabytesPerFile", "0")) or None,
            only_supported=given.get("OnlySupportedTypes") == "on",
        )

    @property
    def has_existing_bucket(self) -> bool:
        """Whether the source bucket was there before the stack."""
        return bool(self.parameters.get("SourceBucketName"))

    @property
    def retention(self) -> timedelta:
        """How long the ledger keeps a row after its end; zero: for ever."""
        return timedelta(days=float(self.parameters.get("LedgerRetentionDays", "365")))

    def ledger(self) -> Ledger:
        """The stack's ledger."""
        return Ledger(
            self.client("dynamodb"),
            ledger_table=self["LedgerTable"],
            workflows_table=self["WorkflowsTable"],
            retention_days=self.retention / timedelta(days=1),
            deadline=Deadline.in_seconds(Clock(), _PATIENCE_SECONDS),
        )


def split_url(url: str) -> tuple[str, str]:
    """`s3://bucket/key` → bucket and key, as they are: nothing in a key is an escape.

    Raises:
        UsageError: it is not such an address.
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or url.encode("utf-8", "replace").decode() != url:
        raise UsageError(f"'{url}' is not an address like s3://bucket/key, in UTF-8")
    return bucket, key
