"""The operators' commands, as a process of their own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from local.stack import ROOT, Deployed


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def _arguments(stack: Deployed, arguments: tuple[str, ...]) -> dict[str, Any]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **stack.aws.environment}
    typed = [sys.executable, "-m", "workflow_trigger_cli", *arguments, "--stack", stack.name]
    return {"args": typed, "env": environment, "cwd": ROOT, "text": True}


def command(stack: Deployed, *arguments: str) -> Ended:
    """`workflow-trigger …`, with nobody at the terminal."""
    done = subprocess.run(**_arguments(stack, arguments), capture_output=True, check=False, timeout=300)
    return Ended(done.returncode, done.stdout, done.stderr)


def started(stack: Deployed, *arguments: str) -> subprocess.Popen[str]:
    """The same, still running."""
    return subprocess.Popen(**_arguments(stack, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
