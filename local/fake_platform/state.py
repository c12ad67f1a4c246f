"""What the simulated platform knows: workflows, jobs, the bytes it accepted, and the faults it is to show."""

import contextlib
import hashlib
import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

NAMESPACE = uuid.UUID("6f0f2a4e-9d0b-4b6e-8f58-8f6f8ad0a1c7")
_COPY_BYTES = 1024 * 1024


@dataclass(slots=True)
class StoredFile:
    """One file of a run, as it was received; its bytes lie under `path`."""

    filename: str
    content_type: str | None
    file_id: str
    sha256: str
    size_bytes: int
    path: Path


@dataclass(slots=True)
class SimulatedJob:
    """One job. `ending` is the truth; what GET says of it is another matter."""

    id: str
    workflow_id: str
    created: float
    files: list[StoredFile]
    seconds: float
    scheduled_seconds: float
    ending: str = "SUCCESS"  # a processing_status of the details
    status: str | None = None  # what the job calls that; None: the usual name
    failed: dict[str, str] = field(default_factory=dict)  # document → error; with the ending FAILED: only these failed
    summary: dict[str, int] | None = None  # of the details: total_docs, total_docs_succeeded, total_docs_failed
    done: set[str] = field(default_factory=set)  # files that had succeeded when it was stopped
    has_all_outputs: bool = False  # all files have, also those that failed
    has_early_outputs: bool = False  # files that failed have that of the first node
    has_no_outputs: bool = False  # none of its files can be downloaded
    names_hidden_until: float = 0  # the failed files are not told before
    ours: bool = True  # False: a foreign job
    is_late: bool = False  # accepted after its request had been dropped
    details_lag_seconds: float = 0
    files_hidden_until: float = 0  # the job does not name its files before
    listed_from: float = 0  # the list does not show it before
    vanished: bool = False
    stopped_at: float | None = None

    def processing_status(self, now: float) -> str:
        """What the details say."""
        if self.stopped_at is not None:
            return "STOPPED"
        age = now - self.created
        if age < self.scheduled_seconds:
            return "SCHEDULED"
        return "IN_PROGRESS" if age < self.seconds + self.details_lag_seconds else self.ending

    def job_status(self, now: float) -> str:
        """What the job says: COMPLETED even when its files failed."""
        if self.stopped_at is not None:
            return "STOPPED"
        age = now - self.created
        if age < self.seconds:
            return "SCHEDULED" if age < self.scheduled_seconds else "IN_PROGRESS"
        return self.status or ("STOPPED" if self.ending == "STOPPED" else "COMPLETED")

    def is_active(self, now: float) -> bool:
        """Whether it holds its workflow."""
        return self.stopped_at is None and now - self.created < self.seconds

    def truth(self, file: StoredFile) -> str:
        """What really became of a file, in the words of the ledger."""
        if file.filename in self.failed or file.file_id in self.failed:
            return "FAILED"
        if self.stopped_at is not None or self.ending == "STOPPED":
            return "COMPLETED" if file.filename in self.done else "STOPPED"
        return "FAILED" if self.ending == "FAILED" and not self.failed else "COMPLETED"


@dataclass(slots=True)
class Fault:
    """What goes wrong, `times` times, with calls of one kind.

    `call` is run, jobs, job, details, failed-files, file-status or download; `kind` is one of
    `status` (answer `status` with `body` and `headers`), `drop` (the connection, before anything is accepted),
    `drop-after` (accepted, never answered), `answer-after` (accepted, answered with `status` and `body`),
    `late` (dropped now, accepted `seconds` later), `slow` (answered `seconds` later), `truncate` (half an answer),
    `pause` (half an answer, the rest `seconds` later), and
    for run, on the job that it starts: `job` (`job` holds attributes of `SimulatedJob`).
    """

    call: str
    kind: str
    times: int = 1
    status: int = 500
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0
    job: dict[str, Any] = field(default_factory=dict)
    workflow_id: str | None = None  # only with this one
    document: str | None = None  # only when a file of the run has this in its name


