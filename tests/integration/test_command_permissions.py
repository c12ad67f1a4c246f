"""Every command with just the permissions that docs/operations.md names for it; and with each of them taken away."""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from local.fake_platform.state import Behaviour, PlatformState, StoredFile
from local.stack import ROOT, Deployed
from tests.integration.enforced import enforced_stack
from workflow_trigger.adapters.dynamodb.mapping import item_from_record, serialize
from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.model import ALL_ROUTES, Attempt, Pause, Phase, Workflow
from workflow_trigger_cli.main import app

NOW = "2026-11-20T12:00:00.000000Z"
DENIED = re.compile(r"AccessDenied|not authorized|Forbidden|\(403\)|cannot be checked from here|does not tell you")
# By command and action.
NOT_ENFORCED_LOCALLY: dict[tuple[str, str], str] = {
    ("find", "s3:ListBucket"): "without it S3 answers 403 for a missing object; there, 404 either way",
    ("doctor", "lambda:GetFunctionConcurrency"): "the permission to put it is asked for instead",
    ("doctor --fix", "lambda:GetFunctionConcurrency"): "the same",
    ("doctor --fix", "lambda:UpdateEventSourceMapping"): "nobody asks for it there",
    ("doctor --fix", "iam:PassRole"): "the scheduler asks whether its caller may give it the role; there, nobody does",
    ("backfill", "sqs:SendMessage"): "a permission of the name SendMessageBatch, which AWS does not have, is asked for",
    ("redrive", "sqs:ChangeMessageVisibility"): "only for a message that cannot be read and is given back",
    ("forget", "s3:DeleteObjectVersion"): "that to delete the object is asked for instead",
}


