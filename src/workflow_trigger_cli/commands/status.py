"""`status`: documents by status, the queue, the workflows, dead letters."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from workflow_trigger.adapters.dynamodb.ledger import OPEN_ROWS_INDEX
from workflow_trigger.domain.clock import iso, parse_time
from workflow_trigger.domain.model import ALL_ROUTES, FINAL, Pause, Phase, Status, Workflow
from workflow_trigger_cli import advice
from workflow_trigger_cli.advice import Advice
from workflow_trigger_cli.stack import Stack

_STANDSTILL_SECONDS = 1_000.0  # longer than any document is put off after a failure
_COUNTED_BYTES = 256 * 1024 * 1024  # a ledger up to this size is counted without --all, because a scan costs by size


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowState:
    """One workflow. `files` are in its present attempt; `error` is what its last attempt ended in, if in one.

    An error that somebody has to correct is shown while something waits; when nothing does, it may be corrected by now.
    """

    workflow_id: str
    route: str  # its key prefix; '': that of all others
    is_in_pool: bool
    phase: str
    files: int
    job_id: str | None
    job_status: str | None
    since: str | None
    not_before: str | None
    accepted_count: int
    error: Mapping[str, Any] | None
    meaning: str | None
    todo: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StackState:
    """Everything that `status` shows. `rows` has None for final statuses that were not counted."""

    stack: str
    region: str
    at: str
    rows: Mapping[str, int | None]
    oldest_waiting_seconds: float
    routes: Mapping[str, float]  # the longest wait of each; empty without `Routes`
    pauses: tuple[Pause, ...]
    workflows: list[WorkflowState]
    unresolved: str | None  # workflows that are named by a key which the platform does not know, and what it says
    unregistered_events: int
    dead_letters: int
    attention: list[str]


def collect_status(stack: Stack, rows: Mapping[str, int | None]) -> StackState:
    """Collect the state from DynamoDB and SQS; `rows` are counted already."""
    ledger = stack.ledger()
    longest = ledger.longest_wait_seconds()
    names = ["", *(route.key_prefix for route in stack.routes)] if stack.routes else []
    by_route = {name: ledger.longest_wait_seconds(name) for name in names}
    snapshot = ledger.snapshot(stack.ids_in_pool)
    workflows = [
        _workflow_state(stack, each, by_route.get(stack.route_of(each.workflow_id), longest))
        for each in snapshot.workflows
    ]
    dead_letters = messages_in(stack, "DeadLetterQueueUrl")
    return StackState(
        stack=stack.name,
        region=stack.region,
        at=iso(datetime.now(UTC)),
        rows=rows,
        oldest_waiting_seconds=longest,
        routes=by_route,
        pauses=snapshot.pauses,
        workflows=workflows,
        unresolved=snapshot.poller.unresolved,
        unregistered_events=messages_in(stack, "UploadQueueUrl"),
        dead_letters=dead_letters,
        attention=[
            *_attention(stack, workflows, snapshot.poller.unresolved, dead_letters),
            *_standstill(stack, workflows, snapshot.pauses, by_route or {"": longest}),
        ],
    )


_IN_A_QUEUE = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")


def messages_in(stack: Stack, output: str, *names: str) -> int:
    """The messages of a queue, in flight or not; or those that one of SQS's attributes counts."""
    names = names or _IN_A_QUEUE
    answer = stack.client("sqs").get_queue_attributes(QueueUrl=stack[output], AttributeNames=list(names))
    return sum(int(answer["Attributes"][name]) for name in names)


def _attention(stack: Stack, workflows: list[WorkflowState], unresolved: str | None, dead_letters: int) -> list[str]:
    texts = [f"{each.workflow_id}: {each.meaning}. {each.todo}" for each in workflows if each.todo]
    if unresolved:
        texts.append(f"Workflows that get no documents: {unresolved}. workflow-trigger doctor --stack {stack.name}")
    if dead_letters:
        texts.append(f"{dead_letters} dead letters. workflow-trigger redrive --stack {stack.name}")
    return texts


