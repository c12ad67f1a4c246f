"""The platform's answers, read with distrust: statuses by what they mean, bodies by their shape. Pure."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from workflow_trigger.domain import errors
from workflow_trigger.domain.clock import iso, parse_time
from workflow_trigger.domain.document import canonical_id, is_workflow_key
from workflow_trigger.domain.errors import PlatformError, printable, truncate
from workflow_trigger.domain.job import Details, FailedFile, FileStatus, Job, JobState

_THROTTLE_DEFAULT_SECONDS = 30.0
_THROTTLE_LIMIT_SECONDS = 900.0
_REFUSALS = {400, 413, 415, 422}
_GIVEN_UP = {408, 499}  # by something on the way, whatever becomes of the request
_JOB_STATES = {
    "SCHEDULED": JobState.SCHEDULED,
    "IN_PROGRESS": JobState.RUNNING,
    "COMPLETED": JobState.COMPLETED,
    "STOPPED": JobState.STOPPED,
    "FAILED": JobState.FAILED,
}
_DETAILS_STATES = {
    "SUCCESS": JobState.COMPLETED,
    "COMPLETED_WITH_ERRORS": JobState.PARTLY,
    "STOPPED": JobState.STOPPED,
    "FAILED": JobState.FAILED,
}
ACTIVE = tuple(status for status, state in _JOB_STATES.items() if state.is_active)
_NODE_FIELDS = ("node_id", "node_type", "node_subtype", "file_id")
_NAMES_LIMIT = 10_000  # of all files of a job together


def parsed(content: bytes) -> Any:
    """JSON.

    Raises:
        ValueError: it is none.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


# -- statuses ----------------------------------------------------------------------------------------------------------


def error_for_status(status: int, headers: Mapping[str, str], content: bytes) -> PlatformError | None:
    """The error that an HTTP status stands for; None where the status alone does not tell what happened."""
    reason = f"HTTP {status}: {error_message(content)}"
    if 300 <= status < 400:
        return errors.Misconfigured(f"HTTP {status}: a redirect, which is not followed; check UnstructuredApiUrl")
    if not 400 <= status < 500 or status in _GIVEN_UP:
        return None
    if status == HTTPStatus.UNAUTHORIZED:
        hint = "a key of this workspace is needed; keys of the Transform product do not work here"
        return errors.KeyRejected(f"{reason} ({hint})")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return errors.Throttled(reason, retry_after_seconds(headers, content))
    if status == HTTPStatus.NOT_FOUND:
        return errors.NotFound(reason)
    return (errors.Refused if status in _REFUSALS else errors.Misconfigured)(reason)


def error_message(content: bytes) -> str:
    """What the platform says, for people; its errors come as `detail`, a text or FastAPI's list.

    Of a list's entries only `loc` and `msg` are taken: others may echo what was sent.
    """
    try:
        detail = parsed(content)["detail"]
        if isinstance(detail, list):
            detail = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in detail)
    except (ValueError, LookupError, TypeError):
        detail = content[:2_000].decode("utf-8", "replace")
    return truncate(str(detail)) or "no reason given"


def retry_after_seconds(headers: Mapping[str, str], content: bytes) -> float:
    """`Retry-After` as seconds or as a date, else `retry_after` in the body, else half a minute; at most 15 minutes."""
    ways: list[Callable[[], float]] = [
        lambda: Retry().parse_retry_after(headers.get("Retry-After", "")),
        lambda: float(parsed(content)["retry_after"]),
    ]
    for read in ways:
        with suppress(InvalidHeader, ValueError, LookupError, TypeError, OverflowError):
            seconds = read()
            if not math.isnan(seconds):
                return min(max(seconds, 1.0), _THROTTLE_LIMIT_SECONDS)
    return _THROTTLE_DEFAULT_SECONDS


def time_of(headers: Mapping[str, str], otherwise: datetime) -> str:
    """When the platform answered, by its own clock."""
    try:
        return iso(parsedate_to_datetime(headers.get("Date", "")))
    except (ValueError, OverflowError):
        return iso(otherwise)


# -- bodies ------------------------------------------------------------------------------------------------------------


def jobs_in(entries: Iterable[Mapping[str, Any]]) -> Iterator[Job]:
    """The jobs of a list.

    Raises:
        ValueError: one has no id.
    """
    for entry in entries:
        job = job_from(entry)
        if job is None:
            raise ValueError("a job without an id")
        yield job


