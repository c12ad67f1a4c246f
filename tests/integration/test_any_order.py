"""Uploads, duplicates, overwrites, invocations in flight, faults, foreign jobs and clock jumps, in any order.

The simulated platform judges by the bytes that it accepted. The invariants hold after every step, while several
invocations are stopped between two of their remote calls. Once the faults have stopped, everything comes to rest.
"""

import os
import tempfile
from contextlib import ExitStack
from dataclasses import replace
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
from tests.integration.fault_injection import LaggingIndex, StepThrough
from tests.integration.harness import Harness
from workflow_trigger.domain.document import ObjectVersion
from workflow_trigger.domain.model import ALL_ROUTES, FINAL, Pause, Phase, Status

PAUSE = Pause(route=ALL_ROUTES, reason="any", since="2026-01-01T00:00:00.000000Z")
BATCHES = {"a.pdf": "some", "b.pdf": "some"}
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
    """The harness, and what the test knows of it."""

    aws: Aws
    hides_names = False
    index_lags = False
    changes_pool = False

    def __init__(self) -> None:
        super().__init__()
        self.ends = ExitStack()
        folder = Path(self.ends.enter_context(tempfile.TemporaryDirectory(prefix="any-order-")))
        self.harness = self.ends.enter_context(Harness.opened(self.aws, folder))
        self.harness.check_invariants()
        if self.index_lags:
            self.harness.dynamodb = LaggingIndex(self.harness.dynamodb)
        if self.hides_names:
            self.harness.state.behaviour.list_shows_files = False
            self.harness.state.behaviour.has_file_status = False
        self.delivered: list[ObjectVersion] = []
        self.flights: list[StepThrough] = []
        self.seen: list[dict[str, Any]] = []  # rows as an operator saw them, however long ago

    @initialize(workflows=st.integers(1, 2), files=st.integers(1, 3))
    def configure(self, workflows: int, files: int) -> None:
        self.harness.grow_pool(workflows)
        self.harness.configure(max_files_per_run=files)

    # -- what may happen -----------------------------------------------------------------------------------------------

    @rule(key=st.sampled_from(KEYS), content=st.integers(0, 5))
    def upload(self, key: str, content: int) -> None:
        version = replace(self.harness.upload(key, f"{key} {content}".encode()), batch=BATCHES.get(key))
        self.delivered.append(version)
        self._fly(lambda flight: self.harness.deliver(version, hook=flight))

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def duplicate(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(self.delivered))
        self._fly(lambda flight: self.harness.deliver(version, hook=flight))

    @rule()
    def schedule(self) -> None:
        self._fly(lambda flight: self.harness.step_all(hook=flight))

    def _fly(self, work: Any) -> None:
        flight = StepThrough(lambda: work(flight))
        flight.start()
        self.flights.append(flight)

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), calls=st.integers(1, 12))
    def let_one_go_on(self, data: st.DataObject, calls: int) -> None:
        flight = data.draw(st.sampled_from(self.flights))
        for _ in range(calls):
            flight.step()
        self._land(flight)

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def let_one_end(self, data: st.DataObject) -> None:
        flight = data.draw(st.sampled_from(self.flights))
        flight.finish()
        self._land(flight)

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def kill_one(self, data: st.DataObject) -> None:
        flight = data.draw(st.sampled_from(self.flights))
        flight.kill()
        self._land(flight)

    def _land(self, flight: StepThrough) -> None:
        if flight.is_over:
            self.flights.remove(flight)
            assert flight.failure is None, flight.failure

    @rule(fault=FAULTS, times=st.integers(1, 2))
    def something_goes_wrong(self, fault: tuple[str, str, dict[str, Any]], times: int) -> None:
        call, kind, more = fault
        self.harness.state.faults.append(Fault(call, kind, times=times, **more))

    @precondition(lambda self: not self.hides_names)
    @rule(names=st.booleans())
    def hide_or_show_file_ids(self, names: bool) -> None:
        self.harness.state.behaviour.list_shows_files = names

    @precondition(lambda self: not self.hides_names)  # nobody else uses a workflow whose jobs hide their names
    @rule()
    def foreign_job(self) -> None:
        self.harness.state.accept_late()  # what was dropped before comes first
        if self.harness.state.active(self.harness.settings.workflow_ids[0]) is None:
            self.harness.foreign_job()

    @precondition(lambda self: self.changes_pool)
    @rule(workflows=st.integers(1, 3))
    def pool_changes(self, workflows: int) -> None:
        self.harness.grow_pool(workflows)

    # -- what an operator does, with rows that may have changed since they were seen -----------------------------------

    @rule()
    def operator_looks(self) -> None:
        self.seen = self.harness.rows()

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), does=st.sampled_from(["cancel", "retry", "forget"]))
    def operator_acts(self, data: st.DataObject, does: str) -> None:
        row = data.draw(st.sampled_from(self.seen))
        ledger, final = self.harness.ledger(), row["status"] in FINAL
        if does == "cancel" and row["status"] == Status.PENDING:
            ledger.cancel(row, "cancelled")
        elif does == "retry" and final and "forgotten_at" not in row:
            ledger.reopen(row)
        elif does == "forget" and final:
            ledger.forget(row)

    @rule()
    def operator_pauses_or_resumes(self) -> None:
        if not self.harness.ledger().pause(PAUSE):
            self.harness.ledger().resume(PAUSE)

    @rule(seconds=st.sampled_from([1, 10, 30, 61, 300, 1000]))
    def time_passes(self, seconds: float) -> None:
        self.harness.clock.sleep(seconds)

    # -- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def no_complete_body_without_a_committed_attempt(self) -> None:
        assert self.harness.violations == []

    @invariant()
    def rows_and_workflows_agree_with_the_platform(self) -> None:
        rows = self.harness.rows()
        jobs = self.harness.state.jobs
        attempts = {each.attempt.id: each for each in self.harness.workflows() if each.phase is not Phase.IDLE}
        for row in rows:
            final = row["status"] in FINAL
            assert ("expires_at" in row) is final
            assert ("eligible_at" in row) is not final
            job = jobs.get(row.get("job_id", ""))
            if job is not None and "forgotten_at" not in row:
                assert job.ours, "a foreign job is in a row"
                (file,) = [each for each in job.files if each.filename == row["upload_name"]]
                if final:
                    assert row["status"] == job.truth(file)
            if not final and row["status"] != Status.PENDING:
                attempt = attempts[row["attempt_id"]].attempt
                assert (row["object"], row["version"]) in attempt.documents
        for workflow in attempts.values():
            assert workflow.attempt.lease_ends_at or workflow.attempt.settle_after or workflow.job_id

    @invariant()
    def accepted_at_most_once_for_each_opening(self) -> None:
        for row in self.harness.rows():
            openings = 1 + len(row.get("runs", []))
            stem = row["key"].removesuffix(".pdf") + "-"
            version = next(each for each in self.delivered if each.document_key == (row["object"], row["version"]))
            runs = [job for job in self.harness.jobs_of(version) if any(f.filename.startswith(stem) for f in job.files)]
            assert len([job for job in runs if not job.is_late]) <= openings

    # -- the end -------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            for flight in list(self.flights):
                flight.finish()
                assert flight.failure is None, flight.failure
            self.harness.state.faults.clear()
            self.harness.ledger().resume(PAUSE)
            for version in self.delivered:  # what was killed comes again from the queue
                self.harness.deliver(version)
            self.harness.settle(minutes=120)
            self.harness.tick(after_seconds=61)
            self.harness.tick(after_seconds=61)
            self._everything_is_true()
        finally:
            self.ends.close()

    def _everything_is_true(self) -> None:
        self.rows_and_workflows_agree_with_the_platform()
        self.no_complete_body_without_a_committed_attempt()
        self.accepted_at_most_once_for_each_opening()
        rows = self.harness.rows()
        for version in self.delivered:
            row = self.harness.row(version)
            accepted = self.harness.accepted(version)
            if "forgotten_at" in row:
                assert not {"error", "results", "metadata", "upload_name"} & set(row)
            elif (
                row["status"] in {Status.REJECTED, Status.SUPERSEDED} or row.get("error", {}).get("type") == "Cancelled"
            ):
                assert row["error"]["message"]
            else:
                assert accepted >= 1
                assert self.harness.state.jobs[row["job_id"]]
        assert len(rows) == len({version.document_key for version in self.delivered})
        batch = self.harness.ledger().batch("some")
        assert (batch is None) is not any(row.get("batch") == "some" for row in rows)
        assert batch is None or (batch.registered == batch.finished and batch.finished_at), batch


@pytest.mark.parametrize("circumstance", [None, "hides_names", "index_lags", "changes_pool"])
def test_whatever_happens_in_whatever_order(aws_in_process: Aws, circumstance: str | None) -> None:
    class OnThisStack(AnyOrder):
        pass

    OnThisStack.aws = aws_in_process
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
