"""One object of 1 GB takes no more memory than one of 1 KB: measured in a process of its own for each."""

import subprocess
import sys

import pytest

from local.stack import ROOT

_LIMIT_KB = 16 * 1024


def peak_kb(*sizes: int) -> int:
    """The peak resident memory of a process that relays objects of these sizes in one run."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.relay", *map(str, sizes)],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}/src:{ROOT}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.parametrize("sizes", [(1_000_000_000,), (100_000_000,) * 10])
def test_peak_memory_does_not_depend_on_size_or_number(sizes: tuple[int, ...]) -> None:
    small, large = peak_kb(1_000), peak_kb(*sizes)
    print(f"peak memory: {small:,} KB for 1 KB, {large:,} KB for {sum(sizes):,} bytes in {len(sizes)} files")
    assert large - small <= _LIMIT_KB
