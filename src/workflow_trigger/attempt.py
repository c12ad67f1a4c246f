"""One attempt: look, attach rows, open the objects, stream, commit before the last bytes, record what came back."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from aws_lambda_powertools import Logger

from workflow_trigger.clock import iso
from workflow_trigger.decisions import (
    LEASE_SECONDS,
    REFUSALS_IN_A_ROW,
    SETTLE_SECONDS,
    SLOW_TRIES,
    Evidence,
    Found,
    active_job,
    find_ours,
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
from workflow_trigger.invocation import Invocation
from workflow_trigger.job import Baseline, Job
from workflow_trigger.late import LostRows, is_sure, report_second_runs
from workflow_trigger.model import Move, Phase, Row, Status, Workflow
from workflow_trigger.moves import accepted_moves, fault, set_back_by_rows
from workflow_trigger.multipart import Encoder, Part
from workflow_trigger.objects import RowKey, upload_name
from workflow_trigger.platform_api import ANSWER_SECONDS
from workflow_trigger.source import OpenObject

INPUT_FIELD = "input_files"
_RESERVE_SECONDS = ANSWER_SECONDS + 20.0  # kept for the answer and the record
_RENEW_SECONDS = LEASE_SECONDS / 3
_HOLD_SECONDS = 300.0
_FULL_SHARE = 0.9  # of an invocation's time, to call a file too slow for it

logger = Logger(child=True)


class Attempt:
    """A claimed workflow and, once attached, the rows that travel with it."""

    def __init__(self, invocation: Invocation, workflow: Workflow) -> None:
        self._invocation = invocation
        self._ledger = invocation.ledger
        self._platform = invocation.platform
        self._workflow = workflow
        self._rows: list[Row] = []
        self._lost = LostRows(invocation, workflow, self._keep_lease)
        self._renew_at = invocation.later(_RENEW_SECONDS)
        self._began_with_seconds = invocation.deadline.remaining_seconds()

    def run(self, line: Sequence[Row]) -> Workflow:
        """Everything from the look at the platform to the record."""
        try:
            jobs = self._platform.jobs(self._workflow.workflow_id)
            report_second_runs(self._invocation, self._workflow, jobs)
            late = self._lost.late_job(jobs, line)
        except PlatformError as error:
            return self._set_back(error)
        if late is not None:
            return self._adopt(late)
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
            _close(opened)

    # -- before the stream ---------------------------------------------------------------------------------------------

    def _adopt(self, found: Found) -> Workflow:
        """An earlier attempt's job: its rows wait in the line, and those of this attempt go back into it."""
        logger.warning("late acceptance", job_id=found.job.id, evidence=found.evidence.value, rows=len(found.rows))
        self._invocation.count("LateAcceptance", 1)
        moves = accepted_moves(found.job, found.rows, inferred=found.evidence is Evidence.INFERRED)
        keys = self._keys()
        moves = [move if move.key in keys else replace(move, seen=self._lost.rows[move.key].seen) for move in moves]
        back = [Move(key=key, to=Status.PENDING) for key in keys if key not in found.rows]
        return self._advance(self._workflow.running(found.job, rows=found.rows), [*moves, *back])

    def _attach(self, jobs: list[Job], line: Sequence[Row]) -> None:
        """Take the next batch, workflow and rows in one transaction.

        So a row is never in an attempt that its workflow does not know of. What another workflow took meanwhile is
        replaced by the next in the line, so that a batch is as full as it can be.
        """
        taken: frozenset[RowKey] = frozenset()
        baseline = Baseline.of(jobs)
        while batch := self._invocation.pick(self._workflow, [row for row in line if row.key not in taken]):
            after = replace(
                self._workflow,
                rows=tuple(row.key for row in batch),
                baseline=baseline,
                lease_ends_at=iso(self._invocation.later(LEASE_SECONDS)),
            )
            moves = [Move(key=row.key, to=Status.SUBMITTING, seen=row.seen) for row in batch]
            written, moved_on = self._ledger.advance_all(self._workflow, after, moves)
            if not moved_on:
                self._workflow, self._rows = written, batch
                return
            taken |= moved_on
            if all(row.key in taken for row in line):
                # Not those in which a lost answer may still turn up: for them the jobs have not been looked at.
                line = [row for row in self._invocation.line(()) if row.key not in taken and row.bound_to is None]

    def _open(self) -> list[OpenObject]:
        """Open every object; rows whose object cannot be had leave the attempt, the others go on."""
        opened: list[OpenObject] = []
        moves: list[Move] = []
        for row in self._rows:
            try:
                opened.append(self._invocation.source.open(row.source))
            except SourceError as error:
                moves.append(self._without_object(row, error))
        if moves:
            left = {move.key for move in moves}
            self._rows = [row for row in self._rows if row.key not in left]
            after = replace(self._workflow, rows=tuple(row.key for row in self._rows))
            try:
                self._advance(after if opened else after.released(), moves)
            except BaseException:
                _close(opened)
                raise
        return opened

    def _without_object(self, row: Row, error: SourceError) -> Move:
        self._invocation.count(type(error).__name__, 1)
        # The same bytes may have come back since, with an event that found this attempt: then the row waits for it.
        known = row.source.sequencer or ""
        logger.warning("object cannot be read", object_key=row.key.object, version=row.key.version, reason=str(error))
        sets: dict[str, Any] = {"error": fault(error)}
        match error:
            case ObjectGone():
                self._invocation.count("Rejected", 1)
                return Move(key=row.key, to=Status.REJECTED, sets=sets, sequencer=known)
            case ObjectOverwritten():
                self._invocation.count("Superseded", 1)
                return Move(key=row.key, to=Status.SUPERSEDED, sets=sets, sequencer=known)
            case ObjectDenied():
                self._invocation.count("Held", 1)
                again = self._invocation.later(_HOLD_SECONDS)
            case _:
                again = self._invocation.backoff(row.failures + 1)
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
                if self._invocation.deadline.remaining_seconds() < _RESERVE_SECONDS:
                    raise OutOfTime(f"{opened.version.row_key.object} cannot be streamed within one invocation")
                self._keep_lease()
                yield chunk
        except SourceError as error:
            error.row_key = opened.version.row_key
            raise

    def _keep_lease(self) -> None:
        if self._workflow.phase is Phase.SUBMITTING and self._invocation.clock.now() >= self._renew_at:
            self._save(replace(self._workflow, lease_ends_at=iso(self._invocation.later(LEASE_SECONDS))))
            self._renew_at = self._invocation.later(_RENEW_SECONDS)

    def _commit(self, answer_seconds: float) -> None:
        """The last moment at which nothing can be running. An attempt that was taken away ends here."""
        self._save(
            replace(
                self._workflow,
                phase=Phase.COMMITTED,
                committed_at=iso(self._invocation.clock.now()),
                lease_ends_at=iso(self._invocation.later(max(answer_seconds + 5, SETTLE_SECONDS))),
            )
        )

    # -- what came back ------------------------------------------------------------------------------------------------

    def _record(self, job: Job) -> Workflow:
        if job.id in self._workflow.baseline.ids:
            raise Busy("The answer names a job that was there before")
        # Logged before anything is written: whatever happens to the database, the id is not lost.
        logger.info("accepted", job_id=job.id, workflow_id=self._workflow.workflow_id, rows=len(self._rows))
        self._invocation.count("Accepted", len(self._rows))
        try:
            return self._accepted(job, self._keys())
        except AttemptLost:
            # A look at the platform may have been noted on the item meanwhile, or have found the job.
            (current,) = self._ledger.workflows([self._workflow.workflow_id])
            ours = current.attempt_id == self._workflow.attempt_id
            if ours and current.phase is Phase.COMMITTED:
                self._workflow = current
                return self._accepted(job, self._keys())
            if ours and current.job_id == job.id:
                # What the answer tells of the files may be told by nothing else.
                self._workflow = current
                found = replace(job, status=current.job_status or job.status)
                return self._advance(current, accepted_moves(found, current.rows, inferred=False))
            logger.warning("settled by another invocation", job_id=job.id)
            return current
        except LedgerUnavailable as error:
            logger.warning("the next run records this job", job_id=job.id, reason=str(error))
            return self._workflow

    def _accepted(self, job: Job, keys: tuple[RowKey, ...], *, inferred: bool = False) -> Workflow:
        """The job holds these rows; the others of the attempt go back into the line."""
        moves = accepted_moves(job, keys, inferred=inferred)
        moves += [Move(key=key, to=Status.PENDING) for key in self._keys() if key not in keys]
        return self._advance(self._workflow.running(job, rows=keys), moves)

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
        self._invocation.count("Busy", 1)
        workflow = replace(self._workflow, setbacks=self._workflow.setbacks + 1)
        bound = {"bound_to": workflow.workflow_id, "bound_since": workflow.baseline.newest}
        unclear = [Move(key=row.key, to=Status.PENDING, sets=bound) for row in self._rows]
        again = self._invocation.backoff(workflow.setbacks)
        try:
            jobs = self._platform.jobs(workflow.workflow_id)
            documents = self._invocation.documents_since(workflow.started_at)
            # This request started nothing: a new job is that of rows which were lost before.
            late = find_ours(jobs, workflow.baseline, self._lost.last, documents)
            found = find_ours(jobs, workflow.baseline, self._keys(), documents)
        except PlatformError as failed:
            return self._release(failed, unclear, not_before=again)
        named_alone = found and found.evidence is Evidence.TOKENS and late and late.evidence is Evidence.INFERRED
        if late and not named_alone and is_sure(self._invocation, workflow, late, held=self._rows):
            return self._adopt(late)
        lost_before = all(row.bound_to == workflow.workflow_id for row in self._rows)
        if found and (
            found.evidence is Evidence.TOKENS or (lost_before and is_sure(self._invocation, workflow, found))
        ):
            self._invocation.count("LateAcceptance", 1)
            return self._accepted(found.job, found.rows, inferred=found.evidence is Evidence.INFERRED)
        active = active_job(jobs)
        if active is not None:
            back = [Move(key=key, to=Status.PENDING) for key in self._keys()]
            return self._advance(self._workflow.running(active, rows=()), back)
        self._workflow = workflow
        return self._release(error, unclear, not_before=again)

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
            self._invocation.count("Held", 1)
            again = self._invocation.later(_HOLD_SECONDS)
            move = Move(key=row.key, to=Status.PENDING, sets={"eligible_at": iso(again), "error": fault(error)})
            return self._release(error, [move], not_before=again)
        self._invocation.count("Rejected", 1)
        after = replace(self._workflow, refusals=self._workflow.refusals + 1)
        move = Move(key=row.key, to=Status.REJECTED, sets={"error": fault(error)})
        return self._advance(after.released(error=self._invocation.noted(fault(error))), [move])

    def _too_slow(self, row: Row, error: OutOfTime) -> Move:
        full = self._began_with_seconds >= _FULL_SHARE * self._invocation.deadline.total_seconds
        tries = row.slow_tries + 1 if full and len(self._rows) == 1 else row.slow_tries
        sets: dict[str, Any] = {"error": fault(error), "slow_tries": tries, "failures": row.failures + 1}
        if tries >= SLOW_TRIES:
            self._invocation.count("Rejected", 1)
            return Move(key=row.key, to=Status.REJECTED, sets=sets)
        return Move(key=row.key, to=Status.PENDING, sets=sets)

    def _set_back(self, error: PlatformError) -> Workflow:
        """Nothing runs: the rows, if any are attached yet, go back, and the workflow waits."""
        sets: dict[str, Any] = {"error": fault(error)}
        moves = [Move(key=row.key, to=Status.PENDING, sets=sets) for row in self._rows]
        match error:
            case Throttled():
                return self._release(error, moves, not_before=self._invocation.later(error.delay_seconds))
            case Misconfigured():
                self._invocation.count("Held", 1)
                return self._release(error, moves, not_before=self._invocation.later(error.hold_seconds))
        self._invocation.count("SetBack", 1)
        blamed = (
            bool(self._rows) and not isinstance(error, Unreachable) and set_back_by_rows(self._workflow, self._rows)
        )
        if blamed:
            moves = [self._invocation.put_off(row, sets) for row in self._rows]
        setbacks = self._workflow.setbacks + (not blamed or len(self._rows) > 1)
        self._workflow = replace(self._workflow, setbacks=setbacks)
        return self._release(error, moves, not_before=self._invocation.backoff(max(setbacks, 1)))

    def _unknown(self, error: Exception) -> Workflow:
        """The rows stay as they are; the job, if there is one, is looked for from now on."""
        self._invocation.count("OutcomeUnknown", 1)
        committed = datetime.fromisoformat(self._workflow.committed_at or iso(self._invocation.clock.now()))
        ends = max(committed + timedelta(seconds=SETTLE_SECONDS), self._invocation.clock.now())
        return self._save(
            replace(self._workflow, lease_ends_at=iso(ends), last_error=self._invocation.noted(fault(error)))
        )

    # -- writing -------------------------------------------------------------------------------------------------------

    def _keys(self) -> tuple[RowKey, ...]:
        return tuple(row.key for row in self._rows)

    def _release(self, error: TriggerError, moves: list[Move], *, not_before: datetime | None = None) -> Workflow:
        return self._advance(
            self._workflow.released(not_before=not_before, error=self._invocation.noted(fault(error))), moves
        )

    def _save(self, after: Workflow) -> Workflow:
        self._workflow = self._ledger.save(self._workflow, after)
        return self._workflow

    def _advance(self, after: Workflow, moves: list[Move]) -> Workflow:
        if not moves:
            return self._save(after)
        written, prevented = self._ledger.advance_all(self._workflow, after, moves)
        if prevented:
            # A later event came for the same bytes: the row goes back into the line for it. Or it is not ours any more.
            back = [Move(key=move.key, to=Status.PENDING) if move.sequencer is not None else move for move in moves]
            written = self._invocation.advance(self._workflow, after, back)
        self._workflow = written
        return written


def _close(opened: Sequence[OpenObject]) -> None:
    for each in opened:
        each.close()
