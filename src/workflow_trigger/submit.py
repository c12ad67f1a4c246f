"""Use case: one attempt. Claim a workflow, look, open the objects, stream, commit before the last bytes, record."""

import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from aws_lambda_powertools import Logger

from workflow_trigger.clock import Clock, Deadline
from workflow_trigger.decisions import (
    LEASE_SECONDS,
    REFUSALS_IN_A_ROW,
    SETTLE_SECONDS,
    SLOW_TRIES,
    Evidence,
    Found,
    active_job,
    backoff_seconds,
    find_ours,
    pick_batch,
)
from workflow_trigger.errors import (
    AttemptLost,
    Busy,
    LedgerUnavailable,
    Misconfigured,
    NotSent,
    ObjectDenied,
    ObjectGone,
    ObjectOverwritten,
    OutOfTime,
    PlatformError,
    Refused,
    SourceError,
    Throttled,
    TriggerError,
    Unreachable,
)
from workflow_trigger.items import job_attributes
from workflow_trigger.ledger import Ledger
from workflow_trigger.model import (
    Baseline,
    Job,
    Move,
    Phase,
    Row,
    RowKey,
    Status,
    Workflow,
    iso,
    token_of,
    upload_name,
)
from workflow_trigger.multipart import Encoder, Part
from workflow_trigger.platform_api import Platform
from workflow_trigger.settings import Settings
from workflow_trigger.source import OpenObject, Source

type Count = Callable[[str, int], None]

INPUT_FIELD = "input_files"
MINIMUM_SECONDS = 60.0  # an invocation with less time left begins no attempt
_RESERVE_SECONDS = 20.0  # kept for the answer and the record
_RENEW_SECONDS = LEASE_SECONDS / 3
_HOLD_SECONDS = 300.0
_LOOK_AGAIN_SECONDS = 5.0  # after "busy", when the job that was in the way is gone already
_FULL_SHARE = 0.9  # of an invocation's time, to call a file too slow for it

logger = Logger(child=True)


def fault(error: Exception) -> dict[str, str]:
    """An error as it is kept in the ledger."""
    return {"type": type(error).__name__, "message": str(error)[:256]}


def running_status(job: Job) -> Status:
    """The row's status while its job's end is not confirmed."""
    return Status.SCHEDULED if job.status == "SCHEDULED" else Status.IN_PROGRESS


def job_moves(job: Job, keys: Sequence[RowKey], to: Status, **more: Any) -> list[Move]:
    """Write a job into the rows of its files."""
    alone = len(keys) == 1
    return [Move(key=key, to=to, sets={**job_attributes(job, key, alone=alone), **more}) for key in keys]


