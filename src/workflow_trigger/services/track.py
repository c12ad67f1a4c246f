"""Use case: follow a job to its true end, and free its workflow."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from aws_lambda_powertools import Logger

from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.doubt import Doubt, DoubtKind
from workflow_trigger.domain.errors import (
    KeyNotSet,
    KeyRejected,
    Misconfigured,
    NotFound,
    PlatformError,
    Throttled,
    Unavailable,
)
from workflow_trigger.domain.job import Details, FileStatus, Job, JobState, has_ended
from workflow_trigger.domain.model import DocumentUpdate, EndedJob, Outcome, Phase, Status, Workflow
from workflow_trigger.domain.outcome import FileReports, is_plain_success, missing_names, outcomes
from workflow_trigger.services.context import Context
from workflow_trigger.services.send import job_updates
from workflow_trigger.services.settle import named

logger = Logger(child=True)


def track(context: Context, workflow: Workflow) -> Workflow:
    """See how the job stands; at its true end free the workflow.

    Raises:
        PlatformError: the platform did not say.
    """
    return _Tracked(context, workflow).look()


def doubts_after(error: PlatformError, workflow: Workflow, now: datetime) -> tuple[Doubt, ...]:
    """The doubts of a workflow whose look was in vain.

    A pause, or a key that is wrong (404: perhaps of another workspace), says nothing of a job: it stops the clocks of
    its doubts. After any other error the job counts as one that cannot be asked for.
    """
    if workflow.phase is not Phase.RUNNING:
        return workflow.doubts
    says_nothing = isinstance(error, Throttled | KeyNotSet | KeyRejected | NotFound)
    return workflow.with_doubt(DoubtKind.SILENCE if says_nothing else DoubtKind.UNTOLD, now).doubts


class _Tracked:
    """A running workflow and its job."""

    def __init__(self, context: Context, workflow: Workflow) -> None:
        self._context = context
        self._workflow = named(context, workflow)
        self._attempt = self._workflow.attempt
        self._job = Job(id=workflow.job_id or "", status=workflow.job_status or "UNKNOWN")
        self._untold: PlatformError | None = None  # why the job itself cannot be asked for

    def look(self) -> Workflow:
        try:
            self._job = self._context.client.job(self._job.id)
        except NotFound:
            return self._vanished()
        except (Misconfigured, Unavailable) as error:
            if not self._workflow.is_overdue(DoubtKind.UNTOLD, self._context.clock.now()):
                raise  # `doubts_after` makes it UNTOLD, which ends when a look shows the job active
            self._untold = error  # of this one job the platform may tell nothing but its details
        return self._note_progress() if self._job.state.is_active else self._conclude()

    def _note_progress(self) -> Workflow:
        before = self._workflow
        after = replace(before, job_status=self._job.status, doubts=(), last_error=None)
        return before if after == before else self._context.commit(before, after, job_updates(self._job, self._attempt))

    # -- the end -------------------------------------------------------------------------------------------------------

    def _conclude(self) -> Workflow:
        """The job says that it ended, or what we do not know, or nothing at all: its details tell the truth."""
        client, is_over = self._context.client, self._job.state.has_ended
        says = f"the job cannot be asked for ({self._untold})" if self._untold else f"the job says {self._job.status}"
        try:
            details = client.details(self._job.id)
            if not has_ended(self._job, details):
                return self._unconfirmed(DoubtKind.CONTRADICTION, f"{says}, its details {details.status}")
            is_over = True  # from here on, silence is a doubt
            reports = self._reports(details)
        except NotFound:
            return self._unconfirmed(DoubtKind.NO_DETAILS, f"{says}, and has no details")
        except (Misconfigured, Throttled, Unavailable) as error:
            if isinstance(error, KeyRejected | KeyNotSet) or not is_over:
                raise  # it says nothing of the job; or nothing says that the job has ended
            return self._doubt(DoubtKind.UNANSWERED, f"{says}; {error}")
        missing = missing_names(self._job, details, reports)
        if missing and not self._workflow.is_overdue(missing, self._context.clock.now()):
            return self._doubt(missing, "the platform does not say which files failed, so far")
        return self._finish(outcomes(self._job, details, reports))

    def _reports(self, details: Details) -> FileReports:
        """The failed files of the job; where anything failed, the status of each file as well, if it can be had."""
        failed, status = self._context.client.failed_files(self._job.id) or [], FileStatus(is_complete=True)
        if not is_plain_success(self._job, details, failed, len(self._attempt.documents)):
            try:
                status = self._context.client.file_status(self._job.id) or status
            except (Throttled, Unavailable):
                status = FileStatus()  # to be asked for again, but not for an hour
        return FileReports.of(failed, status, self._attempt.documents)

    def _finish(self, ends: Mapping[DocumentKey, Outcome]) -> Workflow:
        """Free the workflow. What needs no output is final; the rest waits for its outputs, as an ended job."""
        copies = self._context.results is not None
        updates: list[DocumentUpdate] = []
        waiting: dict[DocumentKey, Outcome] = {}
        for update in job_updates(self._job, self._attempt):
            end = ends[update.key]
            if end.outputs_decide or (copies and end.status is Status.COMPLETED):
                updates.append(update)
                waiting[update.key] = end
            else:
                # What was noted of outputs that were waited for goes as well.
                updates.append(replace(update, to=end.status, error=end.error, results=None))
        ended = EndedJob(
            job_id=self._job.id,
            workflow_id=self._workflow.workflow_id,
            attempt_id=self._attempt.id,
            documents=waiting,
            ended_at=self._context.iso_later(),
            is_solo=len(self._attempt.documents) == 1,
        )
        return self._context.commit(self._workflow, self._workflow.released(), updates, ended if waiting else None)

    # -- doubts --------------------------------------------------------------------------------------------------------

    def _vanished(self) -> Workflow:
        """404. To a key of another workspace, which proves nothing, the workflow is not there either."""
        if self._workflow.is_overdue(DoubtKind.JOB_VANISHED, self._context.clock.now()):
            self._context.is_gone(self._workflow.workflow_id)  # raises for a key that may be of another workspace
        return self._doubt(DoubtKind.JOB_VANISHED, "the platform does not know the job any more")

    def _unconfirmed(self, kind: DoubtKind, message: str) -> Workflow:
        """The details do not confirm the end. A status that nobody knows then counts as active.

        Where the job itself could not be asked for, that error is the one to be noted.
        """
        if self._untold:
            raise self._untold
        return self._doubt(kind, message) if self._job.state.has_ended else self._note_progress()

    def _doubt(self, kind: DoubtKind, message: str) -> Workflow:
        """Wait for the platform to make up its mind, but not for ever."""
        now = self._context.clock.now()
        error = {"type": "JobVanished" if kind is DoubtKind.JOB_VANISHED else "Unconfirmed", "message": message}
        if self._workflow.is_overdue(kind, now):
            status = Status.STOPPED if self._job.state is JobState.STOPPED else Status.FAILED
            # A job that ended has its outputs, whatever is not said of it: they are the better witness.
            outputs_decide = kind is not DoubtKind.JOB_VANISHED and status is Status.FAILED
            end = Outcome(status=status, error=error, outputs_decide=outputs_decide)
            return self._finish(dict.fromkeys(self._attempt.documents, end))
        return self._context.note(self._workflow, error, doubts=self._workflow.with_doubt(kind, now).doubts)
