"""What can go wrong, each class named after what happened remotely; the callers decide by class, never by text."""

REMOTE_TEXT_LIMIT = 256


def harmless(text: str) -> str:
    """A remote text with a mark for each letter that controls a screen, turns its direction, or is not Unicode at all.

    DynamoDB and S3 would refuse the last, and with it the whole row.
    """
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def shorten(text: str) -> str:
    """The first 256 characters of a remote text, on one line: remote texts end up in logs and in ledger rows."""
    return harmless(" ".join(text.split()))[:REMOTE_TEXT_LIMIT]


class TriggerError(Exception):
    """Base of all errors raised on purpose. `str()` is fit for an operator's eyes."""


# -- what arrives ------------------------------------------------------------------------------------------------------


class SettingsError(TriggerError):
    """The environment of the function is faulty; the message lists every fault."""


class UnreadableEvent(TriggerError):
    """An event, or a record in one, that names no object version; it must not be acknowledged."""


# -- the ledger --------------------------------------------------------------------------------------------------------


class AttemptLost(TriggerError):
    """The workflow's item has changed since it was read: the attempt is not ours any more."""


class LedgerUnavailable(TriggerError):
    """DynamoDB kept answering with conflicts or throttling until there was no time left."""


class ReconcileFailed(TriggerError):
    """A part of the minute's work failed unexpectedly; raised when all is done, so that an alarm sees it."""


# -- the object --------------------------------------------------------------------------------------------------------


class SourceError(TriggerError):
    """An object cannot be read. `row_key` names its row where several are on their way."""

    row_key: tuple[str, str] | None = None


class ObjectGone(SourceError):
    """Deleted, or archived: there are no bytes that could be sent."""


class ObjectOverwritten(SourceError):
    """The key holds other bytes than those of the event."""


class ObjectDenied(SourceError):
    """The role may not read the object, or not use its key: a matter of configuration."""


class ObjectUnreadable(SourceError):
    """S3 did not deliver the bytes this time."""


# -- the run endpoint --------------------------------------------------------------------------------------------------


class PlatformError(TriggerError):
    """Base of what a call of the platform's API can end in, beside a proper answer."""


class NotSent(PlatformError):
    """The request provably never was complete at the server: nothing runs."""


class Unreachable(NotSent):
    """No connection came about. The files had no part in it."""


class OutOfTime(NotSent):
    """The invocation ends before the objects can be streamed."""


class OutcomeUnknown(PlatformError):
    """The request may have been acted on: timeout, reset, 5xx, an answer that makes no sense."""


class Unavailable(PlatformError):
    """A question got no usable answer. Nothing was changed by asking; ask again."""


class Refused(PlatformError):
    """The platform does not want these files (400, 413, 415, 422)."""


class Throttled(PlatformError):
    """429: not now; `delay_seconds` says when again."""

    def __init__(self, message: str, delay_seconds: float) -> None:
        super().__init__(message)
        self.delay_seconds = delay_seconds


class Misconfigured(PlatformError):
    """A wrong key, id, address or plan: no document's fault; the workflow waits for an operator."""

    hold_seconds: float = 300


class KeyRejected(Misconfigured):
    """401. The key in memory was not accepted."""


class KeyNotSet(Misconfigured):
    """The secret holds no key yet. Looked at again by every run, so that setting it takes effect at once."""

    hold_seconds = 0


class NotFound(Misconfigured):
    """404: the job, or the workflow, is not known there."""


class Busy(PlatformError):
    """A 2xx without a new job: the files of the request were dropped, because a job is active."""
