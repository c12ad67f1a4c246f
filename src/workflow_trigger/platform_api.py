"""The vendor's HTTP API: every call ends in an answer, or in an error that says what happened remotely.

Source: https://docs.unstructured.io/api-reference/workflows/run-workflow
"""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from workflow_trigger.api_key import ApiKey
from workflow_trigger.clock import Deadline
from workflow_trigger.errors import (
    Busy,
    KeyNotSet,
    KeyRejected,
    Misconfigured,
    NotSent,
    OutcomeUnknown,
    Refused,
    Unavailable,
    Unreachable,
    shorten,
)
from workflow_trigger.job import Details, FailedFile, Job
from workflow_trigger.multipart import Encoder
from workflow_trigger.platform_answers import job_from, parsed, reason_of, refusal_of
from workflow_trigger.settings import canonical_id

ANSWER_SECONDS = 120  # how long the run endpoint may think about a complete request
_QUESTION_SECONDS = 30
_CONNECT_SECONDS = 10
_STALL_SECONDS = 30  # how long the server may leave us waiting while it should be reading
_ROTATED_SECONDS = 30
_RESERVE_SECONDS = 5  # of the invocation, to write down what came of a call
_LAST_SECONDS = 2  # of the reserve, in which nothing more is read
_CHUNK_BYTES = 1024 * 1024
_ANSWER_LIMIT_BYTES = 4 * 1024 * 1024
_LIST_LIMIT_BYTES = 32 * 1024 * 1024  # the list of jobs has no pages

# A long list takes several times its size while it is read.
_ONE_LIST_AT_A_TIME = threading.Lock()


def connection_pool(api_url: str) -> urllib3.PoolManager:
    """Connections that verify certificates and host names, follow nothing, repeat nothing, heed no proxy variable."""
    context = ssl.create_default_context() if api_url.startswith("https:") else None
    return urllib3.PoolManager(maxsize=25, retries=False, ssl_context=context)


