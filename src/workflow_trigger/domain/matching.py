"""Which job did we start, whose file is this, whose failure. The only module that reads tokens in names.

A file is sent under a name that ends in a token of its document and its attempt (`domain/document.py`). The platform
makes ids of names, so that a token comes back in whatever it says of a file: ids, outputs, failed documents.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

from workflow_trigger.domain.clock import parse_time
from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.job import FailedFile, FileStatus, Job
from workflow_trigger.domain.model import Attempt

_CLOCK_SKEW = timedelta(minutes=1)  # between the platform's servers
_ASKED_JOBS = 10  # the vendor answers twelve such questions a minute
_TOKEN = re.compile(r"-([0-9a-f]{16})(?:\.[A-Za-z0-9]{1,10}){0,2}$")
_MADE_OF_NAME = re.compile(r".-[0-9a-f]{8}\.[a-z0-9]{1,10}$")  # and eight digits of the platform's
_DRAWN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{24,64}", re.IGNORECASE)


class Search(NamedTuple):
    """What a complete list of jobs shows of an attempt."""

    # The job that it started. A request is accepted as a whole, so the job holds all documents of the attempt.
    job: Job | None = None
    is_inferred: bool = False  # it hides its names, and is the only new job of a workflow that nobody else uses
    unexplained: tuple[Job, ...] = ()  # may be the attempt's, for nothing shows whose they are


def mentions(names: Iterable[str], upload_names: Iterable[str | None]) -> bool:
    """Whether any of the platform's names is that of a file sent under one of ours."""
    tokens = {found[1] for each in upload_names if (found := _TOKEN.search(each or ""))}
    return any(token in name.lower() for name in names for token in tokens)


def any_has_token(names: Iterable[str]) -> bool:
    """Whether any of the platform's names is that of a file that a stack sent, whichever; ids go on after the token."""
    return any(re.search(r"-[0-9a-f]{16}(?![0-9a-f])", name.lower()) for name in names)


def _tell_whose(names: Iterable[str]) -> bool:
    """Whether names say whose files they are. Ids that the platform has drawn do not."""
    return any(not _DRAWN.fullmatch(name) for name in names)


def ids_tell_whose(file_ids: Iterable[str]) -> bool:
    """Whether ids are made of names: with a token, or as they were seen. Any other may be drawn, in whatever way."""
    return any(any_has_token([each]) or _MADE_OF_NAME.search(each.lower()) for each in file_ids)


def candidates(jobs: Iterable[Job], attempt: Attempt, known_job_ids: Sequence[str]) -> list[Job]:
    """The jobs that the attempt may have started: not known before, nor older than the look before its first request.

    A name proves more than a list of known jobs or a clock: a job that names a file of the attempt is one of them.
    Takes in a list of any length; keeps only these.
    """
    first_look = parse_time(attempt.first_look_at)

    def is_old(job: Job) -> bool:
        created = parse_time(job.created_at)
        return first_look is not None and created is not None and created < first_look - _CLOCK_SKEW

    def is_ours(job: Job) -> bool:
        return mentions(job.file_names(), attempt.upload_names)

    return [job for job in jobs if is_ours(job) or not (job.id in known_job_ids or is_old(job))]


def match(jobs: Sequence[Job], attempt: Attempt, ask_names: Callable[[str], FileStatus], *, may_infer: bool) -> Search:
    """The candidate that the attempt started, if one of them shows it; else those that may be it and do not show it.

    `ask_names(job_id)` is asked about the newest ten jobs whose list entries hide their names. What is not asked about
    may be ours. So may a job that tells only some of its names.
    """
    by_age = sorted(jobs, key=lambda job: job.created_at or "", reverse=True)
    for job in by_age:
        if mentions(job.file_names(), attempt.upload_names):
            return Search(job)
    hidden = [job for job in by_age if not ids_tell_whose(job.file_names())]
    nameless, not_asked = [], hidden[_ASKED_JOBS:]
    for job in hidden[:_ASKED_JOBS]:
        told = ask_names(job.id)
        if mentions(told.documents, attempt.upload_names):
            return Search(job)
        if not (_tell_whose(told.documents) and told.is_complete):
            nameless.append(job)
    if may_infer and len(nameless) == 1 and not not_asked:
        return Search(nameless[0], is_inferred=True)
    return Search(unexplained=(*nameless, *not_asked))


def own_part(job: Job, key: DocumentKey, attempt: Attempt) -> tuple[Job, str | None]:
    """The job with the list entries of one document alone, where ids show whose they are; and the document's own id.

    Where an entry names any document of the attempt, every document gets its own entries and no others.
    """
    ids, nodes, upload_name = job.input_file_ids, job.output_node_files, attempt.documents[key]
    if ids is not None and mentions(ids, attempt.upload_names):
        ids = tuple(file_id for file_id in ids if is_own_file(file_id, upload_name))
    if nodes is not None and mentions((str(node.get("file_id")) for node in nodes), attempt.upload_names):
        nodes = tuple(node for node in nodes if is_own_file(str(node.get("file_id")), upload_name))
    own_id = ids[0] if ids is not None and len(ids) == 1 else None
    is_sure = own_id is not None and (len(attempt.documents) == 1 or is_own_file(own_id, upload_name))
    return replace(job, input_file_ids=ids, output_node_files=nodes), own_id if is_sure else None


def is_own_file(file_id: str, upload_name: str | None) -> bool:
    """Whether a file's id is that of a document."""
    return mentions([file_id], [upload_name])


def attribute_failures(
    failed: Sequence[FailedFile], documents: Mapping[DocumentKey, str | None]
) -> tuple[dict[DocumentKey, str], list[FailedFile]]:
    """The reason of each document that is named as failed, and the failures that match no document.

    A document that is alone in its job has those that name nobody. What they mean is in `domain/outcome.py`.
    """
    reasons: dict[DocumentKey, str] = {}
    unattributed: list[FailedFile] = []
    for each in failed:
        owner = next((key for key, name in documents.items() if is_own_file(each.document, name)), None)
        if owner is None:
            unattributed.append(each)
        else:
            reasons[owner] = reasons.get(owner) or each.error
    if unattributed and len(documents) == 1 and not any_has_token(each.document for each in unattributed):
        return {**dict.fromkeys(documents, unattributed[0].error), **reasons}, []
    return reasons, unattributed
