"""Processes held to the memory and the share of a processor that Lambda would give them, by control groups."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

_V1, _PERIOD_US = Path("/sys/fs/cgroup"), 100_000
MEGABYTES_PER_CORE = 1_769  # Lambda gives a function a whole processor with this much memory


@contextlib.contextmanager
def limited(megabytes: int) -> Iterator[list[Path]]:
    """Groups with the limits of a function of that size: to write a process id into each puts the process there.

    None where this machine does not let us make any: then nothing is limited, and only what is measured counts.
    """
    name = f"function-{uuid.uuid4().hex[:8]}"
    groups: list[Path] = []
    try:
        with contextlib.suppress(OSError):
            memory = _group(_V1 / "memory" / name)
            (memory / "memory.limit_in_bytes").write_text(str(megabytes * 1024 * 1024))
            groups.append(memory / "cgroup.procs")
            processor = _group(_V1 / "cpu" / name)
            (processor / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (processor / "cpu.cfs_quota_us").write_text(str(int(_PERIOD_US * megabytes / MEGABYTES_PER_CORE)))
            groups.append(processor / "cgroup.procs")
        yield groups
    finally:
        for group in groups:
            with contextlib.suppress(OSError):
                group.parent.rmdir()


def _group(path: Path) -> Path:
    path.mkdir()
    return path