class Platform:
    """One workspace of the platform, by its key."""

    def __init__(
        self,
        *,
        api_url: str,
        api_key: ApiKey,
        pool: urllib3.PoolManager,
        deadline: Deadline,
        fresh_pool: Callable[[str], urllib3.PoolManager] = connection_pool,
    ) -> None:
        self._root = f"{api_url}/api/v1"
        self._api_key = api_key
        self._pool = pool
        self._deadline = deadline
        self._fresh_pool = fresh_pool

    # -- questions -----------------------------------------------------------------------------------------------------

    def jobs(self, workflow_id: str) -> list[Job]:
        """All jobs of a workflow, in no particular order."""
        asked_for = canonical_id(workflow_id)
        query = urlencode({"workflow_id": asked_for})
        answer = self.ask(f"/jobs/?{query}", limit_bytes=_LIST_LIMIT_BYTES, reading=_ONE_LIST_AT_A_TIME)
        if not isinstance(answer, list):
            raise Unavailable("The list of jobs is no list")
        jobs = [job_from(entry) for entry in answer]
        if None in jobs:
            raise Unavailable("The list of jobs has an entry without an id")
        return [job for job in jobs if job is not None and canonical_id(job.workflow_id or asked_for) == asked_for]

    def job(self, job_id: str) -> Job:
        """One job, as far as this answer tells: the lists of files may be left out."""
        job = job_from(self.ask(f"/jobs/{quote(job_id, safe='')}"))
        if job is None:
            raise Unavailable(f"The answer for job {job_id} is no job")
        return job

    def details(self, job_id: str) -> Details:
        """How the processing went; what COMPLETED alone does not tell."""
        answer = self.ask(f"/jobs/{quote(job_id, safe='')}/details")
        status = answer.get("processing_status") if isinstance(answer, Mapping) else None
        if not isinstance(status, str):
            raise Unavailable(f"The details of job {job_id} have no processing_status")
        message = answer.get("message")
        return Details(processing_status=status, message=shorten(message) if isinstance(message, str) else None)

    def failed_files(self, job_id: str) -> list[FailedFile]:
        """The files of a job that failed."""
        answer = self.ask(f"/jobs/{quote(job_id, safe='')}/failed-files")
        entries = answer.get("failed_files") if isinstance(answer, Mapping) else None
        if not isinstance(entries, list):
            raise Unavailable(f"The failed files of job {job_id} are no list")
        return [
            FailedFile(document=str(entry.get("document") or ""), error=shorten(str(entry.get("error") or "")))
            for entry in entries
            if isinstance(entry, Mapping)
        ]

    def documents(self, job_id: str) -> list[str]:
        """The names of a job's files, from the newer file status or from the failed files; [] where neither tells."""
        try:
            answer = self.ask(f"/jobs/{quote(job_id, safe='')}/file-status")
        except (KeyRejected, KeyNotSet):
            raise
        except Misconfigured:
            answer = None  # not every deployment has it
        files = answer.get("files") if isinstance(answer, Mapping) else None
        entries = [entry.get("document") for entry in files or [] if isinstance(entry, Mapping)]
        names = [name for name in entries if isinstance(name, str) and name]
        if names:
            return names
        try:
            return [failed.document for failed in self.failed_files(job_id) if failed.document]
        except (KeyRejected, KeyNotSet):
            raise
        except Misconfigured:
            return []

    @contextmanager
    def download(self, job_id: str, file_id: str, node_id: str | None) -> Iterator[Iterator[bytes]]:
        """An output of a job, JSON, in chunks of at most 1 MiB.

        Raises:
            NotFound: the platform does not have it. Unavailable: it does not deliver it in full this time.
        """
        query = urlencode({"file_id": file_id} | ({"node_id": node_id} if node_id else {}))
        response = self._get(f"/jobs/{quote(job_id, safe='')}/download?{query}")
        with response:
            if not 200 <= response.status < 300:
                _check(response, self._bounded(response, _ANSWER_LIMIT_BYTES))
            yield self._streamed(response)

    def ask(
        self,
        path: str,
        *,
        limit_bytes: int = _ANSWER_LIMIT_BYTES,
        reading: AbstractContextManager[Any] = nullcontext(),  # noqa: B008  has no state
    ) -> Any:
        """The parsed answer to a question; `path` is below `/api/v1`.

        Raises:
            Misconfigured, Throttled: the platform said so. Unavailable: no answer, or none that makes sense.
        """
        try:
            return self._ask_once(path, limit_bytes, reading)
        except KeyRejected:
            self._api_key.forget()  # it may have been rotated
            return self._ask_once(path, limit_bytes, reading)

    def _ask_once(self, path: str, limit_bytes: int, reading: AbstractContextManager[Any]) -> Any:
        try:
            with self._get(path) as response, reading:
                body = self._bounded(response, limit_bytes)
                _check(response, body)
                return parsed(body)
        except (HTTPError, OSError) as error:
            raise Unavailable(f"No answer from the platform: {type(error).__name__}") from error
        except ValueError as error:
            raise Unavailable("The platform's answer is not JSON") from error

    def _get(self, path: str) -> urllib3.BaseHTTPResponse:
        seconds = min(_QUESTION_SECONDS, self._spare_seconds())
        if seconds <= 0:
            raise Unavailable("No answer could come before the invocation ends")
        headers = self._headers()
        try:
            return self._pool.request(
                "GET",
                self._root + path,
                headers=headers,
                redirect=False,
                timeout=urllib3.Timeout(connect=min(_CONNECT_SECONDS, seconds), read=seconds),
                preload_content=False,
            )
        except (HTTPError, OSError) as error:
            raise Unavailable(f"No answer from the platform: {type(error).__name__}") from error

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self, workflow_id: str, encoder: Encoder, commit: Callable[[float], None]) -> Job:
        """Post the files, once. `commit(seconds)` is called before the last bytes leave; if it raises, they never do.

        Its argument is how long the answer will be waited for. Errors that `commit` or the parts raise pass through.

        Raises:
            NotSent: nothing can be running. OutcomeUnknown: something may. Busy, Refused, Throttled, Misconfigured:
                the platform said so.
        """
        committed = False

        def body() -> Iterator[bytes]:
            nonlocal committed
            yield from encoder.body_without_closing()
            commit(answer_seconds)
            committed = True
            yield encoder.closing

        headers = self._headers() | {
            "Content-Type": encoder.content_type,
            "Content-Length": str(encoder.content_length),
        }
        answer_seconds = max(5.0, min(ANSWER_SECONDS, self._spare_seconds()))
        # A connection of its own: a kept one may be closed by the server just now, and that looks like a lost answer.
        with self._fresh_pool(self._root) as pool:
            try:
                response = pool.request(
                    "POST",
                    f"{self._root}/workflows/{quote(workflow_id, safe='')}/run",
                    body=body(),
                    headers=headers,
                    redirect=False,
                    timeout=urllib3.Timeout(connect=_STALL_SECONDS, read=answer_seconds),
                    preload_content=False,
                )
                with response:
                    content = self._bounded(response, _ANSWER_LIMIT_BYTES)
            except (NewConnectionError, ConnectTimeoutError) as error:
                raise Unreachable(f"The platform cannot be reached: {type(error).__name__}") from error
            except (HTTPError, OSError) as error:
                unheard = OutcomeUnknown if committed else NotSent
                raise unheard(f"The run request broke off: {type(error).__name__}") from error
        return self._answered(response.status, response.headers, content, committed=committed)

    def _answered(self, status: int, headers: Mapping[str, str], content: bytes, *, committed: bool) -> Job:
        if status == HTTPStatus.UNAUTHORIZED:
            self._api_key.forget()
        refusal = refusal_of(status, headers, content)
        if isinstance(refusal, KeyRejected):
            refusal.hold_seconds = _ROTATED_SECONDS  # the next attempt asks with the secret as it is by then
        early = isinstance(refusal, Refused) and not committed and status != HTTPStatus.CONTENT_TOO_LARGE
        if refusal is not None and not early:
            raise refusal
        if not committed:
            raise NotSent(f"HTTP {status} came before the request was complete")
        if not 200 <= status < 300:
            raise OutcomeUnknown(f"HTTP {status}: {reason_of(content)}")
        try:
            answer = parsed(content)
        except ValueError as error:
            raise OutcomeUnknown(f"HTTP {status} with an answer that is not JSON") from error
        if not isinstance(answer, Mapping):
            raise OutcomeUnknown(f"HTTP {status} with an answer that is no object")
        job = job_from(answer)
        if job is None:
            raise Busy(f"HTTP {status} without a job: {reason_of(content)}")
        return job

    def _bounded(self, response: urllib3.BaseHTTPResponse, limit_bytes: int) -> bytes:
        """A whole answer, without the key, which some errors repeat: it would get into logs and rows."""
        content = bytearray()
        for chunk in self._chunks(response):
            content += chunk
            if len(content) > limit_bytes:
                raise HTTPError("the answer is larger than its bound")
        return self._api_key.hidden_in(bytes(content))

    def _streamed(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from self._chunks(response)
        except (HTTPError, OSError) as error:
            raise Unavailable(f"A download broke off: {type(error).__name__}") from error

    def _chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """What has come so far, again and again; a server may send a byte every few seconds, for ever."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise HTTPError("the answer has an encoding that was not asked for")
        # Undecoded, for a decoder reads on until it has something to show.
        while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
            yield chunk
            if not response.closed and self._deadline.remaining_seconds() < _LAST_SECONDS:
                raise HTTPError("the answer did not end before the invocation does")

    def _spare_seconds(self) -> float:
        """What is left of the invocation, less what it takes to write down what came of a call."""
        return self._deadline.remaining_seconds() - _RESERVE_SECONDS

    def _headers(self) -> dict[str, str]:
        return {
            "unstructured-api-key": self._api_key.value(),
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }


def _check(response: urllib3.BaseHTTPResponse, content: bytes) -> None:
    """Raise what the status of an answer to a question stands for. A question has no file that could be refused."""
    if 200 <= response.status < 300:
        return
    refusal = refusal_of(response.status, response.headers, content)
    if isinstance(refusal, Refused):
        raise Misconfigured(str(refusal))
    raise refusal or Unavailable(f"HTTP {response.status}: {reason_of(content)}")
