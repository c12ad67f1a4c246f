"""Use case: put every object of an event into the ledger. Registered is acknowledged: from then on it is safe."""

from aws_lambda_powertools import Logger

from workflow_trigger.adapters.s3_events import ParsedEvent
from workflow_trigger.domain.document import ObjectVersion, why_unwanted
from workflow_trigger.domain.errors import UnreadableEvent
from workflow_trigger.domain.model import Document
from workflow_trigger.services.context import Context

logger = Logger(child=True)


def register(event: ParsedEvent, context: Context) -> list[Document]:
    """Register what can be read; then fail for what cannot: it comes again, and ends in the dead letters.

    Raises:
        UnreadableEvent: with the reason of every record that could not be read.
    """
    for reason in event.skipped:
        logger.info("skipped", reason=reason)
    documents = [_registered(version, context) for version in event.versions if _is_wanted(version, context)]
    if event.unreadable:
        context.counts.add("Unreadable", value=len(event.unreadable))
        raise UnreadableEvent("; ".join(event.unreadable))
    return documents


def _is_wanted(version: ObjectVersion, context: Context) -> bool:
    """Our own results, for one, never become documents, whatever the bucket's notifications say."""
    results = (context.settings.results_bucket, context.settings.results_prefix)
    reason = why_unwanted(version.bucket, version.key, version.size_bytes, results)
    if reason:
        logger.info("skipped", reason=reason, object_key=version.document_key.object)
    return reason is None


def _registered(version: ObjectVersion, context: Context) -> Document:
    document, is_new = context.ledger.register(version)
    logger.info("registered" if is_new else "duplicate", object_key=document.key.object, version=document.key.version)
    context.counts.add("Registered" if is_new else "Duplicate")
    return document
