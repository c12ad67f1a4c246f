"""The real handlers in processes of their own, as small as Lambda makes them, with many workflows and much to read."""

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.report import Check, Section, plot, progress
from bench.simulation import JOB_SECONDS
from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, Fault, PlatformState
from local.limits import MEGABYTES_PER_CORE, limited
from local.stack import ROOT, Aws
from tests.integration.harness import Harness, TestClock

MINUTES = float(os.environ.get("SCALE_MINUTES", "10"))
_RUN_EVERY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What the functions are put to."""

    name: str
    pool: int
    megabytes: int = 256
    backlog: int = 4_000
    earlier_jobs: int = 0
    output_bytes: int = 0
    with_results: bool = False
    job_seconds: tuple[float, float] = JOB_SECONDS
    files_per_run: int = 10


LOADS = (
    Load(name="pool of 1", pool=1),
    Load(name="pool of 5", pool=5),
    Load(name="pool of 32", pool=32),
    Load(name="8 workflows, 1,000 earlier jobs each", pool=8, earlier_jobs=1_000),
    Load(name="12 outputs of 20 MB at once", pool=12, with_results=True, output_bytes=20_000_000, backlog=900),
    Load(name="pool of 100, 512 MB", pool=100, megabytes=512, backlog=6_000),
    Load(name="pool of 200, 1,024 MB", pool=200, megabytes=1_024, backlog=11_000),
)


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    load: Load
    at_work: float = 0.0
    jobs: int = 0
    killed: int = 0
    errors: list[str] = field(default_factory=list)
    idle_kb: int = 0
    peak_kb: int = 0
    processor_seconds: float = 0.0
    lapsed: int = 0
    first_batch_seconds: float = 0.0
    ran_twice: int = 0
    outputs: int = 0


class Functions:
    """on_schedule in two processes that take turns, minute by minute, as two containers of Lambda do."""

    def __init__(self, harness: Harness, load: Load, groups: list[list[Path]]) -> None:
        self._outcome, self._is_ending = Outcome(load), False
        settings = harness.settings
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}/src:{ROOT}",
            "UNSTRUCTURED_API_URL": settings.api_url,
            "WORKFLOW_IDS": ",".join(settings.workflow_ids),
            "API_KEY_SECRET_ARN": harness.secret,
            "LEDGER_TABLE": settings.ledger_table,
            "WORKFLOWS_TABLE": settings.workflows_table,
            "MAX_FILES_PER_RUN": str(load.files_per_run),
            "RESULTS_BUCKET": settings.results_bucket or "",
            "POWERTOOLS_SERVICE_NAME": "bench",
            "POWERTOOLS_LOG_LEVEL": "WARNING",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(load.megabytes),
            "AWS_LAMBDA_FUNCTION_NAME": "on-schedule",
            **harness.aws.environment,
        }
        self._processes = [self._start(environment, each) for each in groups]
        self._started_seconds = 0.0
        for process in self._processes:
            self._started_seconds += self._read(process)["processor_seconds"]
        self._outcome.idle_kb = self._outcome.peak_kb
        self._threads: list[threading.Thread] = []

    def _start(self, environment: dict[str, str], groups: list[Path]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "local.function_process", *map(str, groups)]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def fire(self, number: int) -> None:
        """One invocation by the schedule; it lasts as long as it lasts."""
        thread = threading.Thread(target=self._invoke, args=(self._processes[number % 2],), daemon=True)
        thread.start()
        self._threads.append(thread)

    def _invoke(self, process: subprocess.Popen[str]) -> None:
        if process.stdin is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.write(json.dumps(["on_schedule", {}]) + "\n")
            process.stdin.flush()
        self._read(process)

    def _read(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        line = process.stdout.readline() if process.stdout else ""
        outcome = self._outcome
        if not line:
            outcome.killed += not self._is_ending
            return {"processor_seconds": 0.0}
        told: dict[str, Any] = json.loads(line)
        if "peak_kb" not in told:  # a line of the function's log: a warning, or worse
            progress(f"scale: {outcome.load.name}: {told.get('message')} {told.get('error') or ''}"[:160])
            return self._read(process)
        outcome.peak_kb = max(outcome.peak_kb, told["peak_kb"])
        outcome.errors += [told["error"]] if told["error"] else []
        return told

    def end(self) -> Outcome:
        """Let the last invocations come to their end."""
        for thread in self._threads:
            thread.join(timeout=150)
        self._is_ending = True  # a copy may still be going on: that one is ended by us
        for process in self._processes:
            self._outcome.processor_seconds += _processor_seconds(process.pid)
            process.kill()
            process.wait()
        self._outcome.processor_seconds -= self._started_seconds
        return self._outcome


def _processor_seconds(pid: int) -> float:
    with contextlib.suppress(OSError, ValueError):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


@contextlib.contextmanager
def loaded(aws: Aws, load: Load) -> Iterator[Harness]:
    """A harness in which documents wait for a pool."""
    with tempfile.TemporaryDirectory() as folder:
        behaviour = Behaviour(scheduled_seconds=5, earlier_jobs=load.earlier_jobs, output_bytes=load.output_bytes)
        state = PlatformState(Path(folder), behaviour, time.time)
        chance = random.Random(0)
        state.chance = lambda call: (
            Fault("run", "job", job={"seconds": chance.uniform(*load.job_seconds)}) if call == "run" else None
        )
        with serving(state) as url:
            harness = Harness(aws, state, url, TestClock())
            harness.configure(workflow_ids=tuple(str(uuid.uuid4()) for _ in range(load.pool)))
            if load.with_results:
                harness.s3.create_bucket(Bucket=f"results-{harness.bucket}")
                harness.configure(results_bucket=f"results-{harness.bucket}")
            ledger = harness.ledger()
            for number in range(load.backlog):
                ledger.register(harness.upload(f"{number:05}.pdf", f"document {number}".encode()))
            yield harness


def run(aws: Aws, load: Load, minutes: float) -> Outcome:
    """So many real minutes, with the schedule as deployed and nobody else."""
    progress(f"scale: {load.name}, {minutes:g} minutes")
    with contextlib.ExitStack() as ends:
        harness = ends.enter_context(loaded(aws, load))
        groups = [ends.enter_context(limited(load.megabytes)) for _ in range(2)]
        functions = Functions(harness, load, groups)
        began = time.time()
        number = 0
        while (elapsed := time.time() - began) < minutes * 60:
            functions.fire(number)
            number += 1
            time.sleep(min(_RUN_EVERY_SECONDS, minutes * 60 - elapsed))
        ended = time.time()
        outcome = functions.end()
        _judge(harness, outcome, began, ended)
        progress(f"scale: {load.name}: {outcome.at_work:.1%} at work, {outcome.peak_kb / 1024:.0f} MB")
        return outcome


def _judge(harness: Harness, outcome: Outcome, began: float, ended: float) -> None:
    jobs = [job for job in harness.state.jobs.values() if job.created < ended]
    outcome.jobs = len(jobs)
    worked = sum(min(job.created + job.seconds, ended) - job.created for job in jobs)
    outcome.at_work = worked / ((ended - began) * outcome.load.pool)
    outcome.first_batch_seconds = max((job.created for job in jobs[: outcome.load.pool]), default=ended) - began
    rows = harness.rows()
    outcome.lapsed = sum((row.get("error") or {}).get("type") == "LeaseEnded" for row in rows)
    names = [file.filename.rpartition("-")[0] for job in jobs for file in job.files]
    outcome.ran_twice = len(names) - len(set(names))
    outcome.outputs = sum("key" in entry for row in rows for entry in row.get("results", []))


def measure(aws: Aws) -> Section:
    """Every load in turn."""
    return section_of([run(aws, load, MINUTES) for load in LOADS], MINUTES)


def _cost(outcomes: list[Outcome], minutes: float) -> tuple[float, float]:
    """Processor seconds of a minute of polling, whatever the pool, and of a job beyond it: by least squares.

    From the pools that differ in nothing but their size.
    """
    same = [each for each in outcomes if each.load.megabytes == 256 and not each.load.earlier_jobs]
    pools = [each for each in same if not each.load.with_results]
    job, minute = statistics.linear_regression(
        [each.jobs / minutes for each in pools], [each.processor_seconds / minutes for each in pools]
    )
    return minute, job


def section_of(outcomes: list[Outcome], minutes: float) -> Section:
    """What the loads have shown in so many minutes each."""
    polling, job = _cost(outcomes, minutes)
    section = Section(
        name="scale",
        title="Scale",
        how="`on_schedule` from its sources, in two processes that take turns as two containers of Lambda do, each "
        "held by a control group to the memory of its size and to its share of a processor (256 MB: "
        f"{256 / MEGABYTES_PER_CORE:.3f} of one), fired every minute for {minutes:g} real minutes. The local stack and "
        "the simulated platform are not held to anything. Small documents wait, as many as it takes; jobs of "
        f"{JOB_SECONDS[0]:.0f} to {JOB_SECONDS[1]:.0f} s, ten files each. At work: the share of the time in which a "
        "workflow has a job, the first fill of the pool included. Processor seconds a job: of all functions, polling "
        "included. By least squares over the pools of 256 MB that differ in size alone, a minute of polling takes "
        f"{polling:.3f} s, whatever the pool, and a job {job:.3f} s beyond it.",
        header=[
            "",
            "at work",
            "jobs",
            "pool filled after, s",
            "peak, MB",
            "processor s a job",
            "killed",
            "leases that ended",
        ],
        rows=[
            [
                each.load.name,
                f"{each.at_work:.1%}",
                f"{each.jobs:,}",
                f"{each.first_batch_seconds:.0f}",
                f"{each.peak_kb / 1024:.0f}",
                f"{each.processor_seconds / max(each.jobs, 1):.3f}",
                str(each.killed),
                str(each.lapsed),
            ]
            for each in outcomes
        ],
        data={
            each.load.name: {
                "at_work": each.at_work,
                "jobs": each.jobs,
                "peak_kb": each.peak_kb,
                "idle_kb": each.idle_kb,
                "processor_seconds": each.processor_seconds,
                "killed": each.killed,
                "lapsed": each.lapsed,
                "errors": each.errors,
            }
            for each in outcomes
        },
    )
    steady = [each for each in outcomes if not each.load.with_results]
    small = [each for each in outcomes if each.load.megabytes == 256]
    section.checks = [
        Check(
            "share of the time in which a workflow runs a job, the least of all pools",
            min(each.at_work for each in steady),
            0.9,
            at_most=False,
        ),
        Check("peak memory at 256 MB, the most (MB)", max(each.peak_kb for each in small) / 1024, 160),
        Check("invocations killed", sum(each.killed for each in outcomes), 0),
        Check("leases that ended while their owner worked", sum(each.lapsed for each in outcomes), 0),
        Check("documents that ran twice", sum(each.ran_twice for each in outcomes), 0),
        Check("processor seconds for a job, beyond those of polling, which do not grow with the pool", job, 0.1),
        Check(
            "processor seconds for a job, the most of all pools, without results",
            max(each.processor_seconds / max(each.jobs, 1) for each in steady if not each.load.earlier_jobs),
            0.1,
        ),
    ]

    def draw(axes: Any) -> None:
        names = [each.load.name for each in outcomes]
        axes.barh(names, [each.at_work * 100 for each in outcomes], color="#2a7")
        axes.axvline(90, color="#c44", linewidth=1)
        axes.set(xlabel="share of the time at work, %", xlim=(0, 100), title="Workflows at work")
        axes.invert_yaxis()

    section.picture = plot("scale", draw)
    return section
