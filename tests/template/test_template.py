"""What the template must say, above all where the local stack would hide it."""

import json
import re
import tomllib
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from local.stack import ROOT
from local.template import template
from tests.releases import RELEASES
from workflow_trigger.adapters.dynamodb.mapping import DOCUMENT_NAMES
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.errors import SettingsError
from workflow_trigger.domain.model import Document
from workflow_trigger.settings import Settings

TEMPLATE = template()
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
KMS = "arn:aws:kms:eu-central-1:111122223333:"
ADDRESSES = [
    "https://platform.unstructuredapp.io",
    "https://platform.unstructuredapp.io/api/v1/",
    "https://vpc.example.com:8443/unstructured/api/v1",
    "https://platform.unstructuredapp.io/api/v1/workflows/f0a1b2c3-4d5e-6f7a-8b9c-0d1e2f3a4b5c/run",
    "http://127.0.0.1:1",
    "http://localhost/",
    "https://Transform.example.com",
    "HTTPS://a.b",
    "https://a.b:65535",
]
OTHER_ADDRESSES = [
    "http://a.b",
    "a.b",
    "https://",
    "https://u:p@a.b",
    "https://a.b?x=1",
    "https://api.unstructuredapp.io/general/v0/general",  # case 37
    "https://api.unstructuredapp.io",
    "https://api.unstructured.io/api/v1",
    "https://platform.unstructured.io",
    "https://platform.unstructured.io/workflows",
    "https://a.b/transform/x",
    "https://a.b/api/v1/partition",
    "https://a.b/docs",
    "https://a.b/foo/bar",
    "https://a.b/api",
    "https://a.b/api/v1/jobs/",
    "https://API.unstructuredapp.io",
    "https://api.unstructuredapp.io.",
    "https://Platform.Unstructured.io",
    "https://a.b:port",
    "https://.",
    "https://a\\x",
    "https://h/API/V1",
    "https://h/API/v1/workflows/X/RUN",
    "https://h:99999",
    "https://h:0",
]
WORKFLOWS = [
    "f0a1b2c3-4d5e-6f7a-8b9c-0d1e2f3a4b5c",
    "F0A1B2C3-4D5E-6F7A-8B9C-0D1E2F3A4B5C",
    "f0a1b2c34d5e6f7a8b9c0d1e2f3a4b5c",
    "invoice-processing-v2",
    "20240115-1200-invoices",
    "deadbeef-cafe-x",
    "deadbeef-cafe-face-beef-invoices",
    "a",
    "x" * 63,
]
NO_WORKFLOWS = [
    "Invoice Processing",
    "a/b",
    "a_b",
    "-",
    "a--b",
    "-a",
    "a-",
    "x" * 64,
    "f0a1b2c3-4d5e-6f7a-8b9c-0d1e2f3a4b5",  # a UUID that lost a digit
    "f0a1b2c3-4d5e-6f7a-8b9c-0d1e2f3a4b5cc",
    "f0a1b2c-4d5e-6f7a-8b9c-0d1e2f3a4b5c",
    "f0a1b2c3-4d5e-6f7-8b9c-0d1e2f3a4b5c",
    "f0a1b2c34d5e-6f7a-8b9c-0d1e2f3a4b5c",
    "f0a1b2c34d5e6f7a8b9c0d1e2f3a4b5",
    "{f0a1b2c3-4d5e-6f7a-8b9c-0d1e2f3a4b5c}",
]
ID = WORKFLOWS[0]
PARAMETERS = [
    "UnstructuredApiUrl",
    "WorkflowIds",
    "Routes",
    "ApiKeySecretArn",
    "CaBundleSecretArn",
    "SourceBucketName",
    "SourceKmsKeyArn",
    "ExpectedBucketOwner",
    "KeyPrefix",
    "KeySuffix",
    "IncludePatterns",
    "ExcludePatterns",
    "MinBytes",
    "MaxMegabytesPerFile",
    "OnlySupportedTypes",
    "SkippedRows",
    "ReadTags",
    "OnlyLatestVersion",
    "MaxFilesPerRun",
    "MaxMegabytesPerRun",
    "PollSeconds",
    "ResultsMode",
    "ResultsBucketName",
    "ResultsPrefix",
    "ResultsKmsKeyArn",
    "LedgerRetentionDays",
    "EventBusName",
    "AlarmEmail",
    "AlarmTopicArn",
    "CompareSchedule",
    "CompareMode",
    "LogLevel",
    "LogRetentionDays",
    "Tracing",
    "MemorySize",
    "Architecture",
    "KmsKeyArn",
    "RolePath",
    "PermissionsBoundaryArn",
    "SubnetIds",
    "SecurityGroupIds",
]
OUTPUTS = [
    "SourceBucket",
    "LedgerTable",
    "WorkflowsTable",
    "UploadQueueUrl",
    "DeadLetterQueueUrl",
    "OnUploadFunction",
    "OnScheduleFunction",
    "CompareFunction",
    "ApiKeySecret",
    "ResultsBucket",
    "SetApiKeyCommand",
    "UploadCommand",
    "LogsCommand",
]


