"""What a status or an error means, and what to do about it."""

import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from workflow_trigger.domain.model import FINAL, Status
from workflow_trigger.domain.retry import SICK_AFTER


class Advice(NamedTuple):
    """`do` is for hands, `type` for a shell; both '' where nobody has to do anything.

    In `type`, `{stack}`, `{object}`, `{version}` and `{set_key}` stand for the real ones.
    """

    meaning: str
    do: str = ""
    type: str = ""

    @property
    def todo(self) -> str:
        """Both, in the order in which they are done."""
        return ": ".join(filter(None, (self.do, self.type)))


_RETRY = "workflow-trigger retry --stack {stack} --object {object} --version {version}"

OF_STATUS: Mapping[Status, Advice] = {
    Status.PENDING: Advice("in the queue; it is sent when a workflow is free"),
    Status.SUBMITTING: Advice("being sent, or the answer was lost and its job is being looked for"),
    Status.SCHEDULED: Advice("accepted by the platform"),
    Status.IN_PROGRESS: Advice("running, or its end is being confirmed"),
    Status.COMPLETED: Advice("this file succeeded; its results are listed"),
    Status.FAILED: Advice("the platform could not process it", "fix the document or the workflow, then", _RETRY),
    Status.STOPPED: Advice("its job was stopped, or an operator cancelled it", "if it should run after all", _RETRY),
    Status.REJECTED: Advice("the platform never accepted it", "fix what the error names, then", _RETRY),
    Status.SUPERSEDED: Advice("replaced by a newer version before it ran; that one has its own row"),
    Status.SKIPPED: Advice("not wanted, by the parameters of the stack; the error names which one"),
}

# By `error.type`: of rows, and of workflows (`last_error`).
OF_ERROR: Mapping[str, Advice] = {
    "KeyNotSet": Advice("no API key is set; the documents wait", type="{set_key}"),
    "SecretUnusable": Advice(
        "a secret cannot be read, or does not hold what it should, as the message says; the documents wait",
        type="workflow-trigger doctor --stack {stack}",
    ),
    "KeyRejected": Advice("the platform does not accept the API key; the documents wait", type="{set_key}"),
    "NotFound": Advice(
        "the platform does not know the workflow, or not with this key; the documents wait",
        type="sam deploy --stack-name {stack} --parameter-overrides WorkflowIds=…",
    ),
    "Misconfigured": Advice(
        "something is set wrongly, as the message says; the documents wait",
        type="workflow-trigger doctor --stack {stack}",
    ),
    "ObjectDenied": Advice(
        "the function is not allowed to read the object, or to use its key; retried every five minutes",
        "look for a Deny in the bucket's policy, or deploy with SourceKmsKeyArn=…; see whether ExpectedBucketOwner is "
        "the owner; upload objects with SSE-C again without it",
    ),
    "ObjectGone": Advice(
        "deleted or archived before it was read",
        "upload it again; when it was archived, restore it, then",
        _RETRY,
    ),
    "TooSlow": Advice(
        "too large to be streamed within one invocation",
        "deploy with a larger MemorySize, which streams faster, then",
        _RETRY,
    ),
    "OutsidePrefix": Advice(
        "not under the stack's SourceBucketName and KeyPrefix, which were changed after its upload",
        "deploy with those that it is under, then",
        _RETRY,
    ),
    "Skipped": Advice(
        "the parameters of the stack exclude it; the message names which one",
        "change the parameter and upload it again, or run it anyway",
        f"{_RETRY} --status SKIPPED",
    ),
    "ResultsRefused": Advice(
        "the bucket for the results does not take them; it is tried again for an hour, then they are missing",
        "look at its policy, its object lock and its key (ResultsKmsKeyArn)",
    ),
    "Refused": Advice(
        "the platform does not accept this file; the message says why", "fix or convert it, then", _RETRY
    ),
    "JobVanished": Advice(
        "the platform does not know the job any more",
        "check in the Unstructured UI whether it ran; if it did not",
        _RETRY,
    ),
    "Unconfirmed": Advice(
        "the platform never said how the job ended, and it has no output of it",
        "check in the Unstructured UI how it ended; if it did not succeed",
        _RETRY,
    ),
    "FileFailed": Advice(
        "the platform could not process this file; the message says why", "fix the document, then", _RETRY
    ),
    "JobFailed": Advice("the job failed; the message says why", "fix the document or the workflow, then", _RETRY),
    "Cancelled": Advice("an operator cancelled it while it waited", "if it should run after all", _RETRY),
    "JobStopped": Advice("somebody stopped the job at the platform", "if it should run after all", _RETRY),
    "ObjectOverwritten": Advice("replaced by a newer version before it ran; that one has its own row"),
    "Unattributed": Advice("a file of its job failed, and nothing tells which one", type=_RETRY),
    "Throttled": Advice("the platform asked for a pause; it is retried automatically"),
    "Busy": Advice("the workflow was busy; it is retried automatically"),
    "OutcomeUnknown": Advice("the answer was lost; it is settled automatically"),
    "NotSent": Advice("the connection broke before anything could run; it is retried automatically"),
    "Unreachable": Advice("the platform could not be reached; it is retried automatically"),
    "Unavailable": Advice("the platform did not answer a question; it is retried automatically"),
    "ObjectUnreadable": Advice("S3 did not deliver the object; it is retried automatically"),
    "LeaseEnded": Advice("an invocation ended in the middle; it is retried automatically"),
}

