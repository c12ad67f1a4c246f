"""DynamoDB's calls: consistent reads, and conditional writes that tell what stood in their way.

Throttling and conflicts of transactions are temporary. Such writes are retried until the invocation ends.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.conditions import ConditionBase, ConditionExpressionBuilder
from botocore.exceptions import BotoCoreError, ClientError

from workflow_trigger.adapters.dynamodb.mapping import Copied, Item, deserialize, present, serialize
from workflow_trigger.domain.clock import Deadline
from workflow_trigger.domain.errors import LedgerUnavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_MAY_PASS = {"TransactionConflict", "TransactionInProgress", "Throttling", "ThrottlingError", "RequestLimitExceeded"}
_MAY_PASS |= {"ProvisionedThroughputExceeded", "InternalServerError", "ServiceUnavailable"}

_TELLS_WHAT_STANDS_THERE = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


class Table:
    """One table, as an invocation reads and writes it."""

    def __init__(self, client: "DynamoDBClient", name: str, deadline: Deadline) -> None:
        self._client = client
        self._name = name
        self._deadline = deadline

    # -- reading -------------------------------------------------------------------------------------------------------

    def get(self, key: Item) -> Item | None:
        """One item."""
        answer = self._client.get_item(TableName=self._name, Key=serialize(key), ConsistentRead=True)
        return deserialize(answer["Item"]) if "Item" in answer else None

    def created_at(self) -> datetime:
        """When the table was made."""
        return self._client.describe_table(TableName=self._name)["Table"]["CreationDateTime"]

    def batch_get(self, keys: Sequence[Item]) -> list[Item]:
        """Those of the items that there are, in any order."""
        items: list[Item] = []
        wanted, attempt = [serialize(key) for key in keys], 0
        while wanted:
            request: Item = {self._name: {"Keys": wanted[:100], "ConsistentRead": True}}
            answer = self._client.batch_get_item(RequestItems=request)
            items += map(deserialize, answer["Responses"].get(self._name, []))
            unprocessed: Item = dict(answer.get("UnprocessedKeys", {}))
            left_over = unprocessed.get(self._name, {}).get("Keys", [])
            attempt = self._pause(attempt) if left_over else 0
            wanted = [*left_over, *wanted[100:]]
        return items

    def scan(self) -> list[Item]:
        """All items; for a small table."""
        return [item for page in self._pages(self._client.scan, ConsistentRead=True) for item in page]

    def pages(self, index: str | None, key: ConditionBase, *shown: str, **query: Any) -> Iterator[list[Item]]:
        """The answers of an index, or of the table, one after the other as wanted; `shown`: some attributes alone."""
        query |= {"IndexName": index} if index else {}
        query |= _expression("KeyConditionExpression", key, is_key_condition=True)
        if shown:
            query["ProjectionExpression"] = ", ".join(f"#{name}" for name in shown)
            query["ExpressionAttributeNames"] |= {f"#{name}": name for name in shown}
        return self._pages(self._client.query, **query)

    def _pages(self, call: Callable[..., Any], **query: Any) -> Iterator[list[Item]]:
        """The answers to a call, one after the other. botocore's paginators cost as much again as the call."""
        while True:
            answer = call(TableName=self._name, **query)
            yield [deserialize(item) for item in answer["Items"]]
            if "LastEvaluatedKey" not in answer:
                return
            query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    # -- writing: requests, and what makes them, alone or together with those of other tables --------------------------

    def put(self, item: Item, condition: ConditionBase) -> Item:
        """A conditional Put."""
        return {"Put": {"TableName": self._name, "Item": serialize(item), **_conditional(condition)}}

    def delete(self, key: Item, condition: ConditionBase) -> Item:
        """A conditional Delete."""
        return {"Delete": {"TableName": self._name, "Key": serialize(key), **_conditional(condition)}}

    def update(
        self,
        key: Item,
        changes: Mapping[str, Any],
        condition: ConditionBase | None,
        adds: Mapping[str, int] | None = None,
    ) -> Item:
        """An Update that sets what has a value and removes what has none; to what is in `adds` it adds."""
        given, adds = present(changes), adds or {}
        copied = {name: value for name, value in given.items() if isinstance(value, Copied)}
        # By numbers, for an attribute that somebody else has added may have any name.
        number = {name: f"a{place}" for place, name in enumerate({**changes, **dict.fromkeys(copied.values()), **adds})}
        values = {f":{number[name]}": value for name, value in {**given, **adds}.items() if name not in copied}
        sources = {name: f"#{number[copied[name]]}" if name in copied else f":{number[name]}" for name in given}
        clauses = {
            "SET": [f"#{number[name]} = {source}" for name, source in sources.items()],
            "REMOVE": [f"#{number[name]}" for name in changes if name not in given],
            "ADD": [f"#{number[name]} :{number[name]}" for name in adds],
        }
        expression = " ".join(f"{verb} {', '.join(what)}" for verb, what in clauses.items() if what)
        request = _expression("ConditionExpression", condition) | (_TELLS_WHAT_STANDS_THERE if condition else {})
        request["ExpressionAttributeNames"] |= {f"#{place}": name for name, place in number.items()}
        request["ExpressionAttributeValues"] |= serialize(values)
        return {"Update": {"TableName": self._name, "Key": serialize(key), "UpdateExpression": expression, **request}}

    def write(self, *requests: Item) -> dict[int, Item]:
        """All, or none; those whose conditions did not hold, by place, with what stands there where that is told."""
        attempt = 0
        while (prevented := self._write_once(requests)) is None:
            attempt = self._pause(attempt)
        return prevented

    def _write_once(self, requests: Sequence[Item]) -> dict[int, Item] | None:
        """One try; None where the failure is temporary."""
        try:
            if len(requests) == 1:  # a transaction costs twice as much
                ((kind, arguments),) = requests[0].items()
                getattr(self._client, f"{kind.lower()}_item")(**arguments)
            else:
                self._client.transact_write_items(TransactItems=list(requests))  # type: ignore[arg-type]
        except BotoCoreError as error:
            raise LedgerUnavailable(f"DynamoDB did not answer: {type(error).__name__}") from error
        except ClientError as error:
            # A transaction names a reason for each write; else the answer is the only one.
            answer: Any = error.response
            reasons = answer.get("CancellationReasons") or [{**answer, **answer["Error"]}]
            codes = [str(reason.get("Code")).removesuffix("Exception") for reason in reasons]
            failed = [place for place, code in enumerate(codes) if code == "ConditionalCheckFailed"]
            if not failed and not _MAY_PASS.intersection(codes):
                raise
            return {place: deserialize(reasons[place].get("Item", {})) for place in failed} or None
        return {}

    def _pause(self, attempt: int) -> int:
        """Wait before another try, a little longer each time; the number of the next."""
        seconds = random.uniform(0.5, 1.0) * min(0.05 * 2**attempt, 2.0)  # noqa: S311
        if self._deadline.remaining_seconds() < seconds + 2:
            raise LedgerUnavailable("DynamoDB did not take the call before the invocation's end")
        self._deadline.clock.sleep(seconds)
        return attempt + 1


def _conditional(condition: ConditionBase) -> Item:
    request = _expression("ConditionExpression", condition)
    if not request["ExpressionAttributeValues"]:
        del request["ExpressionAttributeValues"]
    return request | _TELLS_WHAT_STANDS_THERE


def _expression(name: str, condition: ConditionBase | None, *, is_key_condition: bool = False) -> Item:
    if condition is None:
        return {"ExpressionAttributeNames": {}, "ExpressionAttributeValues": {}}
    built = ConditionExpressionBuilder().build_expression(condition, is_key_condition=is_key_condition)
    return {
        name: built.condition_expression,
        "ExpressionAttributeNames": dict(built.attribute_name_placeholders),
        "ExpressionAttributeValues": serialize(built.attribute_value_placeholders),
    }
