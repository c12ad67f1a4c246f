"""What `doctor --fix` can fix without a deployment. A step does nothing where nothing is wrong."""

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from workflow_trigger_cli.errors import CommandError
from workflow_trigger_cli.stack import Stack

_ANSWER_FIELD = "ResponseMetadata"
_SCHEDULE_FIELDS = (
    *("Name", "GroupName", "ScheduleExpression", "ScheduleExpressionTimezone", "FlexibleTimeWindow", "Target"),
    *("Description", "KmsKeyArn", "StartDate", "EndDate", "ActionAfterCompletion"),
)


def fix(stack: Stack) -> Iterator[str]:
    """Fix, and report what was fixed.

    Raises:
        CommandError: the bucket's notifications are not what they should be after they were written.
    """
    steps = [_notifications, _event_source, _schedule] + ([_rule] if stack.has_existing_bucket else [])
    for step in steps:
        try:
            yield from step(stack)
        except ClientError as error:
            yield f"could not be fixed: {error}"


def _notifications(stack: Stack) -> Iterator[str]:
    """Get, merge, put: a put replaces all that is there, so what is there is put back with it, and looked at again."""
    s3, bucket = stack.client("s3"), stack["SourceBucket"]
    before = _configuration(s3, bucket)
    wanted, says = _merged(stack, before)
    if wanted == before:
        return
    # Without validation, for else a target of theirs that is gone would keep ours from being written.
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration=wanted, SkipDestinationValidation=True
    )
    after = _configuration(s3, bucket)
    lost = [name for name, value in before.items() if not _contains(after.get(name), value)]
    if lost:
        raise CommandError(
            f"The notifications of {bucket} changed while they were being written: look at {', '.join(lost)} of "
            f"aws s3api get-bucket-notification-configuration --bucket {bucket}; before, they were {before}"
        )
    yield says


def _configuration(s3: Any, bucket: str) -> dict[str, Any]:
    answer = s3.get_bucket_notification_configuration(Bucket=bucket)
    return {name: value for name, value in answer.items() if name != _ANSWER_FIELD}


def _merged(stack: Stack, before: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What is there, and what is missing."""
    if stack.has_existing_bucket:
        says = f"{stack['SourceBucket']} sends its events to EventBridge; its other notifications are as they were"
        return {"EventBridgeConfiguration": {}, **before}, says
    arn = stack.upload_queue_arn()
    queues = before.get("QueueConfigurations", [])
    if any(each["QueueArn"] == arn for each in queues):
        return before, ""
    names = {"prefix": stack.parameters.get("KeyPrefix"), "suffix": stack.parameters.get("KeySuffix")}
    rules = [{"Name": name, "Value": value.replace("=", "%3D")} for name, value in names.items() if value]  # as S3 does
    ours: dict[str, Any] = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}
    if rules:
        ours["Filter"] = {"Key": {"FilterRules": rules}}
    return {**before, "QueueConfigurations": [*queues, ours]}, f"{stack['SourceBucket']} notifies the upload queue"


def _contains(after: Any, before: Any) -> bool:
    """Whether every entry is still there; S3 may have added an id or reordered them."""
    if not isinstance(before, list):
        return after is not None
    return {each["Id"] for each in before} <= {each["Id"] for each in after or []}


def _rule(stack: Stack) -> Iterator[str]:
    name = (stack.physical_id("AWS::Events::Rule") or "").rpartition("|")[2]
    events = stack.client("events")
    if events.describe_rule(Name=name)["State"] != "ENABLED":
        events.enable_rule(Name=name)
        yield f"the rule {name} is enabled"


def _event_source(stack: Stack) -> Iterator[str]:
    functions = stack.client("lambda")
    mappings = functions.list_event_source_mappings(
        FunctionName=stack["OnUploadFunction"], EventSourceArn=stack.upload_queue_arn()
    )["EventSourceMappings"]
    for each in mappings:
        if each["State"] in {"Disabled", "Disabling"}:
            functions.update_event_source_mapping(UUID=each["UUID"], Enabled=True)
            yield "the upload function reads its queue"


def _schedule(stack: Stack) -> Iterator[str]:
    name = (stack.physical_id("AWS::Scheduler::Schedule", of="OnScheduleFunction") or "").rpartition("|")[2]
    scheduler = stack.client("scheduler")
    schedule = scheduler.get_schedule(Name=name)
    if schedule["State"] != "ENABLED":
        # An update replaces the whole schedule.
        kept = {field: schedule[field] for field in _SCHEDULE_FIELDS if field in schedule}
        scheduler.update_schedule(**kept, State="ENABLED")
        yield "the schedule is enabled"
