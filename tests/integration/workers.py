"""The processes in which the local stack runs functions."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path


def kill_workers(function: str) -> int:
    """End the processes that run a function, as Lambda may do at any moment; how many there were."""
    killed = 0
    for pid, command in _processes():
        with contextlib.suppress(OSError):
            if function in command:
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


def _processes() -> Iterator[tuple[int, str]]:
    """Every process and its command: by /proc, since small Linux images have no `ps`, else by `ps`."""
    if Path("/proc/self/cmdline").is_file():
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit():
                    yield int(folder.name), (folder / "cmdline").read_bytes().decode(errors="replace")
        return
    listed = subprocess.run(["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        pid, _, command = line.strip().partition(" ")
        yield int(pid), command
