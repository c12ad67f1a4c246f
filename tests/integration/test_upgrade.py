"""Documents and workflows that 0.2.0 left in every state, as it wrote them, end right; a stack keeps its ledger."""

import hashlib
import io
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.fake_platform.state import Fault, SimulatedJob, StoredFile
from local.stack import ROOT, Aws, Deployed, deploy
from tests.integration.conftest import DeployedHarness
from tests.integration.deployed import until
from tests.integration.harness import Harness
from tests.releases import RELEASES
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.model import Phase

# Recorded from a run of 0.2.0, two documents in each state.
STATES: dict[str, Any] = json.loads((ROOT / "tests/releases/0.2.0-items.json").read_text())


def taken_over(harness: Harness, state: str) -> list[ObjectVersion]:
    """The tables, the bucket and the platform as 0.2.0 left them."""
    left = STATES[state]
    harness.bucket = left["bucket"]
    harness.s3.create_bucket(Bucket=harness.bucket)
    documents = [harness.upload(f"{name}.pdf", name.encode()) for name in "ab"]
    harness.configure(workflow_ids=(left["workflow_id"],), results_bucket=left["results_bucket"])
    if left["results_bucket"]:
        harness.s3.create_bucket(Bucket=left["results_bucket"])
    for table, items in ((harness.settings.ledger_table, "rows"), (harness.settings.workflows_table, "workflows")):
        for item in left[items]:
            harness.dynamodb.put_item(TableName=table, Item=item)
    for job in left["jobs"]:
        files = [
            StoredFile(each["filename"], None, each["file_id"], digest(each["filename"]), 1, harness.state.folder)
            for each in job["files"]
        ]
        harness.state.jobs[job["id"]] = SimulatedJob(
            id=job["id"],
            workflow_id=left["workflow_id"],
            created=harness.clock.epoch_seconds() - 10,
            files=files,
            seconds=20,
            scheduled_seconds=5,
            ours=job["ours"],
        )
    return documents


def digest(filename: str) -> str:
    return hashlib.sha256(filename.partition("-")[0].encode()).hexdigest()


@pytest.mark.parametrize("state", sorted(STATES))
def test_documents_of_the_earlier_release_end_right_and_run_once(harness: Harness, state: str) -> None:
    documents = taken_over(harness, state)
    before = {row["key"]: row for row in harness.rows()}
    harness.settle(minutes=60)
    assert {harness.status(each) for each in documents} == {"COMPLETED"}
    assert {harness.accepted(each) for each in documents} == {1}
    assert all(each.phase is Phase.IDLE for each in harness.workflows())
    if state == "final":
        assert harness.rows() == [before[row["key"]] for row in harness.rows()]
    if state == "copying":
        assert all("key" in entry for each in documents for entry in harness.row(each)["results"])
    assert not any("bound_to" in row for row in harness.rows())


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("state", ["bound", "committed"])
def test_lost_answer_of_the_earlier_release_that_is_accepted_late_is_found(
    harness: Harness, state: str, shown: bool
) -> None:
    harness.state.behaviour.list_shows_files = harness.state.behaviour.has_file_status = shown
    documents = taken_over(harness, state)
    harness.state.jobs.clear()
    files = [
        harness.state.store(harness.row(each)["upload_name"], None, io.BytesIO(harness.versions[each.document_key]))
        for each in documents
    ]
    harness.state.start(harness.settings.workflow_ids[0], files, is_late=True)
    harness.settle(minutes=60)
    assert {harness.status(each) for each in documents} == {"COMPLETED"}
    assert {harness.accepted(each) for each in documents} == {1}


def test_lost_answer_of_0_2_0_whose_workflow_left_the_pool_goes_on(harness: Harness) -> None:
    documents = taken_over(harness, "bound")
    harness.configure(workflow_ids=("00000000-0000-4000-8000-000000000000",))
    harness.settle(minutes=60)
    assert {harness.status(each) for each in documents} == {"COMPLETED"}
    assert {harness.accepted(each) for each in documents} == {1}


def test_lost_answer_of_0_2_0_after_a_rollback_runs_once(harness: Harness) -> None:
    """The newer release had put the document into a queue; 0.2.0 sent it, and left the mark."""
    bound_to, _ = harness.grow_pool(2)
    harness.tick()
    since = iso(harness.clock.now())
    document = harness.upload("a.pdf", b"a")
    harness.deliver(document, submit=False)
    name = "a-0123456789abcdef.pdf"
    harness.bind(document, bound_to, name, since)
    harness.clock.sleep(5)
    harness.state.start(bound_to, [harness.state.store(name, None, io.BytesIO(b"a"))], is_late=True)
    harness.settle()
    assert harness.status(document) == "COMPLETED"
    assert harness.accepted(document) == 1


