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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import batched, islice
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.conditions import Attr, ConditionBase, Key

from workflow_trigger.adapters.dynamodb import mapping
from workflow_trigger.adapters.dynamodb.mapping import MARK, QUEUE, QUEUE_AT, UNPUBLISHED, Item, document_from_item
from workflow_trigger.adapters.dynamodb.tables import Table
from workflow_trigger.domain import model
from workflow_trigger.domain.clock import Deadline, iso, parse_time
from workflow_trigger.domain.document import (
    DocumentKey,
    Lane,
    ObjectVersion,
    batch_name,
    canonical_id,
    is_later,
    queue_of,
)
from workflow_trigger.domain.errors import ConflictError
from workflow_trigger.domain.model import FINAL, Document, DocumentUpdate, EndedJob, Poller, Status, Workflow

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

OPEN_ROWS_INDEX = "open-rows"
QUEUES_INDEX = "queues"
_PAGE = 100  # rows, as many as one BatchGetItem reads
_PAGES = 4  # of a queue, at most, when most of a page is of no use
_BATCH_PAGES = 10
_BOUND_PAGES = 20


class Ledger:
    """Read consistently but for the indexes, written conditionally."""

    def __init__(
        self,
        client: "DynamoDBClient",
        *,
        ledger_table: str,
        workflows_table: str,
        retention_days: float,
        deadline: Deadline,
    ) -> None:
        self._rows = Table(client, ledger_table, deadline)
        self._records = Table(client, workflows_table, deadline)
        self._retention = timedelta(days=retention_days)
        self._clock = deadline.clock

    # -- documents: arrival --------------------------------------------------------------------------------------------

    def register(self, version: ObjectVersion, *, route: str = "", skipped: str | None = None) -> tuple[Document, bool]:
        """The document of an object version, and whether this event put it into the queue (new, or reopened).

        `skipped` is the reason why it is not wanted: then a new row is final, and one that is there stays as it is.
        """
        now = iso(self._clock.now())
        item = mapping.new_row(version, now, route=route, skipped=skipped)
        if skipped:
            item |= mapping.present({"expires_at": self._expires_at()})
        new = self._rows.put(item, Attr("object").not_exists())
        found = self._counted(new, version.batch if not skipped else None)
        if found is None:
            return document_from_item(item), True
        known = found or self.item(version.document_key)
        if known is None:
            return self.register(version, route=route, skipped=skipped)  # it expired between the two calls
        if skipped or not _is_later_upload(version, known):
            may_join = "batch" not in known and known["status"] not in FINAL and not skipped
            if version.batch and may_join and not self._join(_key(known), version.batch, _as_read(known)):
                return self.register(version, route=route)
            # Our own write, if its first answer was lost and botocore repeated it; else a duplicate.
            return document_from_item(known), known["registered_at"] == now
        # The same bytes were uploaded again: a final row starts afresh; one on its way covers the new event too.
        reopens = known["status"] in FINAL
        of_event = ("sequencer", "uploaded_at", "request_id")
        changes: Item = {"updated_at": now, **{name: getattr(version, name) for name in of_event}}
        changes |= mapping.reopened(known, now, version.lane, route, version.batch) if reopens else {}
        if not self._update_row(known, changes):
            return self.register(version, route=route)  # the row has changed since: look again
        return document_from_item(mapping.present({**known, **changes})), reopens

    def reopen(self, row: Item, lane: Lane = Lane.BULK, route: str = "") -> bool:
        """Put a final row back into the queue because an operator says so, provided that it still is as it was read."""
        now = iso(self._clock.now())
        return self._update_row(row, {"updated_at": now, **mapping.reopened(row, now, lane, route, row.get("batch"))})

    def supersede_older(self, name: str) -> list[DocumentKey]:
        """Of the versions of an object that wait, end all but the newest, by the sequencers of their events.

        A version without a sequencer, from a backfill, is left alone: nothing tells whether it is older. So is one that
        came back into the queue after the newest was uploaded, for example by an operator's retry.
        """
        times = ("uploaded_at", "registered_at", "queued_at", "updated_at")
        shown = ("object", "version", "status", "sequencer", "bound_to", *times)
        pages = self._rows.pages(None, Key("object").eq(name), *shown, ConsistentRead=True)
        newest: Item = {"sequencer": "0", "registered_at": ""}
        waiting = []
        for row in (item for page in pages for item in page if item["status"] != Status.SKIPPED):
            newest = row if is_later(row.get("sequencer"), newest["sequencer"]) else newest
            waiting += [row] if row["status"] == Status.PENDING and "bound_to" not in row else []
        came_at = newest.get("uploaded_at", newest["registered_at"])
        older = [row for row in waiting if is_later(newest["sequencer"], row.get("sequencer"))]
        older = [row for row in older if not row["registered_at"] < row.get("queued_at", "") > came_at]
        message = "a newer version was uploaded before this one had its turn"
        return [_key(row) for row in older if self._end(row, Status.SUPERSEDED, "ObjectOverwritten", message)]

    def enqueue(self, document: Document, route: str) -> None:
        """Put a document that waits into a route's queue, at its place, provided that it still is as it was read.

        `updated_at` stays, so that whoever has read the document may go on with it.
        """
        mark = {QUEUE: queue_of(document.source.lane, route), QUEUE_AT: document.eligible_at, "route": route or None}
        as_read = Attr("updated_at").eq(document.read_at)
        self._rows.write(self._rows.update(document.key._asdict(), mark, as_read))

    def cancel(self, row: Item, reason: str) -> bool:
        """End a document that waits because an operator says so, provided that it still is as it was read."""
        return self._end(row, Status.STOPPED, "Cancelled", reason)

    def _end(self, row: Item, status: Status, kind: str, message: str) -> bool:
        changes = mapping.ended_in_queue(status, iso(self._clock.now()), kind, message)
        return self._update_row(row, changes | {"expires_at": self._expires_at()})

    def forget(self, row: Item) -> bool:
        """Take the content out of a final row, provided that it still is as it was read."""
        return self._update_row(row, mapping.forgotten(row, iso(self._clock.now())))

    def describe(self, key: DocumentKey, attempt_id: str, **labels: Mapping[str, str]) -> None:
        """Keep an object's `metadata` and `tags`. `updated_at` stays: no step of the document depends on them.

        The batch that the metadata name is the document's, unless it has one.
        """
        held, changes = Attr("attempt_id").eq(attempt_id), mapping.present(labels)
        batch = batch_name(labels.get("metadata", {}).get("batch"))
        if batch and self._join(key, batch, held, **changes):
            return
        self._rows.write(self._rows.update(key._asdict(), changes, held))

    def created_at(self) -> str:
        """When the ledger was made; no object from before has to have a row."""
        return iso(self._rows.created_at())

    # -- documents: reading --------------------------------------------------------------------------------------------

    def item(self, key: DocumentKey) -> Item | None:
        """One row as stored, read consistently."""
        return self._rows.get(key._asdict())

    def documents(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, Document]:
        """Those of the documents that there are, read consistently."""
        return {document.key: document for document in map(document_from_item, self._read(keys))}

    def _read(self, keys: Sequence[DocumentKey]) -> list[Item]:
        return self._rows.batch_get([key._asdict() for key in dict.fromkeys(keys)])

    def waiting(self) -> Iterator[list[DocumentKey]]:
        """Pages of all documents that wait, the oldest first. This index has no queue."""
        unbound: Any = {"FilterExpression": "attribute_not_exists(bound_to)"}  # in 0.2.0, to a workflow
        key = Key("status").eq(Status.PENDING)
        for page in self._rows.pages(OPEN_ROWS_INDEX, key, "object", "version", Limit=_PAGE, **unbound):
            yield list(map(_key, page))

    def bound(self) -> list[DocumentKey]:
        """Documents of 0.2.0 that wait, bound to a workflow; of the first 20 MB of all that wait."""
        bound: Any = {"FilterExpression": "attribute_exists(bound_to)"}
        pages = self._rows.pages(OPEN_ROWS_INDEX, Key("status").eq(Status.PENDING), "object", "version", **bound)
        return [_key(item) for page in islice(pages, _BOUND_PAGES) for item in page]

    def ready_in(self, lane: Lane, route: str, limit: int) -> list[Document]:
        """Documents of one queue whose time has come, oldest first. Final ones in it leave it, to be published."""
        key = Key(QUEUE).eq(queue_of(lane, route)) & Key(QUEUE_AT).lte(iso(self._clock.now()))
        found: list[Document] = []
        for page in islice(self._rows.pages(QUEUES_INDEX, key, Limit=limit), _PAGES):
            for item in page:  # after a rollback and another update, rows are still where 0.2.0 found, and ended, them
                if item["status"] in FINAL:  # published again, so that their batches count them
                    mark = {QUEUE: UNPUBLISHED, QUEUE_AT: iso(self._clock.now())}
                    as_shown = Attr(QUEUE).eq(item[QUEUE]) & _as_read(item)  # the index may be late
                    self._rows.write(self._rows.update(_key(item)._asdict(), mark, as_shown))
            found += [document_from_item(item) for item in page if item["status"] == Status.PENDING]
            if len(found) >= limit:
                break
        return found[:limit]

    def longest_wait_seconds(self, route: str | None = None) -> float:
        """How long the document that has been waiting longest has been, of all or of a route; 0 when none waits.

        The head of a queue holds those that never had their turn, its end those that are put off again and again.
        """
        queues = [(OPEN_ROWS_INDEX, Key("status").eq(Status.PENDING))]
        if route is not None:
            queues = [(QUEUES_INDEX, Key(QUEUE).eq(queue_of(lane, route))) for lane in Lane]
        ends = [
            next(self._rows.pages(index, key, "queued_at", ScanIndexForward=head, Limit=25))
            for index, key in queues
            for head in (True, False)
        ]
        queued = [moment for end in ends for item in end if (moment := parse_time(item.get("queued_at")))]
        return (self._clock.now() - min(queued)).total_seconds() if queued else 0.0

    def held(self, status: Status) -> dict[DocumentKey, tuple[str | None, str]]:
        """Which attempt holds each document in a state that is not final, and when the document was written last."""
        shown = ("object", "version", "attempt_id", "updated_at")
        pages = self._rows.pages(OPEN_ROWS_INDEX, Key("status").eq(status), *shown)
        return {_key(item): (item.get("attempt_id"), item["updated_at"]) for page in pages for item in page}

    # -- events --------------------------------------------------------------------------------------------------------

    def unpublished_keys(self) -> Iterator[list[DocumentKey]]:
        """Final documents whose event is not published yet, by the index, in pages of 50."""
        for page in self._rows.pages(QUEUES_INDEX, Key(QUEUE).eq(UNPUBLISHED), Limit=50):
            yield list(map(_key, page))

    def unpublished(self, keys: Sequence[DocumentKey]) -> list[Item]:
        """Those of the rows that still are final and carry the mark, without it."""
        rows = (row for row in self._read(keys) if QUEUE in row and row["status"] in FINAL)
        return [{name: value for name, value in row.items() if name not in MARK} for row in rows]

    def mark_published(self, rows: Sequence[Item]) -> None:
        """Take the mark away from rows that still are as they were read.

        In the same transaction they count as finished: once, however many invocations publish them.
        """
        for few in batched(rows, 50, strict=False):
            self._mark_published(few)

    def _mark_published(self, rows: Sequence[Item]) -> None:
        batches = Counter(row["batch"] for row in rows if "batch" in row)
        counted = [self._count(name, finished=count) for name, count in batches.items()]
        is_marked = Attr(QUEUE).eq(UNPUBLISHED)
        taken = [self._rows.update(_key(row)._asdict(), dict.fromkeys(MARK), is_marked & _as_read(row)) for row in rows]
        moved_on = self._rows.write(*taken, *counted)
        if moved_on:
            self.mark_published([row for place, row in enumerate(rows) if place not in moved_on])

    # -- batches -------------------------------------------------------------------------------------------------------

    def batch(self, name: str) -> model.Batch | None:
        """A batch, if any of its documents is known."""
        item = self.item(mapping.batch_key(name))
        return mapping.batch_from_item(item) if item else None

    def batches_at_rest(self, quiet: timedelta) -> list[model.Batch]:
        """Batches that are not marked as finished, whose documents are all final, and to which none came lately."""
        key = Key(QUEUE).eq(mapping.BATCHES) & Key(QUEUE_AT).lte(iso(self._clock.now() - quiet))
        pages = islice(self._rows.pages(QUEUES_INDEX, key, Limit=100), _BATCH_PAGES)
        keys = [_key(item) for page in pages for item in page]
        found = [mapping.batch_from_item(item) for item in self._read(keys)]
        for each in found:
            if not each.is_at_rest:  # until another of its documents is final
                self._unmark(each)
        return [each for each in found if each.is_at_rest]

    def mark_finished(self, batch: model.Batch) -> None:
        """A batch is finished, provided that no document has been counted since it was read."""
        self._unmark(batch, finished_at=iso(self._clock.now()), expires_at=self._expires_at())

    def _unmark(self, batch: model.Batch, **changes: Any) -> None:
        changes |= dict.fromkeys(MARK)
        finished = Attr("finished").eq(batch.finished) if batch.finished else Attr("finished").not_exists()
        as_read = Attr("registered").eq(batch.registered) & finished
        self._rows.write(self._rows.update(mapping.batch_key(batch.name)._asdict(), changes, as_read))

    def _counted(self, write: Item, batch: str | None) -> Item | None:
        """A write of one document, with which its batch counts it; None when done, else what stands there."""
        counted = [self._count(batch, registered=1)] if batch else []
        return self._rows.write(write, *counted).get(0)

    def _join(self, key: DocumentKey, batch: str, condition: ConditionBase, **changes: Any) -> bool:
        """Put a document that is in no batch into one, which counts it."""
        condition &= Attr("batch").not_exists()
        return self._counted(self._rows.update(key._asdict(), {**changes, "batch": batch}, condition), batch) is None

    def _count(self, batch: str, **amounts: int) -> Item:
        mark = mapping.batch_mark(iso(self._clock.now()) if "finished" in amounts else None)
        return self._rows.update(mapping.batch_key(batch)._asdict(), mark, None, amounts)

    # -- workflows, ended jobs, the poller -----------------------------------------------------------------------------

    def snapshot(self, pool: Sequence[str]) -> model.Snapshot:
        """Everything but the documents. The pool's workflows come first; one without an item is idle.

        A workflow that has an item is named as its item spells it, for a redeploy may spell an id in other ways.
        """
        records = [mapping.record_from_item(item) for item in self._records.scan()]
        known = {each.workflow_id: each for each in records if isinstance(each, Workflow)}
        spelled = {canonical_id(each): each for each in known}
        names = {each: each if each in known else spelled.get(canonical_id(each), each) for each in pool}
        in_order = dict.fromkeys([*names.values(), *known])
        return model.Snapshot(
            names=names,
            workflows=tuple(known.get(each) or Workflow(workflow_id=each) for each in in_order),
            ended_jobs=tuple(each for each in records if isinstance(each, EndedJob)),
            poller=next((each for each in records if isinstance(each, Poller)), Poller()),
            pauses=tuple(each for each in records if isinstance(each, model.Pause)),
        )

    def workflow(self, workflow_id: str) -> Workflow:
        """One workflow; without an item it is idle."""
        item = self._records.get({"workflow_id": workflow_id})
        found = mapping.record_from_item(item) if item else None
        return found if isinstance(found, Workflow) else Workflow(workflow_id=workflow_id)

    def pause(self, pause: model.Pause) -> bool:
        """Pause a route, or all; False where it is paused already."""
        item, is_new = mapping.item_from_record(pause), Attr("workflow_id").not_exists()
        return not self._records.write(self._records.put(item, is_new))

    def resume(self, pause: model.Pause) -> bool:
        """End this pause alone; False where it has ended already."""
        key, is_the_same = mapping.key_of(pause), Attr("since").eq(pause.since)
        return not self._records.write(self._records.delete(key, is_the_same))

    # -- the one write -------------------------------------------------------------------------------------------------

    def commit[R: (Workflow, EndedJob, Poller)](self, step: model.Transition[R]) -> tuple[R, frozenset[DocumentKey]]:
        """Write a step, all of it in one transaction: what was written, and the documents left out.

        Conflicts and throttling are tried again until the invocation ends.

        Raises:
            ConflictError: the record is not as it was read; nothing was written.
            LedgerUnavailable: DynamoDB does not take it, or does not answer.
        """
        left_out: frozenset[DocumentKey] = frozenset()
        back: frozenset[DocumentKey] = frozenset()
        updates = {update.key: update for update in step.updates}
        revision = uuid.uuid4().hex
        while True:
            after = replace(step.after or step.before, revision=revision)
            creates = replace(step.creates, revision=revision) if step.creates else None
            if left_out and not isinstance(after, Poller):
                after, creates = after.without(left_out), creates.without(left_out) if creates else None
            written = replace(step, after=step.after and after, updates=tuple(updates.values()), creates=creates)
            prevented = self._write(written)
            if not prevented:
                return after, left_out | back
            for update in prevented:
                if update.last_sequencer is not None:  # a later event of its key came: it goes back for that one
                    updates[update.key] = DocumentUpdate(key=update.key, to=Status.PENDING)
                    back |= {update.key}
                else:
                    del updates[update.key]
                    left_out |= {update.key}

    def _write[R: (Workflow, EndedJob, Poller)](self, step: model.Transition[R]) -> list[DocumentUpdate]:
        """One transaction; the updates whose conditions did not hold."""
        is_new = Attr("workflow_id").not_exists()
        as_read = Attr("revision").eq(step.before.revision) if step.before.revision else is_new
        if step.after is None:
            record = self._records.delete(mapping.key_of(step.before), as_read)
        else:
            record = self._records.put(mapping.item_from_record(step.after), as_read)
        documents = [self._document_write(update, step) for update in step.updates]
        created = [self._records.put(mapping.item_from_record(step.creates), is_new)] if step.creates else []
        prevented = self._records.write(record, *documents, *created)
        if 0 in prevented:
            if step.after is not None and prevented[0].get("revision") == step.after.revision:
                return []  # our own write, whose first answer was lost
            raise ConflictError(f"{mapping.key_of(step.before)['workflow_id']} was changed by another invocation")
        if any(place > len(step.updates) for place in prevented):
            raise ConflictError(f"job {step.creates and step.creates.job_id} has ended already")
        return [step.updates[place - 1] for place in prevented]

    def _document_write(self, update: DocumentUpdate, step: model.Transition[Any]) -> Item:
        """The conditional update of one document."""
        now, attempt_id, record = self._clock.now(), step.before.attempt_id, step.after or step.before
        changes = mapping.update_attributes(
            update, attempt_id=record.attempt_id or attempt_id, workflow_id=record.workflow_id, now=iso(now)
        )
        if update.to in FINAL:
            changes["expires_at"] = self._expires_at()
        condition = _may_change(update, attempt_id)
        if isinstance(record, Workflow) and update.to is Status.SUBMITTING and not record.attempt.is_unsettled:
            condition &= Attr("bound_to").not_exists()  # its answer was lost in 0.2.0: only `take_up` may have it
        return self._rows.update(update.key._asdict(), changes, condition)

    def _expires_at(self) -> int | None:
        """When a row that is final now may be deleted, in epoch seconds; None: never."""
        return int((self._clock.now() + self._retention).timestamp()) if self._retention else None

    def _update_row(self, row: Item, changes: Item) -> bool:
        """Change one row outside of any attempt, provided that it still is as it was read.

        Back in the queue it counts in its batch again, unless its end was not counted yet; the mark tells, and goes.
        """
        batch: str | None = None
        as_read: ConditionBase = _as_read(row)
        if changes.get("status") == Status.PENDING:
            as_read &= Attr(QUEUE).eq(row[QUEUE]) if QUEUE in row else Attr(QUEUE).not_exists()
            batch = changes.get("batch") if row.get(QUEUE) != UNPUBLISHED else None
        found = self._counted(self._rows.update(_key(row)._asdict(), changes, as_read), batch)
        # Our own write, if its first answer was lost, has been done.
        return found is None or found.get("updated_at") == changes["updated_at"]