@dataclass(slots=True)
class Behaviour:
    """How the platform behaves when nothing is wrong. `job_seconds` by workflow id, else `default_job_seconds`."""

    api_key: str = "local-key"
    default_job_seconds: float = 2.0
    scheduled_seconds: float = 0.5
    job_seconds: dict[str, float] = field(default_factory=dict)
    workflow_keys: dict[str, str] = field(default_factory=dict)  # key → id, either names the workflow
    known_workflows: list[str] | None = None  # None: every id is one
    get_shows_files: bool = False
    list_shows_files: bool = True
    files_lag_seconds: float = 0  # how long after its beginning a job names no files
    has_file_status: bool = True
    is_another_workspace: bool = False  # the key shows nothing of ours
    ignores_filter: bool = False  # the list of jobs has every status, whatever was asked for
    list_seconds: float = 0  # how long a whole list of jobs takes to come
    earlier_jobs: int = 0  # in every workflow's list, of ten files and five nodes each
    output_bytes: int = 0  # of every output, at least


class PlatformState:
    """The simulated platform without its HTTP; safe to use from several threads."""

    def __init__(self, folder: Path, behaviour: Behaviour | None = None, clock: Any = time.time) -> None:
        self.folder = folder
        self.behaviour = behaviour or Behaviour()
        self.jobs: dict[str, SimulatedJob] = {}
        self.faults: list[Fault] = []
        self.shown: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.late: list[tuple[float, str, list[StoredFile]]] = []
        self.clock = clock
        self.lock = threading.RLock()
        self.workflows: dict[str, dict[str, Any]] = {}  # those that were created by the API
        self.chance: Callable[[str], Fault | None] | None = None  # faults by chance, as well as those in `faults`

    # -- faults --------------------------------------------------------------------------------------------------------

    def take_fault(self, call: str, workflow_id: str | None = None, names: Sequence[str] = ()) -> Fault | None:
        """The fault that this call is to show, if any is left."""
        with self.lock:
            self.requests[call] += 1
            for fault in self.faults:
                document = fault.document
                concerned = fault.workflow_id in {None, workflow_id} and (
                    document is None or any(document in name for name in names)
                )
                if fault.call == call and fault.times > 0 and concerned:
                    fault.times -= 1
                    self.shown[f"{call} {fault.kind}"] += 1
                    return fault
            chance = self.chance(call) if self.chance else None
            if chance is not None:
                self.shown[f"{call} {chance.kind} {chance.status if 'status' in chance.kind else ''}".strip()] += 1
            return chance

    # -- runs ----------------------------------------------------------------------------------------------------------

    def id_of(self, name: str) -> str:
        """The id of a workflow that is named by its id or its key; '' where it is neither."""
        found = self.behaviour.workflow_keys.get(name, name)
        with contextlib.suppress(ValueError):
            return str(uuid.UUID(found))
        return ""

    def knows(self, workflow_id: str) -> bool:
        """Whether there is such a workflow."""
        known = self.behaviour.known_workflows
        if workflow_id in self.workflows:
            return not self.behaviour.is_another_workspace
        return bool(workflow_id) and not self.behaviour.is_another_workspace and (known is None or workflow_id in known)

    def store(self, filename: str, content_type: str | None, stream: BinaryIO) -> StoredFile:
        """Keep a file's bytes."""
        path = self.folder / uuid.uuid4().hex
        digest = hashlib.sha256()
        size = 0
        with path.open("wb") as target:
            while chunk := stream.read(_COPY_BYTES):
                digest.update(chunk)
                size += len(chunk)
                target.write(chunk)
        name = PurePosixPath(filename)
        file_id = f"{re.sub(r'[^A-Za-z0-9_-]', '', name.stem)}-{uuid.uuid4().hex[:8]}{name.suffix}"
        return StoredFile(
            filename=filename,
            content_type=content_type,
            file_id=file_id,
            sha256=digest.hexdigest(),
            size_bytes=size,
            path=path,
        )

    def active(self, workflow_id: str) -> SimulatedJob | None:
        """The job that holds a workflow."""
        now = self.clock()
        return next((job for job in self.jobs.values() if job.workflow_id == workflow_id and job.is_active(now)), None)

    def start(self, workflow_id: str, files: list[StoredFile], **attributes: Any) -> SimulatedJob | None:
        """A new job, or None while one is active: the files are dropped."""
        with self.lock:
            self.accept_late()
            if self.active(workflow_id):
                return None
            behaviour = self.behaviour
            job = SimulatedJob(
                id=str(uuid.uuid4()),
                workflow_id=workflow_id,
                created=self.clock(),
                files=files,
                seconds=behaviour.job_seconds.get(workflow_id, behaviour.default_job_seconds),
                scheduled_seconds=behaviour.scheduled_seconds,
            )
            for name, value in attributes.items():
                setattr(job, name, value)
            self.jobs[job.id] = job
            return job

    def accept_late(self) -> None:
        """Start what was dropped to be accepted later, as soon as its time has come and its workflow is free."""
        with self.lock:
            due = [entry for entry in self.late if entry[0] <= self.clock()]
            for entry in due:
                if not self.active(entry[1]):
                    self.late.remove(entry)
                    self.start(entry[1], entry[2], is_late=True)

    # -- answers -------------------------------------------------------------------------------------------------------

    def information(self, job: SimulatedJob, *, posted: bool, files: bool) -> dict[str, Any]:
        """JobInformation as POST gives it, or GET, which leaves the zone out."""
        created = datetime.fromtimestamp(job.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        now = self.clock()
        files = files and now >= max(job.files_hidden_until, job.created + self.behaviour.files_lag_seconds)
        return {
            "id": job.id,
            "workflow_id": job.workflow_id,
            "workflow_name": f"workflow-{job.workflow_id[:8]}",
            "status": "SCHEDULED" if posted else job.job_status(now),
            "created_at": f"{created}Z" if posted else created,
            "runtime": None if posted or job.is_active(now) else "PT0S",
            "input_file_ids": [file.file_id for file in job.files] if files else None,
            "output_node_files": self.outputs(job) if files else None,
            "job_type": "ephemeral",
        }

    def has_output(self, job: SimulatedJob, file: StoredFile, node_id: str | None) -> bool:
        """Whether the output of a node can be had."""
        is_early = job.has_all_outputs or (job.has_early_outputs and node_id == self.outputs(job)[0]["node_id"])
        return bool(node_id) and (is_early or job.truth(file) == "COMPLETED") and not job.has_no_outputs

    def outputs(self, job: SimulatedJob) -> list[dict[str, str]]:
        """One entry for each file and node."""
        return [
            {
                "node_id": str(uuid.uuid5(NAMESPACE, f"{job.workflow_id}{kind}")),
                "file_id": file.file_id,
                "node_type": kind,
                "node_subtype": subtype,
            }
            for file in job.files
            for kind, subtype in (("partition", "vlm"), ("chunk", "chunk_by_title"))
        ]

    def earlier_jobs(self, workflow_id: str) -> Iterator[str]:
        """Entries of the list for jobs of long ago, as JSON."""
        for number in range(self.behaviour.earlier_jobs):
            files = [f"earlier-{number}-{each}-0a1b2c3d.pdf" for each in range(10)]
            kinds = ("partition", "prompter", "chunk", "embed", "enrich")
            nodes = [
                {"node_id": str(uuid.UUID(int=place)), "file_id": file, "node_type": kind, "node_subtype": "x"}
                for file in files
                for place, kind in enumerate(kinds)
            ]
            entry = {
                "id": str(uuid.uuid5(NAMESPACE, f"{workflow_id}{number}")),
                "workflow_id": workflow_id,
                "workflow_name": "earlier",
                "status": "COMPLETED",
                "created_at": "2020-01-01T00:00:00.000000",
                "input_file_ids": files,
                "output_node_files": nodes,
                "job_type": "ephemeral",
            }
            yield json.dumps(entry)

    def accepted(self) -> list[tuple[str, str, str]]:
        """What was accepted for us: job id, name and SHA-256 of every file."""
        with self.lock:
            return [
                (job.id, file.filename, file.sha256) for job in self.jobs.values() if job.ours for file in job.files
            ]
