"""The true end of each file of a job that has ended. COMPLETED is not success of a file, nor FAILED its failure.

The vendor defines FAILED twice: "processed no files", and "less than 90 % of the data succeeded". Both are handled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.job import Details, FailedFile, FileStatus, Job, JobState
from workflow_trigger.domain.matching import attribute_failures, mentions
from workflow_trigger.domain.model import SentDocument, Status

_NO_REASON = "the platform gives no reason"
_SOME_FAILED = "some files failed; the platform does not say which"
_STOPPED = "the job was stopped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one file ended. Where `outputs_decide`, it is COMPLETED if its outputs can be had, else as it says."""

    status: Status
    error: Mapping[str, str] | None = None
    outputs_decide: bool = False


_COMPLETED = Outcome(status=Status.COMPLETED)


def is_plain_success(job: Job, details: Details, failed: Sequence[FailedFile]) -> bool:
    """Whether nothing speaks of any failure, so that no further question is needed."""
    is_plain = job.state not in {JobState.FAILED, JobState.STOPPED}
    return is_plain and details.state is JobState.COMPLETED and not (failed or details.failed)


def merged(failed: Sequence[FailedFile], status: FileStatus, documents: Sequence[SentDocument]) -> FileStatus:
    """What `/failed-files` and `/file-status` tell together. The same failure may have another name in each.

    A list of failed files that has come is whole; the status of each file may go on, or be cut off.
    """
    own, unattributed = attribute_failures(failed, documents)
    own_too, unattributed_too = attribute_failures(status.failed, documents)
    reasons = {key: own.get(key) or own_too.get(key, "") for key in (*own, *own_too)}
    ours = [
        FailedFile(document=sent.upload_name or "", error=reasons[sent.key])
        for sent in documents
        if sent.key in reasons
    ]
    number = max(len(failed), len(status.failed)) - len(ours)
    others = max(unattributed, unattributed_too, key=len)[: max(number, 0)]
    is_complete = status.is_complete or bool(failed and not others)
    return replace(status, failed=(*ours, *others), is_complete=is_complete)


def is_more_to_come(job: Job, details: Details, told: FileStatus, documents: Sequence[SentDocument]) -> bool:
    """Whether more is to be told of who failed: fewer are named than did, or the list of files goes on."""
    if JobState.STOPPED in {job.state, details.state}:
        return False
    return _goes_on(told, documents) or _names_are_missing(details, told)


def _goes_on(told: FileStatus, documents: Sequence[SentDocument]) -> bool:
    """Whether files failed, and a list of files that is not complete, or not decided, may name more of ours."""
    decided = [*told.succeeded, *(each.document for each in told.failed)]
    names = [sent.upload_name for sent in documents if not mentions(decided, [sent.upload_name])]
    return (
        bool(told.failed and names) and len(documents) > 1 and (not told.is_complete or mentions(told.documents, names))
    )


def _names_are_missing(details: Details, told: FileStatus) -> bool:
    """Whether more files failed than are named, and not all did: a contradiction that may pass."""
    all_failed = details.state is JobState.FAILED and not details.succeeded
    too_few = details.failed is not None and details.failed > len(told.failed) and not all_failed
    return too_few or (not told.failed and details.state is JobState.PARTLY)


def outcomes(
    job: Job, details: Details, told: FileStatus, documents: Sequence[SentDocument]
) -> dict[DocumentKey, Outcome]:
    """What became of each document. `told`: as `merged`."""
    said = {job.state, details.state}
    keys, has_failed, is_stopped = [sent.key for sent in documents], JobState.FAILED in said, JobState.STOPPED in said
    reasons, unattributed = attribute_failures(told.failed, documents)
    if len(documents) == 1 and unattributed and not reasons:
        reasons, unattributed = {keys[0]: unattributed[0].error}, []
    if is_stopped:
        any_succeeded = bool(details.succeeded or told.succeeded) or details.state is not JobState.STOPPED
        others = _ended("JobStopped", details.message or _STOPPED, Status.STOPPED, outputs_decide=any_succeeded)
    elif unattributed:
        others = _ended("Unattributed", unattributed[0].error, outputs_decide=True)
    elif has_failed:
        may_have_succeeded = len(documents) > 1 or details.state is JobState.PARTLY
        decide = may_have_succeeded if details.succeeded is None else details.succeeded > 0
        others = _ended("JobFailed", details.message or _NO_REASON, outputs_decide=decide)
    elif _goes_on(told, documents) or _names_are_missing(details, told):
        others = _ended("Unattributed", details.message or _SOME_FAILED, outputs_decide=True)
    else:
        others = _COMPLETED
    # Of a job that says of no file that it failed, although some did, the successes are not believed either.
    believed = told.succeeded if is_stopped or (told.failed and not has_failed) else ()
    good = [sent.key for sent in documents if mentions(believed, [sent.upload_name])]
    # Where a stopped job tells which files it finished, it finishes no other that it names.
    named = told.documents if is_stopped and told.succeeded else ()
    unfinished = [sent.key for sent in documents if mentions(named, [sent.upload_name])]
    kind = "JobFailed" if has_failed and not any(reasons.values()) else "FileFailed"
    failures = {key: _ended(kind, reason or details.message or _NO_REASON) for key, reason in reasons.items()}
    stopped = dict.fromkeys(unfinished, replace(others, outputs_decide=False))
    return dict.fromkeys(keys, others) | stopped | dict.fromkeys(good, _COMPLETED) | failures


def _ended(kind: str, message: str, status: Status = Status.FAILED, *, outputs_decide: bool = False) -> Outcome:
    return Outcome(status=status, error={"type": kind, "message": message}, outputs_decide=outputs_decide)
