"""What became of one object: every version, its job, what happened, and what to do."""

from dataclasses import dataclass

from botocore.exceptions import ClientError

from workflow_trigger.adapters.dynamodb.mapping import Item, deserialize
from workflow_trigger.domain.model import Status
from workflow_trigger_cli import advice
from workflow_trigger_cli.errors import UsageError
from workflow_trigger_cli.stack import Stack, split_url


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One row, with what it means. `row` has every attribute of the ledger."""

    meaning: str
    todo: str
    row: Item


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """The versions that the ledger knows, the newest first; and, when there are none, what the bucket says."""

    object: str
    versions: list[Version]
    in_bucket: bool | None
    meaning: str
    todo: str

    @property
    def needs_attention(self) -> bool:
        """Whether somebody has to do something."""
        return bool(self.todo) or any(each.todo and each.row["status"] != Status.SKIPPED for each in self.versions)


def find(stack: Stack, url: str) -> Findings:
    """Every version of an object.

    Raises:
        UsageError: it is not an address of an object.
    """
    if not split_url(url)[1]:
        raise UsageError(f"{url} names no object; its key is missing")
    rows = sorted(rows_of(stack, url), key=_age, reverse=True)
    versions = [_version(stack, row) for row in rows]
    if versions:
        return Findings(object=url, versions=versions, in_bucket=None, meaning="", todo="")
    return _not_known(stack, url)


def rows_of(stack: Stack, url: str) -> list[Item]:
    """The rows of one object."""
    pages = (
        stack.client("dynamodb")
        .get_paginator("query")
        .paginate(
            TableName=stack["LedgerTable"],
            KeyConditionExpression="#object = :object",
            ExpressionAttributeNames={"#object": "object"},
            ExpressionAttributeValues={":object": {"S": url}},
            ConsistentRead=True,
        )
    )
    return [deserialize(item) for page in pages for item in page["Items"]]


def _age(row: Item) -> str:
    return str(row.get("uploaded_at") or row["registered_at"])


def _version(stack: Stack, row: Item) -> Version:
    found = advice.filled(
        advice.for_row(row),
        stack=stack.name,
        set_key=stack["SetApiKeyCommand"],
        object_url=row["object"],
        version=row["version"],
    )
    return Version(meaning=found.meaning, todo=found.todo, row=row)


def _not_known(stack: Stack, url: str) -> Findings:
    bucket, key = split_url(url)
    in_bucket, size_bytes = _look(stack, bucket, key)
    prefix, suffix = stack.parameters.get("KeyPrefix", ""), stack.parameters.get("KeySuffix", "")
    if bucket != stack["SourceBucket"]:
        meaning, todo = f"not a bucket of this stack, which listens to {stack['SourceBucket']}", "name another --stack"
    elif not (key.startswith(prefix) and key.endswith(suffix)):
        meaning, todo = f"the stack takes only keys like {prefix}*{suffix}", "upload it under such a key"
    elif reason := stack.selection.reason_against(key, size_bytes):
        meaning, todo = f"the stack skips it: {reason}", "change the parameter, and upload it again"
    elif in_bucket is None:
        meaning, todo = "the ledger does not know it, and the bucket does not tell you", "s3:GetObject is needed"
    elif not in_bucket:
        meaning, todo = "neither the ledger nor the bucket knows it", "see whether the key is spelled right"
    else:
        known = advice.filled(advice.NOT_KNOWN, stack=stack.name, object_url=url)
        meaning, todo = known.meaning, known.todo
    return Findings(object=url, versions=[], in_bucket=in_bucket, meaning=meaning, todo=todo)


def _look(stack: Stack, bucket: str, key: str) -> tuple[bool | None, int | None]:
    """Whether the bucket has the object, and its size; None: it does not tell."""
    try:
        return True, stack.client("s3").head_object(Bucket=bucket, Key=key)["ContentLength"]
    except ClientError as error:
        return (False if error.response["Error"]["Code"] in {"404", "NoSuchKey", "NoSuchBucket"} else None), None
