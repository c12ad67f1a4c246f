"""Use case: send a claimed batch. Open the objects, stream them, commit before the last bytes, record the answer."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from workflow_trigger.adapters.s3_reader import OpenObject
from workflow_trigger.adapters.unstructured.client import ANSWER_SECONDS
from workflow_trigger.adapters.unstructured.multipart import Encoder, Part
from workflow_trigger.domain import errors, model
from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.errors import Busy, ConflictError, PlatformError, SourceError, TriggerError, as_stored
from workflow_trigger.domain.job import Job, JobState
from workflow_trigger.domain.matching import mentions, own_part
from workflow_trigger.domain.model import Attempt, Document, DocumentUpdate, Phase, Status, Workflow
from workflow_trigger.domain.retry import after_lost_objects
from workflow_trigger.services.context import Context

LEASE_SECONDS = 60.0  # renewed while the stream goes on
SETTLE_SECONDS = 120.0  # after the commit: a list of jobs that shows nothing proves nothing before
_RESERVE_SECONDS = ANSWER_SECONDS + 20.0  # kept for the answer and the record

logger = Logger(child=True)


def send(context: Context, workflow: Workflow, documents: Sequence[Document]) -> Workflow:
    """Everything from the claimed batch to what came of it; also the same batch again, under the same names.

    Raises:
        ConflictError: the attempt was taken away; nothing of this request can be accepted.
    """
    return _Sender(context, workflow, documents).send()


def job_updates(job: Job, attempt: Attempt, **changes: Any) -> tuple[DocumentUpdate, ...]:
    """Write a job into the documents of its files, each with its own entries. Its end is not confirmed yet."""
    to = Status.SCHEDULED if job.state is JobState.SCHEDULED else Status.IN_PROGRESS
    parts = ((key, name, *own_part(job, key, attempt)) for key, name in attempt.documents.items())
    return tuple(
        DocumentUpdate(
            key=key,
            to=to,
            job=own_job,
            input_file_id=file_id,
            upload_name=name or model.UNCHANGED,
            **changes,
        )
        for key, name, own_job, file_id in parts
    )


class _Sender:
    """One request of an attempt."""

    def __init__(self, context: Context, workflow: Workflow, documents: Sequence[Document]) -> None:
        self._context = context
        self._workflow = workflow
        self._documents = list(documents)
        self._opened: list[OpenObject] = []

    def send(self) -> Workflow:
        try:
            self._open()
            return self._record(self._post()) if self._workflow.phase is Phase.SUBMITTING else self._workflow
        except (SourceError, PlatformError) as error:
            return self._came_back(error)
        finally:
            for opened in self._opened:
                opened.close()

    # -- the stream ----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Open every object. Documents whose object cannot be had leave the attempt; the others go on."""
        failed: dict[DocumentKey, TriggerError] = {}
        for document in self._documents:
            self._renew_lease()
            try:
                self._opened.append(self._context.reader.open(document.source))
                self._describe(document, self._opened[-1])
            except SourceError as error:
                logger.warning("object cannot be read", object_key=document.key.object, reason=str(error))
                failed[document.key] = self._explained(document, error)
        if failed:
            self._leave(failed)

    def _describe(self, document: Document, opened: OpenObject) -> None:
        """Keep what the uploader said of an object. A failure holds no document."""
        labels = {name: each for name, each in opened.labels.items() if each}
        try:
            if labels:
                self._context.ledger.describe(document.key, self._workflow.attempt.id, **labels)
        except (errors.LedgerUnavailable, ClientError):
            logger.exception("metadata could not be written", object_key=document.key.object)
            self._context.counts.add("LabelsMissing")

    def _explained(self, document: Document, error: SourceError) -> SourceError:
        settings, source = self._context.settings, document.source
        is_inside = source.bucket == settings.source_bucket and source.key.startswith(settings.key_prefix)
        if isinstance(error, errors.ObjectDenied) and settings.source_bucket and not is_inside:
            now = f"s3://{settings.source_bucket}/{settings.key_prefix}"
            return errors.OutsidePrefix(f"{document.key.object} is not under {now}, where the stack reads now")
        return error

    def _leave(self, failed: Mapping[DocumentKey, TriggerError]) -> None:
        if self._workflow.attempt.is_unsettled:
            self._unsettled(next(iter(failed.values())))  # only the very same batch may be sent again
            return
        decision = after_lost_objects(failed, self._workflow, self._documents, self._context.circumstances())
        self._workflow = self._context.conclude(self._workflow, decision)
        self._documents = [each for each in self._documents if each.key not in failed]

    def _post(self) -> Job:
        """Post the files. One that is stored encoded is named as such, which is known only now that all are open."""
        names = {key: name or "" for key, name in self._workflow.attempt.documents.items()}
        for each in self._opened:
            key, suffix = each.version.document_key, each.name_suffix
            names[key] = names[key].removesuffix(suffix) + suffix
        self._workflow = self._workflow.with_attempt(documents=names)
        parts = [
            Part(
                filename=names[each.version.document_key],
                content_type=each.content_type,
                length_bytes=each.length_bytes,
                chunks=lambda each=each: self._watched(each),  # type: ignore[misc]
            )
            for each in self._opened
        ]
        encoder = Encoder(parts, boundary=uuid.uuid4().hex)
        return self._context.client.run(self._workflow.workflow_id, encoder, self._commit_attempt)

    def _watched(self, opened: OpenObject) -> Iterator[bytes]:
        """The object's chunks, as long as there is time; the lease is renewed on the way."""
        key = opened.version.document_key
        try:
            for chunk in opened.chunks():
                if self._context.deadline.remaining_seconds() < _RESERVE_SECONDS:
                    raise errors.TooSlow(f"{key.object} cannot be streamed within one invocation")
                self._renew_lease()
                yield chunk
        except SourceError as error:
            error.document_key = key
            raise

    def _renew_lease(self) -> None:
        if (self._workflow.attempt.lease_ends_at or "") <= self._context.iso_later(LEASE_SECONDS * 2 / 3):
            self._save(self._workflow.with_attempt(lease_ends_at=self._context.iso_later(LEASE_SECONDS)))

    def _commit_attempt(self, answer_seconds: float) -> None:
        """The last moment at which nothing of this request can run. An attempt that was taken away ends here."""
        later = self._context.iso_later
        committed = self._workflow.with_attempt(
            lease_ends_at=later(answer_seconds + 5), settle_after=later(SETTLE_SECONDS)
        )
        self._save(replace(committed, phase=Phase.COMMITTED))

    # -- what came back ------------------------------------------------------------------------------------------------

    def _record(self, job: Job) -> Workflow:
        workflow_id, attempt = self._workflow.workflow_id, self._workflow.attempt
        if job.id in self._workflow.known_job_ids:
            return self._came_back(Busy("The answer names a job that was there before"))
        # Logged before anything is written: whatever happens to the database, the id is not lost.
        logger.info("accepted", job_id=job.id, **self._workflow.log_fields)
        self._context.counts.add("Accepted", value=len(attempt.documents))
        try:
            return self._accepted(job)
        except ConflictError:
            # Another invocation noted an error on the workflow, or found the job. The answer may tell more about it.
            self._workflow = self._context.ledger.workflow(workflow_id)
            if self._workflow.attempt.id == attempt.id:
                return self._accepted(job)
            logger.warning("settled by another invocation", job_id=job.id)
        except errors.LedgerUnavailable as error:
            logger.warning("the next run records this job", job_id=job.id, reason=str(error))
        return self._workflow

    def _accepted(self, job: Job) -> Workflow:
        after = self._workflow.running(job)
        if after.job_status and after.job_status != job.status:  # another invocation has followed it already
            job = replace(job, status=after.job_status, state=JobState.RUNNING)
        return self._save(after, job_updates(job, after.attempt, error=None, inferred=None))

    def _came_back(self, error: SourceError | PlatformError) -> Workflow:
        """The request ended without a job: what that means for the documents and for the workflow."""
        logger.warning("not accepted", error=as_stored(error), **self._workflow.log_fields)
        if isinstance(error, errors.OutcomeUnknown) or self._workflow.attempt.is_unsettled:
            return self._unsettled(error)
        if isinstance(error, Busy):
            return self._busy(error)
        return self._context.fail(self._workflow, error, self._documents)

    def _busy(self, error: Busy) -> Workflow:
        """The files were dropped, unless an active job comes to name them: something may have asked twice."""
        client, names, now = self._context.client, self._workflow.attempt.upload_names, self._context.iso_later()
        try:
            for job in client.look(self._workflow.workflow_id).active:
                told = client.names_of(job)
                if mentions(told.documents, names):
                    return self._accepted(job)
                if not told.is_complete:
                    return self._unsettled(error, let_go_at=now)  # so that nothing is inferred
        except PlatformError as failed:
            return self._unsettled(failed, let_go_at=now)
        return self._context.fail(self._workflow, error, self._documents)

    def _unsettled(self, error: TriggerError, **changes: Any) -> Workflow:
        """Something may run: the batch stays, and what became of it is found out from now on."""
        self._context.counts.add("OutcomeUnknown")
        since_commit = self._workflow.attempt.settle_after if self._workflow.phase is Phase.COMMITTED else None
        settle_after = since_commit or self._context.iso_later(SETTLE_SECONDS)
        unsettled = replace(self._workflow.attempt, lease_ends_at=None, settle_after=settle_after)
        changes |= {"phase": Phase.COMMITTED, "attempt": unsettled}
        self._workflow = self._context.note(self._workflow, as_stored(error), **changes)
        return self._workflow

    def _save(self, after: Workflow, updates: Sequence[DocumentUpdate] = ()) -> Workflow:
        self._workflow = self._context.commit(self._workflow, after, updates)
        return self._workflow
