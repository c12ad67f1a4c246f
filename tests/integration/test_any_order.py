"""Uploads, duplicates, overwrites, invocations in flight, faults, strangers and clock jumps, in any order.

The simulated platform is the judge, by the bytes that it accepted. The invariants hold after every step, with several
invocations held between two of their remote calls; at the end, once faults have stopped, everything comes to rest.
"""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from local.fake_platform.state import Fault
from local.stack import Aws
from tests.integration.fault_injection import Gate, LaggingIndex
from tests.integration.harness import World
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.model import FINAL, Phase, Status

EXAMPLES = int(os.environ.get("ANY_ORDER_EXAMPLES", "5"))  # of each circumstance
KEYS = ("a.pdf", "b.pdf", "c.pdf")
FAULTS = st.sampled_from(
    [
        ("run", "drop", {}),
        ("run", "drop-after", {}),
        ("run", "truncate", {}),
        ("run", "status", {"status": 500}),
        ("run", "status", {"status": 429}),
        ("run", "status", {"status": 404}),
        ("run", "answer-after", {"status": 502}),
        ("run", "late", {"seconds": 40}),
        ("run", "job", {"job": {"ending": "FAILED"}}),
        ("run", "job", {"job": {"ending": "STOPPED"}}),
        ("run", "job", {"job": {"details_lag_seconds": 90}}),
        ("run-early", "cut", {}),
        ("jobs", "status", {"status": 500}),
        ("jobs", "truncate", {}),
        ("jobs", "drop", {}),
        ("job", "status", {"status": 503}),
        ("details", "drop", {}),
        ("failed-files", "status", {"status": 500}),
    ]
)


