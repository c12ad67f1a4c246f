"""Rows and workflows as DynamoDB items, and back. A use case names only the attributes that its step changes."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from workflow_trigger.job import Baseline, Job
from workflow_trigger.model import Phase, Row, Status, Workflow
from workflow_trigger.objects import ObjectVersion, RowKey, token_of, upload_name

type Item = dict[str, Any]

LEFT_OUT = "more outputs than a row has room for"
_LIST_LIMIT_BYTES = 40_000  # each: 25 rows, with their results, have to go into the 4 MB of a transaction

_SERIALIZER = TypeSerializer()
_DESERIALIZER = TypeDeserializer()


def serialize(item: Mapping[str, Any]) -> Item:
    """Python values → DynamoDB's wire form."""
    return {name: _SERIALIZER.serialize(value) for name, value in item.items()}


def deserialize(item: Mapping[str, Any]) -> Item:
    """DynamoDB's wire form → Python values (numbers as Decimal)."""
    return {name: _DESERIALIZER.deserialize(value) for name, value in item.items()}


def plain(value: Any) -> int | str:
    """A value of an item that JSON does not know, as JSON has it: the `default` of `json.dumps`."""
    return int(value) if isinstance(value, Decimal) else str(value)


def present(item: Mapping[str, Any]) -> Item:
    """The attributes that have a value."""
    return {name: value for name, value in item.items() if value is not None}


# -- rows --------------------------------------------------------------------------------------------------------------

_KEPT_OF_A_RUN = ("status", "job_id", "workflow_id", "created_at", "attempt_id", "error", "updated_at")
_KEPT_RUNS = 20
_OF_ONE_RUN = (
    *("job_id", "workflow_id", "workflow_name", "created_at", "runtime", "job_type", "job_status"),
    *("input_file_ids", "output_node_files", "input_file_id", "attempt_id", "error", "results", "inferred"),
    *("bound_to", "bound_since", "strikes", "accepted_count_then", "slow_tries", "expires_at"),
)


def new_row(version: ObjectVersion, now: str) -> Item:
    """The item of an object version that arrives at `now`."""
    return present(
        {
            "object": version.row_key.object,
            "version": version.row_key.version,
            "bucket": version.bucket,
            "key": version.key,
            "version_id": version.version_id,
            "etag": version.etag,
            "size": version.size_bytes,
            "sequencer": version.sequencer,
            "uploaded_at": version.uploaded_at,
            "status": Status.PENDING,
            "upload_name": upload_name(version.row_key),
            "failures": 0,
            "eligible_at": now,
            "queued_at": now,
            "registered_at": now,
            "updated_at": now,
        }
    )


def reopened(item: Item, now: str) -> Item:
    """The changes that put a final row back into the line; the run that it had goes to `runs`."""
    runs = [*item.get("runs", []), {name: item[name] for name in _KEPT_OF_A_RUN if name in item}][-_KEPT_RUNS:]
    return {
        **dict.fromkeys(_OF_ONE_RUN),
        "status": Status.PENDING,
        "failures": 0,
        "eligible_at": now,
        "queued_at": now,
        "runs": runs,
        "earlier_job_ids": [run["job_id"] for run in runs if "job_id" in run],
    }


def row_from_item(item: Item) -> Row:
    """An item of the ledger, or of its index, as a row."""
    return Row(
        source=ObjectVersion(
            bucket=item["bucket"],
            key=item["key"],
            version_id=item.get("version_id"),
            etag=item.get("etag"),
            size_bytes=_int(item.get("size")),
            sequencer=item.get("sequencer"),
            uploaded_at=item.get("uploaded_at"),
        ),
        status=Status(item["status"]),
        seen=item["updated_at"],
        eligible_at=item.get("eligible_at"),
        queued_at=item.get("queued_at"),
        attempt_id=item.get("attempt_id"),
        bound_to=item.get("bound_to"),
        bound_since=item.get("bound_since"),
        workflow_id=item.get("workflow_id"),
        job_id=item.get("job_id"),
        failures=_int(item.get("failures")) or 0,
        strikes=_int(item.get("strikes")) or 0,
        accepted_count_then=_int(item.get("accepted_count_then")),
        slow_tries=_int(item.get("slow_tries")) or 0,
        earlier_job_ids=tuple(item.get("earlier_job_ids", ())),
        input_file_id=item.get("input_file_id"),
        output_node_files=tuple(item.get("output_node_files", ())),
        results=tuple(item.get("results", ())),
    )


