"""What the use cases of one invocation work with: the adapters, the settings, the time that is left."""

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from workflow_trigger.adapters.dynamodb.ledger import Ledger
from workflow_trigger.adapters.eventbridge import EventPublisher
from workflow_trigger.adapters.s3_reader import ObjectReader
from workflow_trigger.adapters.s3_results import ResultsBucket
from workflow_trigger.adapters.unstructured.client import ANSWER_SECONDS, PlatformClient
from workflow_trigger.domain import errors, model
from workflow_trigger.domain.clock import Clock, Deadline, iso
from workflow_trigger.domain.document import DocumentKey, canonical_id, is_workflow_key
from workflow_trigger.domain.errors import NotFound, PlatformError, TriggerError, Unavailable, as_stored
from workflow_trigger.domain.model import FINAL, Document, DocumentUpdate, EndedJob, Poller, Snapshot, Workflow
from workflow_trigger.domain.retry import Circumstances, Decision, after_failure
from workflow_trigger.settings import Settings

_WITNESSES = 3  # workflows that are asked for, to tell one that was deleted from a key of another workspace
MINIMUM_SECONDS = ANSWER_SECONDS + 120.0  # an invocation with less time left begins no attempt

logger = Logger(child=True)

_ids_by_key: dict[str, str] = {}  # each is asked for once in the life of a function


class Counts:
    """What happened, by name; any thread may count."""

    def __init__(self) -> None:
        self._names: deque[str] = deque()  # whose two ends need no lock

    def add(self, *names: str, value: int = 1) -> None:
        """Count something."""
        self._names.extend(names * value)

    def taken(self) -> dict[str, int]:
        """Everything counted since the last time."""
        return Counter(self._names.popleft() for _ in range(len(self._names)))


