"""The README's way from nothing: create workflows, deploy, set the key, upload a folder of real files, look at it."""

import hashlib
import json
import mimetypes
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, PlatformState, StoredFile
from local.stack import ROOT, Aws, Deployed, deploy
from tests.documents import NO_DOCUMENTS, NOT_SUPPORTED, folder
from workflow_trigger.domain.media_types import SUPPORTED
from workflow_trigger.domain.model import FINAL

KEY = "the-newcomers-key"
TAGS = {"team": "documents", "cost-centre": "4711"}
SUPPORTED_FILES = folder(sorted(SUPPORTED))
WITHOUT_RUN = NOT_SUPPORTED | NO_DOCUMENTS


def typed(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """What `workflow-trigger` prints."""
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **(environment or {})}
    done = subprocess.run(
        [sys.executable, "-m", "workflow_trigger_cli", *arguments],
        input=f"{KEY}\n",
        env=variables,
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Newcomer:
    """A stack that was made as the README says, and the platform that it calls."""

    def __init__(self, stack: Deployed, state: PlatformState) -> None:
        self.stack = stack
        self.state = state

    def upload(self, files: dict[str, bytes]) -> None:
        """Upload files as most tools do: some without a type, the others with what the machine thinks of the name."""
        s3 = self.stack.aws.client("s3")
        for number, (name, content) in enumerate(files.items()):
            guessed = mimetypes.guess_type(name)[0] if number % 2 else None
            kind: dict[str, Any] = {"ContentType": guessed} if guessed else {}
            s3.put_object(Bucket=self.stack["SourceBucket"], Key=name, Body=content, **kind)

    def rows(self, count: int) -> dict[str, dict[str, Any]]:
        """The rows by their keys, when so many are final."""
        limit = time.monotonic() + 240
        while time.monotonic() < limit:
            rows = {row["key"]: row for row in self.stack.rows()}
            if sum(row["status"] in FINAL for row in rows.values()) >= count:
                return rows
            time.sleep(1)
        raise AssertionError({key: row["status"] for key, row in rows.items()})

    def received(self) -> dict[str, list[StoredFile]]:
        """The files of all jobs, by what is in them."""
        found: dict[str, list[StoredFile]] = {}
        for job in self.state.jobs.values():
            for file in job.files:
                found.setdefault(file.sha256, []).append(file)
        return found


@pytest.fixture(scope="module")
def newcomer(aws: Aws, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    behaviour = Behaviour(api_key=KEY, known_workflows=[], default_job_seconds=1.0, scheduled_seconds=0.2)
    state = PlatformState(tmp_path_factory.mktemp("platform"), behaviour)
    with serving(state) as url:
        printed = typed("workflows", "create", "--name", "uploads", "--count", "2", "--api-url", url)
        found = re.fullmatch(r"sam build && sam deploy --parameter-overrides (\S+) (\S+)\n", printed)
        assert found, printed
        parameters = {
            **dict(each.split("=") for each in found.groups()),  # as they are printed, and these
            "PollSeconds": "1",
            "OnlySupportedTypes": "on",
            "LogLevel": "WARNING",
            "LogRetentionDays": "30",
            "Architecture": "x86_64",
            "RolePath": "/service/",
        }
        stack = deploy(package, aws, parameters, tags=TAGS)
        assert stack["SetApiKeyCommand"].endswith(f"--secret-id {stack['ApiKeySecret']} --secret-string YOUR_KEY")
        stack.set_key(KEY)
        yield Newcomer(stack, state)


def test_folder_of_real_files_of_every_kind_ends_as_the_table_says(newcomer: Newcomer) -> None:
    files = {**SUPPORTED_FILES, **WITHOUT_RUN}
    assert len(files) >= 60
    newcomer.upload(files)
    rows = newcomer.rows(len(files))
    received = newcomer.received()
    assert set(rows) == set(files)
    for name, content in SUPPORTED_FILES.items():
        row, extension = rows[name], name.rpartition(".")[2].lower()
        (file,) = received.pop(hashlib.sha256(content).hexdigest())
        assert (row["status"], file.content_type) == ("COMPLETED", SUPPORTED[extension]), name
        assert file.filename == row["upload_name"]
        assert file.filename.endswith(f".{extension}")
        assert row["results"], name
        assert all("key" in each for each in row["results"]), name
    assert received == {}, "nothing else ran"
    for name in WITHOUT_RUN:
        assert (rows[name]["status"], rows[name]["error"]["type"]) == ("SKIPPED", "Skipped"), name
    shown = json.loads(
        typed("status", "--stack", newcomer.stack.name, "--json", environment=newcomer.stack.aws.environment)
    )
    assert shown["rows"]["COMPLETED"] == len(SUPPORTED_FILES)
    assert shown["rows"]["SKIPPED"] == len(WITHOUT_RUN)


def test_knobs_reach_what_they_are_for(newcomer: Newcomer) -> None:
    client, stack = newcomer.stack.aws.client, newcomer.stack
    for output in ("OnUploadFunction", "OnScheduleFunction"):
        function = client("lambda").get_function_configuration(FunctionName=stack[output])
        assert function["Architectures"] == ["x86_64"]
        assert function["Environment"]["Variables"]["POWERTOOLS_LOG_LEVEL"] == "WARNING"
        assert ":role/service/" in function["Role"]
        (group,) = client("logs").describe_log_groups(logGroupNamePrefix=function["LoggingConfig"]["LogGroup"])[
            "logGroups"
        ]
        assert group["retentionInDays"] == 30


def test_tags_of_a_deployment_reach_what_can_have_them(newcomer: Newcomer) -> None:
    """CloudFormation passes them on, to buckets as well, which the local stack leaves out."""
    client, stack = newcomer.stack.aws.client, newcomer.stack
    ids = {
        each["LogicalResourceId"]: each["PhysicalResourceId"]
        for each in client("cloudformation").describe_stack_resources(StackName=stack.name)["StackResources"]
    }
    table = client("dynamodb").describe_table(TableName=stack["LedgerTable"])["Table"]["TableArn"]
    function = client("lambda").get_function_configuration(FunctionName=stack["OnUploadFunction"])["FunctionArn"]
    found = {
        "queue": client("sqs").list_queue_tags(QueueUrl=stack["UploadQueueUrl"])["Tags"],
        "table": client("dynamodb").list_tags_of_resource(ResourceArn=table)["Tags"],
        "function": client("lambda").list_tags(Resource=function)["Tags"],
        "secret": client("secretsmanager").describe_secret(SecretId=stack["ApiKeySecret"])["Tags"],
        "role": client("iam").list_role_tags(RoleName=ids["OnUploadRole"])["Tags"],
        "log group": client("logs").list_tags_log_group(logGroupName=ids["OnUploadLogs"])["tags"],
    }
    for name, tags in found.items():
        by_name = tags if isinstance(tags, dict) else {each["Key"]: each["Value"] for each in tags}
        assert TAGS.items() <= by_name.items(), name