class Submitter:
    """Takes rows from the line to the platform, one attempt at a time per workflow."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        source: Source,
        platform: Platform,
        settings: Settings,
        clock: Clock,
        deadline: Deadline,
        count: Count,
    ) -> None:
        self.ledger = ledger
        self.source = source
        self.platform = platform
        self.settings = settings
        self.clock = clock
        self.deadline = deadline
        self.count = count

    def has_time(self) -> bool:
        """Whether the invocation may still begin an attempt."""
        return self.deadline.remaining_seconds() > MINIMUM_SECONDS

    def fill(self, fresh: Sequence[Row]) -> None:
        """Give every free workflow of the pool a batch, as long as rows wait. `fresh` may not be in the index yet."""
        for workflow in self.ledger.workflows(self.settings.workflow_ids):
            if not self.has_time():
                return
            if not workflow.is_free(self.clock.now()):
                continue
            try:
                if self.submit(workflow, fresh) is workflow:
                    return  # nothing waits
            except AttemptLost as lost:
                logger.info("another invocation was faster", workflow_id=workflow.workflow_id, reason=str(lost))

    def submit(self, workflow: Workflow, fresh: Sequence[Row] = ()) -> Workflow:
        """One attempt on a free workflow; returns its new state, or the very argument when no row waits for it.

        Raises:
            AttemptLost: another invocation took the workflow first.
        """
        line = self.line(fresh)
        if not self.pick(workflow, line):
            return workflow
        now = self.clock.now()
        claimed = replace(
            workflow,
            phase=Phase.SUBMITTING,
            attempt_id=uuid.uuid4().hex,
            started_at=iso(now),
            lease_ends_at=iso(now + timedelta(seconds=LEASE_SECONDS)),
        )
        return Attempt(self, self.ledger.save(workflow, claimed)).run(line)

    def line(self, fresh: Sequence[Row]) -> list[Row]:
        """The rows that may go now, oldest first. Those bound elsewhere are at most a batch per workflow."""
        limit = 25 * (len(self.settings.workflow_ids) + 1)
        rows = {row.key: row for row in [*fresh, *self.ledger.waiting(limit)]}
        return sorted(rows.values(), key=lambda row: row.eligible_at or "")

    def pick(self, workflow: Workflow, line: Sequence[Row]) -> list[Row]:
        """The batch that goes next to this workflow."""
        return pick_batch(
            line,
            workflow_id=workflow.workflow_id,
            pool=self.settings.workflow_ids,
            max_files=self.settings.max_files_per_run,
            max_bytes=self.settings.max_bytes_per_run,
        )

    def later(self, seconds: float) -> datetime:
        """The time in so many seconds."""
        return self.clock.now() + timedelta(seconds=seconds)

    def backoff(self, times: int) -> datetime:
        """When to try again after so many failures."""
        return self.later(backoff_seconds(times, random.random()))  # noqa: S311


class Attempt:
    """A claimed workflow and, once attached, the rows that travel with it."""

    def __init__(self, submitter: Submitter, workflow: Workflow) -> None:
        self._all = submitter
        self._ledger = submitter.ledger
        self._platform = submitter.platform
        self._workflow = workflow
        self._rows: list[Row] = []
        self._renew_at = submitter.later(_RENEW_SECONDS)
        self._began_with_seconds = submitter.deadline.remaining_seconds()

    def run(self, line: Sequence[Row]) -> Workflow:
        """Everything from the look at the platform to the record."""
        try:
            jobs = self._platform.jobs(self._workflow.workflow_id)
            late = self._late(jobs, line)
        except PlatformError as error:
            return self._set_back(error)
        if late is not None:
            return self._adopt(late, line)
        active = active_job(jobs)
        if active is not None:
            return self._save(self._workflow.running(active, rows=()))
        self._attach(jobs, line)
        opened = self._open() if self._rows else []
        if not opened:
            return self._workflow if self._workflow.phase is Phase.IDLE else self._save(self._workflow.released())
        try:
            return self._record(self._post(opened))
        except (SourceError, PlatformError) as error:
            return self._came_back(error)
        finally:
            for each in opened:
                each.close()

    # -- before the stream ---------------------------------------------------------------------------------------------

    def _late(self, jobs: Sequence[Job], line: Sequence[Row]) -> Found | None:
        """A job that an earlier attempt on this workflow started after all, later than it was looked for.

        Each row knows since when such a job may be there, however many attempts with other rows came between. A guess,
        where the platform shows no names, is made only right after the loss.
        """
        workflow = self._workflow
        self._report_second_runs([job for job in jobs if workflow.baseline.is_new(job)], line)
        bound = [row for row in line if row.bound_to == workflow.workflow_id]
        if not bound:
            return None
        since = None if any(row.bound_since is None for row in bound) else min(row.bound_since or "" for row in bound)
        known = frozenset(job_id for row in bound for job_id in row.earlier_job_ids)
        baseline = Baseline(ids=known, reaches_back_to=since)
        found = find_ours(jobs, baseline, [row.key for row in bound], self._platform.documents)
        guessed = found is not None and found.evidence is Evidence.INFERRED
        if found is None or (guessed and not (workflow.unsettled and workflow.baseline.is_new(found.job))):
            return None
        return found

    def _report_second_runs(self, new: Sequence[Job], line: Sequence[Row]) -> None:
        """What no client can prevent here, an acceptance later than the next attempt's whole job, is at least told."""
        for key in set(self._workflow.rows) - {row.key for row in line}:
            for job in new:
                if any(token_of(key) in file_id for file_id in job.input_file_ids or ()):
                    self._all.count("LateAcceptance", 1)
                    logger.error("an object ran twice", object_key=key.object, version=key.version, job_id=job.id)

    def _adopt(self, found: Found, line: Sequence[Row]) -> Workflow:
        logger.warning("late acceptance", job_id=found.job.id, evidence=found.evidence.value, rows=len(found.rows))
        self._all.count("LateAcceptance", 1)
        seen = {row.key: row.seen for row in line}
        inferred = found.evidence is Evidence.INFERRED or None
        moves = job_moves(
            found.job,
            found.rows,
            running_status(found.job),
            error=None,
            bound_to=None,
            bound_since=None,
            inferred=inferred,
        )
        after = self._workflow.running(found.job, rows=found.rows)
        return self._advance(after, [replace(move, seen=seen[move.key]) for move in moves])

    def _attach(self, jobs: list[Job], line: Sequence[Row]) -> None:
        """Take the next batch, workflow and rows in one transaction.

        So a row is never in an attempt that its workflow does not know of. What another workflow took meanwhile is
        replaced by the next in the line, so that a batch is as full as it can be.
        """
        taken: frozenset[RowKey] = frozenset()
        baseline = Baseline.of(jobs)
        while batch := self._all.pick(self._workflow, [row for row in line if row.key not in taken]):
            after = replace(self._workflow, rows=tuple(row.key for row in batch), baseline=baseline)
            moves = [Move(key=row.key, to=Status.SUBMITTING, seen=row.seen) for row in batch]
            written, moved_on = self._ledger.advance_all(self._workflow, after, moves)
            if not moved_on:
                self._workflow, self._rows = written, batch
                return
            taken |= moved_on
            if all(row.key in taken for row in line):
                line = [row for row in self._all.line(()) if row.key not in taken]

    def _open(self) -> list[OpenObject]:
        """Open every object; rows whose object cannot be had leave the attempt, the others go on."""
        opened: list[OpenObject] = []
        moves: list[Move] = []
        for row in self._rows:
            try:
                opened.append(self._all.source.open(row.source))
            except SourceError as error:
                moves.append(self._without_object(row, error))
        if moves:
            left = {move.key for move in moves}
            self._rows = [row for row in self._rows if row.key not in left]
            after = replace(self._workflow, rows=tuple(row.key for row in self._rows))
            self._advance(after if opened else after.released(), moves)
        return opened

    def _without_object(self, row: Row, error: SourceError) -> Move:
        self._all.count(type(error).__name__, 1)
        logger.warning("object cannot be read", object_key=row.key.object, version=row.key.version, reason=str(error))
        sets: dict[str, Any] = {"error": fault(error)}
        match error:
            case ObjectGone():
                return Move(key=row.key, to=Status.REJECTED, sets=sets)
            case ObjectOverwritten():
                return Move(key=row.key, to=Status.SUPERSEDED, sets=sets)
            case ObjectDenied():
                again = self._all.later(_HOLD_SECONDS)
            case _:
                again = self._all.backoff(row.failures + 1)
                sets["failures"] = row.failures + 1
        return Move(key=row.key, to=Status.PENDING, sets=sets | {"eligible_at": iso(again)})

    # -- the stream ----------------------------------------------------------------------------------------------------

    def _post(self, opened: Sequence[OpenObject]) -> Job:
        parts = [
            Part(
                field=INPUT_FIELD,
                filename=upload_name(each.version.row_key),
                content_type=each.content_type,
                length_bytes=each.length_bytes,
                chunks=lambda each=each: self._watched(each),  # type: ignore[misc]
            )
            for each in opened
        ]
        encoder = Encoder(parts, boundary=uuid.uuid4().hex)
        return self._platform.run(self._workflow.workflow_id, encoder, self._commit)

    def _watched(self, opened: OpenObject) -> Iterator[bytes]:
        """The object's chunks, as long as there is time; the lease is renewed on the way."""
        try:
            for chunk in opened.chunks():
                if self._all.deadline.remaining_seconds() < _RESERVE_SECONDS:
                    raise OutOfTime(f"{opened.version.row_key.object} cannot be streamed within one invocation")
                if self._all.clock.now() >= self._renew_at:
                    self._renew()
                yield chunk
        except SourceError as error:
            error.row_key = opened.version.row_key
            raise

    def _renew(self) -> None:
        self._save(replace(self._workflow, lease_ends_at=iso(self._all.later(LEASE_SECONDS))))
        self._renew_at = self._all.later(_RENEW_SECONDS)

    def _commit(self, answer_seconds: float) -> None:
        """The last moment at which nothing can be running. An attempt that was taken away ends here."""
        self._save(
            replace(
                self._workflow,
                phase=Phase.COMMITTED,
                committed_at=iso(self._all.clock.now()),
                lease_ends_at=iso(self._all.later(max(answer_seconds + 5, SETTLE_SECONDS))),
            )
        )

    # -- what came back ------------------------------------------------------------------------------------------------

    def _record(self, job: Job) -> Workflow:
        if job.id in self._workflow.baseline.ids:
            raise Busy("The answer names a job that was there before")
        # Logged before anything is written: whatever happens to the database, the id is not lost.
        logger.info("accepted", job_id=job.id, workflow_id=self._workflow.workflow_id, rows=len(self._rows))
        self._all.count("Accepted", len(self._rows))
        try:
            return self._accepted(Found(job=job, rows=self._keys(), evidence=Evidence.TOKENS))
        except (AttemptLost, LedgerUnavailable) as error:
            logger.warning("the next run records this job", job_id=job.id, reason=str(error))
            return self._workflow

    def _accepted(self, found: Found) -> Workflow:
        """The job holds these rows; the others of the attempt go back into the line."""
        inferred = found.evidence is Evidence.INFERRED or None
        moves = job_moves(
            found.job,
            found.rows,
            running_status(found.job),
            error=None,
            bound_to=None,
            bound_since=None,
            inferred=inferred,
        )
        moves += [Move(key=key, to=Status.PENDING) for key in self._keys() if key not in found.rows]
        return self._advance(self._workflow.running(found.job, rows=found.rows), moves)

    def _came_back(self, error: SourceError | PlatformError) -> Workflow:
        """The request ended without a job: what that means for the rows and for the workflow."""
        logger.warning("not accepted", workflow_id=self._workflow.workflow_id, error=fault(error))
        match error:
            case SourceError():
                return self._release(error, [self._after_source_error(row, error) for row in self._rows])
            case Busy():
                return self._busy(error)
            case Throttled() | Misconfigured():
                return self._set_back(error)
            case Refused():
                return self._refused(error)
            case OutOfTime():
                return self._release(error, [self._too_slow(row, error) for row in self._rows])
            case NotSent():
                return self._set_back(error)
        return self._unknown(error)

    def _after_source_error(self, row: Row, error: SourceError) -> Move:
        if error.row_key == row.key:
            return self._without_object(row, error)
        return Move(key=row.key, to=Status.PENDING)

    def _busy(self, error: Busy) -> Workflow:
        """The files were dropped. Perhaps for a job that an earlier, lost answer of ours had started."""
        back = [Move(key=key, to=Status.PENDING) for key in self._keys()]
        try:
            jobs = self._platform.jobs(self._workflow.workflow_id)
            found = find_ours(jobs, self._workflow.baseline, self._keys(), self._platform.documents)
        except PlatformError as failed:
            return self._release(failed, back, not_before=self._all.backoff(1))
        lost_before = all(row.bound_to == self._workflow.workflow_id for row in self._rows)
        if found and (found.evidence is Evidence.TOKENS or lost_before):
            self._all.count("LateAcceptance", 1)
            return self._accepted(found)
        self._all.count("Busy", 1)
        active = active_job(jobs)
        if active is not None:
            return self._advance(self._workflow.running(active, rows=()), back)
        return self._release(error, back, not_before=self._all.later(_LOOK_AGAIN_SECONDS))

    def _refused(self, error: Refused) -> Workflow:
        if len(self._rows) > 1:
            moves = [
                Move(key=row.key, to=Status.PENDING, sets={"failures": row.failures + 1, "error": fault(error)})
                for row in self._rows
            ]
            return self._release(error, moves)
        (row,) = self._rows
        if self._workflow.refusals >= REFUSALS_IN_A_ROW:
            # So many different files in a row: the workflow is at fault, not they. Another one is tried next.
            self._all.count("Held", 1)
            again = self._all.later(_HOLD_SECONDS)
            move = Move(key=row.key, to=Status.PENDING, sets={"eligible_at": iso(again), "error": fault(error)})
            return self._release(error, [move], not_before=again)
        self._all.count("Rejected", 1)
        after = replace(self._workflow, refusals=self._workflow.refusals + 1)
        move = Move(key=row.key, to=Status.REJECTED, sets={"error": fault(error)})
        return self._advance(after.released(error=self._noted(error)), [move])

    def _too_slow(self, row: Row, error: OutOfTime) -> Move:
        full = self._began_with_seconds >= _FULL_SHARE * self._all.deadline.total_seconds
        tries = row.slow_tries + 1 if full and len(self._rows) == 1 else row.slow_tries
        sets: dict[str, Any] = {"error": fault(error), "slow_tries": tries, "failures": row.failures + 1}
        if tries >= SLOW_TRIES:
            self._all.count("Rejected", 1)
            return Move(key=row.key, to=Status.REJECTED, sets=sets)
        return Move(key=row.key, to=Status.PENDING, sets=sets)

    def _set_back(self, error: PlatformError) -> Workflow:
        """Nothing runs: the rows, if any are attached yet, go back, and the workflow waits."""
        sets: dict[str, Any] = {"error": fault(error)}
        moves = [Move(key=row.key, to=Status.PENDING, sets=sets) for row in self._rows]
        match error:
            case Throttled():
                return self._release(error, moves, not_before=self._all.later(error.delay_seconds))
            case Misconfigured():
                self._all.count("Held", 1)
                return self._release(error, moves, not_before=self._all.later(error.hold_seconds))
        self._all.count("SetBack", 1)
        setbacks = self._workflow.setbacks + 1
        if setbacks > 1 and not isinstance(error, Unreachable):
            moves = [
                replace(
                    Move(key=row.key, to=Status.PENDING),
                    sets=sets | {"failures": row.failures + 1, "eligible_at": iso(self._all.backoff(row.failures + 1))},
                )
                for row in self._rows
            ]
        self._workflow = replace(self._workflow, setbacks=setbacks)
        return self._release(error, moves, not_before=self._all.backoff(setbacks))

    def _unknown(self, error: Exception) -> Workflow:
        """The rows stay as they are; the job, if there is one, is looked for from now on."""
        self._all.count("OutcomeUnknown", 1)
        committed = datetime.fromisoformat(self._workflow.committed_at or iso(self._all.clock.now()))
        ends = max(committed + timedelta(seconds=SETTLE_SECONDS), self._all.clock.now())
        return self._save(replace(self._workflow, lease_ends_at=iso(ends), last_error=self._noted(error)))

    # -- writing -------------------------------------------------------------------------------------------------------

    def _keys(self) -> tuple[RowKey, ...]:
        return tuple(row.key for row in self._rows)

    def _noted(self, error: Exception) -> dict[str, str]:
        return fault(error) | {"at": iso(self._all.clock.now())}

    def _release(self, error: TriggerError, moves: list[Move], *, not_before: datetime | None = None) -> Workflow:
        return self._advance(self._workflow.released(not_before=not_before, error=self._noted(error)), moves)

    def _save(self, after: Workflow) -> Workflow:
        self._workflow = self._ledger.save(self._workflow, after)
        return self._workflow

    def _advance(self, after: Workflow, moves: list[Move]) -> Workflow:
        if not moves:
            return self._save(after)
        self._workflow, left_out = self._ledger.advance(self._workflow, after, moves)
        for key in left_out:
            logger.info("row has moved on", object_key=key.object, version=key.version)
        return self._workflow
