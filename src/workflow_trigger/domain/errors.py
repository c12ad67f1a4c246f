"""What can go wrong. A class says what happened remotely; callers decide by class, never by text.

TriggerError
 ├─ SettingsError · UnreadableEvent · ConflictError · LedgerUnavailable · ComparisonUnfinished
 ├─ EventsRefused · ResultsRefused
 ├─ SourceError            the object: ObjectGone · ObjectOverwritten · ObjectDenied · OutsidePrefix · ObjectUnreadable
 └─ PlatformError
     ├─ NotSent            nothing runs: Unreachable · TooSlow · LeaseEnded
     ├─ Busy · Refused · Throttled
     ├─ Misconfigured      nothing runs until a person acts: KeyRejected · KeyNotSet · SecretUnusable · NotFound
     ├─ OutcomeUnknown     something may run
     └─ Unavailable        a question without an answer

What each of them means for documents and workflows: `domain/retry.py`. The first sentence of what can come back from a
request is its line in docs/failures.md.
"""

import unicodedata

REMOTE_TEXT_LIMIT = 256  # characters
_UNFIT = {"Cc", "Cs", "Cn", "Zl", "Zp"}  # Zs and Cf stay: spaces and joiners belong to the words of many languages
_TURNS = {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}


def printable(text: str) -> str:
    """A remote text without what ends a line or turns its direction, and what is refused because it is not Unicode."""
    if text.isprintable():  # by far the most; none of those characters is
        return text
    return "".join("\ufffd" if unicodedata.category(each) in _UNFIT or each in _TURNS else each for each in text)


def truncate(text: str) -> str:
    """The first 256 characters of a remote text, on one line: remote texts end up in logs and in the ledger."""
    return printable(" ".join(text.split()))[:REMOTE_TEXT_LIMIT]


class TriggerError(Exception):
    """Base of all errors raised on purpose. `str()` is fit for an operator's eyes."""


def as_stored(error: Exception, at: str | None = None) -> dict[str, str]:
    """An error as the ledger keeps it: on a workflow, with its time."""
    stored = {"type": type(error).__name__, "message": str(error)[:REMOTE_TEXT_LIMIT]}
    return {**stored, "at": at} if at else stored


class SettingsError(TriggerError):
    """The environment of the function is faulty; the message lists every fault."""


class UnreadableEvent(TriggerError):
    """An event, or a record in one, names no object version; it must not be acknowledged."""


class ConflictError(TriggerError):
    """A lost write race: the item has changed since it was read."""


class LedgerUnavailable(TriggerError):
    """DynamoDB did not take a write: it kept answering with conflicts or throttling, or it did not answer."""


class ComparisonUnfinished(TriggerError):
    """Not every object could be compared with the ledger in one invocation."""


class EventsRefused(TriggerError):
    """EventBridge did not take the events. The rows are final; their events are sent later."""


class ResultsRefused(TriggerError):
    """The bucket for the outputs does not take them."""


class SourceError(TriggerError):
    """An object cannot be read. `document_key` names it where several are on their way."""

    document_key: tuple[str, str] | None = None


class ObjectGone(SourceError):
    """S3: the object is gone, or archived."""


class ObjectOverwritten(SourceError):
    """S3: the object was overwritten before it was read."""


class ObjectDenied(SourceError):
    """S3: access denied, to the object or to its key."""


class OutsidePrefix(SourceError):
    """S3: access denied to an object outside of `SourceBucketName` or `KeyPrefix`, which have changed since."""


class ObjectUnreadable(SourceError):
    """S3 did not deliver the object."""


class PlatformError(TriggerError):
    """Base of what a call of the platform's API can end in, apart from a proper answer."""


class NotSent(PlatformError):
    """Broken before the last bytes: a TLS handshake, a reset, an invocation that ended. Nothing runs."""


class Unreachable(NotSent):
    """No connection: DNS, connect, a certificate. The documents had no part in it."""


class TooSlow(NotSent):
    """The invocation ends before the files can be streamed."""


class LeaseEnded(NotSent):
    """The sender died, or froze, before its commit."""


class OutcomeUnknown(PlatformError):
    """5xx, 408, a timeout, a reset, nonsense, an invocation that died after the last bytes. Something may run."""


class Unavailable(PlatformError):
    """A question without a usable answer. Nothing was changed by asking."""


class Refused(PlatformError):
    """400, 413, 415, 422. The platform does not want these files."""


class Busy(PlatformError):
    """2xx without the id of a new job; 409. The files were dropped, because a job is active."""

    retry_after_seconds: float = 10


class Throttled(PlatformError):
    """429. Not now; `retry_after_seconds` says when again."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Misconfigured(PlatformError):
    """401, 402, 403, 404, 405, 410, another 4xx, a redirect; no key yet. No document's fault."""

    retry_after_seconds: float = 300


class KeyRejected(Misconfigured):
    """401. The platform did not accept the key in memory. The next attempt asks with the secret as it is by then."""

    retry_after_seconds = 30


class KeyNotSet(Misconfigured):
    """The secret holds no key yet. Looked at again by the next run, so that setting it takes effect at once."""

    retry_after_seconds = 30


class SecretUnusable(KeyNotSet):
    """A secret, of the key or of a private authority, cannot be read, or does not hold what it should."""


class NotFound(Misconfigured):
    """404. The platform does not know the job, or the workflow."""
