"""The true end of each file of a job that has ended. COMPLETED is not success of a file, nor FAILED its failure.

The vendor defines FAILED twice: "processed no files", and "less than 90 % of the data succeeded". Both are handled.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.doubt import DoubtKind
from workflow_trigger.domain.job import Details, FailedFile, FileStatus, Job, JobState
from workflow_trigger.domain.matching import attribute_failures, mentions
from workflow_trigger.domain.model import Outcome, Status

_NO_REASON = "the platform gives no reason"
_SOME_FAILED = "some files failed; the platform does not say which"
_SOME_DROPPED = "the platform counts fewer files than were sent"
_STOPPED = "the job was stopped"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileReports:
    """What `/failed-files` and `/file-status` say of the files of a job, matched to our documents."""

    keys: tuple[DocumentKey, ...]  # of all documents of the job
    reasons: Mapping[DocumentKey, str]  # of those that failed
    unattributed: Sequence[FailedFile]  # failures that match no document
    succeeded: Collection[DocumentKey]
    listed: Collection[DocumentKey]  # in `/file-status`, with whatever status
    any_succeeded: bool  # also a file that matches no document
    is_complete: bool  # `/file-status`, where there is one
    has_all_failures: bool

    @classmethod
    def of(cls, failed: Sequence[FailedFile], status: FileStatus, documents: Mapping[DocumentKey, str | None]) -> Self:
        """From both answers. The same failure may have another name in each.

        A list of failed files that has come is whole; the status of each file may go on, or be cut off.
        """

        def ours(names: Collection[str]) -> set[DocumentKey]:
            return {key for key, name in documents.items() if mentions(names, [name])}

        own, rest = attribute_failures(failed, documents)
        own_too, rest_too = attribute_failures(status.failed, documents)
        reasons = {key: own.get(key) or own_too.get(key, "") for key in (*own, *own_too)}
        # A list that has none of our names may tell of the same failures as the other: they are counted once.
        others = max(rest if own else rest[len(reasons) :], rest_too if own_too else rest_too[len(reasons) :], key=len)
        return cls(
            keys=tuple(documents),
            reasons=reasons,
            unattributed=others,
            succeeded=ours(status.succeeded),
            listed=ours(status.documents),
            any_succeeded=bool(status.succeeded),
            is_complete=status.is_complete,
            has_all_failures=status.is_complete or bool(failed and not others),
        )

    @property
    def failures(self) -> int:
        """How many files failed."""
        return len(self.reasons) + len(self.unattributed)


_COMPLETED = Outcome(status=Status.COMPLETED)


def is_plain_success(job: Job, details: Details, failed: Sequence[FailedFile], files: int) -> bool:
    """Whether nothing speaks of any failure among so many files, so that no further question is needed."""
    is_success = job.state not in {JobState.FAILED, JobState.STOPPED} and details.state is JobState.COMPLETED
    return is_success and not (failed or details.failed or _has_dropped(details, files))


def _has_dropped(details: Details, files: int) -> bool:
    """Whether a summary counts fewer files than were sent: some are lost without an error, those with long names."""
    return details.succeeded is not None and details.succeeded + (details.failed or 0) < files


def missing_names(job: Job, details: Details, reports: FileReports) -> DoubtKind | None:
    """What names are waited for, if any: fewer are named than failed, or a list goes on, or is undecided."""
    undecided = {*reports.keys} - reports.reasons.keys() - {*reports.succeeded}
    if JobState.STOPPED in {job.state, details.state}:
        return DoubtKind.NAMES_MISSING if undecided and not reports.is_complete else None
    all_failed = details.state is JobState.FAILED and not details.succeeded
    too_few = details.failed is not None and details.failed > reports.failures and not all_failed
    nobody = details.state is JobState.PARTLY and not reports.failures
    may_be_named = undecided and (not reports.has_all_failures or not undecided.isdisjoint(reports.listed))
    # The failure of a file that is alone in its job says all.
    would_matter = not reports.is_complete or (reports.failures and len(reports.keys) > 1)
    if not (too_few or nobody or (may_be_named and would_matter)):
        return None
    return DoubtKind.NAMES_MISSING if reports.failures or not all_failed else DoubtKind.REASONS_MISSING


def outcomes(job: Job, details: Details, reports: FileReports) -> dict[DocumentKey, Outcome]:
    """What became of each document: failures that are named, successes that are believed, and all others alike."""
    said = {job.state, details.state}
    others = _end_of_others(job, details, reports)
    ends = dict.fromkeys(reports.keys, others)
    if JobState.STOPPED in said and reports.any_succeeded and reports.is_complete:
        # It tells which files it finished, and finishes no other that it names.
        ends |= dict.fromkeys(reports.listed, replace(others, outputs_decide=False))
    if _are_believed(said, details, reports):
        ends |= dict.fromkeys(reports.succeeded, _COMPLETED)
    kind = "JobFailed" if JobState.FAILED in said and not any(reports.reasons.values()) else "FileFailed"
    return ends | {key: _ended(kind, why or details.message or _NO_REASON) for key, why in reports.reasons.items()}


def _end_of_others(job: Job, details: Details, reports: FileReports) -> Outcome:
    """How every file ends that is named neither as failed nor as a success that is believed."""
    said, files = {job.state, details.state}, len(reports.keys)
    has_none = details.succeeded == 0 and (details.failed or 0) >= files
    if JobState.STOPPED in said:
        is_possible = reports.any_succeeded or not reports.is_complete
        decide = is_possible or bool(details.succeeded) or details.state is not JobState.STOPPED
        return _ended("JobStopped", details.message or _STOPPED, Status.STOPPED, outputs_decide=decide)
    if reports.unattributed:
        return _ended("Unattributed", reports.unattributed[0].error, outputs_decide=not has_none)
    if JobState.FAILED in said:
        may_have_succeeded = files > 1 or details.state in {JobState.PARTLY, JobState.COMPLETED}
        decide = may_have_succeeded if details.succeeded is None else not has_none
        return _ended("JobFailed", details.message or _NO_REASON, outputs_decide=decide)
    if missing_names(job, details, reports):
        return _ended("Unattributed", details.message or _SOME_FAILED, outputs_decide=not has_none)
    if _has_dropped(details, files):
        return _ended("Unattributed", details.message or _SOME_DROPPED, outputs_decide=True)
    return _COMPLETED


def _are_believed(said: Collection[JobState], details: Details, reports: FileReports) -> bool:
    """Whether a SUCCESS in `/file-status` is believed.

    In a job that was stopped it is. In a FAILED one only if the summary counts as many and other files failed: else
    nothing explains why the job failed. In any other, unless files failed, none is named, and the summary counts fewer.
    """
    if JobState.STOPPED in said:
        return True
    is_counted = details.succeeded is not None and details.succeeded >= len(reports.succeeded)
    if JobState.FAILED in said:
        return is_counted and bool(reports.failures or details.failed)
    nothing_failed = details.state is JobState.COMPLETED and not details.failed
    return nothing_failed or is_counted or bool(reports.failures)


def _ended(kind: str, message: str, status: Status = Status.FAILED, *, outputs_decide: bool = False) -> Outcome:
    return Outcome(status=status, error={"type": kind, "message": message}, outputs_decide=outputs_decide)
