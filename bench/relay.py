"""Memory and throughput of the relay, next to other ways to do the same."""

import json
import os
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping

from bench.report import Check, Section, plot, progress
from local.stack import ROOT

KB, MB, GB = 1_000, 1_000_000, 1_000_000_000
SIZES = {
    "1 KB": (KB, 1),
    "10 MB": (10 * MB, 1),
    "100 MB": (100 * MB, 1),
    "1 GB": (GB, 1),
    "10 x 100 MB": (100 * MB, 10),
}
NAMES = {
    "ours": "ours",
    "read_everything": "`get_object().read()`, urllib3 `fields`",
    "sdk": "the vendor's SDK",
    "disk": "download to disk, then post",
    "raw_socket": "raw sockets (the limit)",
}
CHUNKS = tuple(size * 1024 for size in (256, 512, 1024, 1792, 2560, 4096))
_COMPARED = "1 GB"
_FASTER_THAN_DISK = ("ours", "read_everything", "sdk", "raw_socket")
_HANG_SECONDS = 300


def relayed(way: str, size: int, count: int, chunk_bytes: int | None = None) -> tuple[float, int]:
    """Seconds, and peak memory in KB, of one relay in a process of its own."""
    arguments = [way, str(size), str(count), *([str(chunk_bytes)] if chunk_bytes else [])]
    done = subprocess.run(
        [sys.executable, "-m", "bench.ways", *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}/src:{ROOT}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=_HANG_SECONDS,
        check=True,
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    return figures["seconds"], figures["peak_kb"]


def by_turns(ways: Collection[str], size: int, count: int, turns: int) -> dict[str, list[tuple[float, int]]]:
    """What `relayed` gives for each way, turn by turn, in an order that is drawn anew each time."""
    runs = defaultdict(list)
    drawn = random.Random(0)
    for _ in range(turns):
        for way in drawn.sample([*ways], len(ways)):
            os.sync()  # what one way leaves to be written must not slow the next
            runs[way].append(relayed(way, size, count))
    return runs


def measure(repeats: int) -> Section:
    """All ways at all sizes, by turns; then ours with other chunks."""
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    peaks: dict[str, dict[str, float]] = defaultdict(dict)
    compared: dict[str, list[tuple[float, int]]] = {}
    for label, (size, count) in SIZES.items():
        progress(f"relay: {label}")
        if label == _COMPARED:
            compared = by_turns(_FASTER_THAN_DISK, size, count, turns=8 * repeats + 1)
            runs = compared | by_turns(NAMES.keys() - {*_FASTER_THAN_DISK}, size, count, repeats)
        else:
            runs = by_turns(NAMES, size, count, repeats)
        for way, figures in runs.items():
            seconds[way][label] = statistics.median(each[0] for each in figures)
            peaks[way][label] = statistics.median(each[1] for each in figures) / 1024
    chunks = _by_chunk(repeats)
    section = Section(
        name="relay",
        title="Memory and throughput",
        how="From a plain HTTP server to one that discards, both in processes of their own on loopback, which copy "
        "and pace nothing: with slower ends all ways are nearer to each other. Each run in a new process, by turns in "
        f"drawn order; medians of {repeats} runs, at 1 GB of {8 * repeats + 1} (disk: {repeats}). Peak memory is that "
        "of the whole process, Python and boto3 included.",
        header=["", *(f"{label}: s · peak MB" for label in SIZES)],
        rows=[
            [name, *(f"{seconds[way][label]:.3f} · {peaks[way][label]:,.0f}" for label in SIZES)]
            for way, name in NAMES.items()
        ],
        data={
            "seconds": seconds,
            "seconds_by_turn": {way: [each[0] for each in figures] for way, figures in compared.items()},
            "peak_mb": peaks,
            "seconds_by_chunk_bytes": {str(k): v for k, v in chunks.items()},
        },
    )
    chunk_texts = ", ".join(f"{chunk // 1024:,} KiB {taken:.2f} s" for chunk, taken in chunks.items())
    section.how += f" Ours at 1 GB by the size of a chunk: {chunk_texts}."
    most = max(peaks["ours"][label] - peaks["ours"]["1 KB"] for label in SIZES)
    section.checks = [
        Check("peak memory above that of 1 KB, at any size (MB)", most, 16),
        Check("times as fast as `read()` at 1 GB", _ratio(seconds, "read_everything"), 5, at_most=False),
        Check("times as fast as the vendor's SDK at 1 GB", _ratio(seconds, "sdk"), 2.5, at_most=False),
        Check("share of the raw sockets' speed at 1 GB", _ratio(seconds, "raw_socket"), 0.85, at_most=False),
    ]

    def draw(axes: object) -> None:
        labels = [label for label in SIZES if " x " not in label]
        for way in NAMES:
            axes.plot(labels, [peaks[way][label] for label in labels], marker="o", label=way.replace("_", " "))  # type: ignore[attr-defined]
        axes.set(yscale="log", ylabel="peak memory, MB", title="Peak memory by the size of the document")  # type: ignore[attr-defined]
        axes.legend(frameon=False)  # type: ignore[attr-defined]

    section.picture = plot("relay", draw)
    return section


def _by_chunk(repeats: int) -> dict[int, float]:
    """Seconds of ours at 1 GB with chunks of other sizes, by turns too."""
    runs = defaultdict(list)
    drawn = random.Random(1)
    for _ in range(repeats):
        for chunk in drawn.sample(CHUNKS, len(CHUNKS)):
            runs[chunk].append(relayed("ours", GB, 1, chunk)[0])
    return {chunk: statistics.median(runs[chunk]) for chunk in CHUNKS}


def _ratio(seconds: Mapping[str, Mapping[str, float]], way: str) -> float:
    """How many times as long a way takes as ours."""
    return seconds[way][_COMPARED] / seconds["ours"][_COMPARED]
