"""What to do next, as pure functions of what is known: no calls, no clock, no chance inside."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from workflow_trigger.job import JOB_ACTIVE, JOB_ENDED, Baseline, Details, FailedFile, Job
from workflow_trigger.model import Row, Status, Workflow
from workflow_trigger.objects import RowKey, token_of, upload_name

LEASE_SECONDS = 60.0  # renewed while the stream goes on
SETTLE_SECONDS = 60.0  # a job that a lost answer started is looked for at least this long
DOUBT_SECONDS = 900.0  # for a job that vanished, or whose end cannot be confirmed
SILENCE_SECONDS = 3_600.0  # for details that are not given at all, while the platform answers otherwise
ABSENCE_SECONDS = 20.0  # for an output that the platform does not have, right after the job's end
STRIKES = 5
SLOW_TRIES = 2
REFUSALS_IN_A_ROW = 3
_ASKED_JOBS = 10  # the vendor answers twelve such questions a minute
_BACKOFF_LIMIT_SECONDS = 900.0


def backoff_seconds(times: int, jitter: float) -> float:
    """The wait before another try; `jitter` from 0 to 1 spreads it over the upper half."""
    return min(2.0 ** min(times, 12), _BACKOFF_LIMIT_SECONDS) * (0.5 + jitter / 2)


def pick_batch(
    line: Sequence[Row],
    *,
    workflow_id: str,
    pool: Iterable[str],
    lost: Collection[RowKey],
    max_files: int,
    max_bytes: int,
) -> list[Row]:
    """The rows that go next, oldest first: at most so many files and bytes, the first always.

    A row that failed before travels alone. A row in which a lost answer may still turn up waits for the workflow that
    was asked: there, the platform's own one-job rule keeps the two from running side by side. It goes with those alone
    that were lost with it (`lost`, the workflow's last): so a job that has one file of an attempt has them all.
    """
    others = set(pool) - {workflow_id}
    open_to_us = [row for row in line if row.bound_to not in others]
    if not open_to_us:
        return []
    first, *rest = open_to_us
    if first.failures or (first.bound_to and first.key not in lost):
        return [first]
    mates = [row for row in rest if not row.failures and (row.key in lost if first.bound_to else row.bound_to is None)]
    batch = [first]
    total = first.source.size_bytes or 0
    for row in mates:
        total += row.source.size_bytes or 0
        if len(batch) == max_files or total > max_bytes:
            break
        batch.append(row)
    return batch


# -- a lost answer -----------------------------------------------------------------------------------------------------


class Evidence(Enum):
    """Why a job is taken for ours."""

    TOKENS = "its file ids, or its documents, carry our tokens"
    INFERRED = "it is the only new job of a workflow that nobody else uses"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A job that an attempt of ours started, and the attempt's rows that it holds."""

    job: Job
    rows: tuple[RowKey, ...]
    evidence: Evidence


def find_named(
    jobs: Iterable[Job],
    baseline: Baseline,
    rows: Sequence[RowKey],
    documents: Callable[[str], Sequence[str]] = lambda _job_id: (),
) -> Found | None:
    """A job that was not there before and whose files, by id or by document, carry the tokens of some of these rows."""
    for job, names in _named(jobs, baseline, documents):
        named = tuple(key for key in rows if any(token_of(key) in name for name in names or ()))
        if named:
            return Found(job=job, rows=named, evidence=Evidence.TOKENS)
    return None


def find_ours(
    jobs: Iterable[Job], baseline: Baseline, rows: Sequence[RowKey], documents: Callable[[str], Sequence[str]]
) -> Found | None:
    """The job of rows that only ever went together, if the list shows one.

    Only jobs that were not there before the attempt count. Their file ids tell by our tokens; where the ids are
    hidden, `documents(job_id)` may tell; and where nothing tells, a single new job is ours. A request is accepted as a
    whole: one token of ours, and all of these files are in the job, whatever part of them is shown.
    """
    if not rows:
        return None
    hidden: list[Job] = []
    unasked = False
    for job, names in _named(jobs, baseline, documents):
        if any(token_of(key) in name for key in rows for name in names or ()):
            return Found(job=job, rows=tuple(rows), evidence=Evidence.TOKENS)
        if not names:
            hidden.append(job)
        unasked = unasked or names is None
    if len(hidden) == 1 and not unasked:
        return Found(job=hidden[0], rows=tuple(rows), evidence=Evidence.INFERRED)
    return None


def _named(
    jobs: Iterable[Job], baseline: Baseline, documents: Callable[[str], Sequence[str]]
) -> Iterator[tuple[Job, Sequence[str] | None]]:
    """The new jobs, newest first, with the names that their files have; None where they were not asked for.

    Of the newest alone documents are asked for: those of a workflow that has had thousands would take an hour.
    """
    by_age = sorted(filter(baseline.is_new, jobs), key=lambda job: job.created_at or "", reverse=True)
    for place, job in enumerate(by_age):
        yield job, job.input_file_ids or (documents(job.id) if place < _ASKED_JOBS else None)


def active_job(jobs: Iterable[Job]) -> Job | None:
    """The job that says that it holds the workflow, if any."""
    return next((job for job in jobs if job.is_active), None)


# -- the end of a job --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The true end of one file. `error` is None for COMPLETED."""

    status: Status
    error: Mapping[str, str] | None = None


_TOKEN = re.compile(r"-([0-9a-f]{16})(?![0-9a-f])")
_DETAILS_ENDED = frozenset({"SUCCESS", "COMPLETED_WITH_ERRORS", "STOPPED", "FAILED"})


def has_ended(job: Job, details: Details) -> bool:
    """Whether the job and its details agree that it ended; of a status that is not known, the details decide."""
    job_ended = job.status in JOB_ENDED or job.status not in JOB_ACTIVE
    return job_ended and details.processing_status in _DETAILS_ENDED


def outcomes(job: Job, details: Details, failed: Sequence[FailedFile], rows: Sequence[RowKey]) -> dict[RowKey, Outcome]:
    """What became of each file of a job that has ended: the worse of what the job and its details say."""
    said = {job.status, details.processing_status}
    if "STOPPED" in said:
        stopped = Outcome(status=Status.STOPPED, error=_error("JobStopped", details.message or "the job was stopped"))
        return dict.fromkeys(rows, stopped)
    if "FAILED" in said:
        reasons = _reasons(failed, rows)
        return {
            key: Outcome(
                status=Status.FAILED,
                error=_error("JobFailed", reasons.get(key) or details.message or "the platform gives no reason"),
            )
            for key in rows
        }
    return _by_file(details, failed, rows)


def _by_file(details: Details, failed: Sequence[FailedFile], rows: Sequence[RowKey]) -> dict[RowKey, Outcome]:
    reasons = _reasons(failed, rows)
    strays = _strays(failed, rows)
    silent = details.processing_status == "COMPLETED_WITH_ERRORS" and not failed
    result: dict[RowKey, Outcome] = {}
    for key in rows:
        if key in reasons:
            result[key] = Outcome(status=Status.FAILED, error=_error("FileFailed", reasons[key]))
        elif len(rows) == 1 and strays:
            result[key] = Outcome(status=Status.FAILED, error=_error("FileFailed", strays[0].error))
        elif strays or silent:
            text = (
                strays[0].error if strays else details.message or "some files failed; the platform does not say which"
            )
            result[key] = Outcome(status=Status.FAILED, error=_error("Unattributed", text))
        else:
            result[key] = Outcome(status=Status.COMPLETED)
    return result


def _strays(failed: Sequence[FailedFile], rows: Sequence[RowKey]) -> list[FailedFile]:
    """The failed files that may be any of these: nothing tells whose they are.

    A token of none of them is that of another row, which was lost with them, ran again, and has its own end.
    """
    like_ours = {token for key in rows for token in _TOKEN.findall(upload_name(key))}
    return [
        each
        for each in failed
        if not any(token_of(key) in each.document for key in rows)
        and like_ours.issuperset(_TOKEN.findall(each.document))
    ]


def _reasons(failed: Sequence[FailedFile], rows: Sequence[RowKey]) -> dict[RowKey, str]:
    return {
        key: each.error or "the platform gives no reason"
        for key in rows
        for each in failed
        if token_of(key) in each.document
    }


def _error(kind: str, message: str) -> dict[str, str]:
    return {"type": kind, "message": message}


# -- failures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Blame:
    """What an attempt that came to nothing means for a row that was sent completely."""

    failures: int
    strikes: int
    accepted_count_then: int
    rejects: bool


def blame(row: Row, workflow: Workflow, *, alone: bool) -> Blame:
    """Count a failure against a row, but only if its workflow has accepted another file since the last that counted.

    So an outage of any length rejects nothing: while nothing is accepted, nothing counts twice.
    """
    accepted = workflow.accepted_count
    counts = row.accepted_count_then is None or accepted != row.accepted_count_then
    strikes = row.strikes + 1 if counts else row.strikes
    return Blame(
        failures=row.failures + 1,
        strikes=strikes,
        accepted_count_then=accepted,
        rejects=alone and counts and strikes >= STRIKES,
    )


def is_overdue(since: datetime | None, now: datetime, seconds: float = DOUBT_SECONDS) -> bool:
    """Whether a doubt about a job has lasted too long to go on waiting."""
    return since is not None and now - since >= timedelta(seconds=seconds)