def documented() -> dict[str, set[str]]:
    """The table, by command. Actions under a condition count: the tests fulfil them."""
    text = (ROOT / "docs/operations.md").read_text().partition("## Permissions of the commands")[2]
    found: dict[str, set[str]] = {}
    for first, actions in re.findall(r"^\| (`.*?) \| (.*) \|$", text, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", first):
            found[name] = set(re.findall(r"`(\w+:\w+)`", actions))
    found["doctor --fix"] |= found["doctor"]
    return found


TABLE = documented()


@dataclass(frozen=True, slots=True)
class Case:
    """A command line, and what it needs of its row in the table; None: all of it."""

    name: str
    arguments: tuple[str, ...]
    needs: frozenset[str] | None = None


def case(name: str, *arguments: str, needs: str = "", but: str = "") -> Case:
    actions = TABLE[name] - set(but.split())
    return Case(name, arguments or tuple(name.split()), frozenset(needs.split()) if needs else frozenset(actions))


OF_A_RULE = "events:DescribeRule events:ListTargetsByRule events:EnableRule"
# Where AWS asks for GetFunctionConcurrency, and for SendMessage.
ASKED_FOR_LOCALLY = {"lambda:PutFunctionConcurrency", "sqs:SendMessageBatch"}
CASES = [
    case("status"),
    case("status --batch", "status", "--batch", "june", needs="dynamodb:Scan dynamodb:GetItem"),
    case("wait", "wait", "--batch", "june", "--documents", "1", needs="dynamodb:Scan dynamodb:GetItem"),
    case("fetch", "fetch", "--batch", "june", "--to", "FOLDER", needs="dynamodb:Scan s3:GetObject"),
    case("report"),
    case("find", "find", "s3://BUCKET/unknown.pdf"),
    case("doctor", but=f"{OF_A_RULE} cloudwatch:GetMetricStatistics"),
    case("backfill", "backfill", "s3://BUCKET/", "--yes", but="s3:ListBucket"),
    case("retry", "retry", "--status", "FAILED", "--yes", but="dynamodb:Query"),
    case("retry", "retry", "--object", "s3://BUCKET/failed.pdf", "--yes", but="dynamodb:Scan"),
    case("cancel", "cancel", "--yes", but="dynamodb:Query"),
    case("cancel --running", "cancel", "--running", "--yes", but="dynamodb:Query"),
    case("pause", "pause", "--reason", "any", needs="dynamodb:PutItem"),
    case("resume"),
    case("forget", "forget", "s3://BUCKET/done.pdf", "--yes"),
    case("redrive", "redrive", "--yes"),
    case("workflows list"),
    case("workflows check", "workflows", "check", "ID"),
    case("workflows create", "workflows", "create", "--name", "more"),
    case("doctor --fix", "doctor", "--fix", "--yes", but=OF_A_RULE),  # the last, for it sets the functions to work
]


class Operator:
    """Somebody with a policy, and a stack in which every command has something to do."""

    def __init__(self, stack: Deployed, state: PlatformState, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.stack, self.state, self.folder = stack, state, folder
        self.workflow_id = str(uuid.uuid4())
        self.iam, self.dynamodb = stack.aws.client("iam"), stack.aws.client("dynamodb")
        self.iam.create_user(UserName="operator")
        key = self.iam.create_access_key(UserName="operator")["AccessKey"]
        for name, value in stack.aws.environment.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        self._break()

    def _break(self) -> None:
        """Nothing is notified and nothing runs: the commands have the tables to themselves, and much to fix."""
        bucket = self.stack["SourceBucket"]
        self.stack.aws.client("s3").put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
        client = self.stack.aws.client("lambda")
        for each in client.list_event_source_mappings(FunctionName=self.stack["OnUploadFunction"])[
            "EventSourceMappings"
        ]:
            client.update_event_source_mapping(UUID=each["UUID"], Enabled=False)
        scheduler = self.stack.aws.client("scheduler")
        for each in scheduler.list_schedules()["Schedules"]:
            found = scheduler.get_schedule(Name=each["Name"])
            kept = {name: found[name] for name in ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")}
            scheduler.update_schedule(**kept, State="DISABLED")

    def _empty(self) -> None:
        for item in self.dynamodb.scan(TableName=self.stack["LedgerTable"])["Items"]:
            place = {name: item[name] for name in ("object", "version")}
            self.dynamodb.delete_item(TableName=self.stack["LedgerTable"], Key=place)

    def prepare(self) -> None:
        """Documents in every state, a batch, a pause that can be ended, a dead letter, a job that runs."""
        s3, bucket = self.stack.aws.client("s3"), self.stack["SourceBucket"]
        for key in ("done.pdf", "failed.pdf", "waits.pdf", "runs.pdf", "new.pdf"):
            s3.put_object(Bucket=bucket, Key=key, Body=b"1")
        result = {"bucket": self.stack["ResultsBucket"], "key": "results/done.pdf/v/j/partition.json"}
        s3.put_object(Bucket=result["bucket"], Key=result["key"], Body=b"[]")
        states: dict[str, dict[str, Any]] = {
            "done.pdf": {"status": "COMPLETED", "batch": "june", "results": [result], "job_id": "j"},
            "failed.pdf": {"status": "FAILED", "error": {"type": "JobFailed", "message": ""}},
            "waits.pdf": {"status": "PENDING", "eligible_at": NOW, "queued_at": NOW, "queue": "fresh", "queue_at": NOW},
            "runs.pdf": {
                "status": "IN_PROGRESS",
                "eligible_at": NOW,
                "attempt_id": "a",
                "workflow_id": self.workflow_id,
            },
        }
        for key, attributes in states.items():
            names = {"object": f"s3://{bucket}/{key}", "version": "v", "bucket": bucket, "key": key, "etag": "v"}
            self._put("LedgerTable", {**names, "registered_at": NOW, "updated_at": NOW, "failures": 0, **attributes})
        self._put("LedgerTable", {"object": "batch", "version": "june", "registered": 1, "finished": 1})
        self._put("WorkflowsTable", item_from_record(self._running(bucket)))
        pause = item_from_record(Pause(route=ALL_ROUTES, reason="any", since=NOW))
        self._put("WorkflowsTable", pause)
        message = {
            "Records": [
                {
                    "eventName": "ObjectCreated:Put",
                    "s3": {"bucket": {"name": bucket}, "object": {"key": "a", "eTag": "e"}},
                }
            ]
        }
        self.stack.aws.client("sqs").send_message(
            QueueUrl=self.stack["DeadLetterQueueUrl"], MessageBody=json.dumps(message)
        )

    def _running(self, bucket: str) -> Workflow:
        job = self.state.start(self.workflow_id, [StoredFile("a.pdf", None, "a", "0" * 64, 1, self.folder)])
        job = job or next(each for each in self.state.jobs.values() if each.workflow_id == self.workflow_id)
        key = DocumentKey(f"s3://{bucket}/runs.pdf", "v")
        attempt = Attempt(id="a", documents={key: "a.pdf"}, started_at=NOW)
        return Workflow(workflow_id=self.workflow_id, phase=Phase.RUNNING, attempt=attempt, job_id=job.id, revision="1")

    def _put(self, output: str, item: dict[str, Any]) -> None:
        self.dynamodb.put_item(TableName=self.stack[output], Item=serialize(item))

    def is_denied(self, each: Case, actions: set[str]) -> tuple[bool, str]:
        """Run a command with a policy; whether AWS refused something, and all that was said."""
        self._empty()
        self.prepare()
        if each.name == "doctor --fix":
            self._break()
        if each.name == "pause":
            self.dynamodb.delete_item(TableName=self.stack["WorkflowsTable"], Key={"workflow_id": {"S": "pause/*"}})
        allowed = sorted({*actions, *ASKED_FOR_LOCALLY, "cloudformation:DescribeStacks"})
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": allowed, "Resource": "*"}]}
        self.iam.put_user_policy(UserName="operator", PolicyName="own", PolicyDocument=json.dumps(policy))
        places = {"BUCKET": self.stack["SourceBucket"], "FOLDER": str(self.folder / uuid.uuid4().hex)}
        places["ID"] = self.workflow_id
        typed = [re.sub(r"BUCKET|FOLDER|\bID\b", lambda found: places[found[0]], part) for part in each.arguments]
        done = CliRunner().invoke(app, [*typed, "--stack", self.stack.name])
        said = f"{done.output}{done.exception or ''}"
        return bool(DENIED.search(said)), said


@pytest.fixture(scope="module")
def operator(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    behaviour = Behaviour(default_job_seconds=86_400)
    with enforced_stack(package, behaviour, {}) as (stack, state), pytest.MonkeyPatch.context() as patch:
        yield Operator(stack, state, tmp_path_factory.mktemp("operator"), patch)


@pytest.mark.parametrize("each", CASES, ids=lambda each: " ".join(each.arguments[:3]))
def test_command_needs_what_is_documented_and_nothing_more(operator: Operator, each: Case) -> None:
    needs: set[str] = set(each.needs or ())
    assert needs
    denied, said = operator.is_denied(each, needs)
    assert not denied, said
    idle = []
    for action in sorted(needs - {action for name, action in NOT_ENFORCED_LOCALLY if name == each.name}):
        denied, said = operator.is_denied(each, needs - {action})
        if not denied:
            idle.append((action, said))
    assert idle == []


def test_every_command_is_in_the_table() -> None:
    names: set[str] = {each.callback.__name__ for each in app.registered_commands if each.callback}
    names |= {each.name for each in app.registered_groups if each.name}
    assert names == {name.partition(" ")[0] for name in TABLE}
    assert {each.name for each in CASES} == set(TABLE)
    assert all(action in TABLE[name] for name, action in NOT_ENFORCED_LOCALLY)
