"""Use case: bring the outputs of an ended job home, then finish its documents. Its workflow is free already."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from aws_lambda_powertools import Logger

from workflow_trigger.adapters.s3_results import OutputState, identity, metadata, outputs_of
from workflow_trigger.adapters.unstructured.responses import PageCounter
from workflow_trigger.domain import errors
from workflow_trigger.domain.clock import has_passed
from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.matching import is_own_file
from workflow_trigger.domain.model import (
    LEFT_OUT,
    Attempt,
    Document,
    DocumentUpdate,
    EndedDocument,
    EndedJob,
    SentDocument,
    Status,
    Workflow,
)
from workflow_trigger.services.context import Context
from workflow_trigger.services.send import job_updates
from workflow_trigger.services.settle import is_gone

type Entry = dict[str, Any]

_LEASE_SECONDS = 120.0  # renewed while outputs are copied
_RETRY_SECONDS = 10.0
_KEY_RETRY_SECONDS = 60.0
_LATE_SECONDS = 900.0  # after a job's end, outputs that are still on their way ring the alarm
# How long the outputs of a job are waited for, by what stands in their way; then they are missing.
PATIENCE_SECONDS = {OutputState.ABSENT: 60.0, OutputState.DELAYED: 3_600.0, OutputState.REFUSED: 3_600.0}

logger = Logger(child=True)


def collect(context: Context, ended: EndedJob) -> EndedJob | None:
    """Copy what is not there yet. Returns what is left to be copied later, None when every document is final.

    Raises:
        ConflictError: another invocation copies.
    """
    return _Collector(context, ended).run()


class _Collector:
    """One pass over the outputs of a job, with a lease on it."""

    def __init__(self, context: Context, ended: EndedJob) -> None:
        self._context = context
        self._ended = ended
        self._renew_at = context.clock.now()
        self._keep_lease()
        is_asked = any(each.kind != OutputState.REFUSED for each in ended.doubts)
        self._is_silent = is_asked and not self._is_answered()  # before a download, whose 429 would stop the question
        self._given_up = self._overdue()

    def run(self) -> EndedJob | None:
        documents = self._documents()
        updates: list[DocumentUpdate] = []
        left: list[EndedDocument] = []
        try:
            for each in self._ended.documents:
                document = documents.get(each.key)
                if document is None or document.attempt_id != self._ended.attempt_id:
                    continue
                entries = self._entries(document)
                judged = EndedDocument(each.key, Status.COMPLETED) if _can_be_had(entries) else each
                is_waiting = any(map(_is_waited_for, entries))
                left += [judged] if is_waiting else []
                updates.append(_still_waiting(each, entries) if is_waiting else self._final(judged, entries))
        except (errors.KeyRejected, errors.KeyNotSet):
            self._context.counts.add("Held")
            retry_at = self._context.iso_later(_KEY_RETRY_SECONDS)
            return self._context.commit(self._ended, replace(self._ended, lease_ends_at=None, retry_at=retry_at))
        if left:
            is_late = has_passed(self._ended.ended_at, self._context.clock.now(), seconds=_LATE_SECONDS)
            self._context.counts.add("ResultsDelayed", *(["ResultsMissing"] if is_late else []))
        retry_at = self._context.iso_later(_RETRY_SECONDS)
        after = replace(self._ended, documents=tuple(left), lease_ends_at=None, retry_at=retry_at) if left else None
        written = self._context.commit(self._ended, after, updates)
        return written if after else None

    def _documents(self) -> dict[DocumentKey, Document]:
        """The documents. A job may end before it names its outputs: it is asked again about those without any."""
        ended, read = self._ended, self._context.ledger.documents
        documents = read([each.key for each in ended.documents])
        without = {key for key, each in documents.items() if not each.output_node_files}
        if not without:
            return documents
        sent = tuple(SentDocument(key, each.upload_name) for key, each in documents.items())
        try:
            told = job_updates(self._context.client.job(ended.job_id), Attempt(documents=sent))
        except errors.PlatformError:
            return documents
        named = [each for each in told if each.key in without and self._names_own(each, documents[each.key])]
        if named:
            self._ended = self._context.commit(ended, ended, named)
        return documents | read([each.key for each in named])

    def _names_own(self, told: DocumentUpdate, document: Document) -> bool:
        """Whether a job names outputs of this very document: it may name those of others of its batch earlier."""
        ids = [str(node.get("file_id")) for node in (told.job and told.job.output_node_files) or ()]
        return any(self._ended.is_solo or is_own_file(each, document.upload_name) for each in ids)

    def _keep_lease(self) -> None:
        if self._context.clock.now() >= self._renew_at:
            held = replace(self._ended, lease_ends_at=self._context.iso_later(_LEASE_SECONDS))
            self._ended = self._context.commit(self._ended, held)
            self._renew_at = self._context.later(_LEASE_SECONDS / 3)

    # -- outputs -------------------------------------------------------------------------------------------------------

    def _entries(self, document: Document) -> list[Entry]:
        """An entry for each output: where it is, why it is missing, or since when it is waited for."""
        ids = [node["file_id"] for node in document.output_node_files if "file_id" in node]
        is_known = bool(document.input_file_id) or all(is_own_file(each, document.upload_name) for each in ids)
        if not (self._ended.is_solo or is_known):
            return [{"missing": "the platform's ids do not tell which outputs are this file's"}]
        known = {identity(entry): dict(entry) for entry in document.results}
        entries: list[Entry] = []
        route = self._context.settings.route_of(document)  # its workflow may have moved since
        own = self._context.by_route().get(route, self._context)
        for node, place in outputs_of(document, self._ended.job_id, own.results):
            entry = known.get(identity(node), {})
            if place is None:
                return [*entries, {"missing": LEFT_OUT}]
            entries.append(entry if "key" in entry or "missing" in entry else self._fetched(document, node, place))
        entries += [dict(node) for node in document.output_node_files if "missing" in node]
        return entries or [self._waited_for({}, OutputState.ABSENT, "the platform names no outputs")]

    def _fetched(self, document: Document, node: Entry, place: Entry) -> Entry:
        """Copy one output; where there is no bucket, see whether it can be had at all."""
        job_id, results = self._ended.job_id, self._context.results
        if not self._context.has_time():
            return {**node, OutputState.DELAYED: "the invocation ended before its turn"}
        self._keep_lease()
        try:
            with self._context.client.download(job_id, node["file_id"], node.get("node_id")) as chunks:
                if results is not None:
                    of_route = {"route": document.route} if document.route else {}
                    described_by = metadata({"job_id": job_id, **node, **of_route}, document)
                    pages = PageCounter(self._watched(chunks))
                    results.put(place, pages, described_by)
                    place |= {"pages": pages.count} if pages.count else {}
        except (errors.KeyRejected, errors.KeyNotSet):
            raise
        except errors.NotFound as error:
            return self._waited_for(node, OutputState.ABSENT, str(error))
        except errors.Misconfigured as error:
            return {**node, "missing": str(error)}
        except errors.PlatformError as error:
            return self._waited_for(node, OutputState.DELAYED, str(error))
        except errors.ResultsRefused as error:
            logger.warning("results refused", job_id=job_id, reason=str(error))
            return self._waited_for(node, OutputState.REFUSED, str(error))
        return place

    def _waited_for(self, node: Entry, state: OutputState, reason: str) -> Entry:
        """An output that is not there: tried again, for as long as what stands in its way may last."""
        if state in self._given_up:
            return {**node, "missing": reason}
        kind = "Silence" if self._is_silent and state is not OutputState.REFUSED else state
        gap_seconds = min(PATIENCE_SECONDS[state], 300)
        self._ended = self._ended.with_doubt(kind, self._context.clock.now(), gap_seconds=gap_seconds)
        return {**node, state: reason}

    def _overdue(self) -> set[OutputState]:
        """What has stood in the way for long enough. Neither an outage nor another key is the end of an output."""
        ended, now, kinds = self._ended, self._context.clock.now(), {each.kind for each in self._ended.doubts}
        patience = PATIENCE_SECONDS.items()
        overdue = {each for each, seconds in patience if each in kinds and ended.is_overdue(each, now, seconds=seconds)}
        return overdue & {OutputState.REFUSED} if self._is_silent else overdue

    def _is_answered(self) -> bool:
        """Whether the platform answers about the job or its workflow; a key of another workspace is no answer."""
        client, ended = self._context.client, self._ended
        with suppress(errors.PlatformError):
            return bool(client.job(ended.job_id))
        try:
            with suppress(errors.NotFound):
                client.look(ended.workflow_id)
            is_gone(self._context, Workflow(workflow_id=ended.workflow_id))
        except errors.PlatformError as error:
            self._context.counts.add("Held" if isinstance(error, errors.Misconfigured) else "Unanswered")
            return False
        return True

    def _watched(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks of a download; the lease is renewed on the way."""
        for chunk in chunks:
            self._keep_lease()
            yield chunk

    def _final(self, ended: EndedDocument, entries: list[Entry]) -> DocumentUpdate:
        """Its end; with the places of its outputs, where it is COMPLETED."""
        results = entries if self._context.results and ended.status is Status.COMPLETED else []
        missing = sum("missing" in entry for entry in results)
        if missing:
            logger.warning("outputs missing", object_key=ended.key.object, version=ended.key.version, missing=missing)
            self._context.counts.add("ResultsMissing", value=missing)
        pages = max((entry.get("pages", 0) for entry in results), default=0)
        return DocumentUpdate(
            key=ended.key, to=ended.status, error=ended.error, results=results or None, pages=pages or None
        )


def _is_waited_for(entry: Entry) -> bool:
    return any(state in entry for state in OutputState)


def _can_be_had(entries: list[Entry]) -> bool:
    """Whether the platform has every output. A file that failed may have those of the first nodes."""
    not_copied = [each for each in entries if "missing" in each or _is_waited_for(each)]
    return all(OutputState.REFUSED in each or each.get("missing") == LEFT_OUT for each in not_copied)


def _still_waiting(ended: EndedDocument, entries: list[Entry]) -> DocumentUpdate:
    """What came is not fetched again. A bucket that refuses is an error of the document's results."""
    refused = next((entry["refused"] for entry in entries if "refused" in entry), None)
    error = {"type": "ResultsRefused", "message": refused} if refused else None
    return DocumentUpdate(key=ended.key, to=Status.IN_PROGRESS, results=entries, error=error)
