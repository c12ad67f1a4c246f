"""How fast a backlog drains, on simulated time, next to a handler without a ledger, and a queue as the waiting room."""

import math
import random
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import urllib3

from bench.report import Check, Section, plot
from bench.simulation import JOB_SECONDS, counted_world
from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, Fault, PlatformState
from local.stack import Aws
from tests.integration.harness import TestClock
from workflow_trigger.domain.model import FINAL

FILES = 1_000
PER_RUN = 10
_HOURS = 12
_FEW = 100
_QUEUE_BACKLOGS = (_FEW, 1_000, 10_000)
_VISIBILITY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Drained:
    """What it took."""

    completed: int
    jobs: int
    seconds: float
    share_working: float
    invocations_per_file: float


def drain(aws: Aws, pool: int, files: int = FILES) -> Drained:
    """Upload all at once; then the schedule, minute by minute, as deployed."""
    clock = TestClock()
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder, counted_world(aws, Path(folder), clock) as harness:
        harness.grow_pool(pool)
        harness.state.chance = lambda call: (
            Fault("run", "job", job={"seconds": chance.uniform(*JOB_SECONDS)}) if call == "run" else None
        )
        versions = [harness.upload(f"{number:04}.pdf", str(number).encode()) for number in range(files)]
        invocations = 0
        for first in range(0, files, PER_RUN):
            harness.deliver(*versions[first : first + PER_RUN])
            invocations += 1
        minute = clock.now()
        for _ in range(_HOURS * 60):
            harness.tick(window_seconds=59)  # until the next run takes over
            invocations += 1
            all_went = sum(len(job.files) for job in harness.state.jobs.values()) >= files
            if all_went and all(row["status"] in FINAL for row in harness.rows()):
                break
            minute += timedelta(minutes=1)
            clock.sleep((minute - clock.now()).total_seconds())
        jobs = list(harness.state.jobs.values())
        began, ended = min(job.created for job in jobs), max(job.created + job.seconds for job in jobs)
        by_workflow = [
            [job for job in jobs if job.workflow_id == workflow_id] for workflow_id in harness.settings.workflow_ids
        ]
        spans = [
            max(job.created + job.seconds for job in each) - min(job.created for job in each) for each in by_workflow
        ]
        completed = sum(row["status"] == "COMPLETED" for row in harness.rows())
        share = sum(job.seconds for job in jobs) / sum(spans)
        return Drained(completed, len(jobs), ended - began, share, invocations / files)


def naive(seconds_between: float) -> int:
    """Post on each event and trust the 202: how many of the documents are lost."""
    now = [0.0]
    with tempfile.TemporaryDirectory() as folder:
        chance = random.Random(0)
        state = PlatformState(Path(folder), Behaviour(), lambda: now[0])
        state.chance = lambda call: (
            Fault("run", "job", job={"seconds": chance.uniform(*JOB_SECONDS)}) if call == "run" else None
        )
        with serving(state) as url, urllib3.PoolManager() as pool:
            run = f"{url}/api/v1/workflows/00000000-0000-0000-0000-000000000001/run"
            for number in range(FILES):
                fields = {"input_files": (f"{number}.pdf", b"x", "application/pdf")}
                answer = pool.request("POST", run, fields=fields, headers={"unstructured-api-key": "local-key"})
                if answer.status != 202:
                    raise RuntimeError(answer.data)
                now[0] += seconds_between
        return FILES - len(state.accepted())


def queue_as_waiting_room(backlog: int) -> float:
    """Invocations for each file when files wait as messages that are received again until a workflow is free.

    Ten messages an invocation, received again every minute; ten files a job; no message ever given up.
    """
    job_seconds = sum(JOB_SECONDS) / 2
    waiting, invocations, now, free_at = backlog, 0, 0.0, 0.0
    while waiting:
        invocations += math.ceil(waiting / PER_RUN)
        if now >= free_at:
            waiting -= min(waiting, PER_RUN)
            free_at = now + job_seconds
        now += _VISIBILITY_SECONDS
    return invocations / backlog


