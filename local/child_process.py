"""Runs a command that ends when its starter does, however that ends: `python -m local.child_process COMMAND...`.

The starter holds the other end of this process's standard input, and the system closes it even for a killed process.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Any

_GRACE_SECONDS = 10


def main(command: list[str]) -> int:
    """Start the command in a process group of its own; end the whole group when standard input closes."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_starter, args=(child,), daemon=True).start()
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda *_: _end(child))
    code = child.wait()
    _kill_group(child)  # what the child has started and left behind
    return code


def _end_with_starter(child: subprocess.Popen[bytes]) -> None:
    os.read(sys.stdin.fileno(), 1)
    _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    killer = threading.Timer(_GRACE_SECONDS, _kill_group, args=(child,))
    killer.daemon = True
    killer.start()


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """A command that is ended by `end`, or by the end of this very process."""
    guarded: Any = [sys.executable, __file__, *command]
    process: subprocess.Popen[bytes] = subprocess.Popen(
        guarded, stdin=subprocess.PIPE, start_new_session=True, **options
    )
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """End the command and wait until all is over."""
    if process.stdin:
        process.stdin.close()
    process.wait(timeout=2 * _GRACE_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
