"""Use case: send a claimed batch. Open the objects, stream them, commit before the last bytes, record the answer."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from aws_lambda_powertools import Logger

from workflow_trigger.adapters.s3_reader import OpenObject
from workflow_trigger.adapters.unstructured.client import ANSWER_SECONDS
from workflow_trigger.adapters.unstructured.multipart import Encoder, Part
from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.errors import (
    Busy,
    ConflictError,
    LedgerUnavailable,
    ObjectDenied,
    OutcomeUnknown,
    OutsidePrefix,
    PlatformError,
    SourceError,
    TooSlow,
    TriggerError,
    as_stored,
)
from workflow_trigger.domain.job import Job
from workflow_trigger.domain.matching import mentions, own_part
from workflow_trigger.domain.model import (
    Attempt,
    Document,
    DocumentUpdate,
    Phase,
    Status,
    Transition,
    Workflow,
    names_of,
)
from workflow_trigger.domain.retry import after_document_failure, after_failure, back_unchanged, policy_for
from workflow_trigger.services.context import Context

LEASE_SECONDS = 60.0  # renewed while the stream goes on
SETTLE_SECONDS = 120.0  # after the commit: a list of jobs that shows nothing proves nothing before
_RESERVE_SECONDS = ANSWER_SECONDS + 20.0  # kept for the answer and the record
_WHOLE_SHARE = 0.9  # of an invocation's time, to call a file too slow for it

logger = Logger(child=True)


def send(context: Context, workflow: Workflow, documents: Sequence[Document]) -> Workflow:
    """Everything from the claimed batch to what came of it; also the same batch again, under the same names.

    Raises:
        ConflictError: the attempt was taken away; nothing of this request can be accepted.
    """
    return _Sender(context, workflow, documents).send()


def accepted(job: Job, attempt: Attempt, *, inferred: bool = False) -> tuple[DocumentUpdate, ...]:
    """The updates of an attempt's documents when a job holds them."""
    return job_updates(job, attempt, running_status(job), error=None, inferred=inferred or None)


def running_status(job: Job) -> Status:
    """A document's status while its job's end is not confirmed."""
    return Status.SCHEDULED if job.status == "SCHEDULED" else Status.IN_PROGRESS


def job_updates(job: Job, attempt: Attempt, to: Status, **changes: Any) -> tuple[DocumentUpdate, ...]:
    """Write a job into the documents of its files, each with its own entries."""
    parts = ((sent.key, *own_part(job, sent, attempt)) for sent in attempt.documents)
    return tuple(
        DocumentUpdate(key=key, to=to, job=own_job, input_file_id=file_id, **changes) for key, own_job, file_id in parts
    )