SICK = Advice(
    "the workflow has not answered several attempts in a row; other workflows of the pool take its documents",
    "see at the platform what is wrong with it, or take it out of the pool",
    "sam deploy --stack-name {stack} --parameter-overrides WorkflowIds=…",
)

# As earlier releases named them.
_RENAMED = {"OutOfTime": "TooSlow"}

# Errors that block a workflow until a person fixes something.
HOLDING = frozenset({"KeyNotSet", "SecretUnusable", "KeyRejected", "NotFound", "Misconfigured"})

_TOLD_BY_ERROR = set(Status) - {Status.SUBMITTING, Status.SCHEDULED, Status.COMPLETED}

NOT_KNOWN = Advice("the ledger does not know it", type="workflow-trigger backfill --stack {stack} {object}")
FORGOTTEN = Advice("its content was forgotten by an operator; what stays names the version and its jobs")
RESULT_MISSING = Advice("the platform no longer had an output", "to run it again", f"{_RETRY} --status COMPLETED")


def kind_of(error: Mapping[str, Any] | str | None) -> str:
    """The type of an error, or of what was given as one, as this release names it; '' where there is none."""
    kind = error if isinstance(error, str) else str((error or {}).get("type", ""))
    return _RENAMED.get(kind, kind)


def for_row(item: Mapping[str, Any]) -> Advice:
    """What a row's state means."""
    status = Status(item["status"])
    kind = kind_of(item.get("error"))
    if "forgotten_at" in item:
        return FORGOTTEN
    if status is Status.COMPLETED and any("missing" in entry for entry in item.get("results", [])):
        return RESULT_MISSING
    told = OF_ERROR.get(kind) if status in _TOLD_BY_ERROR else None
    # What is final is not "retried automatically" any more; what waits is, and needs nobody's `retry`.
    fits = told is not None and (bool(told.todo) if status in FINAL else _RETRY not in told.type)
    return told if told and fits else OF_STATUS[status]


def typed(text: str) -> str:
    """A text as a shell reads it back, whatever it holds: what cannot be printed as an escape."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = [
        each if each.isprintable() and each not in "'\\" else "".join(f"\\x{byte:02x}" for byte in each.encode())
        for each in text
    ]
    return "$'" + "".join(escaped) + "'"


def filled(advice: Advice, *, stack: str, set_key: str = "", object_url: str = "", version: str = "") -> Advice:
    """With the real names, as they can be typed into a shell."""
    names = {"object": typed(object_url), "version": typed(version)}
    return advice._replace(type=advice.type.format(stack=stack, set_key=set_key, **names))


def for_workflow(error: Mapping[str, Any] | None, consecutive_failures: int = 0) -> Advice | None:
    """What a workflow waits for, if it is for somebody."""
    if error and error.get("type") in HOLDING:
        return OF_ERROR[error["type"]]
    return SICK if error and consecutive_failures >= SICK_AFTER else None