def of_type(kind: str) -> list[tuple[str, dict[str, Any]]]:
    found = [(name, each.get("Properties", {})) for name, each in RESOURCES.items() if each["Type"] == kind]
    assert found
    return found


def statements() -> list[tuple[str, dict[str, Any]]]:
    """Every Allow of every role and policy, the optional ones too."""
    found: list[tuple[str, dict[str, Any]]] = []

    def walk(owner: str, value: Any) -> None:
        if isinstance(value, dict):
            if "Effect" in value and "Action" in value:
                found.append((owner, value))
            for inner in value.values():
                walk(owner, inner)
        elif isinstance(value, list):
            for inner in value:
                walk(owner, inner)

    for name, each in RESOURCES.items():
        walk(name, each)
    return found


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_parameters_and_outputs_are_those_of_the_interface() -> None:
    assert sorted(TEMPLATE["Parameters"]) == sorted(PARAMETERS)
    assert sorted(TEMPLATE["Outputs"]) == sorted(OUTPUTS)


def test_only_the_workflow_ids_have_no_default() -> None:
    assert [name for name, each in TEMPLATE["Parameters"].items() if "Default" not in each] == ["WorkflowIds"]


def test_every_parameter_is_explained_and_grouped() -> None:
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(PARAMETERS)
    for name, each in TEMPLATE["Parameters"].items():
        assert len(each["Description"]) > 20, name
        assert "AllowedPattern" not in each or "ConstraintDescription" in each, name


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        ("UnstructuredApiUrl", ADDRESSES, OTHER_ADDRESSES),
        ("ApiKeySecretArn", ["", "arn:aws:secretsmanager:eu-west-1:1:secret:a"], ["my-secret"]),
        (
            "Routes",
            [
                "",
                "a/:one-key",
                "a/:id1, id2 ; b/x=1/: id3 : law/",
                "a/:id1;",
                "a/:id1:results/a/",
                f"a/:{ID},{ID}:law/",
            ],
            [
                *("a/", "a/:", ":id1", "a/:id1:law", "a/:id1 id2", "a*/:id1", "a/:id1::", "a/:id--1", "a/:-", "a/:A"),
                *(f"a/:{each}" for each in NO_WORKFLOWS),
                f"a/:{ID},{ID[:-1]};b/:{ID}",
            ],
        ),
        (
            "IncludePatterns",
            ["", "*.pdf", "*.pdf,*.docx", "in/?[ab]*", "a[[]1[]].pdf", "[!a-c]*", "é*", "a b*", "a[{]*", "a[\\]*"],
            ["*.{pdf,docx}", "*.[a,b]", "in/[draft", "a]", "a\\*", "s3://bucket/*", "S3://b/*", "[]", "[!]"],
        ),
        ("CaBundleSecretArn", ["", "arn:aws:secretsmanager:eu-west-1:1:secret:a"], ["-----BEGIN CERTIFICATE-----"]),
        ("RolePath", ["/", "/service/", "/a/b/"], ["", "service", "/service", "service/"]),
        ("SourceBucketName", ["", "my-bucket.name"], ["My_Bucket", "-a-", "s3://b"]),
        ("KeyPrefix", ["", "in/2026=x/"], ["a b", "a*"]),
        ("KeySuffix", ["", ".pdf"], ["*.pdf"]),
        ("ResultsPrefix", ["", "results/", "a/b/"], ["results", "a*/"]),
        ("AlarmEmail", ["", "a@b.c"], ["a"]),
        ("EventBusName", ["default", "orders.bus/1"], ["", "a b", "arn:aws:events:eu-central-1:1:event-bus/x"]),
        ("CompareSchedule", ["", "rate(7 days)", "cron(0 6 ? * MON *)"], ["7 days", "rate()", "every week"]),
        (
            "WorkflowIds",
            WORKFLOWS,
            NO_WORKFLOWS,
        ),
        ("ExpectedBucketOwner", ["", "111122223333"], ["1111", "arn:aws:iam::111122223333:root"]),
        ("SourceKmsKeyArn", ["", f"{KMS}key/1"], [f"{KMS}alias/docs"]),  # case 38: an alias grants nothing
        ("ResultsKmsKeyArn", ["", f"{KMS}key/1"], [f"{KMS}alias/docs"]),
        ("KmsKeyArn", ["", f"{KMS}key/1"], [f"{KMS}alias/docs"]),
    ],
)
def test_patterns_take_what_is_right_and_nothing_else(parameter: str, good: list[str], bad: list[str]) -> None:
    pattern = TEMPLATE["Parameters"][parameter]["AllowedPattern"]
    assert [text for text in good if not re.search(pattern, text)] == []
    assert [text for text in bad if re.search(pattern, text)] == []


