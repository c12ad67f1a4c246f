"""The vendor's workflows, for people who set a pool up: create, list, describe. The functions do not use it.

Source: https://docs.unstructured.io/api-reference/workflow/workflows
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import quote

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from workflow_trigger.adapters.unstructured.api_key import redacted
from workflow_trigger.adapters.unstructured.connections import described, is_untrusted
from workflow_trigger.adapters.unstructured.responses import (
    array_entries,
    error_for_status,
    error_message,
    jobs_in,
    parsed,
)
from workflow_trigger.domain.errors import NotFound, OutcomeUnknown, PlatformError, Unavailable, Unreachable, truncate
from workflow_trigger.domain.job import Job

_TIMEOUT = urllib3.Timeout(connect=10, read=60)
_CHUNK_BYTES = 256 * 1024
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")  # it is printed as a part of a command
DEFAULT_NODES = ({"name": "Partitioner", "type": "partition", "subtype": "vlm", "settings": {}},)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowInformation:
    """A workflow as far as it matters to a pool. `kind` is '' where the platform does not say."""

    id: str
    name: str
    key: str | None
    has_source: bool
    has_destination: bool
    kind: str
    is_scheduled: bool
    is_active: bool


class Workflows:
    """The workflows of one workspace."""

    def __init__(self, *, api_url: str, key: str, pool: urllib3.PoolManager) -> None:
        self._root = f"{api_url}/api/v1"
        self._key = key
        self._headers = {"unstructured-api-key": key, "Accept": "application/json", "Accept-Encoding": "identity"}
        self._pool = pool

    def create(self, name: str, nodes: list[Any]) -> WorkflowInformation:
        """Create a workflow that takes files: custom, without a source, a destination and a schedule.

        Raises:
            PlatformError: it was not created; OutcomeUnknown: it may have been.
        """
        body = json.dumps({"name": name, "workflow_type": "custom", "workflow_nodes": nodes})
        return information_from(self._ask("POST", "/workflows/", body))

    def listed(self) -> Iterator[WorkflowInformation]:
        """All workflows of the workspace, page by page, until a page has no new ones.

        Raises:
            PlatformError: the platform refuses, or does not answer with a list.
        """
        seen: set[str] = set()
        for page in count(1):
            answer = self._ask("GET", f"/workflows/?page={page}")
            if not isinstance(answer, list):
                raise Unavailable("The platform did not answer with a list of workflows")
            found = [information_from(each) for each in answer if each]
            new = [each for each in found if each.id not in seen]
            yield from new
            seen.update(each.id for each in new)
            if not new:
                return

    def get(self, workflow: str) -> WorkflowInformation | None:
        """A workflow by its id or key; None where there is none."""
        try:
            return information_from(self._ask("GET", f"/workflows/{quote(workflow, safe='')}"))
        except NotFound:
            return None

    def cancel_job(self, job_id: str) -> None:
        """Ask for a job to be stopped.

        Raises:
            Misconfigured: the platform refuses. PlatformError: it did not say.
        """
        self._ask("POST", f"/jobs/{quote(job_id, safe='')}/cancel")

    def jobs(self, workflow_id: str) -> Iterator[Job]:
        """All jobs of a workflow, as they arrive: the list may be long.

        Raises:
            PlatformError: the platform refuses, or the list breaks off.
        """
        with self._answered("GET", f"/jobs/?workflow_id={quote(workflow_id, safe='')}") as response:
            try:
                yield from jobs_in(array_entries(response.stream(_CHUNK_BYTES)))
            except (HTTPError, OSError, ValueError) as error:
                raise Unavailable(f"The list of jobs of {workflow_id} could not be read to its end") from error

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        with self._answered(method, path, body) as response:
            try:
                return parsed(redacted(response.data, self._key))
            except (HTTPError, OSError, ValueError) as failed:
                raise _no_answer(body)(f"{self._root + path} did not answer with JSON") from failed

    @contextmanager
    def _answered(self, method: str, path: str, body: str | None = None) -> Iterator[urllib3.BaseHTTPResponse]:
        """An answer, 2xx, whose content is still to be read."""
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        more: Any = {"redirect": False, "retries": False, "timeout": _TIMEOUT, "preload_content": False}
        try:
            response = self._pool.request(method, self._root + path, body=body, headers=headers, **more)
            is_good = 200 <= response.status < 300
            content = b"" if is_good else redacted(response.data, self._key)
        except (NewConnectionError, ConnectTimeoutError) as error:
            raise Unreachable(f"{self._root} cannot be reached: {described(error)}") from error
        except (HTTPError, OSError) as error:
            kind = Unreachable if is_untrusted(error) else _no_answer(body)
            raise kind(f"No answer from {self._root + path}: {described(error)}") from error
        if not is_good:
            unclear = _no_answer(body)(f"HTTP {response.status}: {error_message(content)}")
            raise error_for_status(response.status, response.headers, content) or unclear
        with response:
            yield response


def _no_answer(body: str | None) -> type[PlatformError]:
    """What it is to hear nothing: after a question, or after a request that may have been heard."""
    return OutcomeUnknown if body else Unavailable


def information_from(answer: Any) -> WorkflowInformation:
    """A workflow, as the platform describes it.

    Raises:
        Unavailable: it is none.
    """
    name = answer.get("id") if isinstance(answer, Mapping) else None
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise Unavailable("The platform did not answer with a workflow")
    return WorkflowInformation(
        id=name,
        name=truncate(str(answer.get("name") or "")),
        key=answer.get("key") if isinstance(answer.get("key"), str) else None,
        has_source=bool(answer.get("sources")),
        has_destination=bool(answer.get("destinations")),
        kind=str(answer.get("workflow_type") or ""),
        is_scheduled=_has_entries(answer.get("schedule")),
        is_active=answer.get("status", "active") == "active",
    )


def _has_entries(schedule: Any) -> bool:
    """Whether a schedule is one: the contract's object holds a list of entries, and may hold an empty one."""
    return bool(schedule.get("crontab_entries") if isinstance(schedule, Mapping) else schedule)
