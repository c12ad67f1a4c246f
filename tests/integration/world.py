"""The use cases in this process, over the real adapters: tables as the template has them, time as the test wants it."""

import contextlib
import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from local.platform_state import Behaviour, PlatformState, StoredFile
from local.simulated_platform import serving
from local.stack import ROOT, Aws
from tests.integration.hooks import Direct, Hook, HookedClient, HookedPool
from workflow_trigger.api_key import ApiKey
from workflow_trigger.clock import Clock, Deadline
from workflow_trigger.errors import ReconcileFailed
from workflow_trigger.invocation import Invocation
from workflow_trigger.items import deserialize
from workflow_trigger.ledger import Ledger
from workflow_trigger.model import FINAL, Workflow
from workflow_trigger.objects import ObjectVersion, RowKey, token_of
from workflow_trigger.platform_api import Platform, connection_pool
from workflow_trigger.reconcile import Reconciler
from workflow_trigger.results import Results
from workflow_trigger.settings import Settings
from workflow_trigger.source import Source
from workflow_trigger.submit import Submitter


class _CloudFormation(yaml.SafeLoader):
    """Reads short forms such as !Ref as plain values."""


def _short_form(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_CloudFormation.add_multi_constructor("!", _short_form)


def template(path: Path = ROOT / "template.yaml") -> dict[str, Any]:
    """The template, its short forms as CloudFormation's long ones."""
    loaded: dict[str, Any] = yaml.load(path.read_text(), Loader=_CloudFormation)
    return loaded


class TestClock(Clock):
    """Real time plus what the test has let pass; sleeping passes at once. No two readings are the same."""

    __test__ = False

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def sleep(self, seconds: float) -> None:
        self.offset += timedelta(seconds=seconds)

    def epoch_seconds(self) -> float:
        return time.time() + self.offset.total_seconds()


class World:
    """Everything that one test needs."""

    def __init__(self, aws: Aws, state: PlatformState, url: str, clock: TestClock) -> None:
        self.aws = aws
        self.state = state
        self.clock = clock
        self.counts: Counter[str] = Counter()
        name = uuid.uuid4().hex[:12]
        self.bucket = f"uploads-{name}"
        self.s3 = aws.client("s3")
        self.dynamodb = aws.client("dynamodb")
        self.secrets = aws.client("secretsmanager")
        self.hook: Hook = Direct()
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
        self.api_key = ApiKey(self._hooked(self.secrets, "secrets"), self.secret)
        self.pool = connection_pool(url)
        self.sequence = 0
        self.versions: dict[RowKey, bytes] = {}

    def another(self) -> "World":
        """A world beside this one: tables, bucket and workflow of its own, the same platform."""
        world = World(self.aws, self.state, self.settings.api_url, self.clock)
        world.judge()
        return world

    def judge(self) -> None:
        """Watch the platform: no complete body may be accepted but for a committed attempt with just these files."""
        start = self.state.start

        def watched(workflow_id: str, files: list[StoredFile], **attributes: Any) -> Any:
            job = start(workflow_id, files, **attributes)
            if job is not None and job.ours and workflow_id in self.settings.workflow_ids:
                (workflow,) = self.ledger().workflows([workflow_id])
                tokens = sorted(token_of(key) for key in workflow.rows)
                sent = sorted(token for token in tokens for file in files if token in file.filename)
                if not job.is_late and (workflow.phase != "committed" or tokens != sent or len(files) != len(tokens)):
                    self.violations.append(f"accepted {[file.filename for file in files]} while {workflow}")
            return job

        self.state.start = watched  # type: ignore[method-assign]

    @classmethod
    @contextlib.contextmanager
    def opened(cls, aws: Aws, folder: Path) -> Iterator["World"]:
        clock = TestClock()
        state = PlatformState(folder, Behaviour(default_job_seconds=20, scheduled_seconds=5), clock.epoch_seconds)
        with serving(state) as url:
            yield cls(aws, state, url, clock)

    def _create_table(self, resource: str, name: str) -> None:
        properties = template()["Resources"][resource]["Properties"]
        kept = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
        self.dynamodb.create_table(TableName=name, **{each: properties[each] for each in kept if each in properties})

    # -- the product ---------------------------------------------------------------------------------------------------

    def invocation(self, *, seconds: float = 900, hook: Hook | None = None) -> Invocation:
        """What one invocation composes."""
        deadline = Deadline.in_seconds(self.clock, seconds)
        platform = Platform(
            api_url=self.settings.api_url,
            api_key=self.api_key,
            pool=self._hooked_pool(self.pool, hook),
            deadline=deadline,
            fresh_pool=lambda url: self._hooked_pool(connection_pool(url), hook),
        )
        return Invocation(
            ledger=self.ledger(deadline, self._hooked(self.dynamodb, "dynamodb", hook)),
            source=Source(self._hooked(self.s3, "s3", hook)),
            platform=platform,
            settings=self.settings,
            clock=self.clock,
            deadline=deadline,
            count=self._count,
        )

    def _hooked(self, client: Any, name: str, hook: Hook | None = None) -> Any:
        return HookedClient(client, lambda: hook or self.hook, name)

    def _hooked_pool(self, pool: Any, hook: Hook | None) -> Any:
        return HookedPool(pool, lambda: hook or self.hook)

    def ledger(self, deadline: Deadline | None = None, client: Any = None) -> Ledger:
        """The ledger as an invocation has it; without a client, as the test looks at it."""
        return Ledger(
            client or self.dynamodb,
            ledger_table=self.settings.ledger_table,
            workflows_table=self.settings.workflows_table,
            retention_days=self.settings.retention_days,
            clock=self.clock,
            deadline=deadline or Deadline.in_seconds(self.clock, 900),
        )

    def _count(self, name: str, value: int) -> None:
        self.counts[name] += value

    def configure(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)

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
        self.versions[version.row_key] = content
        return version

    def deliver(
        self, *versions: ObjectVersion, submit: bool = True, seconds: float = 900, hook: Hook | None = None
    ) -> None:
        """One invocation of on_upload."""
        invocation = self.invocation(seconds=seconds, hook=hook)
        rows = [invocation.ledger.register(version)[0] for version in versions]
        if submit:
            Submitter(invocation).fill([row for row in rows if row.status == "PENDING"])

    def tick(self, *, after_seconds: float = 0, window_seconds: float = 0, seconds: float = 900) -> None:
        """One invocation of on_schedule."""
        self.clock.sleep(after_seconds)
        results = None
        if self.settings.results_bucket:
            results = Results(
                self._hooked(self.s3, "s3"), bucket=self.settings.results_bucket, prefix=self.settings.results_prefix
            )
        with contextlib.suppress(*([ReconcileFailed] if self.has_a_defect else [])):
            Reconciler(self.invocation(seconds=seconds), results).run(window_seconds)

    def step_all(self, *, hook: Hook | None = None) -> None:
        """on_schedule without its threads and its polling: each workflow one step, then the sweep."""
        reconciler = Reconciler(self.invocation(hook=hook or Direct()))
        for workflow in reconciler.workflows():
            reconciler.step_or_reload(workflow)
        reconciler.sweep(len(self.settings.workflow_ids))

    def grow_pool(self, size: int) -> list[str]:
        """So many workflows from now on."""
        ids = [*self.settings.workflow_ids, *(str(uuid.uuid4()) for _ in range(size))][:size]
        self.configure(workflow_ids=tuple(ids))
        return ids

    def settle(self, *, minutes: int = 60, until: Callable[[], bool] | None = None) -> int:
        """Let the schedule run, minute by minute, until every row is final; returns the minutes that it took."""
        for minute in range(minutes):
            if until() if until else all(row["status"] in FINAL for row in self.rows()):
                return minute
            self.tick(after_seconds=60)
        raise AssertionError(f"not at rest after {minutes} minutes: {self.rows()} {self.workflows()}")

    # -- what came of it -----------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.settings.ledger_table, ConsistentRead=True)
        return [deserialize(item) for page in pages for item in page["Items"]]

    def row(self, version: ObjectVersion) -> dict[str, Any]:
        item = self.ledger().item(version.row_key)
        assert item is not None
        return item

    def status(self, version: ObjectVersion) -> str:
        return str(self.row(version)["status"])

    def status_or_none(self, version: ObjectVersion) -> str | None:
        item = self.ledger().item(version.row_key)
        return str(item["status"]) if item else None

    def workflow(self) -> Workflow:
        return self.workflows()[0]

    def workflows(self) -> list[Workflow]:
        return self.ledger().all_workflows(self.settings.workflow_ids)

    def accepted(self, version: ObjectVersion) -> int:
        """How often the platform accepted exactly these bytes under this version's token."""
        token = token_of(version.row_key)
        digest = hashlib.sha256(self.versions[version.row_key]).hexdigest()
        return sum(token in name and sha256 == digest for _, name, sha256 in self.state.accepted())

    def stranger(self, names: Sequence[str] = ("invoice.pdf",), **attributes: Any) -> str:
        """Somebody else's job on the first workflow."""
        files = [
            StoredFile(name, None, name.replace(".", "-0a1b2c3d."), "0" * 64, 1, self.state.folder) for name in names
        ]
        job = self.state.start(self.settings.workflow_ids[0], files, ours=False, **attributes)
        assert job is not None
        return job.id