class AnyOrder(RuleBasedStateMachine):
    """The world, and what the test knows of it."""

    aws: Aws
    hides_names = False
    index_lags = False
    changes_pool = False

    def __init__(self) -> None:
        super().__init__()
        self.ends = ExitStack()
        folder = Path(self.ends.enter_context(tempfile.TemporaryDirectory(prefix="any-order-")))
        self.world = self.ends.enter_context(World.opened(self.aws, folder))
        self.world.judge()
        if self.index_lags:
            self.world.dynamodb = LaggingIndex(self.world.dynamodb)
        if self.hides_names:
            self.world.state.behaviour.list_shows_files = False
            self.world.state.behaviour.has_file_status = False
        self.delivered: list[ObjectVersion] = []
        self.flights: list[Gate] = []
        self.reopenings = 0

    @initialize(workflows=st.integers(1, 2), files=st.integers(1, 3))
    def configure(self, workflows: int, files: int) -> None:
        self.world.grow_pool(workflows)
        self.world.configure(max_files_per_run=files)

    # -- what may happen -----------------------------------------------------------------------------------------------

    @rule(key=st.sampled_from(KEYS), content=st.integers(0, 5))
    def upload(self, key: str, content: int) -> None:
        version = self.world.upload(key, f"{key} {content}".encode())
        self.delivered.append(version)
        self._fly(lambda gate: self.world.deliver(version, hook=gate))

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def duplicate(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(self.delivered))
        self._fly(lambda gate: self.world.deliver(version, hook=gate))

    @rule()
    def schedule(self) -> None:
        self._fly(lambda gate: self.world.step_all(hook=gate))

    def _fly(self, work: Any) -> None:
        gate = Gate(lambda: work(gate))
        gate.start()
        self.flights.append(gate)

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), calls=st.integers(1, 12))
    def let_one_go_on(self, data: st.DataObject, calls: int) -> None:
        gate = data.draw(st.sampled_from(self.flights))
        for _ in range(calls):
            gate.step()
        self._land(gate)

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def let_one_end(self, data: st.DataObject) -> None:
        gate = data.draw(st.sampled_from(self.flights))
        gate.finish()
        self._land(gate)

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def kill_one(self, data: st.DataObject) -> None:
        gate = data.draw(st.sampled_from(self.flights))
        gate.kill()
        self._land(gate)

    def _land(self, gate: Gate) -> None:
        if gate.is_over:
            self.flights.remove(gate)
            assert gate.failure is None, gate.failure

    @rule(fault=FAULTS, times=st.integers(1, 2))
    def something_goes_wrong(self, fault: tuple[str, str, dict[str, Any]], times: int) -> None:
        call, kind, more = fault
        self.world.state.faults.append(Fault(call, kind, times=times, **more))

    @precondition(lambda self: not self.hides_names)
    @rule(names=st.booleans())
    def hide_or_show_file_ids(self, names: bool) -> None:
        self.world.state.behaviour.list_shows_files = names

    @precondition(lambda self: not self.hides_names)  # nobody else uses a workflow whose jobs hide their names
    @rule()
    def stranger(self) -> None:
        if self.world.state.active(self.world.settings.workflow_ids[0]) is None:
            self.world.stranger()

    @precondition(lambda self: self.changes_pool)
    @rule(workflows=st.integers(1, 3))
    def pool_changes(self, workflows: int) -> None:
        self.world.grow_pool(workflows)

    @rule(seconds=st.sampled_from([1, 10, 30, 61, 300, 1000]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.sleep(seconds)

    # -- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def no_complete_body_without_a_committed_attempt(self) -> None:
        assert self.world.violations == []

    @invariant()
    def rows_and_workflows_agree_with_the_platform(self) -> None:
        rows = self.world.rows()
        jobs = self.world.state.jobs
        attempts = {each.attempt.id: each for each in self.world.workflows() if each.phase is not Phase.IDLE}
        for row in rows:
            final = row["status"] in FINAL
            assert ("expires_at" in row) is final
            assert ("eligible_at" in row) is not final
            job = jobs.get(row.get("job_id", ""))
            if job is not None:
                assert job.ours, "a stranger's job is in a row"
                (file,) = [each for each in job.files if each.filename == row["upload_name"]]
                if final:
                    assert row["status"] == job.truth(file)
            if not final and row["status"] != Status.PENDING:
                attempt = attempts[row["attempt_id"]].attempt
                assert (row["object"], row["version"]) in attempt.keys
        for workflow in attempts.values():
            assert workflow.attempt.lease_ends_at or workflow.attempt.settle_after or workflow.job_id

    @invariant()
    def accepted_at_most_once_for_each_opening(self) -> None:
        for row in self.world.rows():
            openings = 1 + len(row.get("runs", []))
            stem = row["key"].removesuffix(".pdf") + "-"
            version = next(each for each in self.delivered if each.document_key == (row["object"], row["version"]))
            runs = [job for job in self.world.jobs_of(version) if any(f.filename.startswith(stem) for f in job.files)]
            assert len([job for job in runs if not job.is_late]) <= openings

    # -- the end -------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            for gate in list(self.flights):
                gate.finish()
                assert gate.failure is None, gate.failure
            self.world.state.faults.clear()
            for version in self.delivered:  # what was killed comes again from the queue
                self.world.deliver(version)
            self.world.settle(minutes=120)
            self._everything_is_true()
        finally:
            self.ends.close()

    def _everything_is_true(self) -> None:
        self.rows_and_workflows_agree_with_the_platform()
        self.no_complete_body_without_a_committed_attempt()
        self.accepted_at_most_once_for_each_opening()
        rows = self.world.rows()
        for version in self.delivered:
            row = self.world.row(version)
            accepted = self.world.accepted(version)
            if row["status"] in {Status.REJECTED, Status.SUPERSEDED}:
                assert row["error"]["message"]
            else:
                assert accepted >= 1
                assert self.world.state.jobs[row["job_id"]]
        assert len(rows) == len({version.document_key for version in self.delivered})


@pytest.mark.parametrize("circumstance", [None, "hides_names", "index_lags", "changes_pool"])
def test_whatever_happens_in_whatever_order(aws: Aws, circumstance: str | None) -> None:
    class OnThisStack(AnyOrder):
        pass

    OnThisStack.aws = aws
    if circumstance:
        setattr(OnThisStack, circumstance, True)
    run_state_machine_as_test(
        OnThisStack,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
