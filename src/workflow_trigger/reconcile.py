"""Use case: bring the ledger into line with the platform. Poll, settle, finish, submit again, workflow by workflow.

Level-triggered, like a controller: each step looks at a workflow's item and at the platform, and takes the one step
that follows, whoever began what is there. So an invocation may die at any line, and overlapping ones are harmless.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from aws_lambda_powertools import Logger

from workflow_trigger.decisions import (
    Evidence,
    Found,
    Outcome,
    active_job,
    blame,
    find_ours,
    has_ended,
    is_overdue,
    outcomes,
)
from workflow_trigger.errors import AttemptLost, Misconfigured, NotFound, PlatformError
from workflow_trigger.items import job_attributes
from workflow_trigger.model import (
    JOB_ACTIVE,
    JOB_ENDED,
    FailedFile,
    Job,
    Move,
    Phase,
    Row,
    RowKey,
    Status,
    Workflow,
    iso,
    parse_time,
)
from workflow_trigger.results import Results
from workflow_trigger.submit import Submitter, fault, job_moves, running_status

_ORPHAN_SECONDS = 120.0  # a row changes before its index entry does; younger ones are not judged
_THREADS = 32

logger = Logger(child=True)


class Reconciler:
    """Follows every workflow that is, or was, of the pool."""

    def __init__(self, submitter: Submitter, results: Results | None = None) -> None:
        self._submitter = submitter
        self._results = results
        self._ledger = submitter.ledger
        self._platform = submitter.platform
        self._settings = submitter.settings
        self._clock = submitter.clock
        self._count = submitter.count

    def run(self, seconds: float) -> None:
        """Tend all workflows, side by side, for about that long while jobs run; less when nothing does."""
        until = self._clock.now() + timedelta(seconds=seconds)
        workflows = self.workflows()
        with ThreadPoolExecutor(max_workers=min(len(workflows) + 1, _THREADS)) as threads:
            work = [threads.submit(self._guarded, self._tend, workflow, until) for workflow in workflows]
            work.append(threads.submit(self._guarded, self.sweep, len(workflows)))
        for each in work:
            each.result()

    def workflows(self) -> list[Workflow]:
        """All there is to tend."""
        return self._ledger.all_workflows(self._settings.workflow_ids)

    def _guarded[**P](self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """One workflow's trouble stays its own, and is seen."""
        try:
            work(*args, **kwargs)
        except Exception:
            logger.exception("could not be reconciled; the next run tries again")
            self._count("ReconcileErrors", 1)

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
                workflow = self._asking(workflow, self._follow)
        takes_more = workflow.workflow_id in self._settings.workflow_ids and self._submitter.has_time()
        return self._submitter.submit(workflow) if takes_more and workflow.is_free(self._clock.now()) else workflow

    def _asking(self, workflow: Workflow, ask: Callable[[Workflow], Workflow]) -> Workflow:
        """A step that puts questions to the platform: without an answer nothing changes, but it is written down."""
        try:
            return ask(workflow)
        except PlatformError as error:
            logger.warning("the platform does not tell", workflow_id=workflow.workflow_id, error=fault(error))
            self._count("Held" if isinstance(error, Misconfigured) else "Unanswered", 1)
            noted = fault(error)
            if {**(workflow.last_error or {}), **noted} == workflow.last_error:
                return workflow
            return self._ledger.save(workflow, replace(workflow, last_error=noted | {"at": iso(self._clock.now())}))

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
        setbacks = workflow.setbacks + 1
        moves = []
        for row in rows:
            sets: dict[str, Any] = {"error": error}
            if setbacks > 1:
                sets |= {"failures": row.failures + 1, "eligible_at": iso(self._submitter.backoff(row.failures + 1))}
            moves.append(Move(key=row.key, to=Status.PENDING, sets=sets))
        after = replace(workflow, setbacks=setbacks)
        return self._advance(workflow, after.released(error=self._at_now(error)), moves)

    def _settle(self, workflow: Workflow) -> Workflow:
        """The answer to a complete request was lost: find the job, or make sure that there is none."""
        rows = self._attempt_rows(workflow, Status.SUBMITTING)
        jobs = self._platform.jobs(workflow.workflow_id)
        found = find_ours(jobs, workflow.baseline, [row.key for row in rows], self._platform.documents)
        waited = workflow.lease_has_ended(self._clock.now())
        if found and (found.evidence is Evidence.TOKENS or waited):
            return self._found(workflow, found, rows)
        if not waited:
            return workflow
        return self._nothing_runs(workflow, rows, active_job(jobs))

    def _found(self, workflow: Workflow, found: Found, rows: Iterable[Row]) -> Workflow:
        logger.info(
            "settled: accepted", workflow_id=workflow.workflow_id, job_id=found.job.id, evidence=found.evidence.value
        )
        self._count("Settled", 1)
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
        moves += [Move(key=row.key, to=Status.PENDING) for row in rows if row.key not in found.rows]
        return self._advance(workflow, workflow.running(found.job, rows=found.rows), moves)

    def _nothing_runs(self, workflow: Workflow, rows: list[Row], active: Job | None) -> Workflow:
        """Back into the line, bound to this workflow, where a late acceptance and the next attempt cannot both run."""
        logger.warning("settled: nothing runs", workflow_id=workflow.workflow_id, rows=len(rows))
        self._count("Settled", 1)
        error = dict(workflow.last_error or {"type": "OutcomeUnknown", "message": "no answer, and no job was found"})
        error = {name: error[name] for name in ("type", "message")}
        moves = [self._blamed(row, workflow, error, alone=len(rows) == 1) for row in rows]
        setbacks = workflow.setbacks + 1
        after = replace(workflow, setbacks=setbacks, unsettled=True)
        if active is not None:
            after = replace(after.running(active, rows=()), unsettled=True)
        else:
            after = after.released(not_before=self._submitter.backoff(setbacks), error=self._at_now(error))
        return self._advance(workflow, after, moves)

    def _blamed(self, row: Row, workflow: Workflow, error: dict[str, str], *, alone: bool) -> Move:
        bound = {"bound_to": workflow.workflow_id, "bound_since": row.bound_since or workflow.baseline.newest}
        if not alone and workflow.setbacks == 0:
            # Once is bad luck: the same rows go together again before each has to travel alone.
            return Move(key=row.key, to=Status.PENDING, sets={"error": error, **bound})
        counted = blame(row, workflow, alone=alone)
        sets = {
            "error": error,
            **bound,
            # The others go first meanwhile.
            "eligible_at": iso(self._submitter.backoff(counted.failures)),
            "failures": counted.failures,
            "strikes": counted.strikes,
            "accepted_count_then": counted.accepted_count_then,
        }
        if not counted.rejects:
            return Move(key=row.key, to=Status.PENDING, sets=sets)
        self._count("Rejected", 1)
        return Move(key=row.key, to=Status.REJECTED, sets=sets)

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def _follow(self, workflow: Workflow) -> Workflow:
        """See how the job stands; at its true end finish the rows and free the workflow."""
        try:
            job = self._platform.job(workflow.job_id or "")
        except NotFound:
            return self._doubt(workflow, None, "JobVanished", "the platform does not know the job any more")
        if job.status in JOB_ACTIVE:
            return self._note_progress(workflow, job)
        if job.status in JOB_ENDED and not workflow.rows:
            return self._ledger.save(workflow, workflow.released())  # a stranger's: how it ended is not our affair
        return self._conclude(workflow, job)

    def _note_progress(self, workflow: Workflow, job: Job) -> Workflow:
        if job.status == workflow.job_status and workflow.doubtful_since is None:
            return workflow
        after = replace(workflow, job_status=job.status, doubtful_since=None, last_error=None)
        return self._advance(workflow, after, job_moves(job, workflow.rows, running_status(job)))

    def _conclude(self, workflow: Workflow, job: Job) -> Workflow:
        """The job says that it ended, or something that we do not know: its details tell the truth."""
        try:
            details = self._platform.details(job.id)
            if not has_ended(job, details):
                reason = f"the job says {job.status}, its details {details.processing_status}"
                return self._doubt(workflow, job, "Unconfirmed", reason)
            failed = self._failed_files(job.id)
        except NotFound:
            return self._doubt(workflow, job, "Unconfirmed", f"the job says {job.status}, and has no details")
        ends = outcomes(job, details, failed, workflow.rows)
        stored = self._store_results(job, [key for key, end in ends.items() if end.status is Status.COMPLETED])
        if any("delayed" in entry for entries in stored.values() for entry in entries):
            if not is_overdue(parse_time(workflow.doubtful_since), self._clock.now()):
                return self._keep_results(workflow, job, stored)
            stored = {key: [_given_up(entry) for entry in entries] for key, entries in stored.items()}
        return self._finish(workflow, job, ends, stored)

    def _store_results(self, job: Job, keys: Sequence[RowKey]) -> dict[RowKey, list[dict[str, Any]]]:
        """Bring the outputs home before COMPLETED is written; a row says itself which nodes there were."""
        if self._results is None or not keys:
            return {}
        rows = self._ledger.rows(keys).values()
        return {row.key: self._results.store(self._platform, job.id, row) for row in rows}

    def _keep_results(self, workflow: Workflow, job: Job, stored: Mapping[RowKey, list[dict[str, Any]]]) -> Workflow:
        """Not everything came: what did is not fetched again."""
        self._count("ResultsDelayed", 1)
        since = workflow.doubtful_since or iso(self._clock.now())
        moves = [Move(key=key, to=Status.IN_PROGRESS, sets={"results": entries}) for key, entries in stored.items()]
        return self._advance(workflow, replace(workflow, job_status=job.status, doubtful_since=since), moves)

    def _failed_files(self, job_id: str) -> list[FailedFile]:
        try:
            return self._platform.failed_files(job_id)
        except NotFound:
            return []

    def _doubt(self, workflow: Workflow, job: Job | None, kind: str, message: str) -> Workflow:
        """Wait for the platform to make up its mind, but not for ever."""
        now = self._clock.now()
        if not workflow.rows:
            return self._ledger.save(workflow, workflow.released())
        if job is not None and job.is_active:
            return self._note_progress(workflow, job)  # a status that we do not know, and details that go on
        if not is_overdue(parse_time(workflow.doubtful_since), now):
            return self._wait_in_doubt(workflow, {"type": kind, "message": message})
        ended = Status(job.status) if job and job.status in {"FAILED", "STOPPED"} else Status.FAILED
        outcome = Outcome(status=ended, error={"type": kind, "message": message})
        return self._finish(workflow, job, dict.fromkeys(workflow.rows, outcome))

    def _wait_in_doubt(self, workflow: Workflow, error: dict[str, str]) -> Workflow:
        if workflow.doubtful_since is not None:
            return workflow
        since = iso(self._clock.now())
        return self._ledger.save(workflow, replace(workflow, doubtful_since=since, last_error=self._at_now(error)))

    def _finish(
        self,
        workflow: Workflow,
        job: Job | None,
        ends: Mapping[RowKey, Outcome],
        stored: Mapping[RowKey, list[dict[str, Any]]] | None = None,
    ) -> Workflow:
        alone = len(ends) == 1
        stored = stored or {}
        moves = [
            Move(
                key=key,
                to=outcome.status,
                sets={
                    **(job_attributes(job, key, alone=alone) if job else {}),
                    "error": outcome.error,
                    "results": stored.get(key) or None,
                },
            )
            for key, outcome in ends.items()
        ]
        after = self._advance(workflow, replace(workflow.released(), last_error=None), moves)
        for key, outcome in ends.items():
            logger.info(
                "finished",
                object_key=key.object,
                version=key.version,
                job_id=workflow.job_id,
                status=outcome.status,
                error=outcome.error,
            )
            self._count(outcome.status.capitalize(), 1)
        return after

    # -- rows that no attempt names ------------------------------------------------------------------------------------

    def sweep(self, workflows: int) -> None:
        """Take up again what lost its workflow's item, say to a hand that deleted it."""
        limit = 25 * (workflows + 1)  # more rows than can be in attempts, so that an orphan is among them
        suspects = [
            row
            for status in (Status.SUBMITTING, Status.SCHEDULED, Status.IN_PROGRESS)
            for row in self._ledger.open_rows(status, limit)
        ]
        if not suspects:
            return
        live = {each.attempt_id: each for each in self._ledger.all_workflows(self._settings.workflow_ids)}
        judged_before = iso(self._clock.now() - timedelta(seconds=_ORPHAN_SECONDS))
        orphans = [row for row in suspects if row.attempt_id not in live and row.seen < judged_before]
        for workflow_id in sorted({row.workflow_id for row in orphans if row.workflow_id}):
            self._take_up(workflow_id, [row for row in orphans if row.workflow_id == workflow_id][:25])

    def _take_up(self, workflow_id: str, hints: list[Row]) -> None:
        (workflow,) = self._ledger.workflows([workflow_id])
        if workflow.phase is not Phase.IDLE:
            return  # an attempt of its own comes first
        rows = [
            row
            for row in self._ledger.rows([row.key for row in hints]).values()
            if row.attempt_id != workflow.attempt_id
        ]
        unsent = [row for row in rows if row.status is Status.SUBMITTING]
        if unsent:
            logger.warning("orphans go back into the line", workflow_id=workflow_id, rows=len(unsent))
            moves = [
                Move(key=row.key, to=Status.PENDING, sets={"bound_to": workflow_id, "bound_since": None}, seen=row.seen)
                for row in unsent
            ]
            workflow = self._advance(workflow, replace(workflow, unsettled=True), moves)
        running = [row for row in rows if row.status in {Status.SCHEDULED, Status.IN_PROGRESS}]
        if running:
            job_id = running[0].job_id
            same = [row for row in running if row.job_id == job_id]
            logger.warning("orphans are followed again", workflow_id=workflow_id, job_id=job_id, rows=len(same))
            after = replace(
                workflow,
                phase=Phase.RUNNING,
                attempt_id=f"{job_id}-again",
                rows=tuple(row.key for row in same),
                job_id=job_id,
                job_status=None,
            )
            self._advance(workflow, after, [Move(key=row.key, to=row.status, seen=row.seen) for row in same])

    # -- writing -------------------------------------------------------------------------------------------------------

    def _at_now(self, error: dict[str, str]) -> dict[str, str]:
        return error | {"at": iso(self._clock.now())}

    def _advance(self, before: Workflow, after: Workflow, moves: list[Move]) -> Workflow:
        written, left_out = self._ledger.advance(before, after, moves)
        for key in left_out:
            logger.info("row has moved on", object_key=key.object, version=key.version)
        return written


def _given_up(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An output that could not be had for a quarter of an hour is called missing."""
    return {"missing" if name == "delayed" else name: value for name, value in entry.items()}
