"""Use case: bring the ledger into line with the platform. One loop polls, settles, collects and submits for all.

Level-triggered, like a controller: a step looks at a workflow's item and at the platform, and takes the one step that
follows, whoever began what is there. So an invocation can die at any line, and overlapping ones do no harm.
"""

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from aws_lambda_powertools import Logger

from workflow_trigger.domain.clock import has_passed, iso, parse_time
from workflow_trigger.domain.errors import ConflictError, Misconfigured, NotFound, PlatformError, as_stored
from workflow_trigger.domain.model import Document, EndedJob, Phase, Poller, Snapshot, Workflow
from workflow_trigger.services import recover
from workflow_trigger.services.context import Context
from workflow_trigger.services.results import collect
from workflow_trigger.services.settle import expire_lease, settle
from workflow_trigger.services.submit import Queue, idle_workflows, submit
from workflow_trigger.services.track import doubts_after, track

type _Workers = Mapping[str, ThreadPoolExecutor]  # by route
type _Step = tuple[datetime, Callable[..., Any], Workflow | EndedJob, _Workers]

_LEASE_SECONDS = 90.0  # of the one run that polls, beyond the next look: the next run of the schedule comes before
_LEASE_RESERVE_SECONDS = 10.0  # it is renewed when less of it would be left at the next look
_HANDOVER_SECONDS = 45.0  # a run that has polled for so long makes way for the next one of the schedule
_OVERLAP = timedelta(seconds=20)  # so much later it looks whether that one, of a minute after it, has come
_QUESTION_THREADS = 4
_SEARCH_SECONDS = 600.0

logger = Logger(child=True)


def step(context: Context, workflow: Workflow) -> Workflow:
    """What follows from where a workflow stands; where that is unknown, because somebody else wrote, it is read again.

    Without an answer of the platform nothing changes, but it is written down.
    """
    try:
        match workflow.phase:
            case Phase.SUBMITTING if workflow.lease_has_ended(context.clock.now()):
                return expire_lease(context, workflow)
            case Phase.COMMITTED:
                return settle(context, workflow)
            case Phase.RUNNING:
                return track(context, workflow)
    except PlatformError as error:
        logger.warning("platform query failed", workflow_id=workflow.workflow_id, error=as_stored(error))
        context.counts.add("Held" if isinstance(error, Misconfigured) else "Unanswered")
        doubts = doubts_after(error, workflow, context.clock.now())
        return context.note(workflow, as_stored(error), doubts=doubts)
    except ConflictError as lost:
        logger.info("lost a write race", workflow_id=workflow.workflow_id, reason=str(lost))
        return context.ledger.workflow(workflow.workflow_id)
    return workflow


