"""DynamoDB's calls: consistent reads, and conditional writes that tell what stood in their way.

Whatever may pass by itself, throttling or a transaction that holds the item, is tried again until the invocation ends.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError

from workflow_trigger.adapters.dynamodb.mapping import Item, deserialize, serialize
from workflow_trigger.domain.clock import Clock, Deadline
from workflow_trigger.domain.errors import LedgerUnavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class Condition(NamedTuple):
    """An expression, and the names and values in it."""

    expression: str
    names: Mapping[str, str]
    values: Mapping[str, Any]


_MAY_PASS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded"}
_MAY_PASS_CALL = _MAY_PASS | {
    "TransactionConflictException",
    "TransactionInProgressException",
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "InternalServerError",
    "ServiceUnavailable",
}


class Tables:
    """The calls of one invocation."""

    def __init__(self, client: "DynamoDBClient", *, clock: Clock, deadline: Deadline) -> None:
        self._client = client
        self._clock = clock
        self._deadline = deadline

    def get(self, table: str, key: Item) -> Item | None:
        """One item."""
        answer = self._client.get_item(TableName=table, Key=serialize(key), ConsistentRead=True)
        return deserialize(answer["Item"]) if "Item" in answer else None

    def batch_get(self, table: str, keys: Sequence[Item]) -> list[Item]:
        """Those of the items that there are, in any order."""
        items: list[Item] = []
        wanted = [serialize(key) for key in keys]
        attempt = 0
        while wanted:
            answer = self._client.batch_get_item(RequestItems={table: {"Keys": wanted[:100], "ConsistentRead": True}})
            items += map(deserialize, answer["Responses"].get(table, []))
            unprocessed: Item = dict(answer.get("UnprocessedKeys", {}))
            left_over = unprocessed.get(table, {}).get("Keys", [])
            if left_over:
                self._pause(attempt)
                attempt += 1
            wanted = [*left_over, *wanted[100:]]
        return items

    def scan(self, table: str) -> list[Item]:
        """All items; for a small table."""
        pages = self._client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        return [deserialize(item) for page in pages for item in page["Items"]]

    def pages(self, table: str, index: str, condition: Condition, **query: Any) -> Iterator[list[Item]]:
        """The answers of an index, one after the other as they are wanted."""
        query |= {
            "KeyConditionExpression": condition.expression,
            "ExpressionAttributeNames": condition.names,
            "ExpressionAttributeValues": serialize(condition.values),
        }
        while True:
            answer = self._client.query(TableName=table, IndexName=index, **query)
            yield [deserialize(item) for item in answer["Items"]]
            if "LastEvaluatedKey" not in answer:
                return
            query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def put_if(self, table: str, item: Item, condition: Condition) -> Item | None:
        """Put an item on a condition; None when it was written, else what stands there (empty: not shown)."""
        return self._conditionally(lambda: self._client.put_item(**put_request(table, item, condition)))

    def write_if(self, write: Item) -> Item | None:
        """A Put or Delete as a transaction would have it, alone; the result is that of `put_if`."""
        if "Put" in write:
            return self._conditionally(lambda: self._client.put_item(**write["Put"]))
        return self._conditionally(lambda: self._client.delete_item(**write["Delete"]))

    def update_if(self, update: Item) -> bool:
        """A conditional UpdateItem: whether it was written."""
        return self._conditionally(lambda: self._client.update_item(**update)) is None

    def _conditionally(self, write: Callable[[], Any]) -> Item | None:
        attempt = 0
        while True:
            try:
                write()
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code == "ConditionalCheckFailedException":
                    return deserialize(error.response.get("Item", {}))  # type: ignore[arg-type]
                if code not in _MAY_PASS_CALL:
                    raise
                self._pause(attempt)
                attempt += 1
            else:
                return None

    def transact(self, writes: Sequence[Item]) -> dict[int, Item]:
        """All writes, or none: those whose conditions did not hold, by their place, with what stands there."""
        attempt = 0
        while (prevented := self._transact_once(writes)) is None:
            self._pause(attempt)
            attempt += 1
        return prevented

    def _transact_once(self, writes: Sequence[Item]) -> dict[int, Item] | None:
        """One try; None where what prevented it may pass by itself."""
        try:
            self._client.transact_write_items(TransactItems=list(writes))  # type: ignore[arg-type]
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _MAY_PASS_CALL:
                return None
            if code != "TransactionCanceledException":
                raise
            reasons: list[Any] = [*error.response.get("CancellationReasons", [])]
            prevented = {
                place: deserialize(reason.get("Item", {}))
                for place, reason in enumerate(reasons)
                if reason.get("Code") == "ConditionalCheckFailed"
            }
            if not prevented and not {reason.get("Code") for reason in reasons} & _MAY_PASS:
                raise
            return prevented or None
        return {}

    def _pause(self, attempt: int) -> None:
        """Wait before another try, a little longer each time."""
        seconds = random.uniform(0.5, 1.0) * min(0.05 * 2**attempt, 2.0)  # noqa: S311
        if self._deadline.remaining_seconds() < seconds + 2:
            raise LedgerUnavailable("DynamoDB did not accept the write before the invocation's end")
        self._clock.sleep(seconds)


def put_request(table: str, item: Item, condition: Condition) -> Item:
    """The arguments of a conditional PutItem that answers, when refused, with what stands there."""
    return {"TableName": table, "Item": serialize(item), **_conditional(condition)}


def delete_request(table: str, key: Item, condition: Condition) -> Item:
    """The arguments of a conditional DeleteItem."""
    return {"TableName": table, "Key": serialize(key), **_conditional(condition)}


def _conditional(condition: Condition) -> Item:
    given: Item = {
        "ConditionExpression": condition.expression,
        "ExpressionAttributeNames": condition.names,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    return {**given, "ExpressionAttributeValues": serialize(condition.values)} if condition.values else given


def update_request(table: str, key: Item, changes: Mapping[str, Any], condition: Condition) -> Item:
    """The arguments of a conditional UpdateItem that sets what has a value and removes what has none."""
    given = {name: value for name, value in changes.items() if value is not None}
    sets = ", ".join(f"#{name} = :{name}" for name in given)
    removes = ", ".join(f"#{name}" for name in changes if name not in given)
    expression = " ".join(filter(None, (sets and f"SET {sets}", removes and f"REMOVE {removes}")))
    return {
        "TableName": table,
        "Key": serialize(key),
        "UpdateExpression": expression,
        "ConditionExpression": condition.expression,
        "ExpressionAttributeNames": {f"#{name}": name for name in changes} | dict(condition.names),
        "ExpressionAttributeValues": serialize(
            {f":{name}": value for name, value in given.items()} | dict(condition.values)
        ),
    }
