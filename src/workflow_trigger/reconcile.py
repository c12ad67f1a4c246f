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
    ABSENCE_SECONDS,
    DOUBT_SECONDS,
    SILENCE_SECONDS,
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
from workflow_trigger.errors import AttemptLost, Misconfigured, NotFound, PlatformError, ReconcileFailed, Unavailable
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
from workflow_trigger.submit import Submitter, accepted_moves, fault, job_moves, running_status, set_back_by_rows

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
            sender_may_be_waiting = workflow.phase is Phase.COMMITTED and not workflow.lease_has_ended(
                self._clock.now()
            )
            if sender_may_be_waiting:
                return workflow  # to note it would take the item from under the sender's hands
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
        sets: dict[str, Any] = {"error": error}
        if not set_back_by_rows(workflow, rows):
            moves = [Move(key=row.key, to=Status.PENDING, sets=sets) for row in rows]
            after = replace(workflow, setbacks=workflow.setbacks + 1).released(error=self._at_now(error))
            return self._advance(workflow, after, moves)
        moves = [self._submitter.put_off(row, sets) for row in rows]
        after = replace(workflow, setbacks=workflow.setbacks + (len(rows) > 1))
        not_before = self._submitter.backoff(max(after.setbacks, 1))
        return self._advance(workflow, after.released(not_before=not_before, error=self._at_now(error)), moves)

    def _settle(self, workflow: Workflow) -> Workflow:
        """The answer to a complete request was lost: find the job, or make sure that there is none."""
        rows = self._attempt_rows(workflow, Status.SUBMITTING)
        jobs = self._platform.jobs(workflow.workflow_id)
        found = find_ours(
            jobs, workflow.baseline, [row.key for row in rows], self._documents_since(workflow.committed_at)
        )
        waited = workflow.lease_has_ended(self._clock.now())
        if found and (found.evidence is Evidence.TOKENS or waited):
            return self._found(workflow, found, rows)
        if not waited:
            return workflow
        return self._nothing_runs(workflow, rows, active_job(jobs))

    def _documents_since(self, committed_at: str | None) -> Callable[[str], Sequence[str]]:
        """How to ask for a job's documents; after a quarter of an hour without an answer, there are none to be had."""

        def documents(job_id: str) -> Sequence[str]:
            try:
                return self._submitter.documents(job_id)
            except Unavailable:
                if not is_overdue(parse_time(committed_at), self._clock.now()):
                    raise
                return []

        return documents

    def _found(self, workflow: Workflow, found: Found, rows: Iterable[Row]) -> Workflow:
        logger.info(
            "settled: accepted", workflow_id=workflow.workflow_id, job_id=found.job.id, evidence=found.evidence.value
        )
        self._count("Settled", 1)
        moves = accepted_moves(found.job, found.rows, inferred=found.evidence is Evidence.INFERRED)
        moves += [Move(key=row.key, to=Status.PENDING) for row in rows if row.key not in found.rows]
        return self._advance(workflow, workflow.running(found.job, rows=found.rows), moves)

    def _nothing_runs(self, workflow: Workflow, rows: list[Row], active: Job | None) -> Workflow:
        """Back into the line, bound to this workflow, where a late acceptance and the next attempt cannot both run."""
        logger.warning("settled: nothing runs", workflow_id=workflow.workflow_id, rows=len(rows))
        self._count("Settled", 1)
        error = dict(workflow.last_error or {"type": "OutcomeUnknown", "message": "no answer, and no job was found"})
        error = {name: error[name] for name in ("type", "message")}
        moves = [self._blamed(row, workflow, error, alone=len(rows) == 1) for row in rows]
        went_alone_before = len(rows) == 1 and rows[0].failures > 0
        setbacks = workflow.setbacks + (not went_alone_before)
        after = replace(workflow, setbacks=setbacks, unsettled=True)
        if active is not None:
            after = after.running(active, rows=())
        else:
            after = after.released(not_before=self._submitter.backoff(max(setbacks, 1)), error=self._at_now(error))
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
        except Unavailable as error:
            return self._doubt(workflow, job, "Unconfirmed", f"the job says {job.status}; {error}", SILENCE_SECONDS)
        ends = outcomes(job, details, failed, workflow.rows)
        stored = self._store_results(
            workflow, job, [key for key, end in ends.items() if end.status is Status.COMPLETED]
        )
        waits = {
            kind for entries in stored.values() for entry in entries for kind in ("delayed", "absent") if kind in entry
        }
        patience = DOUBT_SECONDS if "delayed" in waits else ABSENCE_SECONDS
        if waits and not is_overdue(parse_time(workflow.doubtful_since), self._clock.now(), patience):
            return self._keep_results(workflow, job, stored)
        return self._finish(workflow, job, ends, {key: list(map(_given_up, each)) for key, each in stored.items()})

    def _store_results(
        self, workflow: Workflow, job: Job, keys: Sequence[RowKey]
    ) -> dict[RowKey, list[dict[str, Any]]]:
        """Bring the outputs home before COMPLETED is written; the row or the job says which nodes there were."""
        if self._results is None or not keys:
            return {}
        alone = len(workflow.rows) == 1
        stored = {}
        for row in self._ledger.rows(keys).values():
            known = job_attributes(job, row.key, alone=alone)
            row_now = replace(
                row,
                input_file_id=known.get("input_file_id") or row.input_file_id,
                output_node_files=tuple(known.get("output_node_files", row.output_node_files)),
            )
            stored[row.key] = self._results.store(self._platform, job.id, row_now, self._submitter.has_time)
        return stored

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

    def _doubt(
        self, workflow: Workflow, job: Job | None, kind: str, message: str, patience_seconds: float = DOUBT_SECONDS
    ) -> Workflow:
        """Wait for the platform to make up its mind, but not for ever."""
        now = self._clock.now()
        if not workflow.rows:
            return self._ledger.save(workflow, workflow.released())
        if job is not None and job.status not in JOB_ENDED:
            return self._note_progress(workflow, job)  # a status that we do not know, and details that go on
        if not is_overdue(parse_time(workflow.doubtful_since), now, patience_seconds):
            return self._wait_in_doubt(workflow, {"type": kind, "message": message})
        if job is None:
            self._make_sure_of_the_workspace(workflow)
        ended = Status(job.status) if job and job.status in {"FAILED", "STOPPED"} else Status.FAILED
        outcome = Outcome(status=ended, error={"type": kind, "message": message})
        return self._finish(workflow, job, dict.fromkeys(workflow.rows, outcome))

    def _make_sure_of_the_workspace(self, workflow: Workflow) -> None:
        """A key of another workspace shows none of our jobs, and proves nothing about them."""
        shown = {job.id for job in self._platform.jobs(workflow.workflow_id)}
        if workflow.baseline.ids and not shown & workflow.baseline.ids:
            raise Misconfigured(
                "The workflow's earlier jobs are not shown either: is this the key of another workspace?"
            )
        if workflow.job_id in shown:
            raise Unavailable(f"Job {workflow.job_id} is in the list, but cannot be asked about")

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
            rows=tuple(row.key for row in rows),
            job_id=job_id,
            job_status=None,
        )
        self._advance(workflow, after, [Move(key=row.key, to=row.status, seen=row.seen) for row in rows])

    # -- writing -------------------------------------------------------------------------------------------------------

    def _at_now(self, error: dict[str, str]) -> dict[str, str]:
        return error | {"at": iso(self._clock.now())}

    def _advance(self, before: Workflow, after: Workflow, moves: list[Move]) -> Workflow:
        written, left_out = self._ledger.advance(before, after, moves)
        for key in left_out:
            logger.info("row has moved on", object_key=key.object, version=key.version)
        return written


def _given_up(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An output that did not come in time is called missing."""
    return {"missing" if name in {"delayed", "absent"} else name: value for name, value in entry.items()}
