"""Through the template as `sam build && sam deploy` made it."""

import hashlib
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from local.stack import deploy
from tests.integration.conftest import DeployedHarness
from tests.integration.deployed import until
from workflow_trigger.domain.model import FINAL

AWKWARD = [
    "plain.pdf",
    "with space.pdf",
    "plus+sign.pdf",
    "100%.pdf",
    "per%20cent.pdf",
    "Übersicht/報告書 📄.pdf",
    "quote\"and'apostrophe.pdf",
    "a=b&c=d?e#f.pdf",
    "semi;colon,comma.pdf",
    "[brackets]{braces}.pdf",
    "tilde~caret^pipe|.pdf",
    "back\\slash.pdf",
    "deep/er/and/deep/er.pdf",
    "no-extension",
    ".hidden",
    "x" * 200 + ".pdf",
    "dots.in.the.name.tar.gz",
    "@at:colon$.pdf",
    "(1) copy of (2).pdf",
    "\u202ereversed.pdf",
]


def test_fifty_uploads_at_once_are_each_received_once_and_recorded(deployed: DeployedHarness) -> None:
    stack, state = deployed.stack, deployed.state
    bucket, queue = stack["SourceBucket"], stack["UploadQueueUrl"]
    keys = AWKWARD + [f"ordinary-{number}.pdf" for number in range(30)]
    contents = {key: f"content of {key}".encode() * 100 for key in keys}
    s3, sqs = stack.aws.client("s3"), stack.aws.client("sqs")

    # Uploaded before there is a key: they wait, and run once it is set.
    s3.put_object(Bucket=bucket, Key=keys[0], Body=contents[keys[0]])
    until(lambda: len(stack.rows()) == 1)
    assert stack.rows()[0]["status"] == "PENDING"
    stack.set_key(state.behaviour.api_key)

    announced = _subscribe(deployed)

    def put(key: str) -> None:
        s3.put_object(Bucket=bucket, Key=key, Body=contents[key])

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(put, keys[1:]))
    s3.put_object(Bucket=bucket, Key="folder/", Body=b"")
    until(lambda: len(stack.rows()) == 51)
    for row in [each for each in stack.rows() if each["key"] in contents][:20]:  # duplicates, as S3 may send them
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(_event(row)))
    sqs.send_message(QueueUrl=queue, MessageBody="this is not an event")

    def at_rest() -> bool:
        rows = stack.rows()
        return len(rows) == 51 and all(row["status"] in FINAL for row in rows)

    until(at_rest)
    rows = {row["key"]: row for row in stack.rows()}
    assert rows.pop("folder/")["status"] == "SKIPPED"
    assert set(rows) == set(keys)
    assert {row["status"] for row in rows.values()} == {"COMPLETED"}
    accepted = state.accepted()
    assert len(accepted) == 50
    for key, content in contents.items():
        (received,) = [entry for entry in accepted if entry[1] == rows[key]["upload_name"]]
        assert received[0] == rows[key]["job_id"]
        assert received[2] == hashlib.sha256(content).hexdigest()
    assert {row["workflow_id"] for row in rows.values()} == set(deployed.workflow_ids)
    events = _received(deployed, announced)
    assert {(event["detail"]["object"], event["detail"]["version"]) for event in events} == {
        (row["object"], row["version"]) for row in rows.values()
    }
    assert {event["detail"]["status"] for event in events} == {"COMPLETED"}
    assert all(rows[event["detail"]["key"]]["job_id"] == event["detail"]["job_id"] for event in events)


def _subscribe(deployed: DeployedHarness) -> str:
    """A queue that gets what the stack announces, by the rule that the README shows."""
    aws = deployed.stack.aws
    queue = str(aws.client("sqs").create_queue(QueueName="announced")["QueueUrl"])
    attributes = aws.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    events = aws.client("events")
    pattern = {
        "source": ["unstructured.workflow-trigger"],
        "detail-type": ["unstructured.job-status-changed"],
        "detail": {"status": ["COMPLETED"], "stack": [deployed.stack.name]},
    }
    events.put_rule(Name="announced", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="announced", Targets=[{"Id": "queue", "Arn": attributes["QueueArn"]}])
    return queue


