"""The entry points of the Lambda functions: parse, call one use case, shape the answer."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from workflow_trigger.adapters.s3_events import ParsedEvent
from workflow_trigger.bootstrap import context_of, listing, logger, metrics, report, worker_threads
from workflow_trigger.domain.model import Document, Status
from workflow_trigger.services.compare import compare
from workflow_trigger.services.context import Context
from workflow_trigger.services.gauges import gauges
from workflow_trigger.services.reconcile import Reconciler
from workflow_trigger.services.register import register
from workflow_trigger.services.submit import submit_now

POLL_FOR_SECONDS = 110.0  # the run that the schedule starts next takes over before


@logger.inject_lambda_context
@metrics.log_metrics
def on_upload(event: Any, invocation: LambdaContext) -> dict[str, Any]:
    """Fired by S3 object events, downloads the new object, posts it to the workflow's run endpoint, records the job.

    The job information is written to DynamoDB. Takes what the upload queue delivers, and answers with the messages that
    failed; or an S3 notification or EventBridge event itself, and answers with its rows.

    Raises:
        UnreadableEvent: an event without an SQS envelope has a record that names no object version.
    """
    context = context_of(invocation)
    try:
        if _is_from_sqs(event):
            return _on_messages(event, context)
        documents = register(ParsedEvent.of(event), context)
        _submit(documents, context)
        rows = [row for each in documents if (row := context.ledger.item(each.key)) is not None]
        answer: dict[str, Any] = json.loads(json.dumps({"rows": rows}, default=str))
        return answer
    finally:
        report(context)


@logger.inject_lambda_context
@metrics.log_metrics
def on_schedule(_event: Any, invocation: LambdaContext) -> None:
    """Fired every minute, and by uploads: follows jobs to their end, settles what is unknown, submits what waits."""
    context = context_of(invocation)
    reconciler = Reconciler(context, worker_threads=worker_threads())
    try:
        reconciler.run(POLL_FOR_SECONDS)
    finally:
        report(context)  # first, because the ages of what waits can only be had while the ledger answers
        report(context, gauges(context, reconciler.latest()))


@logger.inject_lambda_context
@metrics.log_metrics
def on_compare(_event: Any, invocation: LambdaContext) -> None:
    """Fired by `CompareSchedule`: counts objects that the ledger does not know, and registers them if it is told to.

    Raises:
        ComparisonUnfinished: the bucket is too large for one invocation.
    """
    context = context_of(invocation)
    try:
        compare(context, listing())
    finally:
        report(context)


def _is_from_sqs(event: Any) -> bool:
    match event:
        case {"Records": [_, *_] as records}:
            return all(isinstance(each, Mapping) and each.get("eventSource") == "aws:sqs" for each in records)
    return False


def _on_messages(event: dict[str, Any], context: Context) -> dict[str, Any]:
    """Register each message on its own, then submit once."""
    documents: list[Document] = []

    def register_message(record: SQSRecord) -> None:
        try:
            documents.extend(register(ParsedEvent.of(record.raw_event.get("body")), context))
        except Exception:
            logger.exception("message could not be registered; the queue delivers it again")
            raise

    processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
    answer = process_partial_response(event, register_message, processor)
    _submit(documents, context)
    return dict(answer)


def _submit(documents: Sequence[Document], context: Context) -> None:
    """Submit at once if a workflow is free, and see that the job is followed from its first second on.

    The documents are safe: what fails here, the next minute's run repeats.
    """
    try:
        has_begun = submit_now(context, [each for each in documents if each.status is Status.PENDING])
        # Read after the job was written: a run that ends just now sees the job, or is seen to have ended.
        if has_begun and not context.snapshot().poller.is_alive(context.clock.now()):
            context.wake_poller()
            context.counts.add("Woken")
    except Exception:  # noqa: BLE001  logged and counted; the documents are in the ledger
        logger.exception("could not submit; the next run of the schedule does")
        context.counts.add("SubmitErrors")
