"""The use cases in this process, over the real adapters: tables as the template has them, time as the test wants it."""

import contextlib
import hashlib
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, Fault, PlatformState, SimulatedJob, StoredFile
from local.stack import Aws
from local.template import template
from tests.integration.fault_injection import Hook, HookedClient, HookedConnections, PassThrough
from tests.published import Published
from workflow_trigger.adapters.dynamodb.ledger import Ledger
from workflow_trigger.adapters.dynamodb.mapping import deserialize
from workflow_trigger.adapters.eventbridge import EventPublisher
from workflow_trigger.adapters.s3_reader import ObjectReader
from workflow_trigger.adapters.s3_results import ResultsBucket
from workflow_trigger.adapters.unstructured.api_key import ApiKey
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.adapters.unstructured.connections import Connections, Throttle
from workflow_trigger.domain.clock import Clock, Deadline, iso
from workflow_trigger.domain.document import DocumentKey, ObjectVersion, canonical_id, upload_name
from workflow_trigger.domain.errors import ConflictError
from workflow_trigger.domain.model import FINAL, EndedJob, Status, Workflow
from workflow_trigger.services import recover
from workflow_trigger.services.context import Context, Counts
from workflow_trigger.services.gauges import gauges
from workflow_trigger.services.reconcile import Reconciler, step
from workflow_trigger.services.results import collect
from workflow_trigger.services.submit import Queue, submit, submit_now
from workflow_trigger.settings import Settings

REASON = "page 3 cannot be read"
OPEN = sorted(set(Status) - FINAL)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TestClock(Clock):
    """Time passes where somebody sleeps, and nowhere else: a slow machine makes nothing late.

    No two readings are the same.
    """

    __test__ = False

    def __init__(self) -> None:
        self._epoch_microseconds = time.time_ns() // 1_000
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self._read())

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._epoch_microseconds += round(seconds * 1e6)

    def epoch_seconds(self) -> float:
        return self._read() / 1e6

    def _read(self) -> int:
        with self._lock:
            self._epoch_microseconds += 1
            return self._epoch_microseconds

    def wait_for(self, futures: Collection[Future[Any]], seconds: float) -> None:
        """Time passes only while nobody works."""
        if futures:
            wait(futures, timeout=60, return_when=FIRST_COMPLETED)
        else:
            self.sleep(seconds)


def step_everything(context: Context) -> None:
    """One step of everything, in one thread."""
    snapshot = context.snapshot()
    queue = Queue(context)
    workflows = {each.workflow_id: each for each in snapshot.workflows}
    for key, documents in recover.orphans(context, snapshot):
        if not (before := workflows.get(key) or Workflow(workflow_id=key)).is_at_work:
            workflows[key] = recover.take_up(context, before, documents)
    for before in workflows.values():
        workflow = step(context, before)
        is_free = workflow.workflow_id in context.settings.workflow_ids and workflow.is_free(context.clock.now())
        if is_free and context.has_time() and not context.is_paused:
            submit(context, workflow, queue)
            queue.refresh()
    for ended in context.snapshot().ended_jobs:
        if max(ended.lease_ends_at or "", ended.retry_at or "") <= context.iso_later():
            with contextlib.suppress(ConflictError):
                collect(context, ended)
    recover.publish_late_events(context)
    recover.finish_batches(context)


