"""What does not fit about a job's end, or stands in the way of its outputs; and for how long that is waited for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from workflow_trigger.domain.clock import has_passed, iso, parse_time


class DoubtKind(StrEnum):
    """What a look shows."""

    JOB_VANISHED = "JobVanished"
    CONTRADICTION = "Contradiction"  # the job has ended; its details say otherwise
    NO_DETAILS = "NoDetails"
    NAMES_MISSING = "NamesMissing"  # of files that failed, or of a list that goes on
    REASONS_MISSING = "ReasonsMissing"  # all files failed, and their names would tell no more than why
    UNANSWERED = "Unanswered"  # questions about the end; the platform answers others
    ABSENT = "absent"  # an output that the platform does not have (yet)
    DELAYED = "delayed"  # an output that the platform does not deliver
    REFUSED = "refused"  # an output that the bucket does not take
    UNTOLD = "Untold"  # the job cannot be asked for, but not because of 401, 404 or 429
    SILENCE = "Silence"  # the platform answers nothing, which says nothing of a job


PATIENCE_SECONDS: Mapping[DoubtKind, float] = {  # then files end by what is known, and outputs are missing
    **dict.fromkeys(DoubtKind, 900.0),
    **dict.fromkeys((DoubtKind.REASONS_MISSING, DoubtKind.ABSENT), 60.0),
    **dict.fromkeys((DoubtKind.UNANSWERED, DoubtKind.UNTOLD, DoubtKind.DELAYED, DoubtKind.REFUSED), 3_600.0),
}
_SHORTEST_GAP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that did not fit at a look: since when, and when it was seen last."""

    kind: DoubtKind
    since: str
    seen_at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubtful:
    """A record that follows a job, and what does not fit there."""

    doubts: tuple[Doubt, ...] = ()  # each kind once, that of the last look first

    def with_doubt(self, kind: DoubtKind, now: datetime) -> Self:
        """The same with `kind` as the doubt of this look, first.

        Its time goes on from its beginning. A gap in which other looks have not shown it, as in an outage, counts in
        full up to a third of its patience, or a minute; of a longer one, a third of its patience counts. So outages end
        nothing, and a platform that hardly ever answers holds nothing.
        """
        third = timedelta(seconds=PATIENCE_SECONDS[kind] / 3)
        gap = max(third, _SHORTEST_GAP)
        doubt = next((each for each in self.doubts if each.kind == kind), Doubt(kind, iso(now), iso(now)))
        others = [each for each in self.doubts if each.kind != kind]
        began_at, seen_at = parse_time(doubt.since) or now, parse_time(doubt.seen_at) or now
        others_came_last = self.doubts[:1] != (doubt,)
        if others_came_last and now - seen_at > gap:
            began_at += now - seen_at - third
        if now - seen_at >= gap / 5:  # not written at every look
            seen_at = now
        return replace(self, doubts=(Doubt(kind, iso(began_at), iso(seen_at)), *others))

    def is_overdue(self, kind: DoubtKind, now: datetime) -> bool:
        """Whether a doubt has lasted for too long, were it seen now."""
        return has_passed(self.with_doubt(kind, now).doubts[0].since, now, seconds=PATIENCE_SECONDS[kind])