def _key(row: Item) -> DocumentKey:
    return DocumentKey(row["object"], row["version"])


def _as_read(row: Item) -> ConditionBase:
    return Attr("updated_at").eq(row["updated_at"])


def _may_change(update: DocumentUpdate, attempt_id: str | None) -> ConditionBase:
    """The conditions of a document's next step."""
    holds = Attr("attempt_id").eq(attempt_id) if update.read_at is None else Attr("updated_at").eq(update.read_at)
    condition = Attr("status").is_in(sorted(model.sources_of(update.to))) & holds
    if update.last_sequencer is None:
        return condition
    last = Attr("sequencer")
    return condition & (last.eq(update.last_sequencer) if update.last_sequencer else last.not_exists())


def _is_later_upload(version: ObjectVersion, known: Item) -> bool:
    """Whether an event tells of an upload that came after the one which a row stands for.

    A row that was registered without an event, by a backfill, has no sequencer: what was uploaded after it was
    registered is another upload of the same bytes, anything before may be the very one that the backfill found.
    """
    if "sequencer" in known or version.sequencer is None:
        return is_later(version.sequencer, known.get("sequencer"))
    uploaded, registered = parse_time(version.uploaded_at), parse_time(known["registered_at"])
    return uploaded is not None and registered is not None and uploaded > registered