def test_lost_answers_of_0_2_0_and_what_waits_behind_them_go_on(harness: Harness) -> None:
    bound = [harness.upload(f"bound/{number}.pdf", f"b{number}".encode()) for number in range(20)]
    others = [harness.upload(f"{number}.pdf", f"{number}".encode()) for number in range(30)]
    harness.deliver(*bound, *others, submit=False)
    (workflow_id,) = harness.settings.workflow_ids
    for number, each in enumerate(bound):
        since = f"2026-01-01T00:00:0{number // 10}Z"
        harness.bind(each, workflow_id, f"x-{number:016x}.pdf", since, is_queued=False)
    for each in others:
        harness.rewrite(each, "REMOVE #queue, #queue_at")
    assert harness.settle(minutes=30) <= 12
    assert {harness.accepted(each) for each in [*bound, *others]} == {1}
    assert {harness.status(each) for each in [*bound, *others]} == {"COMPLETED"}


def test_job_of_the_earlier_release_that_vanished_fails_its_documents(harness: Harness) -> None:
    documents = taken_over(harness, "doubtful")
    for job in harness.state.jobs.values():
        job.vanished = True
    assert harness.settle(minutes=60) <= 20
    assert {harness.row(each)["error"]["type"] for each in documents} == {"JobVanished"}


def test_a_whole_backlog_of_the_earlier_release_goes_on_in_its_order(harness: Harness) -> None:
    """1,000 documents wait, 20 are running, 5 are unsettled, when the new version takes over."""
    harness.configure(max_files_per_run=25)
    pool = harness.grow_pool(4)
    at_work: list[ObjectVersion] = []
    harness.state.behaviour.default_job_seconds = 600
    for number, (workflow_id, count) in enumerate(zip(pool, (10, 10, 5, 0), strict=True)):
        batch = [harness.upload(f"sent/{number}-{each}.pdf", f"{number}-{each}".encode()) for each in range(count)]
        at_work += batch
        if count == 5:
            harness.state.faults.append(Fault("run", "late", seconds=30, workflow_id=workflow_id))
        harness.configure(workflow_ids=(workflow_id,))
        harness.deliver(*batch)
    harness.configure(workflow_ids=tuple(pool))
    phases = [each.phase for each in harness.workflows()]
    assert phases == [Phase.RUNNING, Phase.RUNNING, Phase.COMMITTED, Phase.IDLE]
    harness.state.behaviour.default_job_seconds = 20
    waiting = [harness.upload(f"{number:04}.pdf", f"{number:04}".encode()) for number in range(1_000)]
    harness.deliver(*waiting, submit=False)
    for each in [*at_work, *waiting]:  # 0.2.0 has no lanes
        harness.rewrite(each, "REMOVE #queue, #queue_at")
    harness.settle(minutes=60)
    documents = [*at_work, *waiting]
    rows = {row["key"]: row for row in harness.rows()}
    assert {rows[each.key]["status"] for each in documents} == {"COMPLETED"}
    assert [each.key for each in documents if harness.accepted(each) != 1] == []
    jobs = sorted((job for job in harness.state.jobs.values() if job.files), key=lambda job: job.created)
    numbers = [[int(file.filename[:4]) for file in job.files if file.filename[:4].isdigit()] for job in jobs]
    sent = [each for each in numbers if each]
    for earlier, later in zip(sent, sent[len(pool) :], strict=False):  # those of one round may begin in any order
        assert max(earlier) < min(later)


