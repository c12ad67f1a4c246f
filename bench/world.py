"""The product's use cases over the local stack: remote calls counted, time as the benchmark wants it."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from local.platform_state import Behaviour, PlatformState
from local.simulated_platform import serving
from local.stack import Aws
from tests.integration.world import World
from workflow_trigger import reconcile
from workflow_trigger.adapters.dynamodb.ledger import Ledger
from workflow_trigger.adapters.eventbridge import EventPublisher
from workflow_trigger.domain.clock import Clock, Deadline

JOB_SECONDS = (60.0, 180.0)


class SimulatedClock(Clock):
    """Time that passes only when everybody who works sleeps; then it goes on to the first who wakes up.

    Threads say when they begin and end to work. Every reading is a microsecond later than the one before.
    """

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._changed = threading.Condition()
        self._working = 0
        self._wakes: list[datetime] = []

    def now(self) -> datetime:
        """The simulated time."""
        with self._changed:
            self._now += timedelta(microseconds=1)
            return self._now

    def epoch_seconds(self) -> float:
        """The same, as the simulated platform wants it."""
        return self.now().timestamp()

    def begin(self) -> None:
        """Somebody more works."""
        with self._changed:
            self._working += 1

    def end(self) -> None:
        """Somebody has done their work."""
        with self._changed:
            self._working -= 1
            self._go_on()

    def sleep(self, seconds: float) -> None:
        """Let others work until then."""
        with self._changed:
            wakes_at = self._now + timedelta(seconds=max(seconds, 0))
            self._wakes.append(wakes_at)
            self._working -= 1
            self._go_on()
            while self._now < wakes_at:
                self._changed.wait()

    def _go_on(self) -> None:
        if self._working == 0 and self._wakes:
            self._now = max(self._now, min(self._wakes))
            due = [each for each in self._wakes if each <= self._now]
            self._wakes = [each for each in self._wakes if each > self._now]
            self._working += len(due)
            self._changed.notify_all()

    def sleep_until(self, moment: datetime) -> None:
        """As `sleep`, to a moment."""
        self.sleep((moment - self.now()).total_seconds())

    def threads(self) -> type[ThreadPoolExecutor]:
        """A thread pool whose threads the clock knows."""
        clock = self

        class CountedThreads(ThreadPoolExecutor):
            def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
                clock.begin()

                def counted() -> Any:
                    try:
                        return work(*args, **kwargs)
                    finally:
                        clock.end()

                return super().submit(counted)

            def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
                clock.end()  # who waits for others does not work
                super().shutdown(wait, cancel_futures=cancel_futures)
                clock.begin()

        return CountedThreads


class CountedWorld(World):
    """A world that announces what is final, as the deployed functions do, and counts what it calls."""

    calls: Counter[str]

    def count_calls(self) -> None:
        """Begin to count, by the SDK's own events."""
        self.calls = Counter()
        self.events = self.aws.client("events")
        for client in (self.s3, self.dynamodb, self.events):
            client.meta.events.register("before-call", self._counted)

    def _counted(self, model: Any, **_: Any) -> None:
        self.calls[f"{model.service_model.service_name} {model.name}"] += 1

    def ledger(self, deadline: Deadline | None = None, client: Any = None) -> Ledger:
        """As deployed: with announcements."""
        return Ledger(
            client or self.dynamodb,
            ledger_table=self.settings.ledger_table,
            workflows_table=self.settings.workflows_table,
            retention_days=self.settings.retention_days,
            clock=self.clock,
            deadline=deadline or Deadline.in_seconds(self.clock, 900),
            announce=EventPublisher(self.events, stack="bench").put,
        )


@contextlib.contextmanager
def counted_world(aws: Aws, folder: Path, clock: Any) -> Iterator[CountedWorld]:
    """A world on the given clock; its threads are the clock's where it has any."""
    state = PlatformState(folder, Behaviour(default_job_seconds=120, scheduled_seconds=5), clock.epoch_seconds)
    with contextlib.ExitStack() as ends:
        if isinstance(clock, SimulatedClock):
            ends.enter_context(patch.object(reconcile, "ThreadPoolExecutor", clock.threads()))
        url = ends.enter_context(serving(state))
        world = CountedWorld(aws, state, url, clock)
        world.count_calls()
        yield world
