"""Use case: find objects of the bucket that the ledger does not know, because their events never came."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import batched

from aws_lambda_powertools import Logger

from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import Lane, ObjectVersion, is_result, route_of
from workflow_trigger.domain.errors import ComparisonUnfinished
from workflow_trigger.services.context import Context

_AT_ONCE = 100  # of a BatchGetItem
_ON_THEIR_WAY = timedelta(hours=2)  # an event that fails is delivered again for an hour and a half
_SHOWN = 20  # names in the log
_RESERVE_SECONDS = 30.0

logger = Logger(child=True)


def compare(context: Context, listed: Iterable[ObjectVersion]) -> int:
    """How many objects were missed; with `CompareMode=register` they are in the queue afterwards.

    Objects from before the ledger, or whose rows may have expired, are a backfill's business.

    Raises:
        ComparisonUnfinished: the bucket is too large for one invocation.
    """
    missed = 0
    for few in batched(_judged(context, listed), _AT_ONCE, strict=False):
        if context.deadline.remaining_seconds() < _RESERVE_SECONDS:
            raise ComparisonUnfinished(
                f"Time was over before {few[0].document_key.object}. workflow-trigger backfill --dry-run has no limit."
            )
        known = context.ledger.documents([each.document_key for each in few])
        unknown = [each for each in few if each.document_key not in known]
        for each in unknown[: max(_SHOWN - missed, 0)]:
            logger.warning("missed", object_key=each.document_key.object, version=each.document_key.version)
        missed += len(unknown)
        context.counts.add("Missed", value=len(unknown))
        if context.settings.registers_missed:
            for each in unknown:
                context.ledger.register(
                    replace(each, lane=Lane.BULK), route=route_of(each.key, context.settings.routes)
                )
            context.counts.add("Registered", value=len(unknown))
    logger.info("compared", missed=missed, registered=context.settings.registers_missed)
    return missed


def _judged(context: Context, listed: Iterable[ObjectVersion]) -> Iterator[ObjectVersion]:
    """The objects that must have a row by now."""
    settings, now = context.settings, context.clock.now()
    since = context.ledger.created_at()
    if settings.retention_days:
        since = max(since, iso(now - timedelta(days=settings.retention_days)))
    until = iso(now - _ON_THEIR_WAY)
    for each in listed:
        is_wanted = each.key.endswith(settings.key_suffix) and not is_result(
            each.bucket, each.key, settings.results_bucket, settings.results_prefix
        )
        is_wanted = is_wanted and settings.selection.reason_against(each.key, each.size_bytes) is None
        if is_wanted and since <= (each.uploaded_at or "") <= until:
            yield each
