"""Time, handed to whoever needs it, so that tests and simulations bring their own."""

import time
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any


class Clock:
    """The real time."""

    def now(self) -> datetime:
        """The current time, UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def wait_for(self, futures: Collection[Future[Any]], seconds: float) -> None:
        """Wait until the first of the futures is done, for at most that long."""
        if futures:
            wait(futures, timeout=max(seconds, 0), return_when=FIRST_COMPLETED)
        else:
            self.sleep(max(seconds, 0))


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment at which the invocation is stopped."""

    clock: Clock
    at: datetime

    @classmethod
    def in_seconds(cls, clock: Clock, seconds: float) -> "Deadline":
        """The deadline that many seconds from now."""
        return cls(clock, clock.now() + timedelta(seconds=seconds))

    def remaining_seconds(self) -> float:
        """Seconds that are left; negative when it has passed."""
        return (self.at - self.clock.now()).total_seconds()


def parse_time(text: str | None) -> datetime | None:
    """An ISO-8601 time, UTC where it names no zone; None where no clock could have shown it."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    # At the ends of the calendar, UTC may be in a year that there is not, or that has other than four digits.
    if not 1970 < moment.year < 9999:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def iso(moment: datetime) -> str:
    """UTC with microseconds, so that times sort as text."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def has_passed(moment: str | None, now: datetime, *, seconds: float = 0) -> bool:
    """Whether so many seconds have gone by since a stored time; False where none is stored."""
    since = parse_time(moment)
    return since is not None and (now - since).total_seconds() >= seconds