@pytest.mark.parametrize(
    ("parameter", "variable", "good", "bad"),
    [
        ("UnstructuredApiUrl", "UNSTRUCTURED_API_URL", ADDRESSES, OTHER_ADDRESSES),
        ("WorkflowIds", "WORKFLOW_IDS", WORKFLOWS, NO_WORKFLOWS),
    ],
)
def test_what_is_refused_at_deployment_is_what_functions_refuse(
    parameter: str, variable: str, good: list[str], bad: list[str]
) -> None:
    """Or a stack would be deployed whose functions do not start."""
    environment = {"API_KEY_SECRET_ARN": "arn", "LEDGER_TABLE": "ledger", "WORKFLOWS_TABLE": "workflows"}
    environment |= {"UNSTRUCTURED_API_URL": ADDRESSES[0], "WORKFLOW_IDS": WORKFLOWS[0]}
    for text in good:
        assert re.search(TEMPLATE["Parameters"][parameter]["AllowedPattern"], text)
        Settings.from_environment(environment | {variable: text})
    for text in bad:
        with pytest.raises(SettingsError, match=variable):
            Settings.from_environment(environment | {variable: text})


def test_pattern_of_routes_ends_soon_whatever_is_typed() -> None:
    """Ids that two branches of a pattern can read took twice the time for each of them."""
    pattern = TEMPLATE["Parameters"]["Routes"]["AllowedPattern"]
    for each in (*WORKFLOWS, *NO_WORKFLOWS):
        assert re.search(pattern, "a/:" + ",".join([each] * 40) + "!") is None


def evaluated(expression: Any, given: dict[str, Any]) -> Any:
    """What CloudFormation makes of a rule's expression."""
    match expression:
        case {"Ref": name}:
            return given.get(name, TEMPLATE["Parameters"][name].get("Default"))
        case {"Fn::Not": [inner]}:
            return not evaluated(inner, given)
        case {"Fn::And": parts}:
            return all(evaluated(part, given) for part in parts)
        case {"Fn::Or": parts}:
            return any(evaluated(part, given) for part in parts)
        case {"Fn::Equals": [one, other]}:
            return evaluated(one, given) == evaluated(other, given)
        case {"Fn::EachMemberEquals": [members, value]}:
            return all(each == value for each in (evaluated(members, given) or "").split(","))
    return expression


def rules_broken(given: dict[str, Any]) -> list[str]:
    found, given = [], {"WorkflowIds": WORKFLOWS[0], **given}
    for name, rule in TEMPLATE["Rules"].items():
        applies = evaluated(rule.get("RuleCondition", True), given)
        if applies and not all(evaluated(each["Assert"], given) for each in rule["Assertions"]):
            found.append(name)
    return found


