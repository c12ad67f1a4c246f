"""The operators' command line installs by the README's one command, with nothing but what it declares."""

import os
import subprocess
import sys
from pathlib import Path

from local.stack import ROOT


def test_command_line_installs_and_starts_with_what_it_declares(tmp_path: Path) -> None:
    folder = Path(sys.executable).parent
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for arguments in (
        ["venv", "--quiet", "--python", sys.executable, str(tmp_path / "tool")],
        ["pip", "install", "--quiet", "--python", str(tmp_path / "tool"), str(ROOT)],
    ):
        subprocess.run([folder / "uv", *arguments], env=environment, cwd=tmp_path, check=True, timeout=300)
    tool = tmp_path / "tool/bin/workflow-trigger"
    shown = subprocess.run([tool, "--help"], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60)
    for name in ("status", "find", "doctor", "backfill", "retry", "redrive"):
        assert name in shown.stdout
    packages = (tmp_path / "tool/lib").glob("python3.*/site-packages/*")
    names = {path.name.partition("-")[0].lower() for path in packages}
    assert {"workflow_trigger_cli", "workflow_trigger", "boto3", "typer"} <= names
    assert not {"tests", "local", "bench", "aws_lambda_powertools"} & names
