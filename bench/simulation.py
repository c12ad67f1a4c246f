"""The product's use cases over the local stack: remote calls counted, time as the benchmark wants it."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, PlatformState
from local.stack import Aws
from tests.integration.harness import Harness, TestClock

JOB_SECONDS = (60.0, 180.0)


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
def counted_world(aws: Aws, folder: Path, clock: TestClock) -> Iterator[CountedWorld]:
    """A harness on the given clock."""
    state = PlatformState(folder, Behaviour(default_job_seconds=120, scheduled_seconds=5), clock.epoch_seconds)
    with serving(state) as url:
        harness = CountedWorld(aws, state, url, clock)
        harness.count_calls()
        yield harness
