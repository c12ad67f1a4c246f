"""What the local stack starts ends with its starter, even when that is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from local.stack import ROOT

STARTER = """
import sys, time
from local import child_process
program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
process = child_process.start([sys.executable, "-c", program])
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def test_child_process_ends_when_its_starter_is_killed() -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER], cwd=ROOT, stdout=subprocess.PIPE)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    assert is_alive(pid)
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    until = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < until, "it goes on without its starter"
        time.sleep(0.05)