@pytest.mark.parametrize(
    ("given", "broken"),
    [
        ({}, None),
        ({"WorkflowIds": ","}, "WorkflowsAreNamed"),
        ({"WorkflowIds": "a,"}, None),  # as 0.2.0 took it
        ({"ResultsMode": "existing"}, "ResultsBucketIsNamed"),
        ({"SourceKmsKeyArn": f"{KMS}key/1"}, "KmsKeyBelongsToAnExistingBucket"),
        ({"ResultsKmsKeyArn": f"{KMS}key/1"}, "ResultsKeyBelongsToAnExistingBucket"),
        (
            {"ResultsMode": "existing", "ResultsBucketName": "b-1", "SourceBucketName": "b-1"},
            "ResultsDoNotTriggerRuns",
        ),
        ({"SubnetIds": "subnet-1"}, "VpcHasSecurityGroups"),  # case 43
        ({"SubnetIds": "subnet-1", "SecurityGroupIds": "sg-1"}, None),
    ],
)
def test_every_rule_can_be_broken(given: dict[str, Any], broken: str | None) -> None:
    assert rules_broken(given) == ([broken] if broken else [])


def test_defaults_of_the_template_are_those_of_the_settings() -> None:
    from workflow_trigger.settings import Settings  # noqa: PLC0415

    defaults = {name: TEMPLATE["Parameters"][name].get("Default") for name in PARAMETERS}
    assert defaults["MaxFilesPerRun"] == Settings.__dataclass_fields__["max_files_per_run"].default
    assert defaults["MaxMegabytesPerRun"] * 1_000_000 == Settings.__dataclass_fields__["max_bytes_per_run"].default
    assert defaults["PollSeconds"] == Settings.__dataclass_fields__["poll_seconds"].default
    assert defaults["LedgerRetentionDays"] == Settings.__dataclass_fields__["retention_days"].default
    assert defaults["ResultsPrefix"] == Settings.__dataclass_fields__["results_prefix"].default


def test_runtime_and_architecture() -> None:
    function = TEMPLATE["Globals"]["Function"]
    assert (function["Runtime"], function["Architectures"]) == ("python3.13", [{"Ref": "Architecture"}])
    assert TEMPLATE["Parameters"]["Architecture"]["Default"] == "arm64"


def test_no_action_is_a_wildcard_and_no_resource_everything() -> None:
    without_resource = {"ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"}  # the only one that EC2 has for them
    without_resource |= {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}  # and X-Ray
    for owner, statement in statements():
        if statement["Effect"] != "Allow":
            continue
        assert not [action for action in as_list(statement["Action"]) if "*" in action], owner
        if "*" in as_list(statement.get("Resource", "")):
            assert set(as_list(statement["Action"])) <= without_resource, owner


def test_filter_of_the_notification_is_form_encoded_as_s3_has_it() -> None:
    filters = RESOURCES["SourceBucket"]["Properties"]["NotificationConfiguration"]["QueueConfigurations"][0]["Filter"]
    rules = filters["Fn::If"][1]["S3Key"]["Rules"]
    for rule, parameter in zip(rules, ("KeyPrefix", "KeySuffix"), strict=True):
        assert rule["Fn::If"][1]["Value"] == {"Fn::Join": ["%3D", {"Fn::Split": ["=", {"Ref": parameter}]}]}
    # Nothing else that a form would encode may be in a prefix or a suffix.
    for parameter in ("KeyPrefix", "KeySuffix"):
        assert TEMPLATE["Parameters"][parameter]["AllowedPattern"] == "^[A-Za-z0-9/_.=-]*$"


def test_way_into_a_vpc_is_for_lambda_and_not_for_the_code() -> None:
    of_ec2 = [each for _, each in statements() if "ec2:" in str(each["Action"])]
    denied = [each for each in of_ec2 if each["Effect"] == "Deny"]
    assert [list(each["Condition"]["ArnLike"]) for each in denied] == [["lambda:SourceFunctionArn"]]
    allowed = {action for each in of_ec2 if each["Effect"] == "Allow" for action in as_list(each["Action"])}
    assert allowed == set(denied[0]["Action"])


def test_partition_is_never_fixed() -> None:
    assert "arn:aws:" not in (ROOT / "template.yaml").read_text()


def test_every_role_heeds_the_permissions_boundary_and_the_path() -> None:
    for name, role in of_type("AWS::IAM::Role"):
        assert "PermissionsBoundary" in role, name
    for name, each in of_type("AWS::IAM::Role") + of_type("AWS::IAM::ManagedPolicy"):
        assert each["Path"] == {"Ref": "RolePath"}, name
    assert TEMPLATE["Parameters"]["RolePath"]["Default"] == "/"