def job_from(answer: Any) -> Job | None:
    """JobInformation, field by field; None where it has no id."""
    job_id = answer.get("id") if isinstance(answer, Mapping) else None
    if not isinstance(job_id, str) or not 0 < len(job_id) <= 256 or not job_id.isprintable():
        return None
    texts: dict[str, Any] = {
        name: _text(answer, name) for name in ("workflow_id", "workflow_name", "runtime", "job_type")
    }
    return Job(
        **texts,
        id=job_id,
        **_status_and_state(answer, "status", _JOB_STATES),
        created_at=_with_zone(_text(answer, "created_at")),
        input_file_ids=_file_ids(answer.get("input_file_ids")),
        output_node_files=_node_files(answer.get("output_node_files")),
    )


def _status_and_state(answer: Mapping[str, Any], name: str, states: Mapping[str, JobState]) -> Any:
    """The platform's word for how a job stands, and what it means."""
    status = _text(answer, name) or "UNKNOWN"
    return {"status": status, "state": states.get(status.upper(), JobState.UNKNOWN)}


def workflow_id_from(answer: Any) -> str | None:
    """A workflow's UUID; None where there is none."""
    found = answer.get("id") if isinstance(answer, Mapping) else None
    return canonical_id(found) if isinstance(found, str) and not is_workflow_key(found) else None


def details_from(answer: Any) -> Details | None:
    """A job's details; None where they tell no status."""
    if not isinstance(answer, Mapping) or _text(answer, "processing_status") is None:
        return None
    summary = answer.get("summary")
    counts = summary if isinstance(summary, Mapping) else {}
    succeeded, failed = (_count(counts.get(f"total_docs_{how}")) for how in ("succeeded", "failed"))
    if not succeeded and not failed:
        succeeded = failed = None  # the contract's default is 0, and a job has a file
    said = _status_and_state(answer, "processing_status", _DETAILS_STATES)
    return Details(**said, message=_text(answer, "message"), succeeded=succeeded, failed=failed)


def failed_files_from(answer: Any) -> list[FailedFile] | None:
    """A job's failed files, null where there are none; None where nothing is said of them."""
    is_null = isinstance(answer, Mapping) and answer.get("failed_files", answer) is None
    entries = [] if is_null else _objects(answer, "failed_files")
    return None if entries is None else [_failed_file(entry) for entry in entries]


def file_status_from(answer: Any) -> FileStatus:
    """The status of each of a job's files, as far as it goes. What is no list is not complete."""
    entries = _objects(answer, "files")
    if entries is None:
        return FileStatus()
    named = [(name, each.get("status")) for each in entries if isinstance(name := each.get("document"), str) and name]
    return FileStatus(
        documents=tuple(name for name, _ in named),
        failed=tuple(_failed_file(entry) for entry in entries if str(entry.get("status")).upper() == "FAILURE"),
        succeeded=tuple(name for name, status in named if str(status).upper() == "SUCCESS"),
        is_complete=not answer.get("truncated") and answer.get("index_finished") is not False,
    )


def _objects(answer: Any, name: str) -> list[Mapping[str, Any]] | None:
    entries = answer.get(name) if isinstance(answer, Mapping) else None
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else None


def _failed_file(entry: Mapping[str, Any]) -> FailedFile:
    return FailedFile(document=str(entry.get("document") or ""), error=truncate(str(entry.get("error") or "")))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(answer: Mapping[str, Any], name: str) -> str | None:
    value = answer.get(name)
    return truncate(value) if isinstance(value, str) and value else None


def _with_zone(created_at: str | None) -> str | None:
    """GET leaves out the zone that POST gives for the same moment: UTC."""
    moment = parse_time(created_at)
    return f"{created_at}Z" if moment and datetime.fromisoformat(created_at or "").tzinfo is None else created_at


def _file_ids(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(printable(each[:1_024]) for each in value[:_NAMES_LIMIT] if isinstance(each, str))


def _node_files(value: object) -> tuple[Mapping[str, str], ...] | None:
    nodes = _objects({"nodes": value}, "nodes")
    return None if nodes is None else tuple(map(_node_file, nodes[:_NAMES_LIMIT]))


def _node_file(node: Mapping[str, Any]) -> dict[str, str]:
    return {name: printable(text[:1_024]) for name in _NODE_FIELDS if isinstance(text := node.get(name), str)}
