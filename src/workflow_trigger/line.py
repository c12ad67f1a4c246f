"""The line: rows that are not final, by the index. It lags, so all that is read here is a hint.

What proves it are the conditions of whatever is done with it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workflow_trigger.clock import Clock, iso, parse_time
from workflow_trigger.items import Item, deserialize, row_from_item, serialize
from workflow_trigger.model import Row, Status

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

OPEN_ROWS_INDEX = "open-rows"


class Line:
    """Rows in the order in which their turn comes."""

    def __init__(self, client: "DynamoDBClient", *, ledger_table: str, clock: Clock) -> None:
        self._client = client
        self._ledger_table = ledger_table
        self._clock = clock

    def due(self, status: Status, limit: int) -> list[Row]:
        """The rows in a state that is not final and whose time has come, oldest first."""
        return next(self._pages(**self._whose_time_has_come(status), Limit=limit))

    def head(self, limit: int) -> list[Row]:
        """The rows that wait and whose time has come, oldest first, until so many are bound to no workflow."""
        rows: list[Row] = []
        for page in self._pages(**self._whose_time_has_come(Status.PENDING), Limit=limit):
            rows += page
            if sum(row.bound_to is None for row in rows) >= limit:
                break
        return rows

    def bound_to(self, workflow_id: str) -> list[Row]:
        """All rows that wait and are bound to a workflow. Reads the whole line: not for every day."""
        pages = self._pages(
            KeyConditionExpression="#status = :status",
            FilterExpression="#bound_to = :bound_to",
            ExpressionAttributeNames={"#status": "status", "#bound_to": "bound_to"},
            ExpressionAttributeValues=serialize({":status": Status.PENDING, ":bound_to": workflow_id}),
        )
        return [row for page in pages for row in page]

    def longest_wait_seconds(self) -> float:
        """How long the row that has been waiting longest has been; 0 when none waits.

        The head of the line holds those that never had their turn, its end those that are put off again and again.
        """
        rows = self._waiting(from_the_head=True) + self._waiting(from_the_head=False)
        queued = [moment for row in rows if (moment := parse_time(row.queued_at))]
        return (self._clock.now() - min(queued)).total_seconds() if queued else 0.0

    def _waiting(self, *, from_the_head: bool) -> list[Row]:
        pages = self._pages(
            KeyConditionExpression="#status = :status",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues=serialize({":status": Status.PENDING}),
            ScanIndexForward=from_the_head,
            Limit=100,
        )
        return next(pages)

    def _whose_time_has_come(self, status: Status) -> Item:
        return {
            "KeyConditionExpression": "#status = :status AND #eligible_at <= :now",
            "ExpressionAttributeNames": {"#status": "status", "#eligible_at": "eligible_at"},
            "ExpressionAttributeValues": serialize({":status": status, ":now": iso(self._clock.now())}),
        }

    def _pages(self, **query: Any) -> Iterator[list[Row]]:
        """The answers of the index, one after the other as they are wanted."""
        while True:
            answer = self._client.query(TableName=self._ledger_table, IndexName=OPEN_ROWS_INDEX, **query)
            yield [row_from_item(deserialize(item)) for item in answer["Items"]]
            if "LastEvaluatedKey" not in answer:
                return
            query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