def measure(aws: Aws) -> Section:
    """All of it."""
    few, one, four = drain(aws, 1, _FEW), drain(aws, 1), drain(aws, 4)
    by_ledger = {_FEW: few.invocations_per_file, FILES: one.invocations_per_file}
    lost_at_once, lost_slowly = naive(0), naive(10)
    by_queue = {backlog: queue_as_waiting_room(backlog) for backlog in _QUEUE_BACKLOGS}
    section = Section(
        name="drain",
        title="Draining a backlog",
        how=f"{FILES:,} files uploaded at once, jobs of {JOB_SECONDS[0]:.0f} to {JOB_SECONDS[1]:.0f} s, default "
        "parameters but without results; the real use cases on simulated time against the simulated platform. Answers "
        "and transfers take no time there: what is measured is what waiting and polling lose. Without a ledger: a "
        "handler that posts on each event and trusts the 202. Queue as the waiting room: files wait as messages that "
        "are received again every minute until a workflow is free, ten at a time and none given up (computed, not "
        "run). Counted are invocations, and they differ: one of the queue's is over at once, while one of ours may be "
        "a run of the schedule, of up to 50 s.",
        header=["", "completed", "lost", "jobs", "time", "working"],
        rows=[
            [
                "ours, one workflow",
                f"{one.completed:,}",
                str(FILES - one.completed),
                str(one.jobs),
                _hours(one),
                _share(one),
            ],
            [
                "ours, a pool of four",
                f"{four.completed:,}",
                str(FILES - four.completed),
                str(four.jobs),
                _hours(four),
                _share(four),
            ],
            ["no ledger, all at once", f"{FILES - lost_at_once:,}", f"**{lost_at_once:,}**", "", "", ""],
            ["no ledger, one every 10 s", f"{FILES - lost_slowly:,}", f"**{lost_slowly:,}**", "", "", ""],
            *(
                [
                    f"queue as the waiting room, {backlog:,} files",
                    "",
                    "",
                    "",
                    "",
                    f"{each:.1f} invocations for each file",
                ]
                for backlog, each in by_queue.items()
            ),
            *(
                [f"ours, {backlog:,} files", "", "", "", "", f"{each:.2f} invocations for each file"]
                for backlog, each in by_ledger.items()
            ),
        ],
        data={
            "invocations_per_file_by_queue": {str(k): v for k, v in by_queue.items()},
            "invocations_per_file_by_ledger": {str(k): v for k, v in by_ledger.items()},
            "lost_without_ledger": {"at once": lost_at_once, "one every 10 s": lost_slowly},
        },
    )
    most_jobs = math.ceil(FILES / PER_RUN) + 2
    section.checks = [
        Check("files of a drained queue that are not COMPLETED", FILES - min(one.completed, four.completed), 0),
        Check("share of the time in which one workflow runs a job", one.share_working, 0.95, at_most=False),
        Check("jobs to drain the queue", max(one.jobs, four.jobs), most_jobs),
        Check("speed with four workflows, in times of one", one.seconds / four.seconds, 3.8, at_most=False),
    ]

    def draw(axes: Any) -> None:
        axes.plot(list(by_queue), list(by_queue.values()), marker="o", label="queue as the waiting room", color="#c44")
        axes.plot(list(by_ledger), list(by_ledger.values()), marker="o", label="ledger", color="#2a7")
        axes.set(xscale="log", yscale="log", xlabel="backlog, files", ylabel="invocations for each file")
        axes.set(title="Invocations while a backlog waits")
        axes.legend(frameon=False)

    section.picture = plot("drain", draw)
    return section


def _hours(drained: Drained) -> str:
    return f"{drained.seconds / 3600:.2f} h"


def _share(drained: Drained) -> str:
    return f"{drained.share_working:.1%}"