def job_attributes(job: Job, key: RowKey, *, alone: bool) -> Item:
    """JobInformation as attributes of one file's row. What the answer left out is left out: it never undoes a value."""
    own = job.of_file(key)
    ids = own.input_file_ids
    named = ids is not None and len(ids) == 1 and (alone or token_of(key) in ids[0])
    return present(
        {
            "job_id": job.id,
            "workflow_name": job.workflow_name,
            "created_at": job.created_at,
            "runtime": job.runtime,
            "job_type": job.job_type,
            "job_status": job.status,
            "input_file_ids": _fitting(ids),
            "output_node_files": _fitting(own.output_node_files, {"missing": LEFT_OUT}),
            "input_file_id": ids[0] if named and ids else None,
        }
    )


def _fitting(entries: Sequence[Any] | None, *left_out: Any) -> list[Any] | None:
    """As many of the entries as an item has room for, for one too large could not be written; then what says so."""
    if entries is None:
        return None
    sizes = accumulate(len(json.dumps(entry)) for entry in entries)
    fitting = [entry for entry, size in zip(entries, sizes, strict=True) if size <= _LIST_LIMIT_BYTES]
    return fitting if len(fitting) == len(entries) else [*fitting, *left_out]


# -- workflows ---------------------------------------------------------------------------------------------------------


def item_from_workflow(workflow: Workflow) -> Item:
    """A workflow as an item."""
    return present(
        {
            "workflow_id": workflow.workflow_id,
            "phase": workflow.phase,
            "revision": workflow.revision,
            "attempt_id": workflow.attempt_id,
            "rows": _keys(workflow.rows),
            "baseline": sorted(workflow.baseline.ids),
            "baseline_reaches_back_to": workflow.baseline.reaches_back_to,
            "baseline_newest": workflow.baseline.newest,
            "started_at": workflow.started_at,
            "committed_at": workflow.committed_at,
            "lease_ends_at": workflow.lease_ends_at,
            "lost_rows": _keys(workflow.lost_rows) or None,
            "job_id": workflow.job_id,
            "job_status": workflow.job_status,
            "doubtful_since": workflow.doubtful_since,
            "results_since": workflow.results_since,
            "not_before": workflow.not_before,
            "accepted_count": workflow.accepted_count,
            "setbacks": workflow.setbacks,
            "refusals": workflow.refusals,
            "last_error": dict(workflow.last_error) if workflow.last_error else None,
        }
    )


def workflow_from_item(item: Item) -> Workflow:
    """An item as a workflow."""
    return Workflow(
        workflow_id=item["workflow_id"],
        phase=Phase(item.get("phase", Phase.IDLE)),
        revision=item.get("revision"),
        attempt_id=item.get("attempt_id"),
        rows=_row_keys(item.get("rows", [])),
        baseline=Baseline(
            ids=frozenset(item.get("baseline", [])),
            reaches_back_to=item.get("baseline_reaches_back_to"),
            newest=item.get("baseline_newest"),
        ),
        started_at=item.get("started_at"),
        committed_at=item.get("committed_at"),
        lease_ends_at=item.get("lease_ends_at"),
        # 0.1.0 had them among the rows of the last attempt, with a mark.
        lost_rows=_row_keys(item.get("lost_rows") or (item.get("rows", []) if item.get("unsettled") else [])),
        job_id=item.get("job_id"),
        job_status=item.get("job_status"),
        doubtful_since=item.get("doubtful_since"),
        results_since=item.get("results_since"),
        not_before=item.get("not_before"),
        accepted_count=_int(item.get("accepted_count")) or 0,
        setbacks=_int(item.get("setbacks")) or 0,
        refusals=_int(item.get("refusals")) or 0,
        last_error=item.get("last_error"),
    )


def _keys(rows: Sequence[RowKey]) -> list[Item]:
    return [{"object": key.object, "version": key.version} for key in rows]


def _row_keys(keys: Sequence[Item]) -> tuple[RowKey, ...]:
    return tuple(RowKey(key["object"], key["version"]) for key in keys)


def _int(value: Any) -> int | None:
    return None if value is None else int(value)
