"""Checks of every part between the bucket and the ledger. Each problem comes with the command that fixes it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from workflow_trigger.adapters.unstructured.api_key import ApiKey
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.adapters.unstructured.connections import Connections, ca_certificates
from workflow_trigger.domain.clock import Clock, Deadline
from workflow_trigger.domain.errors import (
    KeyNotSet,
    KeyRejected,
    NotFound,
    PlatformError,
    SecretUnusable,
    SettingsError,
)
from workflow_trigger.domain.model import ALL_ROUTES
from workflow_trigger.settings import Settings, api_root
from workflow_trigger_cli.commands.findings import Finding, Health, checked, limits
from workflow_trigger_cli.commands.status import blocking_reason, messages_in
from workflow_trigger_cli.errors import CommandError
from workflow_trigger_cli.platform_workflows import information_from
from workflow_trigger_cli.stack import Stack

_ANSWER_SECONDS = 60.0
_SILENT_MINUTES = 5


class Doctor:
    """The checks, in the order in which a document meets what they look at."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._settings: Settings | None = None
        self._pool: dict[str, str] = {}  # the first name of each workflow that was asked about, by its check

    def findings(self) -> Iterator[Finding]:
        """Every check. One that AWS does not allow is unknown and stops no other."""
        checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
            ("stack", self._stack_is_complete),
            ("bucket", self._bucket_is_here),
            ("events", self._events_arrive),
            ("upload function", self._queue_is_read),
            ("settings", self._settings_are_right),
            ("API key", self._key_and_workflows),
            ("limits", self._limits),
            ("schedule", self._schedule_runs),
            ("results", self._results_bucket_is_there),
            ("workflows", self._nothing_is_blocked),
            ("dead letters", self._no_dead_letters),
        ]
        for name, check in checks:
            try:
                yield from check()
            except (ClientError, BotoCoreError, CommandError) as error:
                yield Finding(check=name, health=Health.UNKNOWN, says=f"cannot be checked from here: {error}")

    # -- from the bucket to the function -------------------------------------------------------------------------------

    def _stack_is_complete(self) -> Iterator[Finding]:
        status = self._stack.status
        if status in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
            yield Finding(check="stack", health=Health.OK, says=f"{status}, in {self._stack.region}")
        else:
            yield Finding(check="stack", health=Health.UNKNOWN, says=status, fix="run sam deploy and read its output")

    def _bucket_is_here(self) -> Iterator[Finding]:
        bucket = self._stack["SourceBucket"]
        try:
            answer = self._stack.client("s3").get_bucket_location(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] in {"404", "NoSuchBucket"}:
                says, fix = f"there is no bucket {bucket}", f"{self._deploy}SourceBucketName=…"
            elif self._belongs_to_another(bucket):
                says, fix = f"{bucket} is not owned by ExpectedBucketOwner", f"{self._deploy}ExpectedBucketOwner=…"
            else:
                raise
            yield Finding(check="bucket", health=Health.FAILED, says=says, fix=fix)
            return
        region = answer.get("LocationConstraint") or "us-east-1"
        region = {"EU": "eu-west-1"}.get(region, region)
        if region == self._stack.region:
            yield Finding(check="bucket", health=Health.OK, says=f"{bucket}, in {region}")
        else:
            yield Finding(
                check="bucket",
                health=Health.FAILED,
                says=f"{bucket} is in {region}: its events do not reach {self._stack.region}",
                fix=f"sam deploy --region {region} --parameter-overrides SourceBucketName={bucket} …",
            )

    def _belongs_to_another(self, bucket: str) -> bool:
        """Whether S3 refuses only because of the owner that is expected."""
        if not self._stack.parameters.get("ExpectedBucketOwner"):
            return False
        try:
            self._stack.session.client("s3", region_name=self._stack.region).get_bucket_location(Bucket=bucket)
        except ClientError:
            return False
        return True

    def _events_arrive(self) -> Iterator[Finding]:
        if self._stack.has_existing_bucket:
            yield self._eventbridge()
            yield self._rule()
            return
        queues = self._notifications().get("QueueConfigurations", [])
        if any(each["QueueArn"] == self._stack.upload_queue_arn() for each in queues):
            yield Finding(check="events", health=Health.OK, says="the bucket notifies the upload queue")
        else:
            yield self._fixable("events", "the notification to the upload queue was removed from the bucket")

    def _eventbridge(self) -> Finding:
        if "EventBridgeConfiguration" in self._notifications():
            return Finding(check="events", health=Health.OK, says="the bucket sends its events to EventBridge")
        return self._fixable("events", "the bucket does not send its events to EventBridge")

    def _rule(self) -> Finding:
        name = (self._stack.physical_id("AWS::Events::Rule") or "").rpartition("|")[2]
        events = self._stack.client("events")
        try:
            rule = events.describe_rule(Name=name)
        except events.exceptions.ResourceNotFoundException:
            return Finding(check="rule", health=Health.FAILED, says="the stack's rule was deleted", fix=self._redeploy)
        if rule["State"] != "ENABLED":
            return self._fixable("rule", f"the rule {name} is {rule['State'].lower()}")
        if not any(
            each["Arn"] == self._stack.upload_queue_arn() for each in events.list_targets_by_rule(Rule=name)["Targets"]
        ):
            return Finding(
                check="rule", health=Health.FAILED, says=f"the rule {name} has no target", fix=self._redeploy
            )
        return Finding(check="rule", health=Health.OK, says=f"{name} targets the upload queue")

    def _queue_is_read(self) -> Iterator[Finding]:
        function = self._stack["OnUploadFunction"]
        found = self._stack.client("lambda").list_event_source_mappings(
            FunctionName=function, EventSourceArn=self._stack.upload_queue_arn()
        )["EventSourceMappings"]
        if not found:
            yield Finding(
                check="upload function",
                health=Health.FAILED,
                says="the upload queue has no consumer",
                fix=self._redeploy,
            )
        elif found[0]["State"] not in {"Enabled", "Enabling", "Creating", "Updating"}:
            yield self._fixable("upload function", f"its event source mapping is {found[0]['State'].lower()}")
        else:
            yield Finding(check="upload function", health=Health.OK, says="reads the upload queue")
        for name in ("OnUploadFunction", "OnScheduleFunction"):
            yield from self._may_run(self._stack[name])

    def _may_run(self, function: str) -> Iterator[Finding]:
        reserved = self._stack.client("lambda").get_function_concurrency(FunctionName=function)
        if reserved.get("ReservedConcurrentExecutions") == 0:
            yield Finding(
                check="concurrency",
                health=Health.FAILED,
                says=f"{function} is stopped: its reserved concurrency is 0",
                fix=f"aws lambda delete-function-concurrency --function-name {function} --region {self._stack.region}",
            )

    # -- from the function to the platform -----------------------------------------------------------------------------

    def _settings_are_right(self) -> Iterator[Finding]:
        """The environment, read as the functions read it: with a fault in it none of them starts."""
        found = self._stack.client("lambda").get_function_configuration(FunctionName=self._stack["OnScheduleFunction"])
        try:
            self._settings = Settings.from_environment(found.get("Environment", {}).get("Variables", {}))
        except SettingsError as error:
            yield Finding(check="settings", health=Health.FAILED, says=str(error), fix=f"{self._deploy}…")
        else:
            yield Finding(check="settings", health=Health.OK, says="the functions can read them")

    def _key_and_workflows(self) -> Iterator[Finding]:
        platform = self._platform()
        if isinstance(platform, Finding):
            yield platform
            return
        for number, workflow_id in enumerate(self._stack.workflow_ids):
            finding = self._workflow(platform, workflow_id)
            if finding.check == "API key":
                self._pool.clear()
                yield finding
                return
            if number == 0 and finding.health is not Health.UNKNOWN:
                yield Finding(check="API key", health=Health.OK, says="set and accepted by the platform")
            name = self._pool.setdefault(finding.check, workflow_id)
            route = self._stack.route_of(workflow_id)
            if name != workflow_id:
                says = f"{workflow_id} is the same workflow as {name}, and counts once"
                yield replace(finding, health=Health.OK, says=says, fix="")
            else:
                yield replace(finding, says=f"{finding.says} (route {route})") if route else finding

    def _platform(self) -> PlatformClient | Finding:
        """The platform, as the functions reach it; or why it cannot be asked."""
        secrets, parameters = self._stack.client("secretsmanager"), self._stack.parameters
        key, check = ApiKey(secrets, self._stack["ApiKeySecret"]), "API key"
        try:
            url = api_root(parameters["UnstructuredApiUrl"])
        except ValueError as error:
            fix = f"{self._deploy}UnstructuredApiUrl=…"
            return Finding(check="address", health=Health.FAILED, says=f"UnstructuredApiUrl {error}", fix=fix)
        try:
            key.value()
            check = "certificates"
            trusted = partial(ca_certificates, secrets, parameters.get("CaBundleSecretArn", ""))
            connections = Connections(url, trusted)
            _ = connections.kept  # they are read now
        except SecretUnusable as error:
            if check == "API key":
                return Finding(check=check, health=Health.UNKNOWN, says=str(error))
            return Finding(check=check, health=Health.FAILED, says=str(error), fix=f"{self._deploy}CaBundleSecretArn=…")
        except KeyNotSet:
            says, fix = "not set; documents wait", self._stack["SetApiKeyCommand"]
            return Finding(check=check, health=Health.FAILED, says=says, fix=fix)
        except PlatformError as error:
            return Finding(check=check, health=Health.UNKNOWN, says=str(error))
        deadline = Deadline.in_seconds(Clock(), _ANSWER_SECONDS)
        return PlatformClient(api_url=url, api_key=key, connections=connections, deadline=deadline)

    def _workflow(self, platform: PlatformClient, workflow_id: str) -> Finding:
        name = f"workflow {workflow_id}"
        try:
            answer = platform.workflow(workflow_id)
        except KeyRejected as error:
            return Finding(check="API key", health=Health.FAILED, says=str(error), fix=self._stack["SetApiKeyCommand"])
        except NotFound:
            return Finding(
                check=name,
                health=Health.FAILED,
                says="unknown to the platform, or not visible with this key",
                fix=f"{self._deploy}WorkflowIds=…",
            )
        except PlatformError as error:
            return Finding(check=name, health=Health.UNKNOWN, says=f"cannot be asked about from here: {error}")
        try:
            return checked(information_from(answer))
        except PlatformError as error:
            return Finding(check=name, health=Health.UNKNOWN, says=str(error))

    def _limits(self) -> Iterator[Finding]:
        if self._settings is None:
            yield Finding(check="limits", health=Health.UNKNOWN, says="cannot be checked without the settings")
        else:
            yield from limits(self._settings, len(self._pool) or len(self._stack.workflow_ids))

    # -- what runs every minute ----------------------------------------------------------------------------------------

    def _schedule_runs(self) -> Iterator[Finding]:
        name = (self._stack.physical_id("AWS::Scheduler::Schedule", of="OnScheduleFunction") or "").rpartition("|")[2]
        scheduler = self._stack.client("scheduler")
        try:
            schedule = scheduler.get_schedule(Name=name)
        except scheduler.exceptions.ResourceNotFoundException:
            yield Finding(check="schedule", health=Health.FAILED, says="it was deleted", fix=self._redeploy)
            return
        if schedule["State"] != "ENABLED":
            yield self._fixable("schedule", "it is disabled, so no job is followed")
        elif self._ran_lately():
            yield Finding(check="schedule", health=Health.OK, says="enabled; ran in the last five minutes")
        else:
            yield Finding(
                check="schedule",
                health=Health.UNKNOWN,
                says="enabled, but no run in the last five minutes is recorded",
                fix=self._stack["LogsCommand"],
            )

    def _ran_lately(self) -> bool:
        now = datetime.now(UTC)
        answer = self._stack.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/Lambda",
            MetricName="Invocations",
            Dimensions=[{"Name": "FunctionName", "Value": self._stack["OnScheduleFunction"]}],
            StartTime=now - timedelta(minutes=_SILENT_MINUTES),
            EndTime=now,
            Period=60,
            Statistics=["Sum"],
        )
        return any(point["Sum"] for point in answer["Datapoints"])

    def _results_bucket_is_there(self) -> Iterator[Finding]:
        bucket = self._stack.outputs.get("ResultsBucket")
        if bucket is None:
            yield Finding(check="results", health=Health.OK, says="off; results stay at the platform")
            return
        try:
            self._stack.client("s3").head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
            says = f"there is no bucket {bucket}: completed documents wait for their results"
            yield Finding(check="results", health=Health.FAILED, says=says, fix=f"aws s3 mb s3://{bucket}")
            return
        prefix = self._stack.parameters.get("ResultsPrefix", "")
        yield Finding(check="results", health=Health.OK, says=f"s3://{bucket}/{prefix}")

    # -- what has gone wrong already -----------------------------------------------------------------------------------

    def _nothing_is_blocked(self) -> Iterator[Finding]:
        ledger = self._stack.ledger()
        waiting_seconds = ledger.longest_wait_seconds()
        snapshot = ledger.snapshot(self._stack.ids_in_pool)
        for pause in snapshot.pauses:
            says = f"no job is begun since {pause.since}: {pause.reason}"
            fix = f"workflow-trigger resume --stack {self._stack.name}"
            route = {ALL_ROUTES: "all routes", "": "all others"}.get(pause.route, pause.route)
            yield Finding(check=f"pause of {route}", health=Health.FAILED, says=says, fix=fix)
        for workflow in snapshot.workflows:
            found = blocking_reason(self._stack, workflow, waiting_seconds)
            if found and workflow.last_error:
                says = f"{found.meaning}: {workflow.last_error['message']} (at {workflow.last_error.get('at')})"
                yield Finding(check=f"workflow {workflow.workflow_id}", health=Health.FAILED, says=says, fix=found.todo)

    def _no_dead_letters(self) -> Iterator[Finding]:
        dead = messages_in(self._stack, "DeadLetterQueueUrl")
        if dead:
            fix = f"workflow-trigger redrive --stack {self._stack.name}"
            yield Finding(
                check="dead letters", health=Health.FAILED, says=f"{dead:,} events could not be registered", fix=fix
            )
        else:
            yield Finding(check="dead letters", health=Health.OK, says="none")

    # -- helpers -------------------------------------------------------------------------------------------------------

    @property
    def _deploy(self) -> str:
        return f"sam deploy --stack-name {self._stack.name} --region {self._stack.region} --parameter-overrides "

    @property
    def _redeploy(self) -> str:
        return f"sam deploy --stack-name {self._stack.name} --region {self._stack.region}"

    def _fixable(self, check: str, says: str) -> Finding:
        return Finding(
            check=check,
            health=Health.FAILED,
            says=says,
            fix=f"workflow-trigger doctor --fix --stack {self._stack.name} --region {self._stack.region}",
        )

    def _notifications(self) -> dict[str, Any]:
        return dict(self._stack.client("s3").get_bucket_notification_configuration(Bucket=self._stack["SourceBucket"]))
