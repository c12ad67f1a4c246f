"""The product's use cases over the local stack: remote calls counted, time as the benchmark wants it."""

import contextlib
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, PlatformState
from local.stack import Aws
from tests.integration.harness import Harness
from workflow_trigger.domain.clock import Clock

JOB_SECONDS = (60.0, 180.0)


class SimulatedClock(Clock):
    """Time that passes only while nobody works. Every reading is a microsecond later than the one before."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The simulated time."""
        with self._lock:
            self._now += timedelta(microseconds=1)
            return self._now

    def epoch_seconds(self) -> float:
        """The same, as the simulated platform wants it."""
        return self.now().timestamp()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += timedelta(seconds=max(seconds, 0))

    def wait_for(self, futures: Collection[Future[Any]], seconds: float) -> None:
        """As the real one, but that work takes no time."""
        if futures:
            wait(futures, timeout=60, return_when=FIRST_COMPLETED)
        else:
            self.sleep(seconds)


class CountedWorld(Harness):
    """A harness that counts what it calls."""

    calls: Counter[str]

    def count_calls(self) -> None:
        """Begin to count, by the SDK's own events."""
        self.calls = Counter()
        for client in (self.s3, self.dynamodb, self.events):
            client.meta.events.register("before-call", self._counted)

    def _counted(self, model: Any, **_: Any) -> None:
        self.calls[f"{model.service_model.service_name} {model.name}"] += 1


@contextlib.contextmanager
def counted_world(aws: Aws, folder: Path, clock: Any) -> Iterator[CountedWorld]:
    """A harness on the given clock."""
    state = PlatformState(folder, Behaviour(default_job_seconds=120, scheduled_seconds=5), clock.epoch_seconds)
    with serving(state) as url:
        harness = CountedWorld(aws, state, url, clock)
        harness.count_calls()
        yield harness
