"""Use case: put every object of an event into the ledger. Registered is acknowledged: from then on it is safe."""

from aws_lambda_powertools import Logger

from workflow_trigger.adapters.s3_events import ParsedEvent
from workflow_trigger.domain.document import ObjectVersion, is_result, route_of
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
    documents = [found for version in event.versions if (found := _registered(version, context)) is not None]
    if event.unreadable:
        context.counts.add("Unreadable", value=len(event.unreadable))
        raise UnreadableEvent("; ".join(event.unreadable))
    return documents


def _registered(version: ObjectVersion, context: Context) -> Document | None:
    """The document of an object version, also of one that is skipped; None where nothing is recorded."""
    key, settings = version.document_key, context.settings
    if is_result(version.bucket, version.key, settings.results_bucket, settings.results_prefix):
        logger.info("skipped", reason="a result of ours", object_key=key.object)
        return None
    reason = settings.selection.reason_against(version.key, version.size_bytes)
    if reason and not settings.records_skipped:
        logger.info("skipped", reason=reason, object_key=key.object)
        context.counts.add("Skipped")
        return None
    route = route_of(version.key, settings.routes)
    document, is_new = context.ledger.register(version, route=route, skipped=reason)
    metric = ("Skipped" if reason else "Registered") if is_new else "Duplicate"
    logger.info(
        metric.lower(), reason=reason, object_key=key.object, version=key.version, request_id=version.request_id
    )
    own = context.by_route()[route]
    own.counts.add(metric)
    own.supersede_older(key.object)
    return document
