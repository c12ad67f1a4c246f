"""`make soak`: 1,000 uploads through the deployed template while a fifth of the platform's answers is wrong.

Two workflows, duplicates, and the function that runs every minute killed now and then. At the end every row is true,
nothing is lost, nothing ran twice; the faults that were injected are counted.
"""

import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, Fault, PlatformState
from local.stack import TOOLS, Deployed, build, deploy, ministack
from workflow_trigger.domain.clock import parse_time
from workflow_trigger.domain.document import DocumentKey, upload_name
from workflow_trigger.domain.model import FINAL

UPLOADS = int(os.environ.get("SOAK_UPLOADS", "1000"))
RATE = 0.2
LIMIT_SECONDS = 3_000
KILL_EVERY_SECONDS = 130
LONGEST_WAIT_SECONDS = 1_800

_RUN: list[dict[str, Any]] = [
    {"kind": "drop"},
    {"kind": "drop-after"},
    {"kind": "truncate"},
    {"kind": "late", "seconds": 20},
    {"kind": "answer-after", "status": 502},
    {"kind": "answer-after", "status": 202, "body": "garbage"},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429, "headers": {"retry-after": "2"}},
    {"kind": "status", "status": 422},
    {"kind": "slow", "seconds": 3},
    {"kind": "job", "job": {"ending": "FAILED"}},
    {"kind": "job", "job": {"details_lag_seconds": 5}},
    {"kind": "job", "job": {"status": "POLISHING"}},
]
_QUESTION: list[dict[str, Any]] = [
    {"kind": "drop"},
    {"kind": "truncate"},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 429, "headers": {"retry-after": "2"}},
    {"kind": "slow", "seconds": 1},
]

console = Console(highlight=False, soft_wrap=True)


def chances(seed: int) -> Any:
    """A fifth of all calls goes wrong, in a way that is drawn by chance."""
    dice = random.Random(seed)

    def draw(call: str) -> Fault | None:
        if dice.random() >= RATE:
            return None
        if call == "run-early":
            return Fault(call, "cut") if dice.random() < 0.2 else None
        return Fault(call, **dice.choice(_RUN if call == "run" else _QUESTION))

    return draw


def main() -> int:
    """Run it; 0 when everything is as it must be."""
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    seed = random.randrange(1_000_000)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, contextlib.ExitStack() as ends:
        state = PlatformState(Path(folder), Behaviour(default_job_seconds=0.5, scheduled_seconds=0.1))
        url = ends.enter_context(serving(state))
        aws = ends.enter_context(ministack())
        parameters = {
            "WorkflowIds": ",".join(ids),
            "UnstructuredApiUrl": url,
            "PollSeconds": "1",
            "MaxFilesPerRun": "8",
        }
        stack = deploy(build(TOOLS / "soak-build"), aws, parameters)
        stack.set_key(state.behaviour.api_key)
        console.print(f"{UPLOADS} uploads to {stack.name}, seed {seed}")
        state.chance = chances(seed)
        _upload(stack)
        kills = _wait(stack)
        state.chance = None
        return _judge(stack, state, kills)


def _upload(stack: Deployed) -> None:
    s3, sqs = stack.aws.client("s3"), stack.aws.client("sqs")

    def put(number: int) -> None:
        key = f"batch {number % 7}/document+{number}.pdf"
        answer = s3.put_object(Bucket=stack["SourceBucket"], Key=key, Body=f"document {number}".encode() * 50)
        if number % 10 == 0:
            detail = {
                "bucket": {"name": stack["SourceBucket"]},
                "object": {"key": key, "etag": answer["ETag"], "version-id": answer["VersionId"], "sequencer": "00"},
            }
            event = {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}
            sqs.send_message(QueueUrl=stack["UploadQueueUrl"], MessageBody=json.dumps(event))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, range(UPLOADS)))


def _wait(stack: Deployed) -> int:
    """Until everything is final; the function of the schedule is killed on the way."""
    began = killed_at = shown_at = time.monotonic()
    kills = 0
    while time.monotonic() - began < LIMIT_SECONDS:
        rows = stack.rows()
        states = Counter(row["status"] for row in rows)
        if len(rows) == UPLOADS and all(status in FINAL for status in states):
            return kills
        if time.monotonic() - shown_at > 15:
            shown_at = time.monotonic()
            console.print(f"{shown_at - began:6.0f} s  {dict(sorted(states.items()))}")
        if time.monotonic() - killed_at > KILL_EVERY_SECONDS:
            killed_at = time.monotonic()
            kills += _kill_schedule(stack)
        time.sleep(2)
    console.print("[red]not at rest in time[/]")
    return kills


def _kill_schedule(stack: Deployed) -> int:
    """Kill the workers of on_schedule of this very stack, wherever they are."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
            if f"{stack.name}-OnScheduleFunction" in command and "_worker.py" in command:
                os.kill(int(folder.name), signal.SIGKILL)
                count += 1
    return count


def _wait_seconds(row: dict[str, Any]) -> float:
    """From the upload to the job."""
    began, ended = parse_time(row["registered_at"]), parse_time(row["created_at"])
    return (ended - began).total_seconds() if began and ended else 0.0


def _judge(stack: Deployed, state: PlatformState, kills: int) -> int:
    rows = stack.rows()
    by_stem = {upload_name(DocumentKey(row["object"], row["version"]), "").rpartition("-")[0]: row for row in rows}
    runs: Counter[str] = Counter()
    truths: dict[str, set[str]] = {}
    late = 0
    for job in state.jobs.values():
        for file in job.files:
            stem = file.filename.rpartition("-")[0]
            late += job.is_late
            runs[stem] += 1
            truths.setdefault(stem, set()).add(f"{job.id} {job.truth(file)}")
    wrong: list[str] = []
    for stem, row in by_stem.items():
        if row["status"] == "REJECTED":
            if runs[stem] or row["error"]["type"] != "Refused":
                wrong.append(f"{row['key']}: rejected, {row['error']}, runs {runs[stem]}")
        elif runs[stem] != 1 or f"{row.get('job_id')} {row['status']}" not in truths[stem]:
            wrong.append(f"{row['key']}: {row['status']}, runs {runs[stem]}, {truths.get(stem)}")
    waits = [_wait_seconds(row) for row in rows if "created_at" in row]
    if max(waits, default=0) > LONGEST_WAIT_SECONDS:
        wrong.append(f"a document waited for {max(waits):.0f} s")
    if len(rows) != UPLOADS:
        wrong.append(f"{len(rows)} rows")
    table = Table(title="Faults injected", title_justify="left")
    table.add_column("call and fault")
    table.add_column("times", justify="right")
    for name, times in sorted(state.shown.items()):
        table.add_row(name, str(times))
    table.add_row("on_schedule killed", str(kills))
    console.print(table)
    asked = sum(state.requests.values())
    console.print(
        f"{asked} calls, {state.shown.total()} faults ({state.shown.total() / asked:.0%}), {late} late acceptances"
    )
    console.print(f"longest wait from the upload to the job: {max(waits, default=0):.0f} s")
    console.print(f"rows: {dict(Counter(row['status'] for row in rows))}; jobs: {len(state.jobs)}")
    for line in wrong[:20]:
        console.print(f"[red]{line}[/]")
    console.print(f"{UPLOADS - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
