"""The ledger in DynamoDB: the only place that reads, writes, and knows the conditions.

    row       ──register──► PENDING ──┐                           ┌──► final
    workflow  idle ──claim──► submitting ──commit──► committed ──┴─► running ──► idle
                                      └─ a workflow and the rows of its attempt change in one transaction ─┘

Two rules make every write safe to repeat and to race. A workflow's item is replaced only as it was read: each write
brings a new `revision` and names the one that it replaces, so that of two writers one loses, and a writer whose own
first try succeeded unseen recognises it. A row changes only from a state that `TRANSITIONS` allows, and only for the
attempt that holds it or, while it waits, exactly as it was read.
"""

import random
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from workflow_trigger.clock import Clock, Deadline
from workflow_trigger.errors import AttemptLost, LedgerUnavailable
from workflow_trigger.items import (
    Item,
    deserialize,
    item_from_workflow,
    new_row,
    present,
    reopened,
    row_from_item,
    serialize,
    workflow_from_item,
)
from workflow_trigger.model import (
    FINAL,
    Move,
    ObjectVersion,
    Row,
    RowKey,
    Status,
    Workflow,
    is_later,
    iso,
    parse_time,
    sources_of,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

OPEN_ROWS_INDEX = "open-rows"
_NOT_WAITING: Item = dict.fromkeys(("eligible_at", "bound_to", "bound_since"))
_MAY_PASS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded"}
_MAY_PASS_CALL = _MAY_PASS | {
    "TransactionConflictException",
    "TransactionInProgressException",
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "InternalServerError",
    "ServiceUnavailable",
}


class Ledger:
    """Rows and workflows, read consistently but for the index, written conditionally."""

    def __init__(
        self,
        client: "DynamoDBClient",
        *,
        ledger_table: str,
        workflows_table: str,
        retention_days: int,
        clock: Clock,
        deadline: Deadline,
        announce: Callable[[list[Item]], None] | None = None,
    ) -> None:
        self._client = client
        self._ledger_table = ledger_table
        self._workflows_table = workflows_table
        self._retention = timedelta(days=retention_days)
        self._clock = clock
        self._deadline = deadline
        self._announce = announce

    # -- rows: arrival -------------------------------------------------------------------------------------------------

    def register(self, version: ObjectVersion) -> tuple[Row, bool]:
        """The row of an object version, and whether this event put it into the line (new, or reopened)."""
        now = iso(self._clock.now())
        item = new_row(version, now)
        found = self._put_if(self._ledger_table, item, "attribute_not_exists(#object)", {"#object": "object"})
        if found is None:
            return row_from_item(item), True
        known = found or self.item(version.row_key)
        if known is None:
            return self.register(version)  # it expired between the two calls
        if not _is_later_upload(version, known):
            # Our own write, if its first answer was lost and botocore repeated it; else a duplicate.
            return row_from_item(known), known["registered_at"] == now
        return self._later_event(version, known)

    def _later_event(self, version: ObjectVersion, known: Item) -> tuple[Row, bool]:
        """The same bytes were uploaded again: a final row starts afresh; one on its way covers the new event too."""
        reopens = known["status"] in FINAL
        now = iso(self._clock.now())
        changes: Item = {"sequencer": version.sequencer, "uploaded_at": version.uploaded_at, "updated_at": now}
        if reopens:
            changes |= reopened(known, now)
        if not self._update_row(version.row_key, changes, seen=known["updated_at"]):
            return self.register(version)  # the row has moved meanwhile: look again
        return row_from_item(present({**known, **changes})), reopens

    def reopen(self, item: Item) -> bool:
        """Put a final row back into the line because an operator says so, provided that it still is as it was read."""
        changes = reopened(item, iso(self._clock.now()))
        return self._update_row(RowKey(item["object"], item["version"]), changes, seen=item["updated_at"])

    # -- rows: reading -------------------------------------------------------------------------------------------------

    def item(self, key: RowKey) -> Item | None:
        """One row as stored, read consistently."""
        answer = self._client.get_item(
            TableName=self._ledger_table,
            Key=serialize({"object": key.object, "version": key.version}),
            ConsistentRead=True,
        )
        return deserialize(answer["Item"]) if "Item" in answer else None

    def rows(self, keys: Sequence[RowKey]) -> dict[RowKey, Row]:
        """The rows of an attempt, read consistently; at most 100."""
        items = self._batch_get(
            self._ledger_table, [{"object": key.object, "version": key.version} for key in dict.fromkeys(keys)]
        )
        return {row.key: row for row in map(row_from_item, items)}

    def open_rows(self, status: Status, limit: int) -> list[Row]:
        """The rows in a state that is not final, oldest first; of those that wait, the ones whose time has come.

        The index lags: this is a hint, proved by the conditions of whatever is done with it.
        """
        return next(self._pages(**self._whose_time_has_come(status), Limit=limit))

    def line(self, limit: int) -> list[Row]:
        """The rows that wait and whose time has come, oldest first, until so many are bound to no workflow."""
        rows: list[Row] = []
        for page in self._pages(**self._whose_time_has_come(Status.PENDING), Limit=limit):
            rows += page
            if sum(row.bound_to is None for row in rows) >= limit:
                break
        return rows

    def bound_rows(self, workflow_id: str) -> list[Row]:
        """All rows that wait and are bound to a workflow. Reads the whole line: not for every day."""
        pages = self._pages(
            KeyConditionExpression="#status = :status",
            FilterExpression="#bound_to = :bound_to",
            ExpressionAttributeNames={"#status": "status", "#bound_to": "bound_to"},
            ExpressionAttributeValues=serialize({":status": Status.PENDING, ":bound_to": workflow_id}),
        )
        return [row for page in pages for row in page]

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

    # -- workflows -----------------------------------------------------------------------------------------------------

    def workflows(self, workflow_ids: Sequence[str]) -> list[Workflow]:
        """The items of the pool, read consistently, in the order of the ids; a workflow without an item is idle."""
        items = self._batch_get(self._workflows_table, [{"workflow_id": workflow_id} for workflow_id in workflow_ids])
        known = {item["workflow_id"]: workflow_from_item(item) for item in items}
        return [known.get(workflow_id) or Workflow(workflow_id=workflow_id) for workflow_id in workflow_ids]

    def all_workflows(self, pool: Sequence[str]) -> list[Workflow]:
        """The pool and whatever else has an item: a workflow that left the pool may still run a job."""
        items: list[Item] = []
        for page in self._client.get_paginator("scan").paginate(TableName=self._workflows_table, ConsistentRead=True):
            items += map(deserialize, page["Items"])
        known = {item["workflow_id"]: workflow_from_item(item) for item in items}
        return [
            known.get(workflow_id) or Workflow(workflow_id=workflow_id)
            for workflow_id in {**dict.fromkeys(pool), **known}
        ]

    def save(self, before: Workflow, after: Workflow) -> Workflow:
        """Replace a workflow's item, provided that it still is as it was read.

        Raises:
            AttemptLost: it is not.
        """
        after = replace(after, revision=uuid.uuid4().hex)
        found = self._put_if(self._workflows_table, item_from_workflow(after), *_as_it_was_read(before))
        if found is not None and found.get("revision") != after.revision:
            raise AttemptLost(f"workflow {before.workflow_id} was changed by another invocation")
        return after

    def advance(self, before: Workflow, after: Workflow, moves: Iterable[Move]) -> tuple[Workflow, frozenset[RowKey]]:
        """Change a workflow and rows of its attempt in one transaction: what was written, and the rows left out.

        A row that has moved on meanwhile is left alone, and the others go on without it.

        Raises:
            AttemptLost, LedgerUnavailable: as `advance_all`.
        """
        left_out: frozenset[RowKey] = frozenset()
        moves = list(moves)
        while True:
            moves = [move for move in moves if move.key not in left_out]
            after = replace(after, rows=tuple(key for key in after.rows if key not in left_out))
            written, moved_on = self.advance_all(before, after, moves)
            if not moved_on:
                return written, left_out
            left_out |= moved_on

    def advance_all(
        self, before: Workflow, after: Workflow, moves: Sequence[Move]
    ) -> tuple[Workflow, frozenset[RowKey]]:
        """As `advance`, but for all rows or for none: the second result names those that prevented it.

        Rows that become final are announced first: an invocation that dies in between does both again. Conflicts and
        throttling are tried again until the invocation ends.

        Raises:
            AttemptLost: the workflow is not as it was read; nothing was written.
            LedgerUnavailable: no time is left.
        """
        self._announce_final(moves)
        attempt = 0
        after = replace(after, revision=uuid.uuid4().hex)
        while (moved_on := self._transact(before, after, moves)) is None:
            self._pause(attempt)
            attempt += 1
        return after, frozenset(moved_on)

    def _announce_final(self, moves: Sequence[Move]) -> None:
        final = {move.key: move for move in moves if move.to in FINAL}
        if self._announce is None or not final:
            return
        keys = [{"object": key.object, "version": key.version} for key in final]
        rows = []
        for item in self._batch_get(self._ledger_table, keys):
            move = final[RowKey(item["object"], item["version"])]
            changes = {**move.sets, **_NOT_WAITING, "status": move.to, "updated_at": iso(self._clock.now())}
            rows.append(present({**item, **changes}))
        self._announce(rows)

    def requeue(self, row: Row, **sets: Any) -> bool:
        """Put a row back into the line that no attempt holds any more, provided that it still is as it was read."""
        changes = {**sets, "status": Status.PENDING, "attempt_id": None, "workflow_id": None}
        return self._update_row(row.key, changes, seen=row.seen)

    def _transact(self, before: Workflow, after: Workflow, moves: Sequence[Move]) -> set[RowKey] | None:
        """One try: the rows that have moved on (none: written), or None where it may pass by itself."""
        put = _put(self._workflows_table, item_from_workflow(after), *_as_it_was_read(before))
        updates = [{"Update": self._move(move, before, after)} for move in moves]
        try:
            self._client.transact_write_items(
                TransactItems=[{"Put": put}, *updates]  # type: ignore[list-item,typeddict-item]
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _MAY_PASS_CALL:
                return None
            if code != "TransactionCanceledException":
                raise
            return self._cancelled(error, after, moves)
        return set()

    def _cancelled(self, error: ClientError, after: Workflow, moves: Sequence[Move]) -> set[RowKey] | None:
        reasons: list[Any] = [*error.response.get("CancellationReasons", [{}])]
        first, *others = reasons
        if first.get("Code") == "ConditionalCheckFailed":
            if deserialize(first.get("Item", {})).get("revision") == after.revision:
                return set()  # our own write, whose first answer was lost
            raise AttemptLost(f"workflow {after.workflow_id} was changed by another invocation") from error
        codes = {first.get("Code")} | {reason.get("Code") for reason in others}
        moved_on = {
            move.key
            for move, reason in zip(moves, others, strict=False)
            if reason.get("Code") == "ConditionalCheckFailed"
        }
        if moved_on:
            return moved_on
        if codes & _MAY_PASS:
            return None
        raise error

    def _move(self, move: Move, before: Workflow, after: Workflow) -> Item:
        """The conditional update of one row."""
        changes: Item = {**move.sets, "status": move.to}
        if move.to in FINAL:
            changes |= _NOT_WAITING | {"expires_at": self._expiry()}
        elif move.to is Status.PENDING:
            changes |= {"attempt_id": None, "workflow_id": None}
        else:
            changes |= {"attempt_id": after.attempt_id, "workflow_id": after.workflow_id}
        update = self._update(move.key, changes)
        values: Item = {f":from{index}": status for index, status in enumerate(sorted(sources_of(move.to)))}
        condition = f"#status IN ({', '.join(values)})"
        if move.seen is None:
            update["ExpressionAttributeNames"]["#attempt_id"] = "attempt_id"
            values[":held_by"] = before.attempt_id
            condition += " AND #attempt_id = :held_by"
        else:
            values[":seen"] = move.seen
            condition += " AND #updated_at = :seen"
        if move.sequencer is not None:
            update["ExpressionAttributeNames"]["#sequencer"] = "sequencer"
            if move.sequencer:
                values[":sequencer"] = move.sequencer
            condition += " AND #sequencer = :sequencer" if move.sequencer else " AND attribute_not_exists(#sequencer)"
        update["ExpressionAttributeValues"] |= serialize(values)
        return {**update, "ConditionExpression": condition}

    def _expiry(self) -> int | None:
        """When a row that is final now may be deleted, in epoch seconds; None: never."""
        return int((self._clock.now() + self._retention).timestamp()) if self._retention else None

    # -- DynamoDB ------------------------------------------------------------------------------------------------------

    def _update(self, key: RowKey, changes: Mapping[str, Any]) -> Item:
        """An UpdateItem that sets what has a value and removes what has none."""
        changes = {"updated_at": iso(self._clock.now()), **changes}
        names = {f"#{name}": name for name in changes}
        sets = [f"#{name} = :{name}" for name, value in changes.items() if value is not None]
        removes = [f"#{name}" for name, value in changes.items() if value is None]
        return {
            "TableName": self._ledger_table,
            "Key": serialize({"object": key.object, "version": key.version}),
            "UpdateExpression": f"SET {', '.join(sets)}" + (f" REMOVE {', '.join(removes)}" if removes else ""),
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": serialize(
                {f":{name}": value for name, value in changes.items() if value is not None}
            ),
        }

    def _update_row(self, key: RowKey, changes: Mapping[str, Any], *, seen: str) -> bool:
        """Change one row outside of any attempt, provided that it still is as it was read."""
        update = self._update(key, changes)
        update["ExpressionAttributeValues"] |= serialize({":seen": seen})
        update["ConditionExpression"] = "#updated_at = :seen"
        return self._conditionally(lambda: self._client.update_item(**update)) is None

    def _put_if(
        self, table: str, item: Item, condition: str, names: dict[str, str], values: Item | None = None
    ) -> Item | None:
        """Put an item on a condition; None when it was written, else the item that stands there (empty: not shown)."""
        put = _put(table, item, condition, names, values or {})
        return self._conditionally(lambda: self._client.put_item(**put))

    def _conditionally(self, write: Callable[[], Any]) -> Item | None:
        """A conditional write, again where it met a transaction; None: written, else what stands there (or {})."""
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

    def _batch_get(self, table: str, keys: Sequence[Item]) -> list[Item]:
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

    def _pause(self, attempt: int) -> None:
        """Wait before another try, a little longer each time."""
        seconds = random.uniform(0.5, 1.0) * min(0.05 * 2**attempt, 2.0)  # noqa: S311
        if self._deadline.remaining_seconds() < seconds + 2:
            raise LedgerUnavailable("DynamoDB did not accept the write before the invocation's end")
        self._clock.sleep(seconds)


def _is_later_upload(version: ObjectVersion, known: Item) -> bool:
    """Whether an event tells of an upload that came after the one which a row stands for.

    A row that was registered without an event, by a backfill, has no sequencer: what was uploaded after it was
    registered is another upload of the same bytes, anything before may be the very one that the backfill found.
    """
    if "sequencer" in known or version.sequencer is None:
        return is_later(version.sequencer, known.get("sequencer"))
    uploaded, registered = parse_time(version.uploaded_at), parse_time(known["registered_at"])
    return uploaded is not None and registered is not None and uploaded > registered


def _put(table: str, item: Item, condition: str, names: dict[str, str], values: Item) -> Item:
    """The arguments of a conditional PutItem that answers, when refused, with what stands there."""
    put: Item = {
        "TableName": table,
        "Item": serialize(item),
        "ConditionExpression": condition,
        "ExpressionAttributeNames": names,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    return {**put, "ExpressionAttributeValues": serialize(values)} if values else put


def _as_it_was_read(workflow: Workflow) -> tuple[str, dict[str, str], Item]:
    """The condition that a workflow's item has not changed."""
    if workflow.revision is None:
        return "attribute_not_exists(#workflow_id)", {"#workflow_id": "workflow_id"}, {}
    return "#revision = :revision", {"#revision": "revision"}, {":revision": workflow.revision}
