"""Memory and processor time of the relay, next to other ways to do the same."""

import json
import os
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

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
    "raw_socket": "raw TLS sockets (the limit)",
}
CHUNKS = tuple(size * 1024 for size in (256, 512, 1024, 1792, 2560, 4096))
_COMPARED = "1 GB"
_HANG_SECONDS = 300


class Run(NamedTuple):
    """One relay: seconds on the clock, processor seconds (user and system), and peak memory."""

    seconds: float
    processor_seconds: float
    peak_kb: int


def relayed(way: str, size: int, count: int, chunk_bytes: int | None = None) -> Run:
    """One relay in a process of its own."""
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
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def by_turns(ways: Collection[str], size: int, count: int, turns: int) -> dict[str, list[Run]]:
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
    runs: dict[str, dict[str, list[Run]]] = {}
    turns = 4 * repeats + 1
    for label, (size, count) in SIZES.items():
        progress(f"relay: {label}")
        runs[label] = by_turns(NAMES, size, count, turns if label == _COMPARED else repeats)
    peaks = {way: {label: _middle(runs[label][way], "peak_kb") / 1024 for label in SIZES} for way in NAMES}
    compared = runs[_COMPARED]
    chunks = _by_chunk(repeats)
    section = Section(
        name="relay",
        title="Memory and throughput",
        how="From a server of objects to one that discards, both over TLS and in processes of their own on loopback, "
        f"which pace nothing. Each run in a new process, by turns in drawn order; medians of {repeats} runs, at 1 GB "
        f"of {turns}. Processor seconds are user and system of the relaying process alone: a neighbour's load does not "
        "move them as it moves the clock. Ratios are those of the medians, and in brackets the quartiles of the turns.",
        header=["", *(f"{label}: peak MB" for label in SIZES), "processor s per GB", "of ours", "clock s per GB"],
        rows=[
            [
                name,
                *(f"{peaks[way][label]:,.0f}" for label in SIZES),
                f"{_middle(compared[way], 'processor_seconds'):.2f}",
                _ratio_text(compared[way], compared["ours"]),
                f"{_middle(compared[way], 'seconds'):.2f}",
            ]
            for way, name in NAMES.items()
        ],
        data={
            "by_turn": {way: [run._asdict() for run in each] for way, each in compared.items()},
            "peak_mb": peaks,
            "processor_seconds_by_chunk_bytes": {str(chunk): seconds for chunk, seconds in chunks.items()},
        },
    )
    chunk_texts = ", ".join(f"{chunk // 1024:,} KiB {taken:.2f} s" for chunk, taken in chunks.items())
    section.how += f" Processor seconds of ours at 1 GB by the size of a chunk: {chunk_texts}."
    most = max(peaks["ours"][label] - peaks["ours"]["1 KB"] for label in SIZES)
    section.checks = [
        Check("most memory that a larger file takes beyond a file of 1 KB (MB)", most, 16),
        Check(
            "processor time of a GB, in times of raw TLS sockets",
            _ratio(compared["ours"], compared["raw_socket"]),
            1.25,
        ),
        Check("processor time of a GB, in times of the vendor's SDK", _ratio(compared["ours"], compared["sdk"]), 0.334),
    ]

    def draw(axes: object) -> None:
        labels = [label for label in SIZES if " x " not in label]
        for way in NAMES:
            axes.plot(labels, [peaks[way][label] for label in labels], marker="o", label=way.replace("_", " "))  # type: ignore[attr-defined]
        axes.set(yscale="log", ylabel="peak memory, MB", title="Peak memory by the size of the document")  # type: ignore[attr-defined]
        axes.legend(frameon=False)  # type: ignore[attr-defined]

    section.picture = plot("relay", draw)
    return section


def _middle(runs: Sequence[Run], figure: str) -> float:
    return float(statistics.median(getattr(run, figure) for run in runs))


def _ratio(one: Sequence[Run], other: Sequence[Run]) -> float:
    """The processor time of one way as a multiple of another's."""
    return _middle(one, "processor_seconds") / _middle(other, "processor_seconds")


def _ratio_text(one: Sequence[Run], other: Sequence[Run]) -> str:
    by_turn = [a.processor_seconds / b.processor_seconds for a, b in zip(one, other, strict=True)]
    low, _, high = statistics.quantiles(by_turn, n=4, method="inclusive") if len(by_turn) > 1 else by_turn * 3
    return f"{_ratio(one, other):.2f} ({low:.2f} to {high:.2f})"


def _by_chunk(repeats: int) -> dict[int, float]:
    """Processor seconds of ours at 1 GB with chunks of other sizes, by turns too."""
    runs = defaultdict(list)
    drawn = random.Random(1)
    for _ in range(repeats):
        for chunk in drawn.sample(CHUNKS, len(CHUNKS)):
            runs[chunk].append(relayed("ours", GB, 1, chunk).processor_seconds)
    return {chunk: statistics.median(runs[chunk]) for chunk in CHUNKS}