class Harness:
    """Everything that one test needs."""

    def __init__(self, aws: Aws, state: PlatformState, url: str, clock: TestClock) -> None:
        self.aws = aws
        self.state = state
        self.clock = clock
        self._counts: Counter[str] = Counter()
        name = uuid.uuid4().hex[:12]
        self.bucket = f"uploads-{name}"
        self.s3 = aws.client("s3")
        self.dynamodb = aws.client("dynamodb")
        self.secrets = aws.client("secretsmanager")
        self.hook: Hook = PassThrough()
        self.violations: list[str] = []
        self.has_a_defect = False  # a test breaks the product itself
        self.s3.create_bucket(Bucket=self.bucket)
        self.secret = self.secrets.create_secret(Name=f"key-{name}", SecretString=state.behaviour.api_key)["ARN"]
        for resource in ("Ledger", "Workflows"):
            self._create_table(resource, f"{resource}-{name}")
        self.settings = Settings(
            api_url=url,
            workflow_ids=(str(uuid.uuid4()),),
            api_key_secret_arn=self.secret,
            ledger_table=f"Ledger-{name}",
            workflows_table=f"Workflows-{name}",
            max_files_per_run=10,
        )
        self.pool_ever = {canonical_id(each) for each in self.settings.workflow_ids}
        self.api_key = ApiKey(self._hooked(self.secrets, "secrets"), self.secret)
        self.connections = Connections(url)
        self.throttle = Throttle()
        self.events = Published(aws.client("events"))
        self.counted = Counts()
        self.woken = 0
        self.sequence = 0
        self.versions: dict[DocumentKey, bytes] = {}

    def another(self) -> "Harness":
        """A harness beside this one: tables, bucket and workflow of its own, the same platform."""
        harness = Harness(self.aws, self.state, self.settings.api_url, self.clock)
        harness.check_invariants()
        return harness

    def check_invariants(self) -> None:
        """Watch the platform: no complete body may be accepted but for a committed attempt with just these files."""
        start = self.state.start

        def watched(workflow_id: str, files: list[StoredFile], **attributes: Any) -> Any:
            job = start(workflow_id, files, **attributes)
            if job is not None and job.ours and workflow_id in self.settings.workflow_ids:
                workflow = self.ledger().workflow(workflow_id)
                names = sorted(workflow.attempt.upload_names)
                sent = sorted(file.filename for file in files)
                if not job.is_late and (workflow.phase != "committed" or names != sent):
                    self.violations.append(f"accepted {[file.filename for file in files]} while {workflow}")
            return job

        self.state.start = watched  # type: ignore[method-assign]

    @classmethod
    @contextlib.contextmanager
    def opened(cls, aws: Aws, folder: Path) -> Iterator["Harness"]:
        clock = TestClock()
        state = PlatformState(folder, Behaviour(default_job_seconds=20, scheduled_seconds=5), clock.epoch_seconds)
        with serving(state) as url:
            yield cls(aws, state, url, clock)

    def _create_table(self, resource: str, name: str) -> None:
        properties = template()["Resources"][resource]["Properties"]
        kept = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
        self.dynamodb.create_table(TableName=name, **{each: properties[each] for each in kept if each in properties})

    # -- the product ---------------------------------------------------------------------------------------------------

    def context(self, *, seconds: float = 900, hook: Hook | None = None) -> Context:
        """What one invocation composes."""
        deadline = Deadline.in_seconds(self.clock, seconds)
        client = PlatformClient(
            api_url=self.settings.api_url,
            api_key=self.api_key,
            connections=HookedConnections(self.connections, lambda: hook or self.hook),
            deadline=deadline,
            throttle=self.throttle,
        )
        results = None
        if self.settings.results_bucket:
            results = ResultsBucket(self._hooked(self.s3, "s3", hook), self.settings.results_kms_key_arn)
        return Context(
            ledger=self.ledger(deadline, self._hooked(self.dynamodb, "dynamodb", hook)),
            reader=ObjectReader(self._hooked(self.s3, "s3", hook), reads_tags=self.settings.reads_tags),
            client=client,
            results=results,
            events=EventPublisher(self._hooked(self.events, "events", hook), stack="test"),
            settings=self.settings,
            clock=self.clock,
            deadline=deadline,
            wake_poller=self._wake,
            counts=self.counted,
        )

    def _wake(self) -> None:
        self.woken += 1

    @property
    def counts(self) -> Counter[str]:
        """What the product has counted so far."""
        self._counts.update(self.counted.taken())
        return self._counts

    def _hooked(self, client: Any, name: str, hook: Hook | None = None) -> Any:
        return HookedClient(client, lambda: hook or self.hook, name)

    def ledger(self, deadline: Deadline | None = None, client: Any = None) -> Ledger:
        """The ledger as an invocation has it; without a client, as the test looks at it."""
        return Ledger(
            client or self.dynamodb,
            ledger_table=self.settings.ledger_table,
            workflows_table=self.settings.workflows_table,
            retention_days=self.settings.retention_days,
            deadline=deadline or Deadline.in_seconds(self.clock, 900),
        )

    def configure(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)
        self.pool_ever |= {canonical_id(each) for each in self.settings.workflow_ids}

    # -- what happens to it --------------------------------------------------------------------------------------------

    def upload(self, key: str, content: bytes, **more: Any) -> ObjectVersion:
        """Put an object; returns what its event says."""
        answer = self.s3.put_object(Bucket=self.bucket, Key=key, Body=content, **more)
        self.sequence += 1
        version = ObjectVersion(
            bucket=self.bucket,
            key=key,
            version_id=answer.get("VersionId"),
            etag=answer["ETag"].strip('"'),
            size_bytes=len(content),
            sequencer=f"{self.sequence:016X}",
            uploaded_at=None,
        )
        self.versions[version.document_key] = content
        return version

    def deliver(
        self, *versions: ObjectVersion, submit: bool = True, seconds: float = 900, hook: Hook | None = None
    ) -> None:
        """One invocation of on_upload."""
        context = self.context(seconds=seconds, hook=hook)
        documents = [context.ledger.register(version)[0] for version in versions]
        if submit:
            submit_now(context, [each for each in documents if each.status == "PENDING"])

    def job_with(self, files: int, **attributes: Any) -> tuple[list[ObjectVersion], SimulatedJob]:
        """So many documents, `0.pdf` and on, that run in one job; its attributes are those of the simulated one."""
        if attributes:
            self.state.faults.append(Fault("run", "job", job=attributes))
        documents = [self.upload(f"{number}.pdf", bytes([number])) for number in range(files)]
        self.deliver(*documents)
        (job,) = self.state.jobs.values()
        return documents, job

    def fail(self, job: SimulatedJob, *documents: ObjectVersion) -> None:
        """A job ends as FAILED, and names these files as failed; outputs decide about the others."""
        job.ending = job.status = "FAILED"
        job.failed = {self.row(each)["upload_name"]: REASON for each in documents}

    def tick(self, *, after_seconds: float = 0, window_seconds: float = 0, seconds: float = 900) -> None:
        """One invocation of on_schedule."""
        self.clock.sleep(after_seconds)
        with contextlib.suppress(*([ExceptionGroup] if self.has_a_defect else [])):
            Reconciler(self.context(seconds=seconds)).run(window_seconds)

    def gauges(self) -> dict[str, dict[str, float]]:
        """What on_schedule would measure now, by route."""
        context = self.context()
        return gauges(context, context.snapshot())

    def step_all(self, *, hook: Hook | None = None) -> None:
        """on_schedule without its threads and its polling: each workflow one step, then what lost its owner."""
        context = self.context(hook=hook or PassThrough())
        with contextlib.suppress(ConflictError):
            step_everything(context)

    def grow_pool(self, size: int) -> list[str]:
        """So many workflows from now on."""
        ids = [*self.settings.workflow_ids, *(str(uuid.uuid4()) for _ in range(size))][:size]
        self.configure(workflow_ids=tuple(ids))
        return ids

    def settle(self, *, minutes: int = 60, until: Callable[[], bool] | None = None) -> int:
        """Let the schedule run, minute by minute, until every row is final; returns the minutes that it took."""
        for minute in range(minutes):
            if until() if until else not self.rows(*OPEN):
                return minute
            self.tick(after_seconds=60)
        open_rows = self.rows(*OPEN)[:5]
        raise AssertionError(f"not at rest after {minutes} minutes: {open_rows} {self.workflows()}")

    # -- what came of it -----------------------------------------------------------------------------------------------

    def rows(self, *statuses: Status) -> list[dict[str, Any]]:
        """All rows, or those of some statuses: to read them takes most of the time of a test with many."""
        more: dict[str, Any] = {"ExpressionAttributeNames": {"#status": "status"}}
        more["FilterExpression"] = "attribute_exists(#status)"
        if statuses:
            values = {f":{number}": {"S": str(status)} for number, status in enumerate(statuses)}
            more |= {"FilterExpression": f"#status IN ({', '.join(values)})", "ExpressionAttributeValues": values}
        pages = self.dynamodb.get_paginator("scan").paginate(
            TableName=self.settings.ledger_table, ConsistentRead=True, **more
        )
        return [deserialize(item) for page in pages for item in page["Items"]]

    def row(self, version: ObjectVersion) -> dict[str, Any]:
        item = self.ledger().item(version.document_key)
        assert item is not None
        return item

    def rewrite(self, version: ObjectVersion, expression: str, **values: str) -> None:
        """Change a row as another release would have left it: `#name` is an attribute, `:name` one of the values."""
        given = {"ExpressionAttributeValues": {f":{name}": {"S": value} for name, value in values.items()}}
        self.dynamodb.update_item(
            TableName=self.settings.ledger_table,
            Key={name: {"S": value} for name, value in version.document_key._asdict().items()},
            UpdateExpression=expression,
            ExpressionAttributeNames={f"#{name}": name for name in re.findall(r"#(\w+)", expression)},
            **(given if values else {}),
        )

    def bind(
        self, version: ObjectVersion, workflow_id: str, name: str, since: str | None = None, *, is_queued: bool = True
    ) -> None:
        """Leave a document as 0.2.0 left one whose answer was lost: it waits, and is bound to its workflow."""
        bound = "SET #bound_to = :workflow, #bound_since = :since, #upload_name = :name"
        values = {"workflow": workflow_id, "since": since or iso(self.clock.now()), "name": name}
        self.rewrite(version, bound if is_queued else f"{bound} REMOVE #queue, #queue_at", **values)

    def end_as_0_2_0(self, version: ObjectVersion, now: str) -> None:
        """Leave a document as 0.2.0 left one that it completed: where it was, in a queue that 0.2.0 does not know."""
        ended = (
            "SET #status = :status, #updated_at = :now, #job_id = :job, #workflow_id = :workflow REMOVE #eligible_at"
        )
        ids = {"job": str(uuid.uuid4()), "workflow": self.settings.workflow_ids[0]}
        self.rewrite(version, ended, status="COMPLETED", now=now, **ids)

    @contextlib.contextmanager
    def run_that_hangs(self, question: str, *about: str) -> Iterator[None]:
        """A run of the schedule in which a question (about these; else all) hangs until the end of the block."""
        may_answer, ask = threading.Event(), getattr(PlatformClient, question)

        def hang(client: PlatformClient, key: str) -> Any:
            if key in about or not about:
                may_answer.wait()
            return ask(client, key)

        run = threading.Thread(target=self.tick)
        with patch.object(PlatformClient, question, hang):
            run.start()
            try:
                yield
            finally:
                may_answer.set()
                run.join()

    def status(self, version: ObjectVersion) -> str:
        return str(self.row(version)["status"])

    def status_or_none(self, version: ObjectVersion) -> str | None:
        item = self.ledger().item(version.document_key)
        return str(item["status"]) if item else None

    def workflow(self) -> Workflow:
        return self.workflows()[0]

    def workflows(self) -> tuple[Workflow, ...]:
        return self.ledger().snapshot(self.settings.workflow_ids).workflows

    def ended_jobs(self) -> tuple[EndedJob, ...]:
        return self.ledger().snapshot(self.settings.workflow_ids).ended_jobs

    def jobs_of(self, version: ObjectVersion) -> list[SimulatedJob]:
        """The jobs of ours that hold exactly these bytes under a name of this document."""
        digest = hashlib.sha256(self.versions[version.document_key]).hexdigest()
        stem = upload_name(version.document_key, "").rpartition("-")[0]
        jobs = (job for job in self.state.jobs.values() if job.ours and job.workflow_id in self.pool_ever)
        return [
            job
            for job in jobs
            if any(file.sha256 == digest and file.filename.rpartition("-")[0] == stem for file in job.files)
        ]

    def accepted(self, version: ObjectVersion) -> int:
        """How often the platform accepted these bytes for us."""
        return len(self.jobs_of(version))

    def foreign_job(self, names: Sequence[str] = ("invoice.pdf",), **attributes: Any) -> str:
        """Somebody else's job on the first workflow."""
        files = [
            StoredFile(name, None, name.replace(".", "-0a1b2c3d."), "0" * 64, 1, self.state.folder) for name in names
        ]
        job = self.state.start(self.settings.workflow_ids[0], files, ours=False, **attributes)
        assert job is not None
        return job.id
