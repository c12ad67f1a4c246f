"""Which job did we start, whose file is this, whose failure. The only module that reads tokens in names.

A file is sent under a name that ends in a token of its document and its attempt (`domain/document.py`). The platform
makes ids of names, so that a token comes back in whatever it says of a file: ids, outputs, failed documents.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum

from workflow_trigger.domain.clock import parse_time
from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.job import FailedFile, FileStatus, Job
from workflow_trigger.domain.model import Attempt, SentDocument, names_of

_CLOCK_SKEW = timedelta(minutes=1)  # between the platform's servers
_ASKED_JOBS = 10  # the vendor answers twelve such questions a minute
_TOKEN = re.compile(r"-([0-9a-f]{16})(?:\.[A-Za-z0-9]{1,10})?$")


class Evidence(Enum):
    """Why a job is ours."""

    NAMED = "it names our documents"
    ONLY_CANDIDATE = "it is the only new job of a workflow that nobody else uses, and hides its names"


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """A job that an attempt started. A request is accepted as a whole, so it holds all documents of the attempt."""

    job: Job
    evidence: Evidence


def token_of(upload_name: str | None) -> str | None:
    """The token in a name that was sent."""
    found = _TOKEN.search(upload_name or "")
    return found[1] if found else None


def mentions(names: Iterable[str], upload_names: Iterable[str | None]) -> bool:
    """Whether any of the platform's names is that of a file sent under one of ours."""
    tokens = {token for each in upload_names if (token := token_of(each))}
    return any(token in name for name in names for token in tokens)


# -- whose job ---------------------------------------------------------------------------------------------------------


def candidates(jobs: Iterable[Job], attempt: Attempt, known_job_ids: Sequence[str]) -> list[Job]:
    """The jobs that the attempt may have started: not known before, and not older than its first look.

    Takes in a list of any length; keeps only these.
    """
    first_look = parse_time(attempt.first_look_at)
    since = first_look - _CLOCK_SKEW if first_look else None
    return [
        job
        for job in jobs
        if job.id not in known_job_ids and (since is None or (created := job.created()) is None or created >= since)
    ]


def match(
    jobs: Sequence[Job], attempt: Attempt, ask_names: Callable[[str], FileStatus], *, may_infer: bool
) -> Match | None:
    """The candidate that the attempt started, if one of them shows it.

    `ask_names(job_id)` is asked about the newest ten jobs whose list entries hide their names. A job that is not asked
    about may be ours; so may one whose names are not complete: then it is as good as nameless.
    """
    by_age = sorted(jobs, key=lambda job: job.created_at or "", reverse=True)
    for job in by_age:
        if mentions(job.file_names(), names_of(attempt)):
            return Match(job=job, evidence=Evidence.NAMED)
    hidden = [job for job in by_age if not job.file_names()]
    nameless = hidden[_ASKED_JOBS:]
    for job in hidden[:_ASKED_JOBS]:
        told = ask_names(job.id)
        if mentions(told.documents, names_of(attempt)):
            return Match(job=job, evidence=Evidence.NAMED)
        if not (told.documents and told.is_complete):
            nameless.append(job)
    if may_infer and len(nameless) == 1 and len(hidden) <= _ASKED_JOBS:
        return Match(job=nameless[0], evidence=Evidence.ONLY_CANDIDATE)
    return None


# -- whose file --------------------------------------------------------------------------------------------------------


def own_part(job: Job, sent: SentDocument, attempt: Attempt) -> tuple[Job, str | None]:
    """The job with the list entries of one document alone, where ids show whose they are; and the document's own id.

    Where an entry names any document of the attempt, every document gets its own entries and no others.
    """
    token, is_solo = token_of(sent.upload_name), len(attempt.documents) == 1
    ids, nodes = job.input_file_ids, job.output_node_files
    is_own = {name: token is not None and token in name for name in job.file_names()}
    if ids is not None and mentions(ids, names_of(attempt)):
        ids = tuple(file_id for file_id in ids if is_own[file_id])
    if nodes is not None and mentions((str(node.get("file_id")) for node in nodes), names_of(attempt)):
        nodes = tuple(node for node in nodes if is_own.get(str(node.get("file_id"))))
    is_named = ids is not None and len(ids) == 1 and (is_solo or is_own[ids[0]])
    return replace(job, input_file_ids=ids, output_node_files=nodes), ids[0] if is_named and ids else None


def is_own_output(file_id: str, upload_name: str | None) -> bool:
    """Whether an output's file id is that of a document."""
    token = token_of(upload_name)
    return token is not None and token in file_id


# -- whose failure -----------------------------------------------------------------------------------------------------


def attribute_failures(
    failed: Sequence[FailedFile], documents: Sequence[SentDocument]
) -> tuple[dict[DocumentKey, str], list[FailedFile]]:
    """The reason of each document that is named as failed, and the failures that match no document."""
    reasons: dict[DocumentKey, str] = {}
    unattributed: list[FailedFile] = []
    for each in failed:
        owner = next((sent for sent in documents if mentions([each.document], [sent.upload_name])), None)
        if owner is None:
            unattributed.append(each)
        else:
            reasons[owner.key] = reasons.get(owner.key) or each.error
    return reasons, unattributed