@dataclass(kw_only=True, slots=True)
class Context:
    """Handed to the use cases, which find everything here that reaches outside of them."""

    ledger: Ledger
    reader: ObjectReader
    client: PlatformClient
    results: ResultsBucket | None
    events: EventPublisher
    settings: Settings
    clock: Clock
    deadline: Deadline
    wake_poller: Callable[[], None]
    counts: Counts = field(default_factory=Counts)
    unresolved: dict[str, PlatformError] = field(default_factory=dict)  # keys of workflows, of all routes, and why
    is_paused: bool = False  # the route, by an operator: no batch is begun
    accepted: int = 0  # documents, by the whole pool, when the workflows were last read
    _by_route: dict[str, "Context"] = field(default_factory=dict)  # shared by all of them
    _owners: dict[str, "Context"] = field(default_factory=dict, init=False)  # of workflows, by their ids

    def has_time(self) -> bool:
        """Whether the invocation may still begin an attempt."""
        return self.deadline.remaining_seconds() > MINIMUM_SECONDS

    def later(self, seconds: float) -> datetime:
        """The time in so many seconds."""
        return self.clock.now() + timedelta(seconds=seconds)

    def iso_later(self, seconds: float = 0) -> str:
        """The same as it is stored; without an argument, now."""
        return iso(self.later(seconds))

    def by_route(self) -> dict[str, "Context"]:
        """What each route works with, by its key prefix; this context itself is that of all that no other takes."""
        if not self._by_route:
            self._by_route = {self.settings.route: self}
            for route in self.settings.routes if not self.settings.route else ():
                own = replace(self, settings=self.settings.of_route(route), counts=Counts())
                self._by_route[route.key_prefix] = own
        return self._by_route

    def of_workflow(self, workflow_id: str) -> "Context":
        """The context of the route whose pool has a workflow; of one that is in no pool any more, this one."""
        return self._owners.get(canonical_id(workflow_id), self) if self.settings.routes else self

    def snapshot(self) -> Snapshot:
        """The workflows of all routes, ended jobs and who polls, as they are now."""
        contexts = self.by_route().values()
        self._resolve_keys()
        self._owners = {}
        for each in contexts:
            each.settings = replace(each.settings, workflow_ids=each.resolved(self._owners))
        snapshot = self.ledger.snapshot([each for context in contexts for each in context.settings.workflow_ids])
        for each in contexts:
            ids = tuple(snapshot.names[own] for own in each.settings.workflow_ids)
            each.settings = replace(each.settings, workflow_ids=ids)
            pool = [own for own in snapshot.workflows if self.of_workflow(own.workflow_id) is each]
            each.accepted = sum(workflow.accepted_count for workflow in pool)
            each.is_paused = snapshot.pause_of(each.settings.route) is not None
        return snapshot

    def resolved(self, owners: dict[str, "Context"]) -> tuple[str, ...]:
        """The ids of the route's workflows, each once, but for those of another route: two names may mean the same."""
        pool: dict[str, str] = {}
        names = [each for each in self.settings.workflow_ids if each in _ids_by_key or not is_workflow_key(each)]
        self.counts.add("Held", value=len(self.settings.workflow_ids) - len(names))
        for workflow_id in (_ids_by_key.get(each, each) for each in names):
            if owners.setdefault(canonical_id(workflow_id), self) is self:
                pool.setdefault(canonical_id(workflow_id), workflow_id)
            else:
                logger.error("workflow is in more than one route", workflow_id=workflow_id)
                self.counts.add("Held")
        return tuple(pool.values())

    def _resolve_keys(self) -> None:
        """Ask for the ids of workflows that are named by keys. A silent platform takes half a minute: then no more.

        In any order, so that a key that is never answered keeps no other from its turn.
        """
        keys = {each for own in self.by_route().values() for each in own.settings.workflow_ids if is_workflow_key(each)}
        for name in sorted(keys - _ids_by_key.keys(), key=lambda _: random.random()):  # noqa: S311
            try:
                _ids_by_key[name] = self.client.id_of_workflow(name)
            except PlatformError as error:
                logger.warning("workflow cannot be resolved", workflow=name, error=as_stored(error))
                self.unresolved[name] = error
                if isinstance(error, Unavailable):
                    break

    @property
    def is_pool_complete(self) -> bool:
        """Whether every workflow is known, but for keys of which there is none."""
        return all(isinstance(error, NotFound) for error in self.unresolved.values())

    def is_in_pool(self, workflow_id: str) -> bool:
        """Whether a workflow is in the pool, in whatever spelling; where that cannot be told, it is."""
        return not self.is_pool_complete or canonical_id(workflow_id) in map(canonical_id, self.settings.workflow_ids)

    def is_gone(self, workflow_id: str) -> bool:
        """Whether a workflow was deleted, told from a key that shows another workspace.

        One of which the platform does not tell, while it tells of another, counts as being there.

        Raises:
            NotFound: no other workflow is to be seen, so the key may be of another workspace.
            Unavailable: the platform tells of none.
        """
        try:
            if self.client.has_workflow(workflow_id) is not False:
                return False
        except Unavailable:
            if self._shows_another(workflow_id):
                return False
            raise
        if self._shows_another(workflow_id):
            return True
        _ids_by_key.clear()  # it may have been made anew under its key
        raise NotFound(f"workflow {workflow_id} was deleted, or the key is of another workspace")

    def _shows_another(self, workflow_id: str) -> bool:
        """Whether the key shows another workflow of the stack, of a few that are drawn anew at each look."""
        others = {each for own in self.by_route().values() for each in own.settings.workflow_ids} - {workflow_id}
        some = random.sample(sorted(others), min(len(others), _WITNESSES))
        return any(self.client.has_workflow(each) is not False for each in some)

    def circumstances(self) -> Circumstances:
        """What the retry policy has to know."""
        pool_size, jitter = len(self.settings.workflow_ids), random.random()  # noqa: S311
        return Circumstances(now=self.clock.now(), accepted=self.accepted, jitter=jitter, pool_size=pool_size)

    def fail(self, workflow: Workflow, error: TriggerError, documents: Sequence[Document]) -> Workflow:
        """Write what a failure means, now that nothing of a batch runs."""
        if isinstance(error, NotFound):
            _ids_by_key.clear()  # a workflow may have been made anew under its key
        return self.conclude(workflow, after_failure(error, workflow, documents, self.circumstances()))

    def conclude(self, workflow: Workflow, decision: Decision) -> Workflow:
        """Count and write a decision."""
        self.counts.add(*decision.metrics)
        return self.commit(workflow, decision.workflow, decision.updates)

    def commit[R: (Workflow, EndedJob, Poller)](
        self, before: R, after: R | None, updates: Sequence[DocumentUpdate] = (), creates: EndedJob | None = None
    ) -> R:
        """Write a `Transition`; then tell of what became final. Documents that have changed since are left out.

        Raises:
            ConflictError, LedgerUnavailable: as `Ledger.commit`.
        """
        written, left_out = self.ledger.commit(model.Transition(before, after, tuple(updates), creates))
        for key in left_out:
            logger.info("document has changed since", object_key=key.object, version=key.version)
        final = [update for update in updates if update.to in FINAL and update.key not in left_out]
        if final and not isinstance(before, Poller):
            self._finished(before, final)
        return written

    def supersede_older(self, name: str) -> None:
        """Where only the latest version of an object is wanted, end the older ones that wait."""
        keys = self.ledger.supersede_older(name) if self.settings.only_latest_version else []
        if keys:
            logger.info("superseded", object_key=name, versions=[each.version for each in keys])
            self.counts.add("Superseded", value=len(keys))
            self.publish(keys)

    def _finished(self, record: Workflow | EndedJob, updates: Sequence[DocumentUpdate]) -> None:
        """Tell of documents that are final now."""
        of_record: dict[str, Any] = {"attempt_id": record.attempt_id, "job_id": record.job_id}
        for each in updates:
            (name, version), told = each.key, {"status": each.to, "error": each.error, **of_record}
            logger.info("finished", object_key=name, version=version, **told)
            self.counts.add(each.to.capitalize())
        self.publish([each.key for each in updates])

    def publish(self, keys: Sequence[DocumentKey]) -> bool:
        """Publish final documents that still carry their mark. A failure (False) holds nothing: the mark stays."""
        try:
            rows = self.ledger.unpublished(keys)
            self.events.put(rows)
            self.ledger.mark_published(rows)
        except (errors.EventsRefused, errors.LedgerUnavailable, ClientError, BotoCoreError):
            logger.exception("events could not be published; the next run does")
            self.counts.add("PublishErrors")
            return False
        return True

    def note(self, workflow: Workflow, error: Mapping[str, str], **changes: Any) -> Workflow:
        """Write an error down on a workflow, once, for whoever asks why nothing moves."""
        after = replace(workflow, **changes)
        if after == workflow and (workflow.last_error or {}).get("message") == error["message"]:
            return workflow
        return self.commit(workflow, replace(after, last_error={**error, "at": self.iso_later()}))
