"""Documents, workflows and ended jobs as DynamoDB items, and back: what the attributes are called."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import accumulate
from typing import Any

from workflow_trigger.domain import model
from workflow_trigger.domain.document import DocumentKey, Lane, ObjectVersion, queue_of
from workflow_trigger.domain.doubt import Doubt, Doubtful
from workflow_trigger.domain.job import Job
from workflow_trigger.domain.model import Document, DocumentUpdate, EndedJob, Pause, Phase, Poller, Status, Workflow

type Item = dict[str, Any]

MARK = QUEUE, QUEUE_AT = "queue", "queue_at"  # the place of a row in the index of queues
UNPUBLISHED = "events"  # the queue of final rows whose event is not published yet; the others are by lane and route
POLLER_KEY = "poller"
_ENDED_JOB = "ended-job/"
_PAUSE = "pause/"
_LIST_LIMIT_BYTES = 40_000  # each: 25 rows, with their results, have to go into the 4 MB of a transaction


class Copied(str):
    """In the changes of an update: the value that another attribute has."""


def serialize(item: Mapping[str, Any]) -> Item:
    """Python values → DynamoDB's wire form."""
    return {name: _wire(value) for name, value in item.items()}


def deserialize(item: Mapping[str, Any]) -> Item:
    """DynamoDB's wire form → Python values; numbers are whole."""
    return {name: _plain(value) for name, value in item.items()}


def _wire(value: Any) -> Item:
    match value:
        case str():
            return {"S": str(value)}
        case bool():
            return {"BOOL": value}
        case int() | float():
            return {"N": str(value)}
        case None:
            return {"NULL": True}
        case Mapping():
            return {"M": serialize(value)}
        case _:
            return {"L": [_wire(each) for each in value]}


def _plain(value: Mapping[str, Any]) -> Any:
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return int(content) if content.lstrip("-").isdigit() else float(content)
        case "M":
            return deserialize(content)
        case "L":
            return [_plain(each) for each in content]
    return None if kind == "NULL" else content


def present(item: Mapping[str, Any]) -> Item:
    """The attributes that have a value."""
    return {name: value for name, value in item.items() if value is not None}


def _from(item: Item, kind: Any, names: Mapping[str, str] | None = None) -> Item:
    """The attributes of an item by the fields of a dataclass; `names`: field → attribute, where they differ."""
    return {each.name: item.get((names or {}).get(each.name, each.name)) for each in fields(kind)}


def _to(record: Any, names: Mapping[str, str] | None = None) -> Item:
    """A dataclass by the names of attributes."""
    return {(names or {}).get(each.name, each.name): getattr(record, each.name) for each in fields(record)}


# -- documents ---------------------------------------------------------------------------------------------------------

DOCUMENT_NAMES = {"read_at": "updated_at", "counted_failures": "strikes", "accepted_then": "accepted_count_then"}
_KEPT_OF_A_RUN = ("status", "job_id", "workflow_id", "created_at", "attempt_id", "error", "updated_at")
_KEPT_RUNS = 20
_OF_ONE_RUN = (
    *("job_id", "workflow_id", "workflow_name", "created_at", "runtime", "job_type", "job_status", "upload_name"),
    *("input_file_ids", "output_node_files", "input_file_id", "attempt_id", "error", "results", "inferred"),
    *("strikes", "accepted_count_then", "slow_tries", "expires_at", "metadata", "tags", "pages"),
    *("forgotten_at", *MARK),
)
_OF_0_2_0 = ("bound_to", "bound_since", "earlier_job_ids")


def new_row(version: ObjectVersion, now: str, *, route: str = "", skipped: str | None = None) -> Item:
    """The item of an object version that arrives at `now`, to wait in the queue or, with a reason, skipped."""
    common = {**version.document_key._asdict(), "registered_at": now, "updated_at": now, "failures": 0}
    own = _waiting(now, version.lane, route)
    if skipped:
        own = {"status": Status.SKIPPED, "error": {"type": "Skipped", "message": skipped}}
    return present({**_to(version, {"size_bytes": "size"}), **common, **own, "lane": None})


def _waiting(now: str, lane: Lane, route: str) -> Item:
    """The attributes of a document that comes into the queue."""
    mark = {QUEUE: queue_of(lane, route), QUEUE_AT: now}
    return {"status": Status.PENDING, "route": route or None, "eligible_at": now, "queued_at": now, **mark}


