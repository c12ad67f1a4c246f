"""A function in a process of its own, from its sources: one invocation for each line that it reads.

`python -m local.function_process GROUP...` joins the control groups, and prints a line of JSON when it has started
and after each invocation: its peak memory in KB, its processor seconds so far, and the error that it ended with.
"""

import contextlib
import importlib
import io
import json
import os
import re
import resource
import sys
import time
from pathlib import Path


class LambdaContext:
    """What Lambda passes with the event."""

    memory_limit_in_mb = 256
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:f"
    aws_request_id = "00000000-0000-0000-0000-000000000000"

    def __init__(self, function_name: str) -> None:
        """Begin the invocation."""
        self.function_name = function_name
        self._ends_at = time.monotonic() + 900

    def get_remaining_time_in_millis(self) -> int:
        """As in Lambda."""
        return int((self._ends_at - time.monotonic()) * 1_000)


def peak_kb() -> int:
    """The most memory that this process has held. On Linux not ru_maxrss, which is taken over from the starter."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    if found:
        return int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def tell(*, error: str | None) -> None:
    """Print a line."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {"peak_kb": peak_kb(), "processor_seconds": used.ru_utime + used.ru_stime, "error": error}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main(groups: list[str]) -> None:
    """Serve invocations until the input ends."""
    handlers = importlib.import_module("workflow_trigger.handlers")  # Lambda lets a function start at full speed
    for group in groups:
        Path(group).write_text(str(os.getpid()))
    tell(error=None)
    for line in sys.stdin:
        name, event = json.loads(line)
        error = None
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                getattr(handlers, name)(event, LambdaContext(name))
            except Exception as failed:
                error = repr(failed)
        tell(error=error)


if __name__ == "__main__":
    main(sys.argv[1:])
