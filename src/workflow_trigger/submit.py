"""Use case: take rows from the line to the platform, one attempt at a time per workflow."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from aws_lambda_powertools import Logger

from workflow_trigger.attempt import Attempt
from workflow_trigger.clock import iso
from workflow_trigger.decisions import LEASE_SECONDS
from workflow_trigger.errors import AttemptLost
from workflow_trigger.invocation import Invocation
from workflow_trigger.model import Phase, Row, Workflow

logger = Logger(child=True)


class Submitter:
    """Claims free workflows for the rows that wait."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation

    def fill(self, fresh: Sequence[Row]) -> None:
        """Give every free workflow of the pool a batch, as long as rows wait. `fresh` may not be in the index yet."""
        clock = self._invocation.clock
        pool = self._invocation.ledger.workflows(self._invocation.settings.workflow_ids)
        free = [workflow for workflow in pool if workflow.is_free(clock.now())]
        line = self._invocation.line(fresh) if free else []
        for workflow in free:
            if not line or not self._invocation.has_time():
                return
            try:
                after = self.submit(workflow, line)
                line = [row for row in line if row.key not in after.rows]
            except AttemptLost as lost:
                logger.info("another invocation was faster", workflow_id=workflow.workflow_id, reason=str(lost))

    def submit(self, workflow: Workflow, line: Sequence[Row] | None = None) -> Workflow:
        """One attempt on a free workflow; returns its new state, or the very argument when no row waits for it.

        Raises:
            AttemptLost: another invocation took the workflow first.
        """
        line = self._invocation.line(()) if line is None else line
        if not self._invocation.pick(workflow, line):
            return workflow
        now = self._invocation.clock.now()
        claimed = replace(
            workflow,
            phase=Phase.SUBMITTING,
            attempt_id=uuid.uuid4().hex,
            started_at=iso(now),
            lease_ends_at=iso(now + timedelta(seconds=LEASE_SECONDS)),
        )
        return Attempt(self._invocation, self._invocation.ledger.save(workflow, claimed)).run(line)
