"""The platform's answers, read with distrust: statuses by what they mean, bodies by their shape. Pure."""

import json
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from workflow_trigger.clock import parse_time
from workflow_trigger.errors import (
    KeyRejected,
    Misconfigured,
    NotFound,
    PlatformError,
    Refused,
    Throttled,
    harmless,
    shorten,
)
from workflow_trigger.job import Job

_THROTTLE_DEFAULT_SECONDS = 30.0
_THROTTLE_LIMIT_SECONDS = 900.0
_REFUSALS = {400, 413, 415, 422}
_GIVEN_UP = {408, 499}  # by something on the way, whatever becomes of the request


def parsed(content: bytes) -> Any:
    """JSON.

    Raises:
        ValueError: it is none.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def refusal_of(status: int, headers: Mapping[str, str], content: bytes) -> PlatformError | None:
    """The error that an HTTP status stands for; None where the status alone does not tell what happened."""
    reason = f"HTTP {status}: {reason_of(content)}"
    if status == HTTPStatus.UNAUTHORIZED:
        return KeyRejected(
            f"{reason} (a key of this workspace is needed; keys of the Transform product do not work here)"
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Throttled(reason, retry_after_seconds(headers, content))
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(reason)
    if status in _REFUSALS:
        return Refused(reason)
    if 300 <= status < 400:
        return Misconfigured(f"HTTP {status}: a redirect, which is not followed; check UnstructuredApiUrl")
    if 400 <= status < 500 and status not in _GIVEN_UP:
        return Misconfigured(reason)
    return None


def reason_of(content: bytes) -> str:
    """What the platform says, for people; its errors come as `detail`, a text or FastAPI's list."""
    try:
        detail = parsed(content)["detail"]
        if isinstance(detail, list):
            detail = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in detail)
    except (ValueError, LookupError, TypeError):
        detail = content[:2_000].decode("utf-8", "replace")
    return shorten(str(detail)) or "no reason given"


def retry_after_seconds(headers: Mapping[str, str], content: bytes) -> float:
    """`Retry-After` as seconds or as a date, else `retry_after` in the body, else half a minute; at most 15 minutes."""
    text = headers.get("Retry-After", "")
    seconds = _seconds(text)
    if seconds is None and text:
        try:
            moment = parsedate_to_datetime(text)
            seconds = (moment - datetime.now(moment.tzinfo)).total_seconds()
        except (ValueError, OverflowError):
            seconds = None
    if seconds is None:
        try:
            seconds = _seconds(parsed(content)["retry_after"])
        except (ValueError, LookupError, TypeError):
            seconds = None
    return min(max(_THROTTLE_DEFAULT_SECONDS if seconds is None else seconds, 1.0), _THROTTLE_LIMIT_SECONDS)


def _seconds(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number == number else None  # noqa: PLR0124  NaN


def job_from(answer: Any) -> Job | None:
    """JobInformation, field by field; None where it has no id."""
    if not isinstance(answer, Mapping):
        return None
    job_id = answer.get("id")
    if not isinstance(job_id, str) or not 0 < len(job_id) <= 256 or not job_id.isprintable():
        return None
    return Job(
        id=job_id,
        workflow_id=_text(answer, "workflow_id"),
        workflow_name=_text(answer, "workflow_name"),
        status=_text(answer, "status") or "UNKNOWN",
        created_at=_with_zone(_text(answer, "created_at")),
        runtime=_text(answer, "runtime"),
        job_type=_text(answer, "job_type"),
        input_file_ids=_file_ids(answer.get("input_file_ids")),
        output_node_files=_node_files(answer.get("output_node_files")),
    )


_ENTRIES_LIMIT = 10_000  # of all files of a job together


def _text(answer: Mapping[str, Any], name: str) -> str | None:
    value = answer.get(name)
    return shorten(value) if isinstance(value, str) and value else None


def _with_zone(created_at: str | None) -> str | None:
    """GET leaves out the zone that POST gives for the same moment: UTC."""
    try:
        naive = created_at is not None and datetime.fromisoformat(created_at).tzinfo is None
    except ValueError:
        naive = False
    return f"{created_at}Z" if naive and parse_time(created_at) else created_at


def _file_ids(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(harmless(each[:1_024]) for each in value[:_ENTRIES_LIMIT] if isinstance(each, str))


def _node_files(value: object) -> tuple[Mapping[str, str], ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(
        {harmless(name[:256]): harmless(text[:1_024]) for name, text in each.items() if name and isinstance(text, str)}
        for each in value[:_ENTRIES_LIMIT]
        if isinstance(each, Mapping)
    )