def _received(deployed: DeployedHarness, queue: str) -> list[dict[str, Any]]:
    sqs = deployed.stack.aws.client("sqs")
    found: list[dict[str, Any]] = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        found += [json.loads(message["Body"]) for message in messages]
        for message in messages:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return found


def test_second_stack_on_an_existing_bucket_keeps_its_notifications(deployed: DeployedHarness, package: Path) -> None:
    aws, state = deployed.stack.aws, deployed.state
    s3, sqs = aws.client("s3"), aws.client("sqs")
    theirs = sqs.create_queue(QueueName="theirs")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=theirs, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.create_bucket(Bucket="their-bucket")
    configuration = {
        "QueueConfigurations": [{"Id": "theirs", "QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}],
        "EventBridgeConfiguration": {},
    }
    s3.put_bucket_notification_configuration(Bucket="their-bucket", NotificationConfiguration=configuration)
    before = s3.get_bucket_notification_configuration(Bucket="their-bucket")
    parameters = {
        "WorkflowIds": str(uuid.uuid4()),
        "UnstructuredApiUrl": deployed.url,
        "SourceBucketName": "their-bucket",
        "KeyPrefix": "in/",
        "KeySuffix": ".pdf",
        "PollSeconds": "1",
        "ApiKeySecretArn": deployed.stack["ApiKeySecret"],
        "ResultsMode": "off",
    }
    deployed.stack.set_key(state.behaviour.api_key)
    second = deploy(package, aws, parameters)
    for key in ("in/a b+c.pdf", "in/not.txt", "out/b.pdf"):
        s3.put_object(Bucket="their-bucket", Key=key, Body=key.encode())
    until(lambda: [row["status"] for row in second.rows()] == ["COMPLETED"])
    assert [row["key"] for row in second.rows()] == ["in/a b+c.pdf"]
    after = s3.get_bucket_notification_configuration(Bucket="their-bucket")
    assert {name: after[name] for name in configuration} == {name: before[name] for name in configuration}


def _event(row: dict[str, Any]) -> dict[str, Any]:
    """An EventBridge event for a row's object version."""
    s3_object = {
        "key": row["key"],
        "etag": row["etag"],
        "size": int(row["size"]),
        "version-id": row["version_id"],
        "sequencer": row["sequencer"],
    }
    detail = {"bucket": {"name": row["bucket"]}, "object": s3_object}
    return {"source": "aws.s3", "detail-type": "Object Created", "time": row["uploaded_at"], "detail": detail}


def test_run_passes_with_all_that_an_account_may_demand(deployed: DeployedHarness, package: Path) -> None:
    """The local stack leaves out networks, boundaries, encryption of buckets; the template's tests see to those."""
    aws = deployed.stack.aws
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    boundary = aws.client("iam").create_policy(PolicyName="boundary", PolicyDocument=json.dumps(everything))
    network = aws.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = aws.client("ec2").create_subnet(VpcId=network, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    group = aws.client("ec2").create_security_group(GroupName="g", Description="d", VpcId=network)["GroupId"]
    parameters = {
        "WorkflowIds": str(uuid.uuid4()),
        "UnstructuredApiUrl": deployed.url,
        "PollSeconds": "1",
        "KmsKeyArn": key,
        "PermissionsBoundaryArn": boundary["Policy"]["Arn"],
        "SubnetIds": subnet,
        "SecurityGroupIds": group,
        "AlarmEmail": "team@example.com",
    }
    stack = deploy(package, aws, parameters)
    stack.set_key(deployed.state.behaviour.api_key)
    aws.client("s3").put_object(Bucket=stack["SourceBucket"], Key="a.pdf", Body=b"a")
    until(lambda: [row["status"] for row in stack.rows()] == ["COMPLETED"])
    for url in (stack["UploadQueueUrl"], stack["DeadLetterQueueUrl"]):
        attributes = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        assert attributes["KmsMasterKeyId"] == key
    assert aws.client("secretsmanager").describe_secret(SecretId=stack["ApiKeySecret"])["KmsKeyId"] == key
