"""Remote calls and processor time for each file, from the upload to the final row, at any backlog."""

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.report import Check, Section, plot
from bench.simulation import CountedWorld, counted_world
from local.stack import Aws
from tests.integration.harness import TestClock
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.services.reconcile import step
from workflow_trigger.services.submit import Queue, submit

BACKLOGS = (100, 1_000, 10_000)
_BATCHES = 8  # measured, after two that are not
_OUTPUT_BYTES = 270  # of a row's `results`, for each output
_POLLS = ("job",)
_ON_UPLOAD = 10  # messages of an invocation


def measure(aws: Aws) -> Section:
    """One file at a time, then batches of ten behind ever more files that wait."""
    figures = {"one file": _measured(aws, backlog=_BATCHES, batch=1)}
    figures |= {f"ten, {backlog:,} waiting": _measured(aws, backlog=backlog, batch=10) for backlog in BACKLOGS}
    section = Section(
        name="work",
        title="Work for each file",
        how="Calls by the SDK's own events, the platform's by the simulated platform; from the event to the final row, "
        "with events, without polls of a running job and without results. Processor time is that of the thread "
        "that runs the handler, its waiting left out. Write units are computed by DynamoDB's rules, from the sizes of "
        "the finished items, two outputs in the last write, and the indexes that a write touches; a transaction counts "
        "twice.",
        header=["", "S3", "DynamoDB", "platform", "EventBridge", "DynamoDB write units", "processor, ms"],
        rows=[
            [
                name,
                *(f"{each[kind]:.2f}" for kind in ("s3", "dynamodb", "platform", "events", "write_units")),
                f"{each['cpu_ms']:.1f}",
            ]
            for name, each in figures.items()
        ],
        data=figures,
    )
    ten = [figures[f"ten, {backlog:,} waiting"] for backlog in BACKLOGS]
    spread = {
        kind: max(each[kind] for each in ten) / min(each[kind] for each in ten) - 1 for kind in ("dynamodb", "platform")
    }
    section.checks = [
        Check("S3 calls for a file, in jobs of ten, without results", max(each["s3"] for each in ten), 1),
        Check("DynamoDB calls for a file, in jobs of ten, without polls", max(each["dynamodb"] for each in ten), 2),
        Check(
            "platform calls for a file, in jobs of ten, without polls and results",
            max(each["platform"] for each in ten),
            0.5,
        ),
        Check("growth of DynamoDB calls for a file, at 100 to 10,000 waiting (share)", spread["dynamodb"], 0.05),
        Check("growth of platform calls for a file, at 100 to 10,000 waiting (share)", spread["platform"], 0.05),
    ]

    def draw(axes: Any) -> None:
        for kind in ("dynamodb", "s3", "platform"):
            axes.plot([f"{backlog:,}" for backlog in BACKLOGS], [each[kind] for each in ten], marker="o", label=kind)
        axes.set(ylim=(0, 2.5), xlabel="files that wait", ylabel="calls for a file", title="Work for each file")
        axes.legend(frameon=False, ncols=3, loc="upper center")

    section.picture = plot("work", draw)
    return section


