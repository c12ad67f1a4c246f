"""Time, handed to whoever needs it, so that tests and simulations bring their own."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


class Clock:
    """The real time."""

    def now(self) -> datetime:
        """The current time, UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment at which the invocation is stopped, and how much time it had in all."""

    clock: Clock
    at: datetime
    total_seconds: float

    @classmethod
    def in_seconds(cls, clock: Clock, seconds: float) -> "Deadline":
        """The deadline that many seconds from now."""
        return cls(clock, clock.now() + timedelta(seconds=seconds), seconds)

    def remaining_seconds(self) -> float:
        """Seconds that are left; negative when it has passed."""
        return (self.at - self.clock.now()).total_seconds()
