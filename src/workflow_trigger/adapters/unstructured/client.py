"""The vendor's HTTP API: every call ends in an answer, or in an error that says what happened remotely.

Source: https://docs.unstructured.io/api-reference/workflows/run-workflow
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError

from workflow_trigger.adapters.unstructured import responses, streams
from workflow_trigger.adapters.unstructured.api_key import ApiKey
from workflow_trigger.adapters.unstructured.connections import (
    Connections,
    Throttle,
    described,
    is_unheard,
    is_untrusted,
)
from workflow_trigger.adapters.unstructured.multipart import Encoder
from workflow_trigger.adapters.unstructured.responses import error_for_status, error_message, job_from, parsed
from workflow_trigger.domain import errors
from workflow_trigger.domain.clock import Deadline
from workflow_trigger.domain.document import canonical_id
from workflow_trigger.domain.job import Details, FailedFile, FileStatus, Job, Look
from workflow_trigger.domain.matching import ids_tell_whose

ANSWER_SECONDS = 120  # how long the run endpoint may think about a complete request
_QUESTION_SECONDS = 30
_LIST_SECONDS = 120  # a list of jobs has no pages, and may take its time
_WHOLE_SECONDS = 300  # of a list, or an output: however slowly it comes, it holds a thread
_FILE_STATUS = "file-status"
_CONNECT_SECONDS = 10  # for each address of the host
_RESERVE_SECONDS = 5  # of the invocation, to write down what came of a call
_LAST_SECONDS = 2  # of the reserve, in which nothing more is read
_CHUNK_BYTES = 256 * 1024  # for larger ones an output of 20 MB takes more memory, and no less time
_LIST_CHUNK_BYTES = 64 * 1024
_ANSWER_LIMIT_BYTES = 4 * 1024 * 1024
_PLAINLY: Any = {"redirect": False, "preload_content": False}  # no redirect is followed, and no answer read unasked


@dataclass(kw_only=True)
class PlatformClient:
    """One workspace of the platform, by its key."""

    api_url: str
    api_key: ApiKey
    connections: Connections
    deadline: Deadline
    throttle: Throttle = field(default_factory=Throttle)
    _file_status_throttle: Throttle = field(default_factory=Throttle)  # it has a quota of its own: 12 times a minute

    @property
    def _root(self) -> str:
        return f"{self.api_url}/api/v1"

    # -- questions -----------------------------------------------------------------------------------------------------

    def look(self, workflow_id: str) -> Look:
        """The active jobs of a workflow, in small answers however old it is."""
        active: dict[str, Job] = {}
        times = []
        for status in responses.ACTIVE:
            with self._list(workflow_id, status=status) as (jobs, at):
                active |= {job.id: job for job in jobs if job.state.is_active}
                times.append(at)
        return Look(active=tuple(active.values()), at=times[0])

    def jobs(self, workflow_id: str) -> Iterator[Job]:
        """All jobs of a workflow, in no particular order, as they arrive.

        Raises:
            Unavailable: when it breaks off: what was read until then is not complete.
        """
        with self._list(workflow_id) as (jobs, _):
            yield from jobs

    @contextmanager
    def _list(self, workflow_id: str, **query: str) -> Iterator[tuple[Iterator[Job], str]]:
        asked_for = canonical_id(workflow_id)
        path = f"/jobs/?{urlencode({'workflow_id': asked_for, **query})}"
        with self._question(path, seconds=_LIST_SECONDS) as response:
            chunks = self._chunks(response, _LIST_CHUNK_BYTES, _WHOLE_SECONDS)
            jobs = responses.jobs_in(streams.array_entries(chunks))
            ours = (job for job in jobs if canonical_id(job.workflow_id or asked_for) == asked_for)
            yield ours, responses.time_of(response.headers, self.deadline.clock.now())

    def job(self, job_id: str) -> Job:
        """One job, as far as this answer tells: the lists of files may be left out."""
        return self.ask(_path("jobs", job_id), job_from)

    def details(self, job_id: str) -> Details:
        """How the processing went; what COMPLETED alone does not tell."""
        return self.ask(_path("jobs", job_id, "details"), responses.details_from)

    def failed_files(self, job_id: str) -> list[FailedFile] | None:
        """The files of a job that failed; None where the platform does not have, or refuses, this question."""
        return self._or_none(lambda: self.ask(_path("jobs", job_id, "failed-files"), responses.failed_files_from))

    def file_status(self, job_id: str) -> FileStatus | None:
        """The status of each file of a job; None where the platform does not have this newer question."""
        return self._or_none(lambda: self.ask(_path("jobs", job_id, _FILE_STATUS), responses.file_status_from))

    def names(self, job_id: str) -> FileStatus:
        """The names of a job's files, from its file status or its failed files; none where neither tells."""
        status = self.file_status(job_id)
        if status is not None and status.documents:
            return status
        failed = self.failed_files(job_id)
        documents = tuple(each.document for each in failed or () if each.document)
        is_complete = failed is not None and (status is None or status.is_complete)
        return FileStatus(documents=documents, is_complete=is_complete)

    def names_of(self, job: Job) -> FileStatus:
        """The names of a job's files, as its entry in the list shows them; where it hides them, they are asked for."""
        shown = job.file_names()
        return FileStatus(documents=shown, is_complete=True) if ids_tell_whose(shown) else self.names(job.id)

    def cancel(self, job_id: str) -> None:
        """Ask for a job to be stopped.

        Raises:
            As `ask`.
        """
        self.ask(_path("jobs", job_id, "cancel"), lambda answer: answer or {}, post={})

    def workflow(self, workflow_id: str) -> Any:
        """A workflow, as the platform describes it."""
        return self.ask(_path("workflows", canonical_id(workflow_id)), lambda answer: answer or {})

    def id_of_workflow(self, key: str) -> str:
        """The UUID of a workflow that is named by its key: jobs tell, and are listed by, the UUID alone."""
        return self.ask(_path("workflows", key), responses.workflow_id_from)

    def has_workflow(self, workflow_id: str) -> bool | None:
        """Whether the key's workspace has a workflow; None where the platform does not say."""
        try:
            return self._or_none(lambda: self.workflow(workflow_id) is not None, but=errors.NotFound)
        except errors.NotFound:
            return False

    def _or_none[T](self, ask: Callable[[], T], *, but: type[errors.Misconfigured] = errors.KeyRejected) -> T | None:
        """Ask what not every deployment answers: None if it does not. A wrong key is still an error."""
        try:
            return ask()
        except (errors.KeyRejected, errors.KeyNotSet, but):
            raise
        except errors.Misconfigured:
            return None

    @contextmanager
    def download(self, job_id: str, file_id: str, node_id: str | None) -> Iterator[Iterator[bytes]]:
        """An output of a job, JSON, in chunks of at most 256 KiB.

        Raises:
            NotFound: the platform does not have it. Misconfigured: it never will. Unavailable: not in full this time.
        """
        query = urlencode({"file_id": file_id} | ({"node_id": node_id} if node_id else {}))
        with self._question(f"{_path('jobs', job_id, 'download')}?{query}") as response:
            if response.status != HTTPStatus.OK:
                raise errors.Unavailable(f"HTTP {response.status} with no output yet")
            yield streams.whole_json(self._chunks(response, _CHUNK_BYTES, _WHOLE_SECONDS))

    def ask[T](self, path: str, read: Callable[[Any], T | None], *, post: Any = None) -> T:
        """What `read` makes of the answer to a question or, with JSON to post, to a request for a change.

        Raises:
            Misconfigured, Throttled: the platform said so. Unavailable: no answer, or none that makes sense.
            Unreachable, OutcomeUnknown: the change was not made, or may have been.
        """
        with self._question(path, seconds=_QUESTION_SECONDS if post is None else _LIST_SECONDS, post=post) as response:
            answer = read(parsed(self._bounded(response)))
            if answer is None:
                raise errors.Unavailable(f"The answer to {path} makes no sense")
            return answer

    @contextmanager
    def _question(
        self, path: str, *, seconds: float = _QUESTION_SECONDS, post: Any = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer to a question, or to what is posted, 2xx; `path` is below `/api/v1`.

        Raises:
            As `ask`.
        """
        try:
            with self._asked(path, seconds, post) as response:
                yield response
        except (HTTPError, OSError) as error:
            if is_untrusted(error):
                self.connections.distrusted()
            if post is not None and is_unheard(error):
                raise errors.Unreachable(f"{self._root} cannot be reached: {described(error)}") from error
            raise _unanswered(post)(f"No answer from the platform: {described(error)}") from error
        except ValueError as error:
            kind = type(error).__name__
            raise errors.Unavailable(f"The platform's answer is not what it should be: {kind}") from error

    def _asked(self, path: str, seconds: float, post: Any) -> urllib3.BaseHTTPResponse:
        """Ask, and once more where that was in vain for a reason that has passed by now."""
        try:
            return self._asked_once(path, seconds, post)
        except ProtocolError:  # the server has closed a kept connection, say while the function was frozen
            if post is not None:
                raise
        except errors.KeyRejected:
            self.api_key.invalidate()  # it may have been rotated
        return self._asked_once(path, seconds, post)

    def _asked_once(self, path: str, seconds: float, post: Any) -> urllib3.BaseHTTPResponse:
        own = self._file_status_throttle if path.endswith(_FILE_STATUS) else self.throttle
        now = self.deadline.clock.now()
        until = max(self.throttle.until or now, own.until or now)
        if now < until:
            raise errors.Throttled("The platform asked for a pause", (until - now).total_seconds())
        seconds = min(seconds, self._spare_seconds())
        if seconds <= 0:
            raise errors.Unavailable("No answer could come before the invocation ends")
        timeout = urllib3.Timeout(connect=min(_CONNECT_SECONDS, seconds), read=seconds)
        more = {"headers": self._headers(), "timeout": timeout, **_PLAINLY}
        method = "GET" if post is None else "POST"
        response = self.connections.kept.request(method, self._root + path, json=post or None, **more)
        if 200 <= response.status < 300:
            return response
        with response:
            raise self._error_of(response, _unanswered(post), own)

    def _error_of(
        self, response: urllib3.BaseHTTPResponse, otherwise: type[errors.PlatformError], throttle: Throttle
    ) -> errors.PlatformError:
        """What an answer to a question stands for. A question has no file that could be refused."""
        content = self._body_or_nothing(response)
        error = error_for_status(response.status, response.headers, content)
        if isinstance(error, errors.Throttled):
            throttle.until = self.deadline.clock.now() + timedelta(seconds=error.retry_after_seconds)
        if isinstance(error, errors.Refused):
            return errors.Misconfigured(str(error))
        kind = errors.Misconfigured if response.status == HTTPStatus.NOT_IMPLEMENTED else otherwise
        return error or kind(f"HTTP {response.status}: {error_message(content)}")

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self, workflow_id: str, encoder: Encoder, commit: Callable[[float], None]) -> Job:
        """Post the files, once. `commit(seconds)` is called before the last bytes leave; if it raises, they never do.

        Its argument is how long the answer will be waited for. Errors of ours that `commit` or the parts raise pass
        through; others end the request like a broken connection.

        Raises:
            NotSent: nothing can be running. OutcomeUnknown: something may. Busy, Refused, Throttled, Misconfigured:
                the platform said so.
        """
        unheard: type[errors.PlatformError] = errors.NotSent

        def body() -> Iterator[bytes]:
            nonlocal unheard
            yield from encoder.body_without_closing()
            commit(answer_seconds)
            unheard = errors.OutcomeUnknown
            yield encoder.closing

        url = f"{self._root}{_path('workflows', canonical_id(workflow_id), 'run')}"
        lengths = {"Content-Type": encoder.content_type, "Content-Length": str(encoder.content_length)}
        answer_seconds = max(5.0, min(ANSWER_SECONDS, self._spare_seconds()))
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=answer_seconds)
        more = {"headers": self._headers() | lengths, "timeout": timeout, **_PLAINLY}
        # A connection of its own: a kept one may be closed by the server just now, and that looks like a lost answer.
        with self.connections.fresh() as pool:
            try:
                with pool.request("POST", url, body=body(), **more) as response:
                    content = self._body_or_nothing(response)
            except (HTTPError, OSError) as error:
                if is_untrusted(error):
                    self.connections.distrusted()
                if is_unheard(error):
                    raise errors.Unreachable(f"{self._root} cannot be reached: {described(error)}") from error
                raise unheard(f"The run request broke off: {type(error).__name__}") from error
        return self._answered(response.status, response.headers, content, unheard)

    def _answered(
        self, status: int, headers: Mapping[str, str], content: bytes, unheard: type[errors.PlatformError]
    ) -> Job:
        """The job that an answer names. What an answer says holds even where it came before the last bytes."""
        if status == HTTPStatus.CONFLICT:
            raise errors.Busy(f"HTTP {status}: {error_message(content)}")
        error = error_for_status(status, headers, content)
        if isinstance(error, errors.KeyRejected):
            self.api_key.invalidate()
        if error is not None:
            raise error
        if not 200 <= status < 300:
            raise unheard(f"HTTP {status}: {error_message(content)}")
        answer = None
        with suppress(ValueError):
            answer = parsed(content)
        if (job := job_from(answer)) is not None:
            return job
        # What is no object tells nothing. An id that cannot be used is one nevertheless: a job may run.
        kind = errors.Busy if isinstance(answer, Mapping) and not answer.get("id") else unheard
        raise kind(f"HTTP {status} without a job: {error_message(content)}")

    # -- answers -------------------------------------------------------------------------------------------------------

    def _body_or_nothing(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """A whole answer; nothing if it breaks off, and its status alone (3xx, 4xx) tells what happened."""
        try:
            return self._bounded(response)
        except (HTTPError, OSError):
            if not 300 <= response.status < 500:
                raise
            return b""

    def _bounded(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """A whole answer, without the key, which some errors repeat: it would get into logs and rows."""
        content = bytearray()
        for chunk in self._chunks(response, _CHUNK_BYTES, _QUESTION_SECONDS):
            content += chunk
            if len(content) > _ANSWER_LIMIT_BYTES:
                raise HTTPError("the answer is larger than its bound")
        return self.api_key.redact(bytes(content))

    def _chunks(self, response: urllib3.BaseHTTPResponse, size_bytes: int, seconds: float) -> Iterator[bytes]:
        """What has come so far, again and again; a server may send a byte every few seconds, for ever."""
        if response.headers.get("Content-Encoding", "").lower() not in {"", "identity"}:
            raise HTTPError("the answer has a Content-Encoding that was not asked for; something on the way compresses")
        until = Deadline.in_seconds(
            self.deadline.clock, min(seconds, self.deadline.remaining_seconds() - _LAST_SECONDS)
        )
        # Undecoded, for a decoder reads on until it has something to show.
        while chunk := response.read1(size_bytes, decode_content=False):
            yield chunk
            if not response.closed and until.remaining_seconds() < 0:
                raise HTTPError("the answer did not end in time")

    def _spare_seconds(self) -> float:
        """What is left of the invocation, less what it takes to write down what came of a call."""
        return self.deadline.remaining_seconds() - _RESERVE_SECONDS

    def _headers(self) -> dict[str, str]:
        key = self.api_key.value()
        return {"unstructured-api-key": key, "Accept": "application/json", "Accept-Encoding": "identity"}


def _unanswered(post: Any) -> type[errors.PlatformError]:
    """What it is to hear nothing: after a question, or after a request that may have been heard."""
    return errors.Unavailable if post is None else errors.OutcomeUnknown


def _path(*parts: str) -> str:
    """A path below `/api/v1`."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)
