"""The ledger in DynamoDB: documents, workflows, and the only place that writes them.

    document  ──register──► PENDING ──┐                           ┌──► final
    workflow  idle ──claim──► submitting ──commit──► committed ──┴─► running ──► idle
                                      └─ a workflow and documents of its attempt change in one transaction ─┘

Two rules make every write safe to repeat and to race. A record's item is replaced only as it was read: each write
brings a new `revision` and names the one that it replaces, so that of two writers one loses, and a writer whose own
first try succeeded unseen recognises it. A document changes only from a state that `TRANSITIONS` allows, and only for
the attempt that holds it or exactly as it was read.

The index lags: what is read from it is a hint, and the conditions of whatever is done with it are the proof.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from workflow_trigger.adapters.dynamodb.mapping import (
    MARK,
    UNPUBLISHED,
    Item,
    document_from_item,
    item_from_record,
    key_of,
    new_row,
    present,
    record_from_item,
    reopened,
    update_attributes,
)
from workflow_trigger.adapters.dynamodb.tables import Condition, Tables, delete_request, put_request, update_request
from workflow_trigger.domain.clock import Clock, Deadline, iso, parse_time
from workflow_trigger.domain.document import DocumentKey, ObjectVersion, is_later
from workflow_trigger.domain.errors import ConflictError
from workflow_trigger.domain.model import (
    FINAL,
    Document,
    DocumentUpdate,
    EndedJob,
    Poller,
    Snapshot,
    Status,
    Transition,
    Workflow,
    sources_of,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

OPEN_ROWS_INDEX = "open-rows"
QUEUES_INDEX = "queues"


class Ledger:
    """Read consistently but for the indexes, written conditionally."""

    def __init__(
        self,
        client: "DynamoDBClient",
        *,
        ledger_table: str,
        workflows_table: str,
        retention_days: int,
        clock: Clock,
        deadline: Deadline,
    ) -> None:
        self._tables = Tables(client, clock=clock, deadline=deadline)
        self._ledger_table = ledger_table
        self._workflows_table = workflows_table
        self._retention = timedelta(days=retention_days)
        self._clock = clock

    # -- documents: arrival --------------------------------------------------------------------------------------------

    def register(self, version: ObjectVersion) -> tuple[Document, bool]:
        """The document of an object version, and whether this event put it into the queue (new, or reopened)."""
        now = iso(self._clock.now())
        item = new_row(version, now)
        condition = Condition("attribute_not_exists(#object)", {"#object": "object"}, {})
        found = self._tables.put_if(self._ledger_table, item, condition)
        if found is None:
            return document_from_item(item), True
        known = found or self.item(version.document_key)
        if known is None:
            return self.register(version)  # it expired between the two calls
        if not _is_later_upload(version, known):
            # Our own write, if its first answer was lost and botocore repeated it; else a duplicate.
            return document_from_item(known), known["registered_at"] == now
        return self._later_event(version, known)

    def _later_event(self, version: ObjectVersion, known: Item) -> tuple[Document, bool]:
        """The same bytes were uploaded again: a final row starts afresh; one on its way covers the new event too."""
        reopens = known["status"] in FINAL
        now = iso(self._clock.now())
        changes: Item = {"sequencer": version.sequencer, "uploaded_at": version.uploaded_at, "updated_at": now}
        if reopens:
            changes |= reopened(known, now)
        if not self._update_row(version.document_key, changes, read_at=known["updated_at"]):
            return self.register(version)  # the row has moved meanwhile: look again
        return document_from_item(present({**known, **changes})), reopens

    def reopen(self, item: Item) -> bool:
        """Put a final row back into the queue because an operator says so, provided that it still is as it was read."""
        changes = reopened(item, iso(self._clock.now()))
        return self._update_row(DocumentKey(item["object"], item["version"]), changes, read_at=item["updated_at"])

    # -- documents: reading --------------------------------------------------------------------------------------------

    def item(self, key: DocumentKey) -> Item | None:
        """One row as stored, read consistently."""
        return self._tables.get(self._ledger_table, key._asdict())

    def documents(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, Document]:
        """Those of the documents that there are, read consistently."""
        return {document.key: document for document in map(document_from_item, self._rows(keys))}

    def _rows(self, keys: Sequence[DocumentKey]) -> list[Item]:
        return self._tables.batch_get(self._ledger_table, [key._asdict() for key in dict.fromkeys(keys)])

    def ready(self, limit: int) -> list[Document]:
        """Documents in the queue whose time has come, oldest first."""
        names, now = {"#status": "status", "#eligible_at": "eligible_at"}, iso(self._clock.now())
        values = {":status": Status.PENDING, ":now": now}
        condition = Condition("#status = :status AND #eligible_at <= :now", names, values)
        return list(map(document_from_item, next(self._open(condition, Limit=limit))))

    def longest_wait_seconds(self) -> float:
        """How long the document that has been waiting longest has been; 0 when none waits.

        The head of the queue holds those that never had their turn, its end those that are put off again and again.
        """
        ends = (
            next(self._in_state(Status.PENDING, "queued_at", ScanIndexForward=head, Limit=25)) for head in (True, False)
        )
        queued = [moment for end in ends for item in end if (moment := parse_time(item.get("queued_at")))]
        return (self._clock.now() - min(queued)).total_seconds() if queued else 0.0

    def held(self, status: Status) -> dict[DocumentKey, tuple[str | None, str]]:
        """Which attempt holds each document in a state that is not final, and when the document was written last."""
        pages = self._in_state(status, "object", "version", "attempt_id", "updated_at")
        items = [item for page in pages for item in page]
        return {
            DocumentKey(each["object"], each["version"]): (each.get("attempt_id"), each["updated_at"]) for each in items
        }

    def _in_state(self, status: Status, *attributes: str, **query: Any) -> Iterator[list[Item]]:
        """Some attributes of all rows in a state that is not final."""
        names = {"#status": "status", **{f"#{name}": name for name in attributes}}
        shown = ", ".join(f"#{name}" for name in attributes)
        return self._open(
            Condition("#status = :status", names, {":status": status}), ProjectionExpression=shown, **query
        )

    def _open(self, condition: Condition, **query: Any) -> Iterator[list[Item]]:
        return self._tables.pages(self._ledger_table, OPEN_ROWS_INDEX, condition, **query)

    # -- events --------------------------------------------------------------------------------------------------------

    def unpublished_keys(self) -> list[DocumentKey]:
        """Final documents whose event is not published yet, by the index."""
        condition = Condition("#queue = :queue", {"#queue": MARK[0]}, {":queue": UNPUBLISHED})
        page = next(self._tables.pages(self._ledger_table, QUEUES_INDEX, condition, Limit=100))
        return [DocumentKey(item["object"], item["version"]) for item in page]

    def unpublished(self, keys: Sequence[DocumentKey]) -> list[Item]:
        """Those of the rows that still are final and carry the mark, without it."""
        rows = (row for row in self._rows(keys) if MARK[0] in row and row["status"] in FINAL)
        return [{name: value for name, value in row.items() if name not in MARK} for row in rows]

    def mark_published(self, rows: Sequence[Item]) -> None:
        """Take the mark away from rows that still are as they were read."""
        updates = [
            self._update(
                DocumentKey(row["object"], row["version"]), dict.fromkeys(MARK), _as_it_was_read(row["updated_at"])
            )
            for row in rows
        ]
        while updates:
            prevented = self._tables.transact([{"Update": update} for update in updates[:100]])
            moved_on = set(prevented)
            updates = (
                [each for place, each in enumerate(updates) if place not in moved_on] if prevented else updates[100:]
            )

    # -- workflows, ended jobs, the poller -----------------------------------------------------------------------------

    def snapshot(self, pool: Sequence[str]) -> Snapshot:
        """All there is beside documents. The pool's workflows come first; one without an item is idle."""
        records = [record_from_item(item) for item in self._tables.scan(self._workflows_table)]
        known = {each.workflow_id: each for each in records if isinstance(each, Workflow)}
        ids = {**dict.fromkeys(pool), **known}
        return Snapshot(
            workflows=tuple(known.get(each) or Workflow(workflow_id=each) for each in ids),
            ended_jobs=tuple(each for each in records if isinstance(each, EndedJob)),
            poller=next((each for each in records if isinstance(each, Poller)), Poller()),
        )

    def workflow(self, workflow_id: str) -> Workflow:
        """One workflow; without an item it is idle."""
        return next(each for each in self.snapshot([workflow_id]).workflows if each.workflow_id == workflow_id)

    # -- the one write -------------------------------------------------------------------------------------------------

    def commit[R: (Workflow, EndedJob, Poller)](self, step: Transition[R]) -> tuple[R, frozenset[DocumentKey]]:
        """Write a step, all of it in one transaction: what was written, and the documents left out.

        Conflicts and throttling are tried again until the invocation ends.

        Raises:
            ConflictError: the record is not as it was read; nothing was written.
            LedgerUnavailable: no time is left.
        """
        left_out: frozenset[DocumentKey] = frozenset()
        updates = {update.key: update for update in step.updates}
        revision = uuid.uuid4().hex
        while True:
            after = replace(step.after or step.before, revision=revision)
            creates = replace(step.creates, revision=revision) if step.creates else None
            if left_out and not isinstance(after, Poller):
                after = after.without(left_out)
                creates = creates.without(left_out) if creates else None
            prevented = self._write(
                replace(step, after=step.after and after, updates=tuple(updates.values()), creates=creates)
            )
            if not prevented:
                return after, left_out
            for update in prevented:
                if update.last_sequencer is not None:  # a later event of its key came: it goes back for that one
                    updates[update.key] = DocumentUpdate(key=update.key, to=Status.PENDING)
                else:
                    del updates[update.key]
                    left_out |= {update.key}

    def _write[R: (Workflow, EndedJob, Poller)](self, step: Transition[R]) -> list[DocumentUpdate]:
        """One transaction; the updates whose conditions did not hold."""
        record = self._record_write(step.before, step.after)
        more: list[Item] = [{"Update": self._document_write(update, step)} for update in step.updates]
        if step.creates is not None:
            new = Condition("attribute_not_exists(#workflow_id)", {"#workflow_id": "workflow_id"}, {})
            more.append({"Put": put_request(self._workflows_table, item_from_record(step.creates), new)})
        prevented = self._tables.transact([record, *more]) if more else self._write_alone(record)
        item = prevented.pop(0, None)
        if item is not None and (step.after is None or item.get("revision") != step.after.revision):
            raise ConflictError(f"{key_of(step.before)['workflow_id']} was changed by another invocation")
        if item is not None:
            return []  # our own write, whose first answer was lost
        if any(place > len(step.updates) for place in prevented):
            raise ConflictError(f"job {step.creates and step.creates.job_id} has ended already")
        return [step.updates[place - 1] for place in prevented]

    def _record_write(self, before: Any, after: Any) -> Item:
        if before.revision is None:
            condition = Condition("attribute_not_exists(#workflow_id)", {"#workflow_id": "workflow_id"}, {})
        else:
            condition = Condition("#revision = :revision", {"#revision": "revision"}, {":revision": before.revision})
        if after is None:
            return {"Delete": delete_request(self._workflows_table, key_of(before), condition)}
        return {"Put": put_request(self._workflows_table, item_from_record(after), condition)}

    def _write_alone(self, write: Item) -> dict[int, Item]:
        found = self._tables.write_if(write)
        return {} if found is None else {0: found}

    def _document_write(self, update: DocumentUpdate, step: Transition[Any]) -> Item:
        """The conditional update of one document."""
        holder = step.after or step.before
        workflow_id = None if isinstance(holder, Poller) else holder.workflow_id
        attempt_id = holder.holder or step.before.holder
        now = iso(self._clock.now())
        changes = update_attributes(update, attempt_id=attempt_id, workflow_id=workflow_id, now=now)
        if update.to in FINAL:
            changes |= {"expires_at": self._expiry()}
        return self._update(update.key, changes, _may_change(update, step.before.holder))

    def _expiry(self) -> int | None:
        """When a row that is final now may be deleted, in epoch seconds; None: never."""
        return int((self._clock.now() + self._retention).timestamp()) if self._retention else None

    def _update_row(self, key: DocumentKey, changes: Item, *, read_at: str) -> bool:
        """Change one row outside of any attempt, provided that it still is as it was read."""
        changes = {"updated_at": iso(self._clock.now()), **changes}
        return self._tables.update_if(self._update(key, changes, _as_it_was_read(read_at)))

    def _update(self, key: DocumentKey, changes: Item, condition: Condition) -> Item:
        return update_request(self._ledger_table, key._asdict(), changes, condition)


