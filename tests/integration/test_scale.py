"""The real handlers in processes of their own, as small as Lambda makes them: nothing grows with what is read."""

import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

from bench.scale import LOADS, run
from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, PlatformState
from local.stack import ROOT, Aws

_PEAK_KB = 160 * 1024
_LOADS = {load.name: load for load in LOADS}


def test_list_of_a_hundred_megabytes_is_read_in_constant_memory(tmp_path: Path) -> None:
    workflow_id = str(uuid.uuid4())
    state = PlatformState(tmp_path, Behaviour(earlier_jobs=14_000))
    size = sum(len(entry) for entry, _ in zip(state.earlier_jobs(workflow_id), range(100), strict=False)) * 140
    assert size > 100_000_000
    with serving(state) as url:
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.job_list", url, workflow_id],
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}/src:{ROOT}", "PATH": ""},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
    idle_kb, peak_kb, candidates = map(int, done.stdout.split())
    print(f"{size / 1e6:.0f} MB of jobs: {(peak_kb - idle_kb) / 1024:.1f} MB over idle")
    assert candidates == 0
    assert peak_kb - idle_kb <= 20 * 1024


def test_workflows_with_long_job_lists_submit_as_those_with_none(aws: Aws) -> None:
    """Case 17: eight workflows with 1,000 earlier jobs of ten files and five nodes each, at 256 MB."""
    load = replace(_LOADS["8 workflows, 1,000 earlier jobs each"], backlog=160)
    outcome = run(aws, load, 0.6)
    assert (outcome.killed, outcome.errors, outcome.lapsed, outcome.ran_twice) == (0, [], 0, 0)
    assert outcome.jobs >= load.pool
    assert outcome.peak_kb <= _PEAK_KB


def test_outputs_of_many_jobs_that_end_at_once_fit_into_the_memory(aws: Aws) -> None:
    """Case 16: twelve workflows end at once, outputs of 20 MB, at 256 MB."""
    load = replace(_LOADS["12 outputs of 20 MB at once"], backlog=12, files_per_run=1, job_seconds=(8, 8))
    outcome = run(aws, load, 1.2)
    assert (outcome.killed, outcome.errors, outcome.lapsed, outcome.ran_twice) == (0, [], 0, 0)
    assert outcome.jobs == load.pool
    assert outcome.outputs == 2 * load.pool
    assert outcome.peak_kb <= _PEAK_KB
