"""The deployed template with IAM enforced, over TLS: everything passes, and no action that is allowed is idle."""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from local.event import s3_event
from local.fake_platform.state import Behaviour, PlatformState
from local.stack import Deployed
from tests.integration.enforced import enforced_stack
from tests.integration.workers import kill_workers
from workflow_trigger.domain.model import FINAL

_SECONDS = 60
_LONGEST_RUN_SECONDS = 190
CANARY = "canary-8d1f60c2-never-shown"

# What the local stack does not ask for, and why AWS does. `tests/template/test_permissions.py` has them in its table.
NOT_ENFORCED_LOCALLY = {
    "s3:ListBucket": "S3 answers 403 instead of 404 without it; there, a missing object is NoSuchKey with or without",
    "s3:GetObject": "for objects of a bucket without versions; there, GetObjectVersion is asked for",
    "s3:GetObjectTagging": "for objects of a bucket without versions; there, GetObjectVersionTagging is asked for",
    "s3:AbortMultipartUpload": "only for an output of more than 5 MiB that breaks off",
    "sqs:ReceiveMessage": "the event source mapping reads the queue as the role; there, as itself",
    "sqs:DeleteMessage": "the event source mapping takes messages away as the role; there, as itself",
    "sqs:GetQueueAttributes": "the event source mapping sizes itself as the role; there, as itself",
    "logs:CreateLogStream": "Lambda writes the log as the role; there, as itself",
    "logs:PutLogEvents": "Lambda writes the log as the role; there, as itself",
    "lambda:InvokeFunction": "the scheduler invokes as the role; there, as itself",
}
OF_A_VPC = "Lambda makes the interfaces of a function in a VPC; there are no networks there"
NOT_ENFORCED_LOCALLY |= dict.fromkeys(
    (
        "ec2:CreateNetworkInterface",
        "ec2:DeleteNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "ec2:AssignPrivateIpAddresses",
        "ec2:UnassignPrivateIpAddresses",
    ),
    OF_A_VPC,
)
NOT_ENFORCED_LOCALLY |= dict.fromkeys(
    ("xray:PutTraceSegments", "xray:PutTelemetryRecords"), "Lambda writes traces as the role; there are none there"
)
# By policy: what a run of the test does not come to.
NOT_REACHED = {
    ("compare", "dynamodb:PutItem"): "an object is missed when it is older than two hours",
    ("compare", "dynamodb:GetItem"): "the same",
}
OF_A_KEY = "services ask for it when what they hold is encrypted with a key of yours; there, nothing is encrypted"
NOT_ENFORCED_LOCALLY |= dict.fromkeys(("kms:Decrypt", "kms:GenerateDataKey"), OF_A_KEY)


