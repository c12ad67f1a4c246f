"""Who may do what, in one table: nothing may be added to it, and nothing be taken away, unseen."""

from typing import Any

from local.template import template
from tests.integration.test_least_privilege import NOT_ENFORCED_LOCALLY

RESOURCES: dict[str, dict[str, Any]] = template()["Resources"]
SOURCE = "[MakesBucket: SourceBucket, SourceBucketName]"
RESULTS = "[MakesResultsBucket: ResultsBucket, ResultsBucketName]"
S3, EC2 = "arn:${AWS::Partition}:s3:::", "arn:${AWS::Partition}:ec2:${AWS::Region}:*"
OWN_BUCKET = f"{S3}uploads-${{AWS::AccountId}}-${{AWS::Region}}-${{Id}}"
BY_THE_RULE = ["aws:SourceArn ArnEquals ExistingBucketRule.Arn"]
BY_THE_BUCKET = ["aws:SourceAccount StringEquals AWS::AccountId", f"aws:SourceArn ArnEquals {OWN_BUCKET}"]
OWN_EVENTS = ["events:source StringEqualsIfExists unstructured.workflow-trigger"]


def of_anothers_secret(parameter: str) -> list[str]:
    """The conditions under which a key may be used that encrypts a secret which the stack did not make."""
    return [
        f"kms:EncryptionContext:SecretARN StringEquals {parameter}",
        "kms:ViaService StringEquals secretsmanager.${AWS::Region}.${AWS::URLSuffix}",
    ]


# Owner, action → resource, the condition under which the stack has it, the statement's own conditions.
ALLOWED: dict[tuple[str, str], tuple[str, str, list[str]] | list[tuple[str, str, list[str]]]] = {
    ("UploadQueuePolicy", "sqs:SendMessage"): [
        ("UploadQueue.Arn", "MakesBucket", BY_THE_BUCKET),
        ("UploadQueue.Arn", "not MakesBucket", BY_THE_RULE),
    ],
    ("DeadLetterQueuePolicy", "sqs:SendMessage"): ("DeadLetterQueue.Arn", "HasExistingBucket", BY_THE_RULE),
    ("SharedPolicy", "s3:GetObject"): (f"{S3}{SOURCE}/${{KeyPrefix}}*", "", []),
    ("SharedPolicy", "s3:GetObjectVersion"): (f"{S3}{SOURCE}/${{KeyPrefix}}*", "", []),
    ("SharedPolicy", "s3:GetObjectTagging"): (f"{S3}{SOURCE}/${{KeyPrefix}}*", "ReadsTags", []),
    ("SharedPolicy", "s3:GetObjectVersionTagging"): (f"{S3}{SOURCE}/${{KeyPrefix}}*", "ReadsTags", []),
    ("SharedPolicy", "s3:ListBucket"): (f"{S3}{SOURCE}", "", []),
    ("SharedPolicy", "kms:Decrypt"): [
        ("SourceKmsKeyArn", "HasSourceKey", []),
        ("KmsKeyArn", "HasKey", []),
        (
            "arn:${AWS::Partition}:kms:${AWS::Region}:${AWS::AccountId}:key/*",
            "not MakesSecret",
            of_anothers_secret("ApiKeySecretArn"),
        ),
        (
            "arn:${AWS::Partition}:kms:${AWS::Region}:${AWS::AccountId}:key/*",
            "HasCaBundle",
            of_anothers_secret("CaBundleSecretArn"),
        ),
    ],
    ("SharedPolicy", "kms:GenerateDataKey"): ("KmsKeyArn", "HasKey", []),
    ("SharedPolicy", "ec2:CreateNetworkInterface"): (f"{EC2}:*/*", "IsInVpc", []),
    ("SharedPolicy", "ec2:DeleteNetworkInterface"): (f"{EC2}:*/*", "IsInVpc", []),
    ("SharedPolicy", "ec2:AssignPrivateIpAddresses"): (f"{EC2}:*/*", "IsInVpc", []),
    ("SharedPolicy", "ec2:UnassignPrivateIpAddresses"): (f"{EC2}:*/*", "IsInVpc", []),
    ("SharedPolicy", "ec2:DescribeNetworkInterfaces"): ("*", "IsInVpc", []),
    ("SharedPolicy", "ec2:DescribeSubnets"): ("*", "IsInVpc", []),
    ("SharedPolicy", "secretsmanager:GetSecretValue"): [
        ("[MakesSecret: ApiKeySecret.Id, ApiKeySecretArn]", "", []),
        ("CaBundleSecretArn", "HasCaBundle", []),
    ],
    ("SharedPolicy", "dynamodb:UpdateItem"): ("Ledger.Arn", "", []),
    ("SharedPolicy", "dynamodb:Query"): [
        ("${Ledger.Arn}/index/open-rows, ${Ledger.Arn}/index/queues", "", []),
        ("Ledger.Arn", "RunsOnlyLatest", []),
    ],
    ("SharedPolicy", "dynamodb:BatchGetItem"): ("Ledger.Arn", "", []),
    ("SharedPolicy", "dynamodb:Scan"): ("Workflows.Arn", "", []),
    ("SharedPolicy", "dynamodb:PutItem"): ("Workflows.Arn", "", []),
    ("SharedPolicy", "events:PutEvents"): (
        "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/${EventBusName}",
        "",
        OWN_EVENTS,
    ),
    ("OnUploadRole", "sqs:ReceiveMessage"): ("UploadQueue.Arn", "", []),
    ("OnUploadRole", "sqs:DeleteMessage"): ("UploadQueue.Arn", "", []),
    ("OnUploadRole", "sqs:GetQueueAttributes"): ("UploadQueue.Arn", "", []),
    ("OnUploadRole", "dynamodb:PutItem"): ("Ledger.Arn", "", []),
    ("OnUploadRole", "dynamodb:GetItem"): ("Ledger.Arn", "", []),
    ("OnUploadRole", "logs:CreateLogStream"): ("OnUploadLogs.Arn", "", []),
    ("OnUploadRole", "logs:PutLogEvents"): ("OnUploadLogs.Arn", "", []),
    ("OnUploadRole", "lambda:InvokeFunction"): ("OnScheduleFunction.Arn", "", []),
    ("OnScheduleRole", "dynamodb:DeleteItem"): ("Workflows.Arn", "", []),
    ("OnScheduleRole", "s3:PutObject"): (f"{S3}{RESULTS}/${{ResultsPrefix}}*", "HasResults", []),
    ("OnScheduleRole", "s3:AbortMultipartUpload"): (f"{S3}{RESULTS}/${{ResultsPrefix}}*", "HasResults", []),
    ("OnScheduleRole", "kms:GenerateDataKey"): ("ResultsKmsKeyArn", "HasResultsKey", []),
    ("OnScheduleRole", "kms:Decrypt"): ("ResultsKmsKeyArn", "HasResultsKey", []),
    ("OnScheduleRole", "logs:CreateLogStream"): ("OnScheduleLogs.Arn", "", []),
    ("OnScheduleRole", "logs:PutLogEvents"): ("OnScheduleLogs.Arn", "", []),
    ("CompareRole", "s3:ListBucketVersions"): (f"{S3}{SOURCE}", "", []),
    ("CompareRole", "s3:GetBucketVersioning"): (f"{S3}{SOURCE}", "", []),
    ("CompareRole", "dynamodb:DescribeTable"): ("Ledger.Arn", "", []),
    ("CompareRole", "dynamodb:PutItem"): ("Ledger.Arn", "", []),
    ("CompareRole", "dynamodb:GetItem"): ("Ledger.Arn", "", []),
    ("CompareRole", "logs:CreateLogStream"): ("CompareLogs.Arn", "", []),
    ("CompareRole", "logs:PutLogEvents"): ("CompareLogs.Arn", "", []),
    ("SharedPolicy", "xray:PutTraceSegments"): ("*", "Traces", []),
    ("SharedPolicy", "xray:PutTelemetryRecords"): ("*", "Traces", []),
    ("ScheduleRole", "lambda:InvokeFunction"): (
        "OnScheduleFunction.Arn, [Compares: CompareFunction.Arn, AWS::NoValue]",
        "",
        [],
    ),
}