def reopened(row: Item, now: str, lane: Lane, route: str, batch: str | None = None) -> Item:
    """The changes that put a final row back into the queue; the run that it had goes to `runs`.

    It comes into `batch`, or into none, but for one whose own batch has not counted its end yet.
    """
    batch = row.get("batch") if row.get(QUEUE) == UNPUBLISHED else batch
    runs = [*row.get("runs", []), {name: row[name] for name in _KEPT_OF_A_RUN if name in row}][-_KEPT_RUNS:]
    return {
        **dict.fromkeys((*_OF_ONE_RUN, *_OF_0_2_0)),
        "failures": 0,
        "runs": runs,
        "batch": batch,
        **_waiting(now, lane, route),
    }


def ended_in_queue(status: Status, now: str, kind: str, message: str) -> Item:
    """The changes that end a document that waits."""
    error = {"type": kind, "message": message}
    mark = {QUEUE: UNPUBLISHED, QUEUE_AT: now}
    return {"status": status, "error": error, "updated_at": now, "eligible_at": None, **mark}


_KEPT_WHEN_FORGOTTEN = {
    *(each.name for each in fields(ObjectVersion)),
    *("object", "version", "size", "status", "route", "batch", "registered_at", "updated_at", "expires_at"),
    *("job_id", "workflow_id", "created_at", "failures", "pages", *MARK),
}


def forgotten(row: Item, now: str) -> Item:
    """The changes that leave of a final row that there was one: which object version, when, and in which jobs."""
    runs = [{name: value for name, value in run.items() if name != "error"} for run in row.get("runs", ())]
    content = dict.fromkeys(name for name in row if name not in _KEPT_WHEN_FORGOTTEN)
    return {**content, "runs": runs or None, "updated_at": now, "forgotten_at": now}


def document_from_item(item: Item) -> Document:
    """An item of the ledger, or of its index, as a document."""
    lists = {name: tuple(item.get(name) or ()) for name in ("output_node_files", "results")}
    lane = Lane.FRESH if item.get(QUEUE, "").startswith(Lane.FRESH) else Lane.BULK
    source = ObjectVersion(**{**_from(item, ObjectVersion, {"size_bytes": "size"}), "lane": lane})
    values = _from(item, Document, DOCUMENT_NAMES) | lists | {"status": Status(item["status"]), "source": source}
    return Document(**present(values))


def update_attributes(update: DocumentUpdate, *, attempt_id: str | None, workflow_id: str | None, now: str) -> Item:
    """The attributes that an update changes; None takes one away."""
    changes = {name: value for name, value in _to(update, DOCUMENT_NAMES).items() if value is not model.UNCHANGED}
    for own in ("key", "to", "updated_at", "last_sequencer", "job", *["input_file_id"] * (not update.input_file_id)):
        del changes[own]
    changes |= {"status": update.to, "updated_at": now, **(_job_attributes(update.job) if update.job else {})}
    if update.to in model.FINAL:
        return changes | {"eligible_at": None, QUEUE: UNPUBLISHED, QUEUE_AT: now}
    if update.to is Status.PENDING:  # where it was tried last stays
        return changes | {"attempt_id": None, QUEUE_AT: changes.get("eligible_at") or Copied("eligible_at")}
    if update.to is Status.SUBMITTING:
        changes |= dict.fromkeys((QUEUE_AT, *_OF_0_2_0))
    return changes | {"attempt_id": attempt_id, "workflow_id": workflow_id}


def _job_attributes(job: Job) -> Item:
    """JobInformation as attributes. What the answer left out, or empty, is left out: it never undoes a value."""
    attributes = _to(job, {"id": "job_id", "status": "job_status"})
    del attributes["workflow_id"], attributes["state"]
    attributes["input_file_ids"] = _fitting(job.input_file_ids) or None
    attributes["output_node_files"] = _fitting(job.output_node_files, {"missing": model.LEFT_OUT}) or None
    return present(attributes)


def _fitting(entries: Sequence[Any] | None, *left_out: Any) -> list[Any] | None:
    """As many of the entries as an item has room for, for one too large could not be written; then what says so."""
    if entries is None:
        return None
    sizes = accumulate(len(json.dumps(entry)) for entry in entries)
    fitting = [entry for entry, size in zip(entries, sizes, strict=True) if size <= _LIST_LIMIT_BYTES]
    return fitting if len(fitting) == len(entries) else [*fitting, *left_out]


# -- batches -----------------------------------------------------------------------------------------------------------

BATCHES = "batches"  # the queue of batches that may be finished: what was counted last is final
_BATCH = "batch"  # takes the place of an object; the batch's name that of a version