class Enforced:
    """A stack whose roles are held to their policies."""

    def __init__(self, stack: Deployed, state: PlatformState) -> None:
        self.stack = stack
        self.state = state
        self.iam = stack.aws.client("iam")
        self.number = 0
        self.written = ""

    def document_runs(
        self, seconds: float = _SECONDS, until: Callable[[], bool] = lambda: False, *, compares: bool = True
    ) -> bool:
        """Upload one, and see whether it is completed with its results, before the time is over or something is so.

        `compares`: bucket and ledger are compared as well.
        """
        self.number += 1
        key = f"in/{self.number}.pdf"
        # The process of a function that was ended is asked once more before the local stack starts another.
        compares = not compares or any(self._compares() for _ in range(3))
        uploaded = {"Bucket": self.stack["SourceBucket"], "Key": key, "Body": key.encode(), "Tagging": "tenant=acme"}
        self.stack.aws.client("s3").put_object(**uploaded)
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and not until():
            found = self.stack.rows(key)
            if found and found[0]["status"] in FINAL:
                is_whole = found[0]["status"] == "COMPLETED" and all("key" in each for each in found[0]["results"])
                is_whole = is_whole and found[0]["tags"] == {"tenant": "acme"}
                return bool(compares and is_whole and self._answers_directly(key))
            time.sleep(0.3)
        return False

    def is_refused_something(self, policy: str) -> bool:
        """Whether a function says so, in its log or in a table, while a document runs or would run."""
        since = time.time()
        self.document_runs(until=lambda: self.was_denied(since), compares=policy == "compare")
        until = since + _LONGEST_RUN_SECONDS
        while time.time() < until and not self.was_denied(since):
            time.sleep(1)  # a run of the schedule shows its log when it ends
        return self.was_denied(since)

    def _compares(self) -> bool:
        """Whether bucket and ledger can be compared; nothing is old enough to be missed."""
        answer = self.stack.aws.client("lambda").invoke(FunctionName=self.stack["CompareFunction"], Payload=b"{}")
        return "FunctionError" not in answer

    def _answers_directly(self, key: str) -> bool:
        """Called with an event itself, the function answers with its rows."""
        head = self.stack.aws.client("s3").head_object(Bucket=self.stack["SourceBucket"], Key=key)
        event = json.dumps(s3_event(self.stack["SourceBucket"], key, head))
        answer = self.stack.aws.client("lambda").invoke(FunctionName=self.stack["OnUploadFunction"], Payload=event)
        return "FunctionError" not in answer and bool(json.loads(answer["Payload"].read())["rows"])

    def tell_everything(self) -> None:
        """The functions log at DEBUG from now on."""
        client = self.stack.aws.client("lambda")
        for output in ("OnUploadFunction", "OnScheduleFunction"):
            variables = client.get_function_configuration(FunctionName=self.stack[output])["Environment"]["Variables"]
            variables["POWERTOOLS_LOG_LEVEL"] = "DEBUG"
            client.update_function_configuration(FunctionName=self.stack[output], Environment={"Variables": variables})

    def was_denied(self, since: float) -> bool:
        """Whether a function has logged that it was refused something, or left it as a workflow's last error."""
        return any("AccessDenied" in message for message in [*self.logged(since), str(self._workflows())])

    def _workflows(self) -> Any:
        return self.stack.aws.client("dynamodb").scan(TableName=self.stack["WorkflowsTable"])["Items"]

    def logged(self, since: float) -> Iterator[str]:
        """What the functions have logged."""
        logs = self.stack.aws.client("logs")
        resources = self.stack.aws.client("cloudformation").describe_stack_resources(StackName=self.stack.name)
        groups = [
            each["PhysicalResourceId"]
            for each in resources["StackResources"]
            if each["ResourceType"] == "AWS::Logs::LogGroup"
        ]
        for group in groups:
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=int(since * 1000))
            yield from (event["message"] for page in pages for event in page["events"])

    def forget_everything(self) -> None:
        """Begin anew, with nothing left over from what failed; every function with a process of its own."""
        client = self.stack.aws.client("dynamodb")
        for output, keys in (("LedgerTable", ("object", "version")), ("WorkflowsTable", ("workflow_id",))):
            items = client.scan(TableName=self.stack[output])["Items"]
            self.written += str(items)
            for item in items:
                client.delete_item(TableName=self.stack[output], Key={name: item[name] for name in keys})
        for output in ("OnUploadFunction", "OnScheduleFunction", "CompareFunction"):
            kill_workers(self.stack[output])  # the key in a function's memory would hide a missing permission

    def policies(self) -> Iterator[tuple[str, dict[str, Any], Callable[[dict[str, Any]], None]]]:
        """Every policy of the stack's roles: its name, its document, and how to replace it."""
        resources = self.stack.aws.client("cloudformation").describe_stack_resources(StackName=self.stack.name)
        for each in resources["StackResources"]:
            name = each["PhysicalResourceId"]
            if each["ResourceType"] == "AWS::IAM::Role":
                for policy in self.iam.list_role_policies(RoleName=name)["PolicyNames"]:
                    document = self.iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
                    yield policy, document, partial(self._replace_inline, name, policy)
            elif each["ResourceType"] == "AWS::IAM::ManagedPolicy":
                version = self.iam.get_policy(PolicyArn=name)["Policy"]["DefaultVersionId"]
                document = self.iam.get_policy_version(PolicyArn=name, VersionId=version)["PolicyVersion"]["Document"]
                yield name, document, partial(self._replace_managed, name)

    def _replace_inline(self, role: str, policy: str, document: dict[str, Any]) -> None:
        self.iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))

    def _replace_managed(self, arn: str, document: dict[str, Any]) -> None:
        versions = self.iam.list_policy_versions(PolicyArn=arn)["Versions"]
        self.iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(document), SetAsDefault=True)
        for version in versions:
            self.iam.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])


@pytest.fixture(scope="module")
def enforced(package: Path) -> Iterator[Enforced]:
    parameters = {
        "PollSeconds": "1",
        "ReadTags": "on",
        "OnlyLatestVersion": "on",
        "RolePath": "/service/",
        "CompareSchedule": "rate(7 days)",
    }
    behaviour = Behaviour(default_job_seconds=0.5, scheduled_seconds=0.1, api_key=CANARY)
    with enforced_stack(package, behaviour, parameters) as (stack, state):
        enforced = Enforced(stack, state)
        enforced.tell_everything()
        yield enforced


def actions(document: dict[str, Any]) -> list[tuple[int, str]]:
    """Every allowed action, with the number of its statement."""
    return [
        (number, action)
        for number, statement in enumerate(document["Statement"])
        if statement["Effect"] == "Allow"
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    ]


def without(document: dict[str, Any], number: int, action: str) -> dict[str, Any]:
    """The policy, one action short."""
    statements = json.loads(json.dumps(document["Statement"]))
    named = statements[number]["Action"]
    # Something printable stays, so that the statement is still one.
    statements[number]["Action"] = [each for each in ([named] if isinstance(named, str) else named) if each != action]
    statements[number]["Action"] += ["sts:GetCallerIdentity"]
    return {**document, "Statement": statements}


def test_whole_run_passes_with_iam_enforced_over_tls(enforced: Enforced) -> None:
    assert enforced.stack.aws.endpoint.startswith("https://")
    assert enforced.document_runs(240)


def test_no_allowed_action_is_idle(enforced: Enforced) -> None:
    idle = []
    for name, document, replace in enforced.policies():
        for number, action in actions(document):
            if action in NOT_ENFORCED_LOCALLY or (name, action) in NOT_REACHED:
                continue  # the template's tests have them in their table
            enforced.forget_everything()
            replace(without(document, number, action))
            if not enforced.is_refused_something(name):
                idle.append((name, number, action))
            replace(document)
    enforced.forget_everything()
    assert enforced.document_runs(240)
    assert idle == [], "\n".join(f"{number} {action}" for _, number, action in idle)


def test_key_is_in_no_log_and_in_no_table_after_a_refusal_of_every_service(enforced: Enforced) -> None:
    """At DEBUG, after all of the above."""
    enforced.forget_everything()
    logged = "".join(enforced.logged(0))
    assert "AccessDenied" in logged
    assert CANARY not in logged
    assert len(enforced.written) > 1_000
    assert CANARY not in enforced.written
