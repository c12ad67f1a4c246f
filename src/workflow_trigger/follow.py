"""Use case: follow a job to its true end, bring its outputs home, and finish its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aws_lambda_powertools import Logger

from workflow_trigger.clock import iso, parse_time
from workflow_trigger.decisions import (
    ABSENCE_SECONDS,
    DOUBT_SECONDS,
    SILENCE_SECONDS,
    Outcome,
    has_ended,
    is_overdue,
    outcomes,
)
from workflow_trigger.errors import Misconfigured, NotFound, Unavailable
from workflow_trigger.invocation import Invocation
from workflow_trigger.items import job_attributes
from workflow_trigger.job import JOB_ACTIVE, JOB_ENDED, FailedFile, Job
from workflow_trigger.model import Move, Status, Workflow
from workflow_trigger.moves import job_moves, running_status
from workflow_trigger.objects import RowKey, token_of
from workflow_trigger.results import Results

logger = Logger(child=True)


class Follower:
    """Looks at one running workflow at a time."""

    def __init__(self, invocation: Invocation, results: Results | None) -> None:
        self._invocation = invocation
        self._results = results
        self._ledger = invocation.ledger
        self._platform = invocation.platform
        self._clock = invocation.clock
        self._count = invocation.count

    def follow(self, workflow: Workflow) -> Workflow:
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
        return self._invocation.advance(workflow, after, job_moves(job, workflow.rows, running_status(job)))

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
        if waits and not is_overdue(parse_time(workflow.results_since), self._clock.now(), patience):
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
            ids = [node["file_id"] for node in row_now.output_node_files if "file_id" in node]
            named = row_now.input_file_id or all(token_of(row.key) in file_id for file_id in ids)
            if not alone and not named:
                stored[row.key] = [{"missing": "the platform's ids do not tell which outputs are this file's"}]
                continue
            stored[row.key] = self._results.store(self._platform, job.id, row_now, self._invocation.has_time)
        return stored

    def _keep_results(self, workflow: Workflow, job: Job, stored: Mapping[RowKey, list[dict[str, Any]]]) -> Workflow:
        """Not everything came: what did is not fetched again."""
        self._count("ResultsDelayed", 1)
        since = workflow.results_since or iso(self._clock.now())
        moves = [Move(key=key, to=Status.IN_PROGRESS, sets={"results": entries}) for key, entries in stored.items()]
        return self._invocation.advance(workflow, replace(workflow, job_status=job.status, results_since=since), moves)

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
        return self._ledger.save(
            workflow, replace(workflow, doubtful_since=since, last_error=self._invocation.noted(error))
        )

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
        after = self._invocation.advance(workflow, replace(workflow.released(), last_error=None), moves)
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


def _given_up(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An output that did not come in time is called missing."""
    return {"missing" if name in {"delayed", "absent"} else name: value for name, value in entry.items()}