def test_rule_filters_empty_objects_out_where_no_row_is_wanted() -> None:
    pattern = RESOURCES["ExistingBucketRule"]["Properties"]["EventPattern"]["detail"]["object"]
    condition, filtered, whole = pattern["Fn::If"]
    key = {"key": [{"wildcard": {"Fn::Sub": "${KeyPrefix}*${KeySuffix}"}}]}
    assert (filtered, whole) == (key | {"size": [{"anything-but": [0]}]}, key)
    applies = partial(evaluated, TEMPLATE["Conditions"][condition])
    assert [applies({"SkippedRows": rows, "MinBytes": least}) for rows in ("on", "off") for least in (0, 1, 9)] == [
        *(False, False, False),
        *(False, True, True),
    ]


def test_function_roles_are_written_here() -> None:
    for name, function in of_type("AWS::Serverless::Function"):
        assert "Role" in function, name
        assert "Policies" not in function, name
        for event in function["Events"].values():
            assert event["Type"] != "ScheduleV2" or "RoleArn" in event["Properties"]


def test_every_function_has_a_log_group_with_retention() -> None:
    groups = dict(of_type("AWS::Logs::LogGroup"))
    for name, function in of_type("AWS::Serverless::Function"):
        retention = groups[function["LoggingConfig"]["LogGroup"]["Ref"]]["RetentionInDays"]
        assert retention == {"Ref": "LogRetentionDays"}, name
    assert TEMPLATE["Parameters"]["LogRetentionDays"]["Default"] == 90


def test_everything_is_encrypted_by_aws_or_by_a_key_of_the_customers() -> None:
    def by_key(value: Any, otherwise: Any) -> bool:
        return bool(value == {"Fn::If": ["HasKey", {"Ref": "KmsKeyArn"}, otherwise]})

    none = {"Ref": "AWS::NoValue"}
    for name, table in of_type("AWS::DynamoDB::Table"):
        assert table["SSESpecification"]["SSEEnabled"] is True, name
        assert by_key(table["SSESpecification"]["KMSMasterKeyId"], none), name
    for name, queue in of_type("AWS::SQS::Queue"):
        # Never alias/aws/sqs: S3 cannot send to a queue under it.
        assert queue["SqsManagedSseEnabled"] == {"Fn::If": ["HasKey", none, True]}, name
        assert by_key(queue["KmsMasterKeyId"], none), name
    for name, bucket in of_type("AWS::S3::Bucket"):
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        _, with_key, without = rule["ServerSideEncryptionByDefault"]["Fn::If"]
        assert with_key == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": {"Ref": "KmsKeyArn"}}, name
        assert without == {"SSEAlgorithm": "AES256"}, name
    for name, group in of_type("AWS::Logs::LogGroup"):
        assert by_key(group["KmsKeyId"], none), name
    assert by_key(RESOURCES["ApiKeySecret"]["Properties"]["KmsKeyId"], none)
    assert by_key(TEMPLATE["Globals"]["Function"]["KmsKeyArn"], none)
    allowed = [each for _, each in statements() if each.get("Resource") == {"Ref": "KmsKeyArn"}]
    assert [each["Action"] for each in allowed] == [["kms:Decrypt", "kms:GenerateDataKey"]]


def test_every_finding_that_is_skipped_has_its_reason_beside_it() -> None:
    skips = [
        skip for each in RESOURCES.values() for skip in each.get("Metadata", {}).get("checkov", {}).get("skip", [])
    ]
    assert len(skips) == 10
    assert all(len(skip["comment"]) > 30 for skip in skips)


def test_buckets_are_private() -> None:
    for name, bucket in of_type("AWS::S3::Bucket"):
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}, name
        assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}], name


def test_buckets_and_queues_take_tls_only() -> None:
    policies = [each for _, each in of_type("AWS::S3::BucketPolicy") + of_type("AWS::SQS::QueuePolicy")]
    assert len(policies) == len(of_type("AWS::S3::Bucket")) + len(of_type("AWS::SQS::Queue"))
    for policy in policies:
        denied = [each for each in policy["PolicyDocument"]["Statement"] if each.get("Effect") == "Deny"]
        assert [each["Condition"] for each in denied] == [{"Bool": {"aws:SecureTransport": "false"}}]


