"""Use case: bring the outputs of an ended job home, then finish its documents. Its workflow is free already."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from aws_lambda_powertools import Logger

from workflow_trigger.adapters.s3_results import identity, metadata, outputs_of
from workflow_trigger.adapters.unstructured.streams import PageCounter
from workflow_trigger.domain import errors
from workflow_trigger.domain.clock import has_passed, iso
from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.doubt import DoubtKind
from workflow_trigger.domain.job import Job
from workflow_trigger.domain.matching import is_own_file
from workflow_trigger.domain.model import LEFT_OUT, Document, DocumentUpdate, EndedJob, Outcome, Status
from workflow_trigger.services.context import Context

type Entry = dict[str, Any]

_LEASE_SECONDS = 120.0  # renewed while outputs are copied
_RETRY_SECONDS = 10.0
_KEY_RETRY_SECONDS = 60.0
_LATE_SECONDS = 900.0  # after a job's end, outputs that are still on their way ring the alarm

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
        self._keep_lease()
        self._before, self._began_at = ended, context.clock.now()  # doubts are judged as they were before this pass
        self._is_silent = False  # the platform tells neither of the job nor of its workflow
        self._unnamed = DoubtKind.ABSENT  # what stands in the way of outputs that the job does not name

    def run(self) -> EndedJob | None:
        updates: list[DocumentUpdate] = []
        left, again_seconds = self._ended.documents, _RETRY_SECONDS
        try:
            updates, left = self._look()
        except (errors.KeyRejected, errors.KeyNotSet):
            self._context.counts.add("Held")
            again_seconds = _KEY_RETRY_SECONDS
            self._ended = self._ended.with_doubt(DoubtKind.SILENCE, self._context.clock.now())
        if left:
            is_late = has_passed(self._ended.ended_at, self._context.clock.now(), seconds=_LATE_SECONDS)
            self._context.counts.add("ResultsDelayed", *(["ResultsMissing"] if is_late else []))
        later = self._context.later(again_seconds)
        retry_at = iso(max(later, self._context.client.throttle.until or later))
        after = replace(self._ended, documents=left, lease_ends_at=None, retry_at=retry_at) if left else None
        written = self._context.commit(self._ended, after, updates)
        return written if after else None

    def _look(self) -> tuple[list[DocumentUpdate], Mapping[DocumentKey, Outcome]]:
        """Fetch what is there: every document's next step, and those that still wait for outputs."""
        documents = self._documents()
        updates: list[DocumentUpdate] = []
        left: dict[DocumentKey, Outcome] = {}
        for key, end in self._ended.documents.items():
            document = documents.get(key)
            if document is None or document.attempt_id != self._ended.attempt_id:
                continue
            entries = self._entries(document)
            judged = Outcome(status=Status.COMPLETED) if _can_be_had(entries) else end
            is_waiting = any(map(_is_waited_for, entries))
            left |= {key: judged} if is_waiting else {}
            updates.append(_still_waiting(key, entries) if is_waiting else self._final(key, judged, entries))
        return updates, left

    def _documents(self) -> dict[DocumentKey, Document]:
        """The documents. A job may end before it names its outputs: it is asked again about those without any.

        It is asked before any download, whose 429 would stop the question.
        """
        ended, read = self._ended, self._context.ledger.documents
        documents = read(list(ended.documents))
        without = [each for each in documents.values() if not each.output_node_files]
        is_doubted = any(each.kind not in {DoubtKind.REFUSED, DoubtKind.SILENCE} for each in ended.doubts)
        job = self._job() if without or is_doubted else None
        self._is_silent = is_doubted and not (job or self._is_workflow_told())
        named = [self._named(job, each) for each in without] if job else []
        named = [each for each in named if each.job and each.job.output_node_files]
        if named:
            self._ended = self._context.commit(ended, ended, named)
        return documents | read([each.key for each in named])

    def _named(self, job: Job, document: Document) -> DocumentUpdate:
        """What a job names of this very document: it may name those of others of its batch earlier."""

        def is_own(file_id: Any) -> bool:
            return self._ended.is_solo or is_own_file(str(file_id), document.upload_name)

        ids = tuple(each for each in job.input_file_ids or () if is_own(each))
        nodes = tuple(node for node in job.output_node_files or () if is_own(node.get("file_id")))
        own, own_id = replace(job, input_file_ids=ids, output_node_files=nodes), ids[0] if len(ids) == 1 else None
        return DocumentUpdate(key=document.key, to=Status.IN_PROGRESS, job=own, input_file_id=own_id)

    def _keep_lease(self) -> None:
        if (self._ended.lease_ends_at or "") <= self._context.iso_later(_LEASE_SECONDS * 2 / 3):
            held = replace(self._ended, lease_ends_at=self._context.iso_later(_LEASE_SECONDS))
            self._ended = self._context.commit(self._ended, held)

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
        for node, place in outputs_of(document, self._ended.job_id, own.settings):
            entry = known.get(identity(node), {})
            if place is None:
                return [*entries, {"missing": LEFT_OUT}]
            entries.append(entry if "key" in entry or "missing" in entry else self._fetched(document, node, place))
        entries += [dict(node) for node in document.output_node_files if "missing" in node]
        return entries or [self._waited_for({}, self._unnamed, "the platform names no outputs")]

    def _fetched(self, document: Document, node: Entry, place: Entry) -> Entry:
        """Copy one output; where there is no bucket, see whether it can be had at all."""
        job_id, results = self._ended.job_id, self._context.results
        if not self._context.has_time():
            return {**node, DoubtKind.DELAYED: "the invocation ended before its turn"}
        self._keep_lease()
        try:
            with self._context.client.download(job_id, node["file_id"], node.get("node_id")) as chunks:
                if results is None:
                    for _ in self._watched(chunks):  # that all of it comes proves a success
                        pass
                else:
                    of_route = {"route": document.route} if document.route else {}
                    described_by = metadata({"job_id": job_id, **node, **of_route}, document)
                    pages = PageCounter(self._watched(chunks))
                    results.put(place, pages, described_by)
                    place |= {"pages": pages.count} if pages.count else {}
        except (errors.KeyRejected, errors.KeyNotSet):
            raise
        except errors.Misconfigured as error:
            if not document.output_node_files:  # asked for without the id of a node, which may be named a little later
                return self._waited_for(node, self._unnamed, str(error))
            if not isinstance(error, errors.NotFound):
                return {**node, "missing": str(error)}
            return self._waited_for(node, DoubtKind.ABSENT, str(error))
        except errors.PlatformError as error:
            return self._waited_for(node, DoubtKind.DELAYED, str(error))
        except errors.ResultsRefused as error:
            logger.warning("results refused", job_id=job_id, reason=str(error))
            return self._waited_for(node, DoubtKind.REFUSED, str(error))
        return place

    def _waited_for(self, node: Entry, kind: DoubtKind, reason: str) -> Entry:
        """An output that is not there: tried again, for as long as what stands in its way may last."""
        is_silent = self._is_silent and kind is not DoubtKind.REFUSED
        if not is_silent and self._before.is_overdue(kind, self._began_at):
            return {**node, "missing": reason}
        self._ended = self._ended.with_doubt(DoubtKind.SILENCE if is_silent else kind, self._context.clock.now())
        return {**node, kind: reason}

    def _job(self) -> Job | None:
        """The job, if the platform tells of it."""
        try:
            return self._context.client.job(self._ended.job_id)
        except errors.PlatformError as error:
            self._unnamed = DoubtKind.ABSENT if isinstance(error, errors.NotFound) else DoubtKind.DELAYED
        return None

    def _is_workflow_told(self) -> bool:
        """Whether the platform tells of the job's workflow; to a key of another workspace it does not."""
        context, workflow_id = self._context, self._ended.workflow_id
        try:
            if not context.is_gone(workflow_id):  # which may have no list any more
                with suppress(errors.NotFound):
                    context.client.look(workflow_id)
        except errors.PlatformError as error:
            context.counts.add("Held" if isinstance(error, errors.Misconfigured) else "Unanswered")
            return False
        return True

    def _watched(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks of a download; the lease is renewed on the way."""
        for chunk in chunks:
            self._keep_lease()
            yield chunk

    def _final(self, key: DocumentKey, end: Outcome, entries: list[Entry]) -> DocumentUpdate:
        """Its end; with the places of its outputs, where it is COMPLETED."""
        results = entries if self._context.results and end.status is Status.COMPLETED else []
        missing = sum("missing" in entry for entry in results)
        if missing:
            logger.warning("outputs missing", object_key=key.object, version=key.version, missing=missing)
            self._context.counts.add("ResultsMissing", value=missing)
        pages = max((entry.get("pages", 0) for entry in results), default=0)
        return DocumentUpdate(key=key, to=end.status, error=end.error, results=results or None, pages=pages or None)


def _is_waited_for(entry: Entry) -> bool:
    return any(kind in entry for kind in DoubtKind)


def _can_be_had(entries: list[Entry]) -> bool:
    """Whether the platform has every output. A file that failed may have those of the first nodes."""
    not_had = {DoubtKind.ABSENT, DoubtKind.DELAYED, "missing"}
    return all(not_had.isdisjoint(each) or each.get("missing") == LEFT_OUT for each in entries)


def _still_waiting(key: DocumentKey, entries: list[Entry]) -> DocumentUpdate:
    """What came is not fetched again. A bucket that refuses is an error of the document's results."""
    refused = next((entry["refused"] for entry in entries if "refused" in entry), None)
    error = {"type": "ResultsRefused", "message": refused} if refused else None
    return DocumentUpdate(key=key, to=Status.IN_PROGRESS, results=entries, error=error)