# -- the stack itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_update_from_a_release_keeps_the_ledger_and_so_does_deletion(
    deployed: DeployedHarness, package: Path, tmp_path: Path, release: Path
) -> None:
    """The template of the release, with the functions of today: what CloudFormation does is in question here."""
    aws = deployed.stack.aws
    parameters = {"WorkflowIds": str(uuid.uuid4()), "UnstructuredApiUrl": deployed.url, "PollSeconds": "1"}
    template = release.read_text().replace("CodeUri: src/", f"CodeUri: {package.parent / 'OnUploadFunction'}")
    (tmp_path / "template.yaml").write_text(template)
    first = deploy(tmp_path / "template.yaml", aws, parameters)
    first.set_key(deployed.state.behaviour.api_key)
    aws.client("s3").put_object(Bucket=first["SourceBucket"], Key="a.pdf", Body=b"a")
    until(lambda: len(first.rows()) == 1)
    topic = aws.client("sns").create_topic(Name="later")["TopicArn"]
    changes = {"MemorySize": "512", "MaxFilesPerRun": "5", "AlarmTopicArn": topic, "KeySuffix": ".pdf"}
    updated = deploy(package, aws, {**parameters, **changes}, name=first.name)
    kept = ("LedgerTable", "WorkflowsTable", "SourceBucket", "ResultsBucket", "UploadQueueUrl", "ApiKeySecret")
    assert {name: updated[name] for name in kept} == {name: first[name] for name in kept}
    assert [row["key"] for row in updated.rows()] == ["a.pdf"]
    configuration = aws.client("lambda").get_function_configuration(FunctionName=updated["OnUploadFunction"])
    assert (configuration["MemorySize"], configuration["Environment"]["Variables"]["MAX_FILES_PER_RUN"]) == (512, "5")

    until(lambda: updated.rows()[0]["status"] == "COMPLETED")
    until(lambda: _nobody_polls(updated))  # a run that is still there would write its log after the deletion
    made = aws.client("cloudformation").describe_stack_resources(StackName=first.name)["StackResources"]
    there_before = _still_there(aws, made)
    assert len(there_before) > 20
    aws.client("cloudformation").delete_stack(StackName=first.name)
    until(lambda: "OnUploadFunction" not in _still_there(aws, made))
    assert _still_there(aws, made) == {"Ledger", "DeadLetterQueue", "SourceBucket", "ResultsBucket"}
    # What is left takes nothing but TLS, as before.
    policies = [aws.client("s3").get_bucket_policy(Bucket=first[name])["Policy"] for name in kept[2:4]]
    queue = {"QueueUrl": first["DeadLetterQueueUrl"], "AttributeNames": ["Policy"]}
    policies.append(aws.client("sqs").get_queue_attributes(**queue)["Attributes"]["Policy"])
    assert all("aws:SecureTransport" in policy for policy in policies)


def _nobody_polls(stack: Deployed) -> bool:
    items = stack.aws.client("dynamodb").scan(TableName=stack["WorkflowsTable"])["Items"]
    return not any("lease_ends_at" in item for item in items if item["workflow_id"]["S"] == "poller")


def _still_there(aws: Aws, resources: list[dict[str, Any]]) -> set[str]:
    """Which of a stack's resources can still be found, by their logical names."""
    clients = {name: aws.client(name) for name in ("sqs", "dynamodb", "lambda", "logs", "iam", "secretsmanager")}
    clients |= {name: aws.client(name) for name in ("scheduler", "s3", "cloudwatch")}
    probes: dict[str, Callable[[str], Any]] = {
        "AWS::SQS::Queue": lambda url: clients["sqs"].get_queue_attributes(QueueUrl=url),
        "AWS::DynamoDB::Table": lambda name: clients["dynamodb"].describe_table(TableName=name),
        "AWS::Lambda::Function": lambda name: clients["lambda"].get_function_configuration(FunctionName=name),
        "AWS::Lambda::EventSourceMapping": lambda uuid: clients["lambda"].get_event_source_mapping(UUID=uuid),
        "AWS::Logs::LogGroup": lambda name: clients["logs"].describe_log_groups(logGroupNamePrefix=name)["logGroups"],
        "AWS::IAM::Role": lambda name: clients["iam"].get_role(RoleName=name),
        "AWS::IAM::ManagedPolicy": lambda arn: clients["iam"].get_policy(PolicyArn=arn),
        "AWS::SecretsManager::Secret": lambda arn: clients["secretsmanager"].describe_secret(SecretId=arn),
        "AWS::Scheduler::Schedule": lambda name: clients["scheduler"].get_schedule(Name=name),
        "AWS::S3::Bucket": lambda name: clients["s3"].head_bucket(Bucket=name),
        "AWS::CloudWatch::Alarm": lambda name: clients["cloudwatch"].describe_alarms(AlarmNames=[name])["MetricAlarms"],
        "AWS::CloudWatch::Dashboard": lambda name: clients["cloudwatch"].get_dashboard(DashboardName=name),
    }

    def is_there(resource: dict[str, Any]) -> bool:
        try:
            return bool(probes[resource["ResourceType"]](resource["PhysicalResourceId"]))
        except ClientError:
            return False

    return {each["LogicalResourceId"] for each in resources if each["ResourceType"] in probes and is_there(each)}
