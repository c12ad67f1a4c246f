"""From an upload to its final row, beyond the job's own time; and how long a backfill keeps a fresh upload waiting."""

import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.report import Check, Section, progress
from bench.simulation import counted_world
from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, PlatformState
from local.stack import TOOLS, Aws, Deployed, build, deploy
from tests.integration.harness import Harness, TestClock
from workflow_trigger.domain.clock import parse_time
from workflow_trigger.domain.document import Lane
from workflow_trigger.domain.model import FINAL

JOB_SECONDS, POLL_SECONDS, WORKFLOWS = 2.0, 2, 4
SINGLE, STEADY, BACKFILL, FRESH = 20, 120, 10_000, 20
_HANG_SECONDS = 300


def measure(aws: Aws) -> Section:
    """Single uploads at random seconds, then one each second, through the deployed template; then the backfill."""
    with tempfile.TemporaryDirectory() as folder:
        state = PlatformState(Path(folder), Behaviour(default_job_seconds=JOB_SECONDS, scheduled_seconds=0.5))
        with serving(state) as url:
            workflow_ids = ",".join(str(uuid.uuid4()) for _ in range(WORKFLOWS))
            parameters = {"WorkflowIds": workflow_ids, "UnstructuredApiUrl": url, "PollSeconds": str(POLL_SECONDS)}
            stack = deploy(build(TOOLS / "bench-latency"), aws, parameters)
            stack.set_key(state.behaviour.api_key)
            progress("latency: single uploads")
            single = _single(stack)
            progress("latency: one upload a second")
            steady = _steady(stack)
    progress(f"latency: {FRESH} uploads during a backfill of {BACKFILL:,}")
    jobs_before, rate = _during_a_backfill(aws)
    section = Section(
        name="latency",
        title="Latency and fairness",
        how=f"Through the deployed template on the local stack, schedule as deployed: {WORKFLOWS} workflows, jobs of "
        f"{JOB_SECONDS:g} s, PollSeconds {POLL_SECONDS}, results on. What is shown is the time from the upload to the "
        "final row, less the job's own. Single uploads come at random seconds, the next when the one before is final. "
        f"The backfill: {BACKFILL:,} documents in the bulk lane, one workflow, simulated time.",
        header=["", "p50, s", "p95, s"],
        rows=[
            [f"{len(single)} single uploads", *_texts(single)],
            [f"{len(steady)} uploads, one each second", *_texts(steady)],
        ],
        data={
            "single": single,
            "steady": steady,
            "jobs_before_a_fresh_upload": jobs_before,
            "rate_of_the_backfill": rate,
        },
    )
    section.checks = [
        Check("seconds to the final status beyond the job's own, single uploads, p95", _percentile(single, 95), 6),
        Check("jobs that begin before a fresh upload's during a backfill, the most", max(jobs_before), 0),
        Check("rate of a backfill while fresh uploads come, in times of its rate alone", rate, 0.75, at_most=False),
    ]
    return section


def _texts(seconds: Sequence[float]) -> list[str]:
    return [f"{_percentile(seconds, share):.1f}" for share in (50, 95)]


def _percentile(values: Sequence[float], share: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]


def _single(stack: Deployed) -> list[float]:
    drawn = random.Random(0)
    found = []
    for number in range(SINGLE):
        time.sleep(drawn.uniform(0, 10))
        uploaded = _upload(stack, f"single/{number}.pdf")
        found.append(_beyond(stack, {f"single/{number}.pdf": uploaded})[0])
    return found


def _steady(stack: Deployed) -> list[float]:
    began = time.monotonic()
    uploaded = {}
    for number in range(STEADY):
        time.sleep(max(began + number - time.monotonic(), 0))
        uploaded[f"steady/{number}.pdf"] = _upload(stack, f"steady/{number}.pdf")
    return _beyond(stack, uploaded)


def _upload(stack: Deployed, key: str) -> float:
    uploaded = time.time()
    stack.aws.client("s3").put_object(Bucket=stack["SourceBucket"], Key=key, Body=key.encode())
    return uploaded


def _beyond(stack: Deployed, uploaded: dict[str, float]) -> list[float]:
    """For each upload, when all are final: the seconds to its final row, less those of a job."""
    until = time.monotonic() + _HANG_SECONDS
    while time.monotonic() < until:
        rows = {row["key"]: row for row in stack.rows() if row["key"] in uploaded and row["status"] in FINAL}
        if len(rows) == len(uploaded):
            ended = {key: parse_time(row["updated_at"]) for key, row in rows.items()}
            return [end.timestamp() - uploaded[key] - JOB_SECONDS for key, end in ended.items() if end]
        time.sleep(0.5)
    raise TimeoutError(f"{len(uploaded) - len(rows)} uploads did not end")


def _during_a_backfill(aws: Aws) -> tuple[list[int], float]:
    """Jobs that began between a fresh upload and its own; and documents of the backfill per job, of those alone."""
    clock = TestClock()
    with tempfile.TemporaryDirectory() as folder, counted_world(aws, Path(folder), clock) as world:
        old = [replace(world.upload(f"old-{number}.pdf", b"x"), lane=Lane.BULK) for number in range(BACKFILL)]
        world.deliver(*old, submit=False)
        world.tick(window_seconds=600)
        alone = _of_the_backfill(world, 0)
        before, since = [], len(world.state.jobs)
        drawn = random.Random(1)
        for number in range(FRESH):
            world.tick(after_seconds=drawn.uniform(1, 100), window_seconds=drawn.uniform(1, 100))
            fresh, known = world.upload(f"new-{number}.pdf", b"y"), set(world.state.jobs)
            world.deliver(fresh)
            while not world.row(fresh).get("job_id"):
                world.tick(after_seconds=10, window_seconds=30)
            began = [job for job in world.state.jobs.values() if job.id not in known]
            own = world.state.jobs[world.row(fresh)["job_id"]]
            before.append(sum(job.created < own.created for job in began))
        return before, _of_the_backfill(world, since) / alone


def _of_the_backfill(world: Harness, since: int) -> float:
    """Documents of the backfill in a job, on the average."""
    jobs = list(world.state.jobs.values())[since:]
    return statistics.mean(sum(not file.filename.startswith("new") for file in job.files) for job in jobs)
