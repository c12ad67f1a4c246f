"""Use case: follow a job to its true end, and free its workflow."""

from collections.abc import Mapping
from dataclasses import replace

from aws_lambda_powertools import Logger

from workflow_trigger.domain.clock import has_passed, iso
from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.errors import KeyNotSet, KeyRejected, Misconfigured, NotFound, Unavailable
from workflow_trigger.domain.job import Details, FileStatus, Job, JobState, has_ended
from workflow_trigger.domain.model import DocumentUpdate, Doubt, EndedDocument, EndedJob, Status, Workflow
from workflow_trigger.domain.outcome import Outcome, Told, is_more_to_come, is_plain_success, outcomes
from workflow_trigger.services.context import Context
from workflow_trigger.services.send import job_updates
from workflow_trigger.services.settle import is_gone, named

CONFIRM_TIMEOUT_SECONDS = 900.0  # for a job that vanished, or what contradicts itself
DETAILS_TIMEOUT_SECONDS = 3_600.0  # for details that are not given at all, while the platform answers otherwise
_UNANSWERED = "Unanswered"

logger = Logger(child=True)


def track(context: Context, workflow: Workflow) -> Workflow:
    """See how the job stands; at its true end free the workflow.

    Raises:
        PlatformError: the platform did not say.
    """
    return _Tracked(context, workflow).look()


class _Tracked:
    """A running workflow and its job."""

    def __init__(self, context: Context, workflow: Workflow) -> None:
        self._context = context
        self._workflow = named(context, workflow)
        self._attempt = self._workflow.attempt
        self._job = Job(id=workflow.job_id or "", status=workflow.job_status or "UNKNOWN")

    def look(self) -> Workflow:
        try:
            self._job = self._context.client.job(self._job.id)
        except NotFound:
            return self._vanished()
        return self._note_progress() if self._job.state.is_active else self._conclude()

    def _note_progress(self) -> Workflow:
        before = self._workflow
        if self._job.status == before.job_status and before.doubt is None and before.last_error is None:
            return before
        after = replace(before, job_status=self._job.status, doubt=None, last_error=None)
        return self._context.commit(before, after, job_updates(self._job, self._attempt))

    # -- the end -------------------------------------------------------------------------------------------------------

    def _conclude(self) -> Workflow:
        """The job says that it ended, or something that we do not know: its details tell the truth."""
        says, client = f"the job says {self._job.status}", self._context.client
        try:
            details = client.details(self._job.id)
            if not has_ended(self._job, details):
                return self._unconfirmed("Contradiction", f"{says}, its details {details.status}")
            told = self._told(details)
        except NotFound:
            return self._unconfirmed("NoDetails", f"{says}, and has no details")
        except (KeyRejected, KeyNotSet):
            raise
        except (Misconfigured, Unavailable) as error:
            return self._doubt(_UNANSWERED, f"{says}; {error}")
        if is_more_to_come(self._job, details, told) and not self._is_overdue("NamesMissing"):
            return self._doubt("NamesMissing", "some files failed; the platform does not say which")
        return self._finish(outcomes(self._job, details, told))

    def _told(self, details: Details) -> Told:
        """The failed files of the job; where anything failed, the status of each file as well, if it can be had."""
        failed = self._context.client.failed_files(self._job.id) or []
        has_failures = not is_plain_success(self._job, details, failed)
        status = self._context.client.file_status(self._job.id) if has_failures else None
        return Told.of(failed, status or FileStatus(is_complete=True), self._attempt.documents)

    def _finish(self, ends: Mapping[DocumentKey, Outcome]) -> Workflow:
        """Free the workflow. What needs no output is final; the rest waits for its outputs, as an ended job."""
        copies = self._context.results is not None
        updates: list[DocumentUpdate] = []
        waiting: list[EndedDocument] = []
        for update in job_updates(self._job, self._attempt):
            end = ends[update.key]
            if end.outputs_decide or (copies and end.status is Status.COMPLETED):
                updates.append(update)
                waiting.append(EndedDocument(update.key, end.status, end.error))
            else:
                updates.append(replace(update, to=end.status, error=end.error))
        ended = EndedJob(
            job_id=self._job.id,
            workflow_id=self._workflow.workflow_id,
            attempt_id=self._attempt.id,
            documents=tuple(waiting),
            ended_at=self._context.iso_later(),
            is_solo=len(self._attempt.documents) == 1,
        )
        return self._context.commit(self._workflow, self._workflow.released(), updates, ended if waiting else None)

    # -- doubts --------------------------------------------------------------------------------------------------------

    def _vanished(self) -> Workflow:
        """404. A key of another workspace shows none of our jobs, and proves nothing about them."""
        if self._is_overdue("JobVanished") and not is_gone(self._context, self._workflow):
            shown = {job.id for job in self._context.client.jobs(self._workflow.workflow_id)}
            if self._job.id in shown:
                raise Unavailable(f"Job {self._job.id} is in the list, but cannot be asked about")
            are_all_gone = self._workflow.known_job_ids and not shown.intersection(self._workflow.known_job_ids)
            # A workflow that is shown is of the key's workspace: then the jobs are gone.
            if are_all_gone and not self._context.client.has_workflow(self._workflow.workflow_id):
                raise NotFound("Earlier jobs are not shown either: is this the key of another workspace?")
        return self._doubt("JobVanished", "the platform does not know the job any more")

    def _unconfirmed(self, kind: str, message: str) -> Workflow:
        """The details do not confirm the end. Of a status that nobody knows, nothing says then that it is one."""
        return self._doubt(kind, message) if self._job.state.has_ended else self._note_progress()

    def _doubt(self, kind: str, message: str) -> Workflow:
        """Wait for the platform to make up its mind, but not for ever."""
        error = {"type": kind if kind == "JobVanished" else "Unconfirmed", "message": message}
        if self._is_overdue(kind):
            status = Status.STOPPED if self._job.state is JobState.STOPPED else Status.FAILED
            # A job that ended has its outputs, whatever is not said of it: they are the better witness.
            outputs_decide = self._job.state.has_ended and status is Status.FAILED
            end = Outcome(status=status, error=error, outputs_decide=outputs_decide)
            return self._finish(dict.fromkeys(self._attempt.keys, end))
        doubt, noted = self._doubt_now(kind), self._workflow.last_error or {}
        if doubt == self._workflow.doubt and message == noted.get("message"):
            return self._workflow
        now = self._context.iso_later()
        return self._context.commit(
            self._workflow, replace(self._workflow, doubt=doubt, last_error={**error, "at": now})
        )

    def _doubt_now(self, kind: str) -> Doubt:
        """The doubt as it goes on, or begins, with this look. Another kind begins anew; silence stops it."""
        before, now = self._workflow.doubt, self._context.clock.now()
        if before is None or kind not in {before.kind, _UNANSWERED}:
            return Doubt(kind, iso(now))
        return before.heard(now) if kind == before.kind else before.in_silence(now)

    def _is_overdue(self, kind: str) -> bool:
        """Whether a doubt of this kind, or a silence, has lasted long enough."""
        doubt, is_silent = self._doubt_now(kind), kind == _UNANSWERED
        since = (is_silent and doubt.silent_since) or doubt.since
        seconds = DETAILS_TIMEOUT_SECONDS if is_silent else CONFIRM_TIMEOUT_SECONDS
        return has_passed(since, self._context.clock.now(), seconds=seconds)
