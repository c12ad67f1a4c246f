"""What can go wrong. A class says what happened remotely; callers decide by class, never by text.

TriggerError
 ├─ SettingsError · UnreadableEvent · ConflictError · LedgerUnavailable · EventsRefused · ReconcileFailed
 ├─ SourceError            the object: ObjectGone · ObjectOverwritten · ObjectDenied · OutsidePrefix · ObjectUnreadable
 ├─ ResultsRefused         the bucket for the outputs
 └─ PlatformError          the platform
     ├─ NotSent            nothing runs: Unreachable · TooSlow · LeaseEnded
     ├─ Busy · Refused · Throttled
     ├─ Misconfigured      nothing runs until a person acts: KeyRejected · KeyNotSet · NotFound
     ├─ OutcomeUnknown     something may run
     └─ Unavailable        a question without an answer; nothing was changed by asking

What each of them means for documents and workflows: `domain/retry.py`.
"""

REMOTE_TEXT_LIMIT = 256  # characters


def printable(text: str) -> str:
    """A remote text without characters that control a screen, turn its direction, or are not Unicode at all.

    DynamoDB and S3 would refuse the last, and with it the whole row.
    """
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def truncate(text: str) -> str:
    """The first 256 characters of a remote text, on one line: remote texts end up in logs and in the ledger."""
    return printable(" ".join(text.split()))[:REMOTE_TEXT_LIMIT]


class TriggerError(Exception):
    """Base of all errors raised on purpose. `str()` is fit for an operator's eyes."""


def as_stored(error: Exception) -> dict[str, str]:
    """An error as the ledger keeps it."""
    return {"type": type(error).__name__, "message": str(error)[:REMOTE_TEXT_LIMIT]}


class SettingsError(TriggerError):
    """The environment of the function is faulty; the message lists every fault."""


class UnreadableEvent(TriggerError):
    """An event, or a record in one, names no object version; it must not be acknowledged."""


class ConflictError(TriggerError):
    """A lost write race: the item has changed since it was read."""


class LedgerUnavailable(TriggerError):
    """DynamoDB kept answering with conflicts or throttling until no time was left."""


class EventsRefused(TriggerError):
    """EventBridge did not take the events. The rows are final; their events are sent later."""


class ReconcileFailed(TriggerError):
    """A part of the run failed unexpectedly; raised when all is done, so that an alarm sees it."""


# -- the object --------------------------------------------------------------------------------------------------------


class SourceError(TriggerError):
    """An object cannot be read. `document_key` names it where several are on their way."""

    document_key: tuple[str, str] | None = None


class ObjectGone(SourceError):
    """Deleted, or archived: there are no bytes that could be sent."""


class ObjectOverwritten(SourceError):
    """The key holds other bytes than those of the event."""


class ObjectDenied(SourceError):
    """The role may not read the object, or not use its key: a matter of configuration."""


class OutsidePrefix(SourceError):
    """The stack's KeyPrefix has changed since; the role may read only what is under it."""


class ObjectUnreadable(SourceError):
    """S3 did not deliver the bytes this time."""


class ResultsRefused(TriggerError):
    """The bucket for the outputs does not take them."""


# -- the platform ------------------------------------------------------------------------------------------------------


class PlatformError(TriggerError):
    """Base of what a call of the platform's API can end in, apart from a proper answer."""


class NotSent(PlatformError):
    """The request provably never was complete at the server: nothing runs."""


class Unreachable(NotSent):
    """No connection came about. The documents had no part in it."""


class TooSlow(NotSent):
    """The invocation ends before the objects can be streamed."""


class LeaseEnded(NotSent):
    """The sender died, or froze, before its commit."""


class OutcomeUnknown(PlatformError):
    """The request may have been acted on: timeout, reset, 5xx, an answer that makes no sense."""


class Unavailable(PlatformError):
    """A question got no usable answer. Nothing was changed by asking; ask again."""


class Refused(PlatformError):
    """The platform does not want these files (400, 413, 415, 422)."""


class Throttled(PlatformError):
    """429: not now; `retry_after_seconds` says when again."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Misconfigured(PlatformError):
    """A wrong key, id, address or plan: no document's fault; the workflow is blocked until a person acts."""

    retry_after_seconds: float = 300


class KeyRejected(Misconfigured):
    """401. The platform did not accept the key in memory."""


class KeyNotSet(Misconfigured):
    """The secret holds no key yet. Looked at again by the next run, so that setting it takes effect at once."""

    retry_after_seconds = 30


class NotFound(Misconfigured):
    """404: the platform does not know the job, or the workflow."""


class Busy(PlatformError):
    """No new job was started: the files of the request were dropped, because a job is active."""
