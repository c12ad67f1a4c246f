"""Documents, workflows and ended jobs as DynamoDB items, and back. The only module that knows attribute names."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import accumulate
from typing import Any

from workflow_trigger.domain.document import DocumentKey, ObjectVersion
from workflow_trigger.domain.model import (
    FINAL,
    UNCHANGED,
    Attempt,
    Document,
    DocumentUpdate,
    Doubt,
    EndedDocument,
    EndedJob,
    Phase,
    Poller,
    SentDocument,
    Status,
    Workflow,
)

type Item = dict[str, Any]

LEFT_OUT = "more outputs than a row has room for"
UNPUBLISHED = "events"  # the queue of final rows whose event is not published yet
MARK = ("queue", "queue_at")
POLLER_KEY = "poller"
_ENDED_JOB = "ended-job/"
_LIST_LIMIT_BYTES = 40_000  # each: 25 rows, with their results, have to go into the 4 MB of a transaction


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
        case "NULL":
            return None
    return content


def present(item: Mapping[str, Any]) -> Item:
    """The attributes that have a value."""
    return {name: value for name, value in item.items() if value is not None}


# -- documents ---------------------------------------------------------------------------------------------------------

# Where an attribute has another name than the field.
DOCUMENT_NAMES = {
    "read_at": "updated_at",
    "counted_failures": "strikes",
    "accepted_then": "accepted_count_then",
}
_KEPT_OF_A_RUN = ("status", "job_id", "workflow_id", "created_at", "attempt_id", "error", "updated_at")
_KEPT_RUNS = 20
_OF_ONE_RUN = (
    *("job_id", "workflow_id", "workflow_name", "created_at", "runtime", "job_type", "job_status", "upload_name"),
    *("input_file_ids", "output_node_files", "input_file_id", "attempt_id", "error", "results", "inferred"),
    *("strikes", "accepted_count_then", "slow_tries", "expires_at", *MARK),
)
_OF_0_2_0 = ("bound_to", "bound_since", "earlier_job_ids")


def new_row(version: ObjectVersion, now: str) -> Item:
    """The item of an object version that arrives at `now`."""
    source = {
        name: getattr(version, name) for name in ("bucket", "key", "version_id", "etag", "sequencer", "uploaded_at")
    }
    times = dict.fromkeys(("eligible_at", "queued_at", "registered_at", "updated_at"), now)
    size = {"size": version.size_bytes, "status": Status.PENDING, "failures": 0}
    return present({**version.document_key._asdict(), **source, **size, **times})


def reopened(item: Item, now: str) -> Item:
    """The changes that put a final row back into the queue; the run that it had goes to `runs`."""
    runs = [*item.get("runs", []), {name: item[name] for name in _KEPT_OF_A_RUN if name in item}][-_KEPT_RUNS:]
    again = {"status": Status.PENDING, "failures": 0, "eligible_at": now, "queued_at": now, "runs": runs}
    return {**dict.fromkeys((*_OF_ONE_RUN, *_OF_0_2_0)), **again}


def document_from_item(item: Item) -> Document:
    """An item of the ledger, or of its index, as a document."""
    source: Item = {each.name: item.get(each.name) for each in fields(ObjectVersion) if each.name != "size_bytes"}
    values = {each.name: item.get(DOCUMENT_NAMES.get(each.name, each.name)) for each in fields(Document)}
    lists = {name: tuple(item.get(name) or ()) for name in ("output_node_files", "results")}
    return Document(
        **present({**values, **lists, "status": Status(item["status"])}),
        source=ObjectVersion(**source, size_bytes=item.get("size")),
    )


def update_attributes(update: DocumentUpdate, *, attempt_id: str | None, workflow_id: str | None, now: str) -> Item:
    """The attributes that an update changes; None takes one away."""
    own = {"key", "to", "read_at", "last_sequencer", "job"}
    given = {each.name: getattr(update, each.name) for each in fields(DocumentUpdate) if each.name not in own}
    changes = {DOCUMENT_NAMES.get(name, name): value for name, value in given.items() if value is not UNCHANGED}
    if update.input_file_id is None:
        del changes["input_file_id"]
    changes |= {"status": update.to, "updated_at": now, **(_job_attributes(update) if update.job else {})}
    if update.to in FINAL:
        return changes | {"eligible_at": None, **dict(zip(MARK, (UNPUBLISHED, now), strict=True))}
    if update.to is Status.PENDING:
        return changes | {"attempt_id": None}  # where it was tried last stays
    if update.to is Status.SUBMITTING:
        changes |= dict.fromkeys(_OF_0_2_0)
    return changes | {"attempt_id": attempt_id, "workflow_id": workflow_id}


def _job_attributes(update: DocumentUpdate) -> Item:
    """JobInformation as attributes. What the answer left out is left out: it never undoes a value."""
    job = update.job
    if job is None:
        return {}
    names = ("workflow_name", "created_at", "runtime", "job_type")
    return present(
        {
            **{name: getattr(job, name) for name in names},
            "job_id": job.id,
            "job_status": job.status,
            "input_file_ids": _fitting(job.input_file_ids),
            "output_node_files": _fitting(job.output_node_files, {"missing": LEFT_OUT}),
        }
    )


def _fitting(entries: Sequence[Any] | None, *left_out: Any) -> list[Any] | None:
    """As many of the entries as an item has room for, for one too large could not be written; then what says so."""
    if entries is None:
        return None
    sizes = accumulate(len(json.dumps(entry)) for entry in entries)
    fitting = [entry for entry, size in zip(entries, sizes, strict=True) if size <= _LIST_LIMIT_BYTES]
    return fitting if len(fitting) == len(entries) else [*fitting, *left_out]


# -- workflows, ended jobs, the poller ---------------------------------------------------------------------------------

# Field → attribute, as 0.2.0 named it.
_WORKFLOW_NAMES = {
    "paused_until": "not_before",
    "consecutive_failures": "setbacks",
    "consecutive_refusals": "refusals",
    "known_job_ids": "baseline",
}
_ATTEMPT_NAMES = {"id": "attempt_id", "documents": "rows"}


def key_of(record: Workflow | EndedJob | Poller) -> Item:
    """The primary key of a record."""
    match record:
        case Workflow():
            return {"workflow_id": record.workflow_id}
        case EndedJob():
            return {"workflow_id": f"{_ENDED_JOB}{record.job_id}"}
    return {"workflow_id": POLLER_KEY}


def item_from_record(record: Workflow | EndedJob | Poller) -> Item:
    """A workflow, an ended job or the poller as an item."""
    item = {each.name: getattr(record, each.name) for each in fields(record)}
    match record:
        case Workflow():
            attempt, doubt = item.pop("attempt"), item.pop("doubt")
            item = {_WORKFLOW_NAMES.get(name, name): value for name, value in item.items()}
            item["doubt"] = {"kind": doubt.kind, "since": doubt.since} if doubt else None
            if attempt:
                values = {each.name: getattr(attempt, each.name) for each in fields(Attempt)}
                item |= {_ATTEMPT_NAMES.get(name, name): value for name, value in values.items()}
            item["rows"] = [
                present({**sent.key._asdict(), "upload_name": sent.upload_name}) for sent in item.get("rows", ())
            ]
        case EndedJob():
            item["of_workflow"] = item["workflow_id"]
            item["documents"] = [present({**ended.key._asdict(), "unless": ended.unless}) for ended in record.documents]
    return present({**item, **key_of(record)})


def record_from_item(item: Item) -> Workflow | EndedJob | Poller:
    """An item of the table of workflows, as what it is."""
    if item["workflow_id"] == POLLER_KEY:
        return Poller(**{each.name: item.get(each.name) for each in fields(Poller)})
    if item["workflow_id"].startswith(_ENDED_JOB):
        values = {each.name: item.get(each.name) for each in fields(EndedJob)}
        documents = tuple(EndedDocument(_document_key(each), each.get("unless")) for each in item["documents"])
        return EndedJob(**{**values, "workflow_id": item["of_workflow"], "documents": documents})
    return _workflow_from_item(item)


def _workflow_from_item(item: Item) -> Workflow:
    values = {each.name: item.get(_WORKFLOW_NAMES.get(each.name, each.name)) for each in fields(Workflow)}
    phase = Phase(item.get("phase", Phase.IDLE))
    if phase is Phase.RUNNING and not item.get("rows"):
        phase = Phase.IDLE  # 0.2.0 followed a foreign job in this way
    doubt, idle = item.get("doubt"), phase is Phase.IDLE
    changes = {
        "phase": phase,
        "attempt": None if idle else _attempt_from_item(item),
        "job_id": None if idle else item.get("job_id"),
        "doubt": Doubt(**doubt) if doubt else None,
        "known_job_ids": tuple(item.get("baseline", ())),
        "unanswered": tuple(item.get("unanswered", ())),
    }
    return Workflow(**present({**values, **changes}))


def _attempt_from_item(item: Item) -> Attempt:
    """The attempt of a workflow's item. 0.2.0 knew when the youngest earlier job was created, not when it looked."""
    values = {each.name: item.get(_ATTEMPT_NAMES.get(each.name, each.name)) for each in fields(Attempt)}
    changes = {
        "id": item.get("attempt_id", ""),
        "documents": tuple(SentDocument(_document_key(each), each.get("upload_name")) for each in item.get("rows", ())),
        "started_at": item.get("started_at", ""),
        "first_look_at": item.get("first_look_at") or item.get("baseline_newest"),
        "settle_after": item.get("settle_after") or item.get("lease_ends_at"),
    }
    return Attempt(**present({**values, **changes}))


def _document_key(entry: Item) -> DocumentKey:
    return DocumentKey(entry["object"], entry["version"])
