"""Use case: bring the ledger into line with the platform. Poll, settle, finish, submit again, workflow by workflow.

Level-triggered, like a controller: each step looks at a workflow's item and at the platform, and takes the one step
that follows, whoever began what is there. So an invocation may die at any line, and overlapping ones are harmless.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from aws_lambda_powertools import Logger

from workflow_trigger.clock import iso, parse_time
from workflow_trigger.decisions import STRIKES, Evidence, Found, active_job, blame, find_ours
from workflow_trigger.errors import AttemptLost, Misconfigured, PlatformError, ReconcileFailed
from workflow_trigger.follow import Follower
from workflow_trigger.invocation import Invocation
from workflow_trigger.job import Job
from workflow_trigger.late import is_sure
from workflow_trigger.model import Move, Phase, Row, Status, Workflow
from workflow_trigger.moves import accepted_moves, fault, set_back_by_rows
from workflow_trigger.results import Results
from workflow_trigger.submit import Submitter

_ORPHAN_SECONDS = 120.0  # a row changes before its index entry does; younger ones are not judged
_THREADS = 32

logger = Logger(child=True)


class Reconciler:
    """Follows every workflow that is, or was, of the pool."""

    def __init__(self, invocation: Invocation, results: Results | None = None) -> None:
        self._invocation = invocation
        self._submitter = Submitter(invocation)
        self._follower = Follower(invocation, results)
        self._ledger = invocation.ledger
        self._platform = invocation.platform
        self._settings = invocation.settings
        self._clock = invocation.clock
        self._count = invocation.count

    def run(self, seconds: float) -> None:
        """Tend all workflows, side by side, for about that long while jobs run; less when nothing does.

        Raises:
            ReconcileFailed: a part failed unexpectedly; the others were done nevertheless.
        """
        until = self._clock.now() + timedelta(seconds=seconds)
        workflows = self.workflows()
        with ThreadPoolExecutor(max_workers=min(len(workflows) + 1, _THREADS)) as threads:
            work = [threads.submit(self._guarded, self._tend, workflow, until) for workflow in workflows]
            work.append(threads.submit(self._guarded, self.sweep, len(workflows)))
        failed = [error for each in work if (error := each.result())]
        if failed:
            raise ReconcileFailed(f"{len(failed)} of {len(work)} parts failed, the first with {failed[0]!r}")

    def workflows(self) -> list[Workflow]:
        """All there is to tend."""
        return self._ledger.all_workflows(self._settings.workflow_ids)

    def _guarded[**P](self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> Exception | None:
        """One workflow's trouble stays its own until all are done, and is seen."""
        try:
            work(*args, **kwargs)
        except Exception as error:
            logger.exception("could not be reconciled; the next run tries again")
            self._count("ReconcileErrors", 1)
            return error
        return None

    def _tend(self, workflow: Workflow, until: datetime) -> None:
        """Step by step, until nothing is left to do for the workflow or the time is over."""
        while True:
            before, workflow = workflow, self.step_or_reload(workflow)
            if workflow.phase is Phase.IDLE and workflow.revision == before.revision:
                return
            now = self._clock.now()
            again = now + timedelta(seconds=self._settings.poll_seconds)
            if workflow.phase is Phase.IDLE:
                again = max(again, parse_time(workflow.not_before) or again)
            elif now < until:
                again = min(again, until)  # a last look, so that the next run's first one is not late
            if again > until:
                return
            self._clock.sleep((again - now).total_seconds())
            (workflow,) = self._ledger.workflows([workflow.workflow_id])

    def step_or_reload(self, workflow: Workflow) -> Workflow:
        """One step; when another invocation was faster, the workflow as it is now."""
        try:
            return self.step(workflow)
        except AttemptLost as lost:
            logger.info("another invocation was faster", workflow_id=workflow.workflow_id, reason=str(lost))
            return self._ledger.workflows([workflow.workflow_id])[0]

    def step(self, workflow: Workflow) -> Workflow:
        """What follows from where a workflow stands. A workflow that becomes free gets the next batch at once.

        Raises:
            AttemptLost: another invocation changed the workflow first.
        """
        now = self._clock.now()
        match workflow.phase:
            case Phase.SUBMITTING if workflow.lease_has_ended(now):
                workflow = self._lapse(workflow)
            case Phase.COMMITTED:
                workflow = self._asking(workflow, self._settle)
            case Phase.RUNNING:
                workflow = self._asking(workflow, self._follower.follow)
        takes_more = workflow.workflow_id in self._settings.workflow_ids and self._invocation.has_time()
        return self._submitter.submit(workflow) if takes_more and workflow.is_free(self._clock.now()) else workflow

    def _asking(self, workflow: Workflow, ask: Callable[[Workflow], Workflow]) -> Workflow:
        """A step that puts questions to the platform: without an answer nothing changes, but it is written down."""
        try:
            return ask(workflow)
        except PlatformError as error:
            logger.warning("the platform does not tell", workflow_id=workflow.workflow_id, error=fault(error))
            self._count("Held" if isinstance(error, Misconfigured) else "Unanswered", 1)
            noted = fault(error)
            sender_may_be_waiting = workflow.phase is Phase.COMMITTED and not workflow.lease_has_ended(
                self._clock.now()
            )
            if sender_may_be_waiting:
                return workflow  # to note it would take the item from under the sender's hands
            if {**(workflow.last_error or {}), **noted} == workflow.last_error:
                return workflow
            return self._ledger.save(workflow, replace(workflow, last_error=self._invocation.noted(noted)))

    # -- attempts that did not come to their end -----------------------------------------------------------------------

    def _attempt_rows(self, workflow: Workflow, *states: Status) -> list[Row]:
        rows = self._ledger.rows(workflow.rows).values() if workflow.rows else []
        return [row for row in rows if row.attempt_id == workflow.attempt_id and row.status in states]

    def _lapse(self, workflow: Workflow) -> Workflow:
        """The invocation died, or froze, before it committed: nothing runs, and its next write will be refused."""
        rows = self._attempt_rows(workflow, Status.SUBMITTING)
        error = {"type": "LeaseEnded", "message": "the invocation ended before it had sent the files"}
        logger.warning("lease ended", workflow_id=workflow.workflow_id, attempt_id=workflow.attempt_id, rows=len(rows))
        self._count("SetBack", 1)
        sets: dict[str, Any] = {"error": error}
        if not set_back_by_rows(workflow, rows):
            moves = [Move(key=row.key, to=Status.PENDING, sets=sets) for row in rows]
            after = replace(workflow, setbacks=workflow.setbacks + 1).released(error=self._invocation.noted(error))
            return self._invocation.advance(workflow, after, moves)
        moves = [self._invocation.put_off(row, sets) for row in rows]
        after = replace(workflow, setbacks=workflow.setbacks + (len(rows) > 1))
        not_before = self._invocation.backoff(max(after.setbacks, 1))
        return self._invocation.advance(
            workflow, after.released(not_before=not_before, error=self._invocation.noted(error)), moves
        )

    def _settle(self, workflow: Workflow) -> Workflow:
        """The answer to a complete request was lost: find the job, or make sure that there is none."""
        rows = self._attempt_rows(workflow, Status.SUBMITTING)
        waited = workflow.lease_has_ended(self._clock.now())
        jobs = self._platform.jobs(workflow.workflow_id)
        found = find_ours(
            jobs,
            workflow.baseline,
            [row.key for row in rows],
            self._invocation.documents_since(workflow.committed_at),
        )
        # A doubt that comes back with every try has to end: by then, one of the jobs was theirs.
        tried = all(row.failures >= STRIKES for row in rows)
        if found and (
            found.evidence is Evidence.TOKENS or (waited and (tried or is_sure(self._invocation, workflow, found)))
        ):
            return self._found(workflow, found, rows)
        if not waited:
            return workflow
        return self._nothing_runs(workflow, rows, active_job(jobs), in_doubt=found is not None)

    def _found(self, workflow: Workflow, found: Found, rows: Iterable[Row]) -> Workflow:
        logger.info(
            "settled: accepted", workflow_id=workflow.workflow_id, job_id=found.job.id, evidence=found.evidence.value
        )
        self._count("Settled", 1)
        moves = accepted_moves(found.job, found.rows, inferred=found.evidence is Evidence.INFERRED)
        moves += [Move(key=row.key, to=Status.PENDING) for row in rows if row.key not in found.rows]
        return self._invocation.advance(workflow, workflow.running(found.job, rows=found.rows), moves)

    def _nothing_runs(self, workflow: Workflow, rows: list[Row], active: Job | None, *, in_doubt: bool) -> Workflow:
        """Back into the line, bound to this workflow, where a late acceptance and the next attempt cannot both run.

        `in_doubt`: a job was found that may be theirs, or that of others that wait; these go first now.
        """
        logger.warning("settled: nothing runs", workflow_id=workflow.workflow_id, rows=len(rows))
        self._count("Settled", 1)
        error = dict(workflow.last_error or {"type": "OutcomeUnknown", "message": "no answer, and no job was found"})
        error = {name: error[name] for name in ("type", "message")}
        moves = [self._blamed(row, workflow, error, alone=len(rows) == 1, in_doubt=in_doubt) for row in rows]
        went_alone_before = len(rows) == 1 and rows[0].failures > 0
        setbacks = workflow.setbacks + (not went_alone_before)
        after = replace(workflow, setbacks=setbacks, lost_rows=tuple(row.key for row in rows))
        if active is not None:
            after = after.running(active, rows=())
        else:
            after = after.released(
                not_before=self._invocation.backoff(max(setbacks, 1)), error=self._invocation.noted(error)
            )
        return self._invocation.advance(workflow, after, moves)

    def _blamed(self, row: Row, workflow: Workflow, error: dict[str, str], *, alone: bool, in_doubt: bool) -> Move:
        bound = {"bound_to": workflow.workflow_id, "bound_since": row.bound_since or workflow.baseline.newest}
        if in_doubt:
            return self._invocation.put_off(row, {"error": error, **bound})
        if not alone and workflow.setbacks == 0:
            # Once is bad luck: the same rows go together again before each has to travel alone.
            return Move(key=row.key, to=Status.PENDING, sets={"error": error, **bound})
        counted = blame(row, workflow, alone=alone)
        sets = {
            "error": error,
            **bound,
            # The others go first meanwhile.
            "eligible_at": iso(self._invocation.backoff(counted.failures)),
            "failures": counted.failures,
            "strikes": counted.strikes,
            "accepted_count_then": counted.accepted_count_then,
        }
        if not counted.rejects:
            return Move(key=row.key, to=Status.PENDING, sets=sets)
        self._count("Rejected", 1)
        return Move(key=row.key, to=Status.REJECTED, sets=sets)

    # -- rows that no attempt names ------------------------------------------------------------------------------------

    def sweep(self, workflows: int) -> None:
        """Take up again what lost its workflow's item, say to a hand that deleted it."""
        limit = 25 * (workflows + 1)  # more rows than can be in attempts, so that an orphan is among them
        suspects = [
            row
            for status in (Status.SUBMITTING, Status.SCHEDULED, Status.IN_PROGRESS)
            for row in self._ledger.line.due(status, limit)
        ]
        if not suspects:
            return
        live = {each.attempt_id: each for each in self._ledger.all_workflows(self._settings.workflow_ids)}
        judged_before = iso(self._clock.now() - timedelta(seconds=_ORPHAN_SECONDS))
        orphans = [row for row in suspects if row.attempt_id not in live and row.seen < judged_before]
        for workflow_id in sorted({row.workflow_id for row in orphans if row.workflow_id}):
            self._take_up(workflow_id, [row for row in orphans if row.workflow_id == workflow_id][:25])

    def _take_up(self, workflow_id: str, hints: list[Row]) -> None:
        dead = {row.key: row.attempt_id for row in hints}
        rows = [row for row in self._ledger.rows(list(dead)).values() if row.attempt_id == dead[row.key]]
        for row in rows:
            if row.status is Status.SUBMITTING:
                requeued = self._ledger.requeue(row, bound_to=workflow_id, bound_since=None)
                logger.warning("orphan goes back into the line", object_key=row.key.object, done=requeued)
        running = [row for row in rows if row.status in {Status.SCHEDULED, Status.IN_PROGRESS}]
        (workflow,) = self._ledger.workflows([workflow_id])
        followed_for_nobody = workflow.phase is Phase.RUNNING and not workflow.rows
        for job_id in {row.job_id for row in running}:
            if workflow.phase is Phase.IDLE or (followed_for_nobody and workflow.job_id == job_id):
                self._follow_again(workflow, [row for row in running if row.job_id == job_id])
                return

    def _follow_again(self, workflow: Workflow, rows: list[Row]) -> None:
        job_id = rows[0].job_id
        logger.warning("orphans are followed again", workflow_id=workflow.workflow_id, job_id=job_id, rows=len(rows))
        after = replace(
            workflow,
            phase=Phase.RUNNING,
            attempt_id=f"{job_id}-again",
            started_at=iso(self._clock.now()),
            rows=tuple(row.key for row in rows),
            job_id=job_id,
            job_status=None,
        )
        self._invocation.advance(workflow, after, [Move(key=row.key, to=row.status, seen=row.seen) for row in rows])