def test_queue_accepts_only_this_bucket_or_this_rule() -> None:
    (allowed,) = [
        each["Fn::If"]
        for each in RESOURCES["UploadQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
        if "Fn::If" in each
    ]
    _, bucket, rule = allowed
    assert set(bucket["Condition"]) == {"StringEquals", "ArnEquals"}
    assert rule["Condition"]["ArnEquals"]["aws:SourceArn"] == {"Fn::GetAtt": "ExistingBucketRule.Arn"}


def test_bucket_and_queue_policy_use_the_same_name() -> None:
    name, values = RESOURCES["SourceBucket"]["Properties"]["BucketName"]["Fn::Sub"]
    assert name.startswith("uploads-")
    assert json.dumps(f"arn:${{AWS::Partition}}:s3:::{name}") in json.dumps(RESOURCES["UploadQueuePolicy"])
    assert json.dumps(values) in json.dumps(RESOURCES["UploadQueuePolicy"])
    assert RESOURCES["SourceBucket"]["DependsOn"] == "UploadQueuePolicy"


KEPT = ["Ledger", "SourceBucket", "ResultsBucket", "DeadLetterQueue"]


@pytest.mark.parametrize("name", [*KEPT, "SourceBucketPolicy", "ResultsBucketPolicy", "DeadLetterQueuePolicy"])
def test_what_must_survive_the_stack_is_retained(name: str) -> None:
    assert RESOURCES[name]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_update_from_a_release_replaces_nothing_that_holds_something(release: Path) -> None:
    """Properties that CloudFormation can change only by making another resource, by its reference."""
    replacing = {
        "AWS::DynamoDB::Table": ("TableName", "KeySchema", "LocalSecondaryIndexes"),
        "AWS::S3::Bucket": ("BucketName",),
        "AWS::SQS::Queue": ("QueueName", "FifoQueue"),
        "AWS::SecretsManager::Secret": ("Name",),
    }
    before = template(release)
    assert set(before["Parameters"]) <= set(TEMPLATE["Parameters"])
    assert set(before["Outputs"]) <= set(TEMPLATE["Outputs"])
    held = {name: each for name, each in before["Resources"].items() if each["Type"] in replacing}
    assert len(held) >= 7
    for name, each in held.items():
        for attribute in replacing[each["Type"]]:
            assert RESOURCES[name]["Properties"].get(attribute) == each["Properties"].get(attribute), (name, attribute)
        # An index cannot be changed, and only one can be made in an update.
        old, new = (
            {index["IndexName"]: index for index in properties.get("GlobalSecondaryIndexes", [])}
            for properties in (each["Properties"], RESOURCES[name]["Properties"])
        )
        assert old.items() <= new.items(), name
        assert len(new) <= len(old) + 1, name


def test_template_of_the_newest_release_is_not_the_one_in_work() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changes = re.findall(r"^## (\d+\.\d+\.\d+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert changes[0] == version
    assert sorted(changes[1:]) == [path.stem for path in RELEASES]


def test_tables_can_be_recovered_and_the_ledger_forgets_in_time() -> None:
    for name, table in of_type("AWS::DynamoDB::Table"):
        assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True, name
        assert "TableName" not in table, "a fixed name would keep a second stack out"
    ledger = RESOURCES["Ledger"]["Properties"]
    assert ledger["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}


def test_index_is_sparse_and_carries_what_a_claim_needs() -> None:
    indexes = {each["IndexName"]: each for each in RESOURCES["Ledger"]["Properties"]["GlobalSecondaryIndexes"]}
    assert [key["AttributeName"] for key in indexes["open-rows"]["KeySchema"]] == ["status", "eligible_at"]
    carried = set(indexes["open-rows"]["Projection"]["NonKeyAttributes"])
    table_keys = {"object", "version", "status", "eligible_at", "job_id"}
    names = {each.name for each in (*fields(Document), *fields(ObjectVersion))} - {"source", "size_bytes", "lane"}
    read = {DOCUMENT_NAMES.get(name, name) for name in names} | {"size"}
    from_the_table_only = {"input_file_id", "output_node_files", "results", "uploaded_at", "upload_name"}
    from_the_table_only |= {"metadata", "tags", "route", "queue", "queue_at", "batch", "request_id"}
    assert len(read) > 15
    assert read - table_keys - from_the_table_only <= carried
    by_queue = set(indexes["queues"]["Projection"]["NonKeyAttributes"])
    assert read - {"object", "version", "job_id", "bound_to", "bound_since"} - from_the_table_only <= by_queue


def test_message_stays_invisible_a_little_longer_than_the_function_runs() -> None:
    timeout = TEMPLATE["Globals"]["Function"]["Timeout"]
    assert timeout < RESOURCES["UploadQueue"]["Properties"]["VisibilityTimeout"] <= timeout + 120


def test_events_are_kept_for_fourteen_days_and_then_put_aside() -> None:
    for name, queue in of_type("AWS::SQS::Queue"):
        assert queue["MessageRetentionPeriod"] == 14 * 24 * 3600, name
    assert RESOURCES["UploadQueue"]["Properties"]["RedrivePolicy"]["maxReceiveCount"] >= 3


def test_the_next_minute_is_the_retry_of_the_schedule() -> None:
    function = RESOURCES["OnScheduleFunction"]["Properties"]
    (event,) = function["Events"].values()
    assert event["Properties"]["OmitName"] is True
    assert event["Properties"]["RetryPolicy"]["MaximumRetryAttempts"] == 0
    assert function["EventInvokeConfig"]["MaximumRetryAttempts"] == 0


def test_upload_function_answers_message_by_message() -> None:
    properties = RESOURCES["OnUploadFunction"]["Properties"]["Events"]["Uploads"]["Properties"]
    assert properties["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert properties["ScalingConfig"]["MaximumConcurrency"] >= 2
    assert "ReservedConcurrentExecutions" not in json.dumps(TEMPLATE)


def test_metrics_of_two_stacks_are_kept_apart() -> None:
    variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}


def test_own_secret_is_made_empty() -> None:
    secret = RESOURCES["ApiKeySecret"]["Properties"]
    assert not {"SecretString", "GenerateSecretString", "Name"} & set(secret)


def test_every_alarm_says_what_to_do() -> None:
    for name, alarm in of_type("AWS::CloudWatch::Alarm"):
        assert RESOURCES[name]["Condition"] in {"HasAlarms", "ComparesWithAlarms"}
        assert len(alarm["AlarmDescription"]) > 80, name


_SUFFIX = "A1B2C3D4E5F6"  # as CloudFormation puts it behind a name


def deployed(value: Any, given: dict[str, str]) -> str:
    """A value of the environment as an account would have it, with names as long as they are there."""
    match value:
        case {"Fn::Join": [separator, members]}:
            return str(separator).join(deployed(members, given).split(","))
        case {"Fn::If": [_, one, other]}:
            return max(deployed(one, given), deployed(other, given), key=len)
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{([\w:]+)\}", lambda found: deployed({"Ref": found[1]}, given), text)
        case {"Fn::GetAtt": [name, _]} | {"Fn::GetAtt": str(name)}:
            return f"arn:aws:secretsmanager:eu-central-1:111122223333:secret:{name}-{_SUFFIX}-AbCdEf"
        case {"Ref": "AWS::StackName"}:
            return "unstructured-workflow-trigger"
        case {"Ref": name} if name in TEMPLATE["Parameters"]:
            return given.get(name, str(TEMPLATE["Parameters"][name].get("Default", "")))
        case {"Ref": name}:
            return f"unstructured-workflow-trigger-{name}-{_SUFFIX}"
    return str(value)


@pytest.mark.parametrize("pool", [[ID] * 70, [f"uploads-{number}" for number in range(1, 201)]], ids=["ids", "keys"])
def test_environment_holds_as_many_workflows_as_the_readme_says(pool: list[str]) -> None:
    """Lambda allows 4 KB of names and values; CloudFormation 4,096 characters of a parameter."""
    given = {"WorkflowIds": ",".join(pool), "KeyPrefix": "department/incoming/", "KeySuffix": ".pdf"}
    given |= {"IncludePatterns": "*.pdf,*.docx,*.pptx", "ExcludePatterns": "*/draft/*"}
    common = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    own = RESOURCES["OnUploadFunction"]["Properties"]["Environment"]["Variables"]
    sizes = [len(name) + len(deployed(value, given)) for name, value in {**common, **own}.items()]
    assert sum(sizes) <= 4_096
    assert len(given["WorkflowIds"]) <= 4_096