def shown(value: Any) -> str:
    """A resource, its functions written short."""
    match value:
        case str():
            return value
        case list():
            return ", ".join(map(shown, value))
        case {"Ref": name}:
            return str(name)
        case {"Fn::GetAtt": name}:
            return str(name)
        case {"Fn::Sub": str(text)}:
            return text
        case {"Fn::Sub": [text, {"Bucket": bucket}]}:
            return str(text).replace("${Bucket}", shown(bucket))
        case {"Fn::Sub": [text, {"Id": _}]}:  # of the stack, so that buckets have names that nobody else has
            return str(text)
        case {"Fn::If": [condition, yes, no]}:
            return f"[{condition}: {shown(yes)}, {shown(no)}]"
    raise AssertionError(f"a resource of a new form: {value}")


def allowed(owner: str, value: Any, when: str = "") -> list[tuple[tuple[str, str], tuple[str, str, list[str]]]]:
    """Every action that is allowed under `value`."""
    match value:
        case {"Fn::If": [condition, yes, no]}:
            return allowed(owner, yes, condition) + allowed(owner, no, f"not {condition}")
        case {"Effect": "Allow", "Action": "sts:AssumeRole"}:
            return []
        case {"Effect": "Allow", "Action": action}:
            tests = value.get("Condition", {})
            conditions = sorted(f"{key} {test} {shown(tests[test][key])}" for test in tests for key in tests[test])
            actions = [action] if isinstance(action, str) else action
            return [((owner, each), (shown(value["Resource"]), when, conditions)) for each in actions]
        case dict():
            return [found for inner in value.values() for found in allowed(owner, inner, when)]
        case list():
            return [found for inner in value for found in allowed(owner, inner, when)]
    return []


def test_exactly_this_is_allowed() -> None:
    found: dict[tuple[str, str], list[tuple[str, str, list[str]]]] = {}
    for owner, resource in RESOURCES.items():
        for who, what in allowed(owner, resource):
            found.setdefault(who, []).append(what)
    assert found == {who: what if isinstance(what, list) else [what] for who, what in ALLOWED.items()}


def test_permissions_that_the_local_stack_ignores_have_their_reason() -> None:
    assert {action for _, action in ALLOWED} >= set(NOT_ENFORCED_LOCALLY)
    assert all(len(reason) > 20 for reason in NOT_ENFORCED_LOCALLY.values())


def test_roles_have_no_policy_but_those_of_the_template() -> None:
    managed = [
        each["Properties"].get("ManagedPolicyArns", [])
        for each in RESOURCES.values()
        if each["Type"] == "AWS::IAM::Role"
    ]
    assert managed == [[{"Ref": "SharedPolicy"}], [{"Ref": "SharedPolicy"}], [{"Ref": "SharedPolicy"}], []]
