"""The vendor's workflows, for people who set a pool up: create, list, describe.

Source: https://docs.unstructured.io/api-reference/workflow/workflows
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from workflow_trigger.adapters.unstructured.api_key import ApiKey
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.domain.errors import NotFound, Unavailable, truncate

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")  # it is printed as a part of a command
DEFAULT_NODES = ({"name": "Partitioner", "type": "partition", "subtype": "vlm", "settings": {}},)


class GivenKey(ApiKey):
    """One that a person has typed."""

    def __init__(self, key: str) -> None:
        self._value = key
        self._used = frozenset({key})

    def invalidate(self) -> None:
        """There is no other."""


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


def create(client: PlatformClient, name: str, nodes: list[Any]) -> WorkflowInformation:
    """Create a workflow that takes files: custom, without a source, a destination and a schedule.

    Raises:
        OutcomeUnknown, Unavailable: it may have been created. PlatformError: it was not.
    """
    wanted = {"name": name, "workflow_type": "custom", "workflow_nodes": nodes}
    return client.ask("/workflows/", information_from, post=wanted)


def listed(client: PlatformClient) -> Iterator[WorkflowInformation]:
    """All workflows of the workspace, page by page, until a page has no new ones.

    Raises:
        PlatformError: the platform refuses, or does not answer with a list.
    """
    seen: set[str] = set()
    for page in count(1):
        found = client.ask(f"/workflows/?page={page}", _page)
        new = [each for each in found if each.id not in seen]
        yield from new
        seen.update(each.id for each in new)
        if not new:
            return


def get(client: PlatformClient, name: str) -> WorkflowInformation | None:
    """A workflow by its id or key; None where there is none."""
    try:
        return information_from(client.workflow(name))
    except NotFound:
        return None


def _page(answer: Any) -> list[WorkflowInformation]:
    if not isinstance(answer, list):
        raise Unavailable("The platform did not answer with a list of workflows")
    return [information_from(each) for each in answer if each]


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