class Reconciler:
    """One run of the loop. Only the thread that runs it decides; workers take single steps."""

    def __init__(self, context: Context, *, worker_threads: int = 4) -> None:
        self._context = context
        self._questions = {name: ThreadPoolExecutor(_QUESTION_THREADS) for name in context.by_route()}
        self._streams = _worker_pools(worker_threads, context.by_route())
        self._copies = _worker_pools(worker_threads, context.by_route())  # no free workflow waits for what takes long
        self._owner = uuid.uuid4().hex
        self._poller = Poller()
        self._workflows: dict[str, Workflow] = {}
        self._ended: dict[str, EndedJob] = {}
        self._queues = {name: Queue(each) for name, each in context.by_route().items()}
        self._due: dict[str, datetime] = {}  # by workflow or job: when it is looked at again
        self._in_flight: dict[Future[Any], str] = {}
        self._stale_at = context.clock.now()  # PollSeconds after all was read
        self._is_ours = False
        self._orphans: list[tuple[str, list[Document]]] = []
        self._failures: list[Exception] = []
        self._snapshot: Snapshot | None = None  # the last one that was read

    def run(self, seconds: float) -> None:
        """Poll for about that long while anything is active, or until the next run takes over.

        Raises:
            ExceptionGroup: parts failed unexpectedly; the others were done nevertheless.
        """
        until = self._context.later(seconds)
        snapshot = self._read()
        self._guarded(recover.publish_late_events, self._context)
        self._guarded(recover.finish_batches, self._context)
        self._is_ours = self._takes_over(snapshot)
        self._guarded(self._find_orphans, snapshot)
        with ExitStack() as threads:
            for each in {*self._questions.values(), *self._streams.values(), *self._copies.values()}:
                threads.enter_context(each)
            while self._turn(until):
                pass
        if self._failures:
            raise ExceptionGroup("parts of the run failed", self._failures)

    def _turn(self, until: datetime) -> bool:
        """One turn of the loop: begin what is due, wait for what was begun or becomes due next; False at the end."""
        self._guarded(self._refresh)
        if self._is_ours:
            self._dispatch()
        else:  # what has not begun is the next run's
            self._in_flight = {each: key for each, key in self._in_flight.items() if not each.cancel()}
        now = self._context.clock.now()
        due = [due_at for due_at, *_ in self._steps(now) if due_at <= until] if self._is_ours else []
        if not self._in_flight and not due:
            return self._is_ours and not self._release()
        wake_at = [*due, self._next_read_at()] if self._is_ours else [self._context.later(_LEASE_SECONDS)]
        self._context.clock.wait_for(self._in_flight.keys(), max((min(wake_at) - now).total_seconds(), 0.01))
        for future in [each for each in self._in_flight if each.done()]:
            self._guarded(self._take_in, self._in_flight.pop(future), future)
        self._guarded(self._hold)
        return True

    def _hold(self) -> None:
        """Go on, if no other run has taken over. A pause that the platform asked for is known to all at once."""
        self._is_ours = self._is_ours and self._renew()

    # -- who polls -----------------------------------------------------------------------------------------------------

    def _takes_over(self, snapshot: Snapshot) -> bool:
        now, before = self._context.clock.now(), snapshot.poller
        paused_until = parse_time(before.paused_until)
        if paused_until is not None and paused_until > now:
            self._context.client.throttle.until = paused_until
        if before.is_alive(now) and _hands_over_at(before, now) > now:
            return False
        began_at = before.began_at if before.owner == self._owner else iso(now)  # one that goes on is not young again
        self._poller = replace(before, lease_ends_at=None)  # so that `_renew` sets it
        return self._renew(owner=self._owner, began_at=began_at)

    def _renew(self, **changes: str | None) -> bool:
        """Hold the lease until after the next look; False when another run has taken it."""
        poll_seconds, later = self._context.settings.poll_seconds, self._context.iso_later
        if (self._poller.lease_ends_at or "") < later(poll_seconds + _LEASE_RESERVE_SECONDS):
            changes["lease_ends_at"] = later(poll_seconds + _LEASE_SECONDS)
        return self._write_poller(**changes)

    def _write_poller(self, **changes: str | None) -> bool:
        """Write what has changed; False when another run was faster."""
        until = self._context.client.throttle.until
        paused_until = iso(until) if until else None
        unknown = [f"{name}: {why}" for name, why in self._context.unresolved.items() if isinstance(why, NotFound)]
        changes |= {"paused_until": paused_until, "unresolved": "; ".join(unknown) or None}
        after = replace(self._poller, **changes)
        try:
            if after != self._poller:
                self._poller = self._context.commit(self._poller, after)
        except ConflictError:
            return False
        return True

    def _release(self) -> bool:
        """Give the lease back. False where something came just now, as by an upload: this run goes on for it."""
        followed = {key for key, each in self._workflows.items() if each.is_at_work} | self._ended.keys()
        self._write_poller(lease_ends_at=None)
        snapshot = self._read()
        there = {each.workflow_id for each in snapshot.workflows if each.is_at_work}
        there |= {each.job_id for each in snapshot.ended_jobs}
        return followed >= there or not self._takes_over(snapshot)

    # -- the round -----------------------------------------------------------------------------------------------------

    def _read(self) -> Snapshot:
        """Everything but the documents, as it is now; what workers are at stays as they left it."""
        self._stale_at = self._context.later(self._context.settings.poll_seconds)
        self._snapshot = snapshot = self._context.snapshot()
        kept = {key: each for key, each in self._workflows.items() if key in self._in_flight.values()}
        self._workflows = {each.workflow_id: each for each in snapshot.workflows} | kept
        self._ended = {each.job_id: each for each in snapshot.ended_jobs}
        for queue in self._queues.values():
            queue.refresh()
        return snapshot

    def latest(self) -> Snapshot:
        """The last snapshot, as long as it holds."""
        is_old = self._context.clock.now() >= self._next_read_at()
        return self._read() if self._snapshot is None or is_old else self._snapshot

    def _next_read_at(self) -> datetime:
        """When all is read again: after PollSeconds; where every workflow runs a job, when the next run has taken over.

        No other invocation begins anything then; and it does no harm that two poll for a moment.
        """
        is_full = self._workflows and all(each.phase is Phase.RUNNING for each in self._workflows.values())
        full_until = _hands_over_at(self._poller, self._stale_at) + _OVERLAP
        return max(self._stale_at, full_until) if is_full else self._stale_at

    def _refresh(self) -> None:
        """Read again, and see whether another run polls by now."""
        before = self._snapshot
        if self._is_ours and (snapshot := self.latest()) is not before:
            self._poller = snapshot.poller
            self._is_ours = self._poller.owner == self._owner and self._renew()

    def _dispatch(self) -> None:
        """Begin every step that is due. Steps of one workflow never run side by side."""
        now = self._context.clock.now()
        self._take_up_orphans()
        for due_at, work, record, workers in self._steps(now):
            if due_at <= now:
                context = self._context.of_workflow(record.workflow_id)
                key = record.job_id if isinstance(record, EndedJob) else record.workflow_id
                self._due[key] = self._context.later(self._context.settings.poll_seconds)
                self._in_flight[workers[context.settings.route].submit(work, context, record)] = key

    def _find_orphans(self, snapshot: Snapshot) -> None:
        """Look for what was left behind every ten minutes, at a change of routes, and in every run until none is."""
        before, routes, now = snapshot.poller, self._context.by_route(), self._context.clock.now()
        gone = sorted({*(before.routes or "").split(":")} - routes.keys())
        names = ":".join([*routes, "", *gone])  # '' between them: the text changes when a route comes or goes
        goes_on = before.searched_at is None or before.routes != names
        if self._is_ours and (goes_on or has_passed(before.searched_at, now, seconds=_SEARCH_SECONDS)):
            is_thorough = goes_on and before.routes is not None  # else it is for documents of 0.2.0, which are in front
            were_some = recover.enqueue_left_behind(self._context, gone, is_thorough=is_thorough)
            self._orphans = recover.orphans(self._context, snapshot)
            searched_at = self._context.iso_later(-_SEARCH_SECONDS) if self._orphans else iso(now)  # the next run, too
            self._is_ours = self._write_poller(searched_at=None if were_some else searched_at, routes=names)

    def _take_up_orphans(self) -> None:
        """A workflow that is idle takes its orphans up before it gets anything else."""
        for orphans in list(self._orphans):
            workflow = self._workflows.get(orphans[0]) or Workflow(workflow_id=orphans[0])
            if not workflow.is_at_work and workflow.workflow_id not in self._in_flight.values():
                self._guarded(self._take_up, workflow, orphans)

    def _take_up(self, workflow: Workflow, orphans: tuple[str, list[Document]]) -> None:
        self._orphans.remove(orphans)  # where this is in vain, the next run finds them
        self._workflows[workflow.workflow_id] = recover.take_up(self._context, workflow, orphans[1])

    def _steps(self, now: datetime) -> Iterator[_Step]:
        """What there is to do that nobody does yet, and when it is due."""
        context, busy = self._context, {*self._in_flight.values()}
        workflows = {key: each for key, each in self._workflows.items() if key not in busy}
        for key, each in workflows.items():
            if each.is_at_work:  # a lost answer takes a long list, and the same batch again
                workers = self._copies if each.phase is Phase.COMMITTED else self._questions
                yield self._due_at(now, key), step, each, workers
        for key, ended in self._ended.items():
            if key not in busy:
                yield self._due_at(now, key, ended.retry_at, ended.lease_ends_at), collect, ended, self._copies
        snapshot = Snapshot(workflows=tuple(workflows.values()), ended_jobs=tuple(self._ended.values()))
        for name, own in context.by_route().items() if context.has_time() else ():
            for each in idle_workflows(snapshot, own):
                if self._queues[name].may_have_some():
                    due_at = self._due_at(now, each.workflow_id, each.paused_until)
                    yield due_at, partial(submit, queue=self._queues[name]), each, self._streams

    def _take_in(self, key: str, future: Future[Any]) -> None:
        """What a worker has done. A workflow that became free is given its next batch at once."""
        after: Workflow | EndedJob | None = future.result()
        if after is None:
            self._ended.pop(key, None)
        elif isinstance(after, EndedJob):
            self._ended[key] = after
        else:
            before, self._workflows[key] = self._workflows.get(key), after
            if before != after and not after.is_at_work:
                if not after.waits_for_another_job:
                    self._due.pop(key, None)
                self._queues[self._context.of_workflow(key).settings.route].refresh()
                if self._context.results:  # its outputs are to be copied
                    self._stale_at = self._context.clock.now()

    def _guarded[**P](self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """One part's trouble stays its own until all are done, and is seen."""
        try:
            work(*args, **kwargs)
        except ConflictError as lost:
            logger.info("lost a write race", reason=str(lost))
        except Exception as error:
            logger.exception("could not be reconciled; the next run tries again")
            self._context.counts.add("ReconcileErrors")
            self._failures.append(error)

    # -- what is due ---------------------------------------------------------------------------------------------------

    def _due_at(self, now: datetime, key: str, *not_before: str | None) -> datetime:
        return max(now, self._due.get(key, now), *(parse_time(each) or now for each in not_before))


def _hands_over_at(poller: Poller, otherwise: datetime) -> datetime:
    """From when on another run takes over, although this one lives; where it has not begun, from another time."""
    return (parse_time(poller.began_at) or otherwise) + timedelta(seconds=_HANDOVER_SECONDS)


def _worker_pools(worker_threads: int, routes: Collection[str]) -> dict[str, ThreadPoolExecutor]:
    """Worker threads for each route, if there are enough, so that the slow streams of one do not hold another."""
    if len(routes) > worker_threads:
        return dict.fromkeys(routes, ThreadPoolExecutor(worker_threads))
    return {name: ThreadPoolExecutor(worker_threads // len(routes)) for name in routes}
