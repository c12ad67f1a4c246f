"""A stack on a bucket that was there before: backfill, doctor, alarms, dashboard."""

import json
import re
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.fake_platform.state import Fault
from local.stack import CREDENTIALS, REGION, ROOT, Deployed, deploy
from tests.integration.commands import command
from tests.integration.conftest import DeployedHarness
from tests.integration.deployed import rows_under, until
from workflow_trigger.domain.document import Lane
from workflow_trigger.domain.model import FINAL
from workflow_trigger_cli.commands.backfill import Backfill, Tally
from workflow_trigger_cli.stack import Stack

THEIRS = "theirs-before"


@pytest.fixture(scope="module")
def existing(deployed: DeployedHarness, package: Path) -> Deployed:
    """A stack on a bucket that has 2,000 objects, a notification of its own, and no EventBridge. No key is set."""
    aws = deployed.stack.aws
    s3, sqs = aws.client("s3"), aws.client("sqs")
    queue = sqs.create_queue(QueueName="theirs-before")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.create_bucket(Bucket=THEIRS)
    s3.put_bucket_notification_configuration(
        Bucket=THEIRS,
        NotificationConfiguration={
            "QueueConfigurations": [{"Id": "theirs", "QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]
        },
    )
    for number in range(2000):
        folder = "in/known" if number % 4 == 0 else "in/new"
        s3.put_object(Bucket=THEIRS, Key=f"{folder}/{number:04} ü+.pdf", Body=str(number).encode())
    s3.put_object(Bucket=THEIRS, Key="in/other.txt", Body=b"x")
    s3.put_object(Bucket=THEIRS, Key="out/other.pdf", Body=b"x")
    parameters = {
        "WorkflowIds": str(uuid.uuid4()),
        "UnstructuredApiUrl": deployed.url,
        "SourceBucketName": THEIRS,
        "KeyPrefix": "in/",
        "KeySuffix": ".pdf",
        "PollSeconds": "1",
        "AlarmTopicArn": aws.client("sns").create_topic(Name="alarms")["TopicArn"],
    }
    return deploy(package, aws, parameters)


def test_backfill_registers_unknown_objects_interrupted_or_not(existing: Deployed) -> None:
    first = command(existing, "backfill", f"s3://{THEIRS}/in/known/", "--yes", "--json")
    assert (first.code, first.json["new"]) == (0, 500), first.err
    until(lambda: len(existing.rows()) == 500)
    known = {row["object"]: row["registered_at"] for row in existing.rows()}

    counted = command(existing, "backfill", f"s3://{THEIRS}/", "--dry-run", "--json")
    assert {**counted.json, "new_bytes": 0} == {
        "listed": 2001,
        "skipped": 1,
        "known": 500,
        "skipped_before": 0,
        "expired": 0,
        "new": 1500,
        "new_bytes": 0,
        "sent": 0,
    }
    assert len(existing.rows()) == 500
    assert counted.code == 1

    with pytest.MonkeyPatch.context() as patch:
        for name, value in existing.aws.environment.items():
            patch.setenv(name, value)
        stack = Stack.find(existing.name, region=REGION, profile=None)

        def interrupted(tally: Tally) -> None:
            if tally.new >= 600:
                raise KeyboardInterrupt

        work = Backfill(stack, f"s3://{THEIRS}/", all_versions=False, include_expired=False, lane=Lane.BULK)
        with pytest.raises(KeyboardInterrupt):
            work.run(send=True, progress=interrupted)
    until(lambda: len(existing.rows()) >= 500 + 600)
    rest = command(existing, "backfill", f"s3://{THEIRS}/", "--yes", "--json")
    assert rest.json["new"] + rest.json["known"] == 2000
    assert rest.json["new"] >= 500
    until(lambda: len(existing.rows()) == 2000)
    again = command(existing, "backfill", f"s3://{THEIRS}/", "--yes", "--json")
    assert (again.json["known"], again.json["new"]) == (2000, 0)
    rows = existing.rows()
    assert len({row["object"] for row in rows}) == len(rows) == 2000
    assert {row["object"]: row["registered_at"] for row in rows if row["object"] in known} == known
    assert {row["status"] for row in rows} <= {"PENDING", "SUBMITTING"}


def _parameters(stack: Deployed) -> dict[str, str]:
    (found,) = stack.aws.client("cloudformation").describe_stacks(StackName=stack.name)["Stacks"]
    return {each["ParameterKey"]: each["ParameterValue"] for each in found["Parameters"]}


def test_doctor_fixes_what_is_wrong_and_keeps_their_notification(existing: Deployed, deployed: DeployedHarness) -> None:
    s3, scheduler = existing.aws.client("s3"), existing.aws.client("scheduler")
    before = s3.get_bucket_notification_configuration(Bucket=THEIRS)["QueueConfigurations"]
    (schedule,) = [
        each["Name"] for each in scheduler.list_schedules()["Schedules"] if each["Name"].startswith(existing.name)
    ]
    found = scheduler.get_schedule(Name=schedule)
    kept = {name: found[name] for name in ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")}
    scheduler.update_schedule(**kept, State="DISABLED")
    ill = command(existing, "doctor", "--json")
    assert ill.code == 1
    wrong = {each["check"]: each for each in ill.json if each["health"] == "failed"}
    assert set(wrong) >= {"events", "schedule", "API key"}
    assert "put-secret-value" in wrong["API key"]["fix"]
    assert "doctor --fix" in wrong["events"]["fix"]

    existing.set_key("a wrong key")
    assert "API key" in {
        each["check"] for each in command(existing, "doctor", "--json").json if each["health"] == "failed"
    }
    existing.set_key(deployed.state.behaviour.api_key)
    fixed = command(existing, "doctor", "--fix", "--yes", "--json")
    still = {each["check"] for each in fixed.json if each["health"] == "failed"}
    assert not still & {"events", "schedule", "API key"}, fixed.json
    configuration = s3.get_bucket_notification_configuration(Bucket=THEIRS)
    assert configuration["QueueConfigurations"] == before
    assert "EventBridgeConfiguration" in configuration
    existing.set_key(" ")
    s3.put_object(Bucket=THEIRS, Key="in/after.pdf", Body=b"x")
    until(lambda: "in/after.pdf" in rows_under(existing, "in/after"))
    assert command(existing, "doctor", "--fix", "--yes", "--json").err == ""


# -- alarms ------------------------------------------------------------------------------------------------------------


class Alarms:
    """The stack's alarms, and the parts of CloudWatch, SQS and Lambda that the local stack does not play."""

    def __init__(self, stack: Deployed) -> None:
        self.stack = stack
        self.cloudwatch = stack.aws.client("cloudwatch")
        resources = stack.aws.client("cloudformation").describe_stack_resources(StackName=stack.name)["StackResources"]
        self.names = {
            each["LogicalResourceId"]: each["PhysicalResourceId"]
            for each in resources
            if each["ResourceType"] == "AWS::CloudWatch::Alarm"
        }

    def alarm(self, logical_id: str) -> dict[str, Any]:
        (found,) = self.cloudwatch.describe_alarms(AlarmNames=[self.names[logical_id]])["MetricAlarms"]
        return dict(found)

    def put(self, logical_id: str, value: float) -> None:
        """A data point as AWS itself would publish it, under the alarm's own name and dimensions."""
        alarm = self.alarm(logical_id)
        self.cloudwatch.put_metric_data(
            Namespace=alarm["Namespace"],
            MetricData=[{"MetricName": alarm["MetricName"], "Dimensions": alarm["Dimensions"], "Value": value}],
        )

    def publish_logged_metrics(self, names: set[str], least: float = 0) -> None:
        """What CloudWatch does with the embedded metrics in a function's log; `least`: of the longest wait in it.

        A run that looked before the test wrote that somebody waits tells of a moment before.
        """
        logs = self.stack.aws.client("logs")
        resources = self.stack.aws.client("cloudformation").describe_stack_resources(StackName=self.stack.name)
        for each in resources["StackResources"]:
            if each["ResourceType"] != "AWS::Logs::LogGroup":
                continue
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=each["PhysicalResourceId"])
            for page in pages:
                for line in page["events"]:
                    self._publish(line["message"], names, least)

    def _publish(self, line: str, names: set[str], least: float) -> None:
        found = re.search(r'\{.*"_aws".*\}', line)
        if not found:
            return
        blob = json.loads(found[0])
        longest = blob.get("OldestWaitingSeconds", 0)
        if max(longest if isinstance(longest, list) else [longest]) < least:
            return
        (directive,) = blob["_aws"]["CloudWatchMetrics"]
        dimensions = [{"Name": name, "Value": blob[name]} for name in directive["Dimensions"][0]]
        for metric in directive["Metrics"]:
            if metric["Name"] not in names:
                continue
            values = blob[metric["Name"]]
            self.cloudwatch.put_metric_data(
                Namespace=directive["Namespace"],
                MetricData=[
                    {
                        "MetricName": metric["Name"],
                        "Dimensions": dimensions,
                        "Values": values if isinstance(values, list) else [values],
                    }
                ],
            )

    def rings(self, logical_id: str) -> bool:
        return bool(self.alarm(logical_id)["StateValue"] == "ALARM")


def test_every_alarm_rings_for_its_reason(existing: Deployed, deployed: DeployedHarness) -> None:
    alarms, state = Alarms(existing), deployed.state
    table = boto3.resource(
        "dynamodb",
        endpoint_url=existing.aws.endpoint,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    ).Table(existing["LedgerTable"])
    for row in existing.rows():
        table.delete_item(Key={"object": row["object"], "version": row["version"]})
    (workflow_id,) = _parameters(existing)["WorkflowIds"].split(",")

    # Failed, and rejected.
    command(existing, "doctor", "--fix", "--yes")
    existing.set_key(state.behaviour.api_key)
    state.faults.append(Fault("run", "job", job={"ending": "FAILED"}, workflow_id=workflow_id))
    existing.aws.client("s3").put_object(Bucket=THEIRS, Key="in/fails.pdf", Body=b"1")
    until(lambda: "in/fails.pdf" in rows_under(existing, "in/fails"))
    existing.tick()
    until(lambda: rows_under(existing, "in/fails")["in/fails.pdf"]["status"] == "FAILED")
    state.faults.append(Fault("run", "status", status=422, body='{"detail": "no"}', workflow_id=workflow_id))
    existing.aws.client("s3").put_object(Bucket=THEIRS, Key="in/refused.pdf", Body=b"2")
    existing.tick()
    until(lambda: rows_under(existing, "in/refused").get("in/refused.pdf", {}).get("status") == "REJECTED")

    # Held, by a key that is not accepted any more; a document that has been waiting for long; nothing at work.
    key, state.behaviour.api_key = state.behaviour.api_key, "rotated"
    existing.aws.client("s3").put_object(Bucket=THEIRS, Key="in/waits.pdf", Body=b"3")
    until(lambda: "in/waits.pdf" in rows_under(existing, "in/waits"))
    row = rows_under(existing, "in/waits")["in/waits.pdf"]
    table.update_item(
        Key={"object": row["object"], "version": row["version"]},
        UpdateExpression="SET queued_at = :long_ago",
        ExpressionAttributeValues={":long_ago": "2026-01-01T00:00:00.000000Z"},
    )
    existing.tick()
    logged = ("FailedAlarm", "RejectedAlarm", "HeldAlarm", "WaitingAlarm", "IdleAlarm")
    assert not any(alarms.rings(each) for each in logged)

    def logged_ring() -> bool:
        alarms.publish_logged_metrics({"Failed", "Rejected", "Held"})
        alarms.publish_logged_metrics({"OldestWaitingSeconds", "IdleWaitingSeconds"}, 100_000)
        return all(alarms.rings(each) for each in logged)

    until(logged_ring)
    state.behaviour.api_key = key
    for each in logged:
        assert alarms.alarm(each)["Dimensions"] == [{"Name": "service", "Value": existing.name}]

    # on_schedule fails: Lambda itself counts that, and the local stack does, too.
    functions, name = existing.aws.client("lambda"), existing["OnScheduleFunction"]
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": {}})
    assert "FunctionError" in functions.invoke(FunctionName=name, Payload=b"{}")
    alarms.put("HeldAlarm", 1.0)  # the local stack looks at its alarms when data is put
    assert alarms.rings("OnScheduleErrorsAlarm")
    assert alarms.alarm("OnScheduleErrorsAlarm")["Dimensions"] == [
        {"Name": "FunctionName", "Value": existing["OnScheduleFunction"]}
    ]

    # What SQS and Lambda publish, and the local stack does not.
    queue_alarms = {"DeadLettersAlarm": "DeadLetterQueueUrl", "UnregisteredAlarm": "UploadQueueUrl"}
    for each, output in queue_alarms.items():
        assert not alarms.rings(each)
        alarms.put(each, {"DeadLettersAlarm": 1.0, "UnregisteredAlarm": 1_200.0}[each])
        assert alarms.rings(each)
        queue = existing[output].rpartition("/")[2]
        assert alarms.alarm(each)["Dimensions"] == [{"Name": "QueueName", "Value": queue}]
    # What `test_jobs_that_do_not_end_are_told_by_their_age` shows to be logged.
    assert not alarms.rings("RunningAlarm")
    alarms.put("RunningAlarm", 22_000.0)
    assert alarms.rings("RunningAlarm")
    assert alarms.alarm("RunningAlarm")["MetricName"] == "LongestRunSeconds"
    assert alarms.alarm("RunningAlarm")["Dimensions"] == [{"Name": "service", "Value": existing.name}]
    silent = alarms.alarm("ScheduleSilentAlarm")
    assert silent["TreatMissingData"] == "breaching"  # Lambda publishes nothing, not a zero, for a function at rest
    assert (silent["MetricName"], silent["ComparisonOperator"]) == ("Invocations", "LessThanThreshold")
    assert not alarms.rings("ResultsAlarm")
    alarms.put("ResultsAlarm", 1.0)
    assert alarms.rings("ResultsAlarm")
    assert alarms.alarm("ResultsAlarm")["MetricName"] == "ResultsMissing"
    assert not alarms.rings("EventsAlarm")
    alarms.put("EventsAlarm", 1.0)
    assert alarms.rings("EventsAlarm")
    assert alarms.alarm("EventsAlarm")["MetricName"] == "PublishErrors"
    assert set(alarms.names) == {
        "ResultsAlarm",
        "EventsAlarm",
        *logged,
        *queue_alarms,
        "RunningAlarm",
        "OnScheduleErrorsAlarm",
        "ScheduleSilentAlarm",
    }
    assert all(alarms.alarm(each)["AlarmActions"] for each in alarms.names)


def test_dashboard_shows_this_stack(existing: Deployed) -> None:
    body = existing.aws.client("cloudwatch").get_dashboard(DashboardName=f"{existing.name}-{REGION}")["DashboardBody"]
    widgets = json.loads(body)["widgets"]
    assert {widget["type"] for widget in widgets} == {"text", "metric"}
    shown = {metric for widget in widgets for line in widget["properties"].get("metrics", []) for metric in line[1:2]}
    emitted = (ROOT / "src/workflow_trigger").rglob("*.py")
    source = "\n".join(path.read_text() for path in emitted)
    aws_own = {"Errors", "Throttles", "Invocations", "Duration"} | {each for each in shown if "Approximate" in each}
    for metric in shown - aws_own:
        counted = f'"{metric}"' in source or metric.upper() in {status.name for status in FINAL}
        assert counted, f"nothing emits {metric}"