def _measured(aws: Aws, *, backlog: int, batch: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, counted_world(aws, Path(folder), TestClock()) as harness:
        harness.configure(max_files_per_run=batch)
        real = (_BATCHES + 3) * batch
        versions = [harness.upload(f"{number:05}.pdf", b"x" * 1_000) for number in range(min(backlog, real))]
        versions += [_never_read(harness, number) for number in range(len(versions), backlog)]
        harness.foreign_job()  # the workflow is busy while they arrive
        harness.tick()
        harness.calls.clear()
        began = time.thread_time()
        for first in range(0, len(versions), _ON_UPLOAD if batch > 1 else 1):
            harness.deliver(*versions[first : first + (_ON_UPLOAD if batch > 1 else 1)])
        registering = _by_service(harness.calls, len(versions))
        cpu_registering = (time.thread_time() - began) / len(versions)
        harness.clock.sleep(200)
        _step(harness)  # the foreign job has ended: the first batch goes
        _job_passes(harness)
        batches = min(_BATCHES, backlog // batch - 2)
        harness.calls.clear()
        harness.state.requests.clear()
        began = time.thread_time()
        for _ in range(batches):
            _job_passes(harness)
        files = batches * batch
        cpu = (time.thread_time() - began) / files + cpu_registering
        calls = _by_service(harness.calls, files)
        asked = sum(number for name, number in harness.state.requests.items() if name not in {*_POLLS, "run-early"})
        finals = sum(row["status"] == "COMPLETED" for row in harness.rows())
        if finals < files:
            raise RuntimeError(f"{finals} of {files} files were completed")
        return {
            "s3": registering["s3"] + calls["s3"],
            "dynamodb": registering["dynamodb"] + calls["dynamodb"],
            "events": registering["events"] + calls["events"],
            "platform": asked / files,
            "write_units": _write_units(harness, batch),
            "cpu_ms": cpu * 1_000,
        }


def _never_read(harness: CountedWorld, number: int) -> ObjectVersion:
    """A file that only waits: its object is not looked at before the measurement ends."""
    harness.sequence += 1
    return ObjectVersion(
        bucket=harness.bucket,
        key=f"{number:05}.pdf",
        version_id=None,
        etag=f"{number:032x}",
        size_bytes=1_000,
        sequencer=f"{harness.sequence:016X}",
        uploaded_at=None,
    )


def _job_passes(harness: CountedWorld) -> None:
    """The platform begins to work, which a poll sees; then it ends, which another sees, and the next batch goes."""
    harness.clock.sleep(10)
    _step(harness)
    harness.clock.sleep(120)
    _step(harness)


def _step(harness: CountedWorld) -> None:
    """What the schedule does for one workflow when it looks at it."""
    context = harness.context()
    (workflow,) = context.snapshot().workflows
    harness.calls["dynamodb Scan"] -= 1  # the look itself is a poll
    workflow = step(context, workflow)
    if workflow.is_free(harness.clock.now()):
        submit(context, workflow, Queue(context))


def _by_service(calls: Counter[str], files: int) -> dict[str, float]:
    return {
        service: sum(number for name, number in calls.items() if name.startswith(service)) / files
        for service in ("s3", "dynamodb", "events")
    }


def _write_units(harness: CountedWorld, batch: int) -> float:
    """On-demand write units of one file's way, by DynamoDB's rules: its row's writes and its share of its workflow's.

    Computed from the finished rows, which are larger than they were on their way; the last write with two outputs.
    """
    rows = [item for item in _scanned(harness, harness.settings.ledger_table) if item["status"]["S"] == "COMPLETED"]
    row = _units(rows)
    with_outputs = _units(rows, more_bytes=2 * _OUTPUT_BYTES)
    workflow = _units(_scanned(harness, harness.settings.workflows_table))
    registered = row + 1  # and its entry in the line
    attached = 2 * row + 2  # its entry leaves one state of the queue for the next: a delete and a put
    accepted = 2 * row + 2 + 1  # and the index by job
    running = 2 * row + 2
    final = 2 * with_outputs + 1 + 1  # and the mark of what is not published yet
    published = 2 * with_outputs + 1
    of_the_workflow = (2 + 1 + 2 + 2 + 2) * workflow  # claim, commit, accepted, running, final
    return registered + attached + accepted + running + final + published + of_the_workflow / batch


def _scanned(harness: CountedWorld, table: str) -> list[Any]:
    pages = harness.dynamodb.get_paginator("scan").paginate(TableName=table)
    return [item for page in pages for item in page["Items"]]


def _units(items: list[Any], more_bytes: int = 0) -> float:
    """Write units of an item, on average: one for each KB begun."""
    return sum(-(-(_size(item) + more_bytes) // 1024) for item in items) / len(items)


def _size(item: Any) -> int:
    """Bytes of an item, as DynamoDB counts them: names and values."""

    def value(each: Any) -> int:
        ((kind, content),) = each.items()
        if kind == "M":
            return 3 + sum(len(name) + value(inner) + 1 for name, inner in content.items())
        if kind == "L":
            return 3 + sum(value(inner) + 1 for inner in content)
        return len(str(content).encode())

    return sum(len(name) + value(each) for name, each in item.items())