def _as_it_was_read(updated_at: str) -> Condition:
    return Condition("#read_at = :read_at", {"#read_at": "updated_at"}, {":read_at": updated_at})


def _may_change(update: DocumentUpdate, held_by: str | None) -> Condition:
    """The conditions of a document's next step."""
    values: Item = {f":from{index}": status for index, status in enumerate(sorted(sources_of(update.to)))}
    clauses, names = [f"#status IN ({', '.join(values)})"], {"#status": "status"}
    if update.read_at is None:
        clauses.append("#held_by = :held_by")
        names["#held_by"], values[":held_by"] = "attempt_id", held_by
    else:
        clauses.append("#read_at = :read_at")
        names["#read_at"], values[":read_at"] = "updated_at", update.read_at
    if update.last_sequencer is not None:
        names["#last"] = "sequencer"
        clauses.append("#last = :last" if update.last_sequencer else "attribute_not_exists(#last)")
        values |= {":last": update.last_sequencer} if update.last_sequencer else {}
    return Condition(" AND ".join(clauses), names, values)


def _is_later_upload(version: ObjectVersion, known: Item) -> bool:
    """Whether an event tells of an upload that came after the one which a row stands for.

    A row that was registered without an event, by a backfill, has no sequencer: what was uploaded after it was
    registered is another upload of the same bytes, anything before may be the very one that the backfill found.
    """
    if "sequencer" in known or version.sequencer is None:
        return is_later(version.sequencer, known.get("sequencer"))
    uploaded, registered = parse_time(version.uploaded_at), parse_time(known["registered_at"])
    return uploaded is not None and registered is not None and uploaded > registered