def batch_key(name: str) -> DocumentKey:
    """The primary key of a batch, among the rows of documents. It has no status."""
    return DocumentKey(_BATCH, name)


def batch_mark(now: str | None) -> Item:
    """The changes of a batch of which a document was counted: as final, at a time, or as registered (None)."""
    return {QUEUE: now and BATCHES, QUEUE_AT: now, "finished_at": None, "expires_at": None}


def batch_from_item(item: Item) -> model.Batch:
    """An item as a batch."""
    return model.Batch(**present(_from(item, model.Batch, {"name": "version"})))


# -- workflows, ended jobs, the poller: field → attribute, as 0.2.0 named it -------------------------------------------

_WORKFLOW_NAMES = {"paused_until": "not_before", "consecutive_failures": "setbacks", "consecutive_refusals": "refusals"}
_WORKFLOW_NAMES |= {"known_job_ids": "baseline"}
_ATTEMPT_NAMES = {"id": "attempt_id", "documents": "rows"}


def key_of(record: Workflow | EndedJob | Poller | Pause) -> Item:
    """The primary key of a record."""
    match record:
        case Pause():
            return {"workflow_id": f"{_PAUSE}{record.route}"}
        case Workflow():
            return {"workflow_id": record.workflow_id}
        case EndedJob():
            return {"workflow_id": f"{_ENDED_JOB}{record.job_id}"}
    return {"workflow_id": POLLER_KEY}


def item_from_record(record: Workflow | EndedJob | Poller | Pause) -> Item:
    """A workflow, an ended job, the poller or a pause as an item."""
    item = _to(record, _WORKFLOW_NAMES if isinstance(record, Workflow) else None)
    if isinstance(record, Doubtful):
        item["doubts"] = list(map(_to, record.doubts)) or None
    match record:
        case Workflow():
            del item["attempt"]
            item |= _to(record.attempt, _ATTEMPT_NAMES) if record.attempt.id else {}
            item["rows"] = [
                present({**key._asdict(), "upload_name": name}) for key, name in record.attempt.documents.items()
            ]
        case EndedJob():
            item["of_workflow"] = record.workflow_id
            ends = (
                {**key._asdict(), "status": end.status, "error": end.error} for key, end in record.documents.items()
            )
            item["documents"] = list(map(present, ends))
    return present({**item, **key_of(record)})


def record_from_item(item: Item) -> Workflow | EndedJob | Poller | Pause:
    """An item of the table of workflows, as what it is."""
    if item["workflow_id"].startswith(_PAUSE):
        return Pause(**_from(item, Pause))
    if item["workflow_id"] == POLLER_KEY:
        return Poller(**_from(item, Poller))
    if item["workflow_id"].startswith(_ENDED_JOB):
        documents = {
            _document_key(each): model.Outcome(status=Status(each["status"]), error=each.get("error"))
            for each in item["documents"]
        }
        changes = {"workflow_id": item["of_workflow"], "documents": documents, "doubts": _doubts(item)}
        return EndedJob(**_from(item, EndedJob) | changes)
    return _workflow_from_item(item)


def _workflow_from_item(item: Item) -> Workflow:
    phase = Phase(item.get("phase", Phase.IDLE))
    if phase is Phase.RUNNING and not item.get("rows"):
        phase = Phase.IDLE  # 0.2.0 followed a foreign job in this way
    changes = {
        "phase": phase,
        "attempt": None if phase is Phase.IDLE else _attempt_from_item(item),
        "job_id": None if phase is Phase.IDLE else item.get("job_id"),
        "doubts": _doubts(item),
        "known_job_ids": tuple(item.get("baseline", ())),
        "unanswered": tuple(item.get("unanswered", ())),
    }
    return Workflow(**present(_from(item, Workflow, _WORKFLOW_NAMES) | changes))


def _doubts(item: Item) -> tuple[Doubt, ...]:
    return tuple(Doubt(**each) for each in item.get("doubts", ()))


def _attempt_from_item(item: Item) -> model.Attempt:
    """The attempt of a workflow's item. 0.2.0 knew when the youngest earlier job was created, not when it looked."""
    changes = {
        "documents": {_document_key(each): each.get("upload_name") for each in item.get("rows", ())},
        "first_look_at": item.get("first_look_at") or item.get("baseline_newest"),
        "settle_after": item.get("settle_after") or item.get("lease_ends_at"),
    }
    return model.Attempt(**present(_from(item, model.Attempt, _ATTEMPT_NAMES) | changes))


def _document_key(entry: Item) -> DocumentKey:
    return DocumentKey(entry["object"], entry["version"])