class _Sender:
    """One request of an attempt."""

    def __init__(self, context: Context, workflow: Workflow, documents: Sequence[Document]) -> None:
        self._context = context
        self._workflow = workflow
        self._documents = list(documents)
        self._began_with_seconds = context.deadline.remaining_seconds()
        self._renew_at = context.later(LEASE_SECONDS / 3)

    @property
    def _attempt(self) -> Attempt:
        if self._workflow.attempt is None:
            raise ConflictError(f"workflow {self._workflow.workflow_id} has no attempt any more")
        return self._workflow.attempt

    def send(self) -> Workflow:
        opened = self._open()
        if not opened:
            return self._workflow
        try:
            return self._record(self._post(opened))
        except (SourceError, PlatformError) as error:
            return self._came_back(error)
        finally:
            _close(opened)

    # -- the stream ----------------------------------------------------------------------------------------------------

    def _open(self) -> list[OpenObject]:
        """Open every object. Documents whose object cannot be had leave the attempt; the others go on."""
        opened: list[OpenObject] = []
        failed: list[tuple[Document, SourceError]] = []
        for document in self._documents:
            self._renew_lease()
            try:
                opened.append(self._context.reader.open(document.source))
            except SourceError as error:
                failed.append((document, self._explained(document, error)))
        if not failed:
            return opened
        try:
            self._leave(failed, is_empty=not opened)
        except BaseException:
            _close(opened)
            raise
        if self._workflow.phase is Phase.SUBMITTING:
            return opened
        _close(opened)
        return []

    def _explained(self, document: Document, error: SourceError) -> SourceError:
        settings, source = self._context.settings, document.source
        is_outside = source.bucket == settings.source_bucket and not source.key.startswith(settings.key_prefix)
        if isinstance(error, ObjectDenied) and is_outside:
            return OutsidePrefix(f"{document.key.object} is not under the KeyPrefix {settings.key_prefix} any more")
        return error

    def _leave(self, failed: Sequence[tuple[Document, SourceError]], *, is_empty: bool) -> None:
        if self._attempt.rounds:
            self._unsettled(failed[0][1])  # only the very same batch may be sent again
            return
        for document, error in failed:
            logger.warning("object cannot be read", object_key=document.key.object, reason=str(error))
        given = self._context.circumstances()
        updates = [after_document_failure(error, document, given) for document, error in failed]
        self._count([error for _, error in failed], updates)
        gone = {document.key for document, _ in failed}
        self._documents = [each for each in self._documents if each.key not in gone]
        after = self._workflow.released() if is_empty else self._workflow.without(gone)
        self._save(after, updates)

    def _post(self, opened: Sequence[OpenObject]) -> Job:
        names = {sent.key: sent.upload_name for sent in self._attempt.documents}
        parts = [
            Part(
                field="input_files",
                filename=names[each.version.document_key] or "",
                content_type=each.content_type,
                length_bytes=each.length_bytes,
                chunks=lambda each=each: self._watched(each),  # type: ignore[misc]
            )
            for each in opened
        ]
        encoder = Encoder(parts, boundary=uuid.uuid4().hex)
        return self._context.client.run(self._workflow.workflow_id, encoder, self._commit_attempt)

    def _watched(self, opened: OpenObject) -> Iterator[bytes]:
        """The object's chunks, as long as there is time; the lease is renewed on the way."""
        try:
            for chunk in opened.chunks():
                if self._context.deadline.remaining_seconds() < _RESERVE_SECONDS:
                    raise TooSlow(f"{opened.version.document_key.object} cannot be streamed within one invocation")
                self._renew_lease()
                yield chunk
        except SourceError as error:
            error.document_key = opened.version.document_key
            raise

    def _renew_lease(self) -> None:
        if self._context.clock.now() >= self._renew_at:
            self._save(self._workflow.with_attempt(lease_ends_at=iso(self._context.later(LEASE_SECONDS))))
            self._renew_at = self._context.later(LEASE_SECONDS / 3)

    def _commit_attempt(self, answer_seconds: float) -> None:
        """The last moment at which nothing of this request can run. An attempt that was taken away ends here."""
        lease_ends_at = iso(self._context.later(answer_seconds + 5))
        settle_after = iso(self._context.later(SETTLE_SECONDS))
        committed = self._workflow.with_attempt(lease_ends_at=lease_ends_at, settle_after=settle_after)
        self._save(replace(committed, phase=Phase.COMMITTED))

    # -- what came back ------------------------------------------------------------------------------------------------

    def _record(self, job: Job) -> Workflow:
        if job.id in self._workflow.known_job_ids:
            return self._busy(Busy("The answer names a job that was there before"))
        # Logged before anything is written: whatever happens to the database, the id is not lost.
        logger.info(
            "accepted", job_id=job.id, workflow_id=self._workflow.workflow_id, documents=len(self._attempt.documents)
        )
        self._context.counts.add("Accepted", len(self._attempt.documents))
        try:
            return self._accepted(job)
        except ConflictError:
            return self._accepted_after_all(job)
        except LedgerUnavailable as error:
            logger.warning("the next run records this job", job_id=job.id, reason=str(error))
            return self._workflow

    def _accepted(self, job: Job) -> Workflow:
        return self._save(self._workflow.running(job), accepted(job, self._attempt))

    def _accepted_after_all(self, job: Job) -> Workflow:
        """Somebody wrote to the workflow meanwhile: a look at the platform was noted on it, or has found the job."""
        attempt_id = self._attempt.id
        self._workflow = current = self._context.ledger.workflow(self._workflow.workflow_id)
        if current.holder != attempt_id:
            logger.warning("settled by another invocation", job_id=job.id)
            return current
        if current.phase is Phase.RUNNING and current.job_id == job.id:
            # What the answer tells of the files may be told by nothing else.
            found = replace(job, status=current.job_status or job.status)
            return self._save(current, accepted(found, self._attempt))
        return self._accepted(job)

    def _came_back(self, error: SourceError | PlatformError) -> Workflow:
        """The request ended without a job: what that means for the documents and for the workflow."""
        logger.warning("not accepted", workflow_id=self._workflow.workflow_id, error=as_stored(error))
        if isinstance(error, Busy):
            return self._busy(error)
        if isinstance(error, OutcomeUnknown) or self._attempt.rounds:
            return self._unsettled(error)
        if isinstance(error, SourceError):
            return self._source_broke(error)
        return self._nothing_runs(error)

    def _nothing_runs(self, error: TriggerError) -> Workflow:
        whole = self._began_with_seconds >= _WHOLE_SHARE * self._context.deadline.total_seconds
        given = self._context.circumstances(had_whole_invocation=whole)
        decision = after_failure(error, self._workflow, self._documents, given)
        for name in decision.metrics:
            self._context.counts.add(name)
        return self._save(decision.workflow, decision.updates)

    def _source_broke(self, error: SourceError) -> Workflow:
        """S3 stopped delivering one object; the others had no part in it."""
        given = self._context.circumstances()
        updates = [
            after_document_failure(error, each, given) if error.document_key == each.key else back_unchanged(each.key)
            for each in self._documents
        ]
        self._count([error], updates)
        return self._save(self._workflow.released(error=self._noted(error)), updates)

    def _busy(self, error: Busy) -> Workflow:
        """The files were dropped, unless the active job is our own: something on the way may have asked twice."""
        if self._attempt.rounds:
            return self._unsettled(error)
        try:
            active = self._context.client.look(self._workflow.workflow_id).active
        except PlatformError as failed:
            return self._unsettled(failed)
        ours = next((job for job in active if mentions(job.file_names(), names_of(self._attempt))), None)
        if ours is not None:
            return self._accepted(ours)
        return self._nothing_runs(error)

    def _unsettled(self, error: TriggerError) -> Workflow:
        """Something may run: the batch stays, and what became of it is found out from now on."""
        self._context.counts.add("OutcomeUnknown")
        attempt = replace(self._attempt, lease_ends_at=None)
        if attempt.settle_after is None or self._workflow.phase is not Phase.COMMITTED:
            attempt = replace(attempt, settle_after=iso(self._context.later(SETTLE_SECONDS)))
        return self._save(
            replace(self._workflow, phase=Phase.COMMITTED, attempt=attempt, last_error=self._noted(error))
        )

    # -- writing -------------------------------------------------------------------------------------------------------

    def _noted(self, error: TriggerError) -> dict[str, str]:
        return {**as_stored(error), "at": iso(self._context.clock.now())}

    def _count(self, errors: Iterable[SourceError], updates: Iterable[DocumentUpdate]) -> None:
        for error in errors:
            self._context.counts.add(policy_for(error).metric or type(error).__name__)
            if isinstance(error, ObjectDenied):
                self._context.counts.add("Held")
        for update in updates:
            if update.to in {Status.REJECTED, Status.SUPERSEDED}:
                self._context.counts.add(update.to.capitalize())

    def _save(self, after: Workflow, updates: Sequence[DocumentUpdate] = ()) -> Workflow:
        self._workflow = self._context.commit(Transition(self._workflow, after, tuple(updates)))
        return self._workflow


def _close(opened: Sequence[OpenObject]) -> None:
    for each in opened:
        each.close()
