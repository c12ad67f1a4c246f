"""The ledger in DynamoDB: the only place that writes to it, and that knows the conditions.

    row       ──register──► PENDING ──┐                           ┌──► final
    workflow  idle ──claim──► submitting ──commit──► committed ──┴─► running ──► idle
                                      └─ a workflow and the rows of its attempt change in one transaction ─┘

Two rules make every write safe to repeat and to race. A workflow's item is replaced only as it was read: each write
brings a new `revision` and names the one that it replaces, so that of two writers one loses, and a writer whose own
first try succeeded unseen recognises it. A row changes only from a state that `TRANSITIONS` allows, and only for the
attempt that holds it or, while it waits, exactly as it was read.
"""

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from workflow_trigger.clock import Clock, Deadline, iso, parse_time
from workflow_trigger.errors import AttemptLost
from workflow_trigger.items import (
    Item,
    item_from_workflow,
    new_row,
    present,
    reopened,
    row_from_item,
    workflow_from_item,
)
from workflow_trigger.line import Line
from workflow_trigger.model import FINAL, Move, Row, Status, Workflow, sources_of
from workflow_trigger.objects import ObjectVersion, RowKey, is_later
from workflow_trigger.tables import Condition, Tables, put_request, update_request

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_NOT_WAITING: Item = dict.fromkeys(("eligible_at", "bound_to", "bound_since"))


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
        self.line = Line(client, ledger_table=ledger_table, clock=clock)
        self._tables = Tables(client, clock=clock, deadline=deadline)
        self._ledger_table = ledger_table
        self._workflows_table = workflows_table
        self._retention = timedelta(days=retention_days)
        self._clock = clock
        self._announce = announce

    # -- rows: arrival -------------------------------------------------------------------------------------------------

    def register(self, version: ObjectVersion) -> tuple[Row, bool]:
        """The row of an object version, and whether this event put it into the line (new, or reopened)."""
        now = iso(self._clock.now())
        item = new_row(version, now)
        condition: Condition = ("attribute_not_exists(#object)", {"#object": "object"}, {})
        found = self._tables.put_if(self._ledger_table, item, condition)
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
        return self._tables.get(self._ledger_table, key._asdict())

    def rows(self, keys: Sequence[RowKey]) -> dict[RowKey, Row]:
        """The rows of an attempt, read consistently; at most 100."""
        items = self._tables.batch_get(self._ledger_table, [key._asdict() for key in dict.fromkeys(keys)])
        return {row.key: row for row in map(row_from_item, items)}

    # -- workflows -----------------------------------------------------------------------------------------------------

    def workflows(self, workflow_ids: Sequence[str]) -> list[Workflow]:
        """The items of the pool, read consistently, in the order of the ids; a workflow without an item is idle."""
        keys: list[Item] = [{"workflow_id": workflow_id} for workflow_id in workflow_ids]
        items = self._tables.batch_get(self._workflows_table, keys)
        known = {item["workflow_id"]: workflow_from_item(item) for item in items}
        return [known.get(workflow_id) or Workflow(workflow_id=workflow_id) for workflow_id in workflow_ids]

    def all_workflows(self, pool: Sequence[str]) -> list[Workflow]:
        """The pool and whatever else has an item: a workflow that left the pool may still run a job."""
        items = self._tables.scan(self._workflows_table)
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
        found = self._tables.put_if(self._workflows_table, item_from_workflow(after), _as_it_was_read(before))
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
        after = replace(after, revision=uuid.uuid4().hex)
        put = put_request(self._workflows_table, item_from_workflow(after), _as_it_was_read(before))
        updates = [{"Update": self._move(move, before, after)} for move in moves]
        prevented = self._tables.transact([{"Put": put}, *updates])
        item = prevented.pop(0, None)
        if item is None:
            return after, frozenset(moves[place - 1].key for place in prevented)
        if item.get("revision") == after.revision:
            return after, frozenset()  # our own write, whose first answer was lost
        raise AttemptLost(f"workflow {after.workflow_id} was changed by another invocation")

    def _announce_final(self, moves: Sequence[Move]) -> None:
        final = {move.key: move for move in moves if move.to in FINAL}
        if self._announce is None or not final:
            return
        rows = []
        for item in self._tables.batch_get(self._ledger_table, [key._asdict() for key in final]):
            move = final[RowKey(item["object"], item["version"])]
            changes = {**move.sets, **_NOT_WAITING, "status": move.to, "updated_at": iso(self._clock.now())}
            rows.append(present({**item, **changes}))
        self._announce(rows)

    def requeue(self, row: Row, **sets: Any) -> bool:
        """Put a row back into the line that no attempt holds any more, provided that it still is as it was read."""
        changes = {**sets, "status": Status.PENDING, "attempt_id": None, "workflow_id": None}
        return self._update_row(row.key, changes, seen=row.seen)

    def _move(self, move: Move, before: Workflow, after: Workflow) -> Item:
        """The conditional update of one row."""
        changes: Item = {**move.sets, "status": move.to}
        if move.to in FINAL:
            changes |= _NOT_WAITING | {"expires_at": self._expiry()}
        elif move.to is Status.PENDING:
            changes |= {"attempt_id": None, "workflow_id": None}
        else:
            changes |= {"attempt_id": after.attempt_id, "workflow_id": after.workflow_id}
        names = {}
        values: Item = {f":from{index}": status for index, status in enumerate(sorted(sources_of(move.to)))}
        condition = f"#status IN ({', '.join(values)})"
        if move.seen is None:
            names["#attempt_id"] = "attempt_id"
            values[":held_by"] = before.attempt_id
            condition += " AND #attempt_id = :held_by"
        else:
            values[":seen"] = move.seen
            condition += " AND #updated_at = :seen"
        if move.sequencer is not None:
            names["#sequencer"] = "sequencer"
            if move.sequencer:
                values[":sequencer"] = move.sequencer
            condition += " AND #sequencer = :sequencer" if move.sequencer else " AND attribute_not_exists(#sequencer)"
        return self._update(move.key, changes, (condition, names, values))

    def _expiry(self) -> int | None:
        """When a row that is final now may be deleted, in epoch seconds; None: never."""
        return int((self._clock.now() + self._retention).timestamp()) if self._retention else None

    def _update_row(self, key: RowKey, changes: Item, *, seen: str) -> bool:
        """Change one row outside of any attempt, provided that it still is as it was read."""
        return self._tables.update_if(self._update(key, changes, ("#updated_at = :seen", {}, {":seen": seen})))

    def _update(self, key: RowKey, changes: Item, condition: Condition) -> Item:
        changes = {"updated_at": iso(self._clock.now()), **changes}
        return update_request(self._ledger_table, key._asdict(), changes, condition)


def _is_later_upload(version: ObjectVersion, known: Item) -> bool:
    """Whether an event tells of an upload that came after the one which a row stands for.

    A row that was registered without an event, by a backfill, has no sequencer: what was uploaded after it was
    registered is another upload of the same bytes, anything before may be the very one that the backfill found.
    """
    if "sequencer" in known or version.sequencer is None:
        return is_later(version.sequencer, known.get("sequencer"))
    uploaded, registered = parse_time(version.uploaded_at), parse_time(known["registered_at"])
    return uploaded is not None and registered is not None and uploaded > registered


def _as_it_was_read(workflow: Workflow) -> Condition:
    """The condition that a workflow's item has not changed."""
    if workflow.revision is None:
        return "attribute_not_exists(#workflow_id)", {"#workflow_id": "workflow_id"}, {}
    return "#revision = :revision", {"#revision": "revision"}, {":revision": workflow.revision}