def _standstill(
    stack: Stack, workflows: list[WorkflowState], pauses: Sequence[Pause], waits: Mapping[str, float]
) -> list[str]:
    """Routes whose documents wait although no workflow of theirs has anything to do. `waits`: seconds, by route."""
    found = []
    for route, seconds in waits.items():
        pool = [each for each in workflows if each.is_in_pool and each.route == route]
        is_paused = any(each.route in {route, ALL_ROUTES} for each in pauses)
        is_explained = any(each.phase != Phase.IDLE or each.not_before or each.todo for each in pool)
        is_busy = any((each.error or {}).get("type") == "Busy" for each in pool)  # with a job of somebody else
        if seconds >= _STANDSTILL_SECONDS and not (is_paused or is_explained or is_busy):
            where = f" of {route}" if route else ""
            found.append(
                f"Documents{where} wait, and no workflow is at work. workflow-trigger doctor --stack {stack.name}"
            )
    return found


def blocking_reason(stack: Stack, workflow: Workflow, waiting_seconds: float) -> Advice | None:
    """What blocks a workflow of the pool right now, if a person has to fix it."""
    found = advice.for_workflow(workflow.last_error, workflow.consecutive_failures)
    # The error stays until the next attempt; where nothing waits there is none, and it may be fixed already.
    is_now = waiting_seconds > 0 or workflow.phase is not Phase.IDLE
    if found is None or not is_now or not stack.is_in_pool(workflow.workflow_id):
        return None
    return advice.filled(found, stack=stack.name, set_key=stack["SetApiKeyCommand"])


def _workflow_state(stack: Stack, workflow: Workflow, waiting_seconds: float) -> WorkflowState:
    found = blocking_reason(stack, workflow, waiting_seconds)
    is_stale = found is None and advice.for_workflow(workflow.last_error, workflow.consecutive_failures) is not None
    not_before = parse_time(workflow.paused_until)
    return WorkflowState(
        workflow_id=workflow.workflow_id,
        route=stack.route_of(workflow.workflow_id),
        is_in_pool=stack.is_in_pool(workflow.workflow_id),
        phase=workflow.phase,
        files=len(workflow.attempt.documents),
        job_id=workflow.job_id,
        job_status=workflow.job_status,
        since=workflow.attempt.started_at or None,
        not_before=workflow.paused_until if not_before and not_before > datetime.now(UTC) else None,
        accepted_count=workflow.accepted_count,
        error=None if is_stale else workflow.last_error,
        meaning=found.meaning if found else None,
        todo=found.todo if found else None,
    )


# -- rows --------------------------------------------------------------------------------------------------------------


class RowCounter:
    """Counts rows, and counts them again only when that has cost no more than a twentieth of the time since."""

    def __init__(self, stack: Stack, *, count_all: bool) -> None:
        self._stack = stack
        self._count_all = count_all
        self._counted: dict[str, int | None] = {}
        self._again_at = 0.0

    def count(self) -> dict[str, int | None]:
        """By status; None for final states of a large ledger, unless they were asked for."""
        began = time.monotonic()
        if began >= self._again_at:
            self._counted = _rows(self._stack, count_all=self._count_all)
            took = time.monotonic() - began
            self._again_at = began + 20 * took
        return self._counted


def _rows(stack: Stack, *, count_all: bool) -> dict[str, int | None]:
    client = stack.client("dynamodb")
    size_bytes = client.describe_table(TableName=stack["LedgerTable"])["Table"].get("TableSizeBytes", 0)
    if count_all or size_bytes <= _COUNTED_BYTES:
        read = stack.scanned(
            ProjectionExpression="#status",
            FilterExpression="attribute_exists(#status)",  # batches have none
            ExpressionAttributeNames={"#status": "status"},
        )
        count = Counter(item["status"]["S"] for item in read)
        return {status.value: count[status] for status in Status}
    return {
        status.value: None if status in FINAL else _queried(client, stack["LedgerTable"], status) for status in Status
    }


def _queried(client: Any, table: str, status: Status) -> int:
    """The rows in a state that is not final, by the index that holds only such."""
    pages = client.get_paginator("query").paginate(
        TableName=table,
        IndexName=OPEN_ROWS_INDEX,
        Select="COUNT",
        KeyConditionExpression="#status = :status",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":status": {"S": status.value}},
    )
    return sum(page["Count"] for page in pages)
