"""Use case: how long documents have been waiting, and jobs have run; for the alarms."""

from workflow_trigger.domain.clock import parse_time
from workflow_trigger.domain.model import ALL_ROUTES, Snapshot
from workflow_trigger.services.context import Context


def gauges(context: Context, snapshot: Snapshot) -> dict[str, dict[str, float]]:
    """By route, seconds for which its queue has been waiting, and without any workflow at work; and jobs have run."""
    now = context.clock.now()
    found: dict[str, dict[str, float]] = {}
    for name, own in context.by_route().items():
        workflows = [each for each in snapshot.workflows if context.of_workflow(each.workflow_id) is own]
        pool = [each for each in workflows if each.workflow_id in own.settings.workflow_ids]
        waiting = context.ledger.longest_wait_seconds(name if own.settings.routes else None)
        started = [parse_time(each.attempt.started_at) for each in workflows]
        pause = snapshot.pause_of(own.settings.route)
        is_idle = not pause and not any(each.is_at_work or each.waits_for_another_job for each in pool)
        found[name] = {
            "OldestWaitingSeconds": waiting,
            "IdleWaitingSeconds": waiting if is_idle else 0.0,
            "LongestRunSeconds": max(((now - moment).total_seconds() for moment in started if moment), default=0.0),
        }
        if pause:
            found[name]["PausedSeconds"] = (now - (parse_time(pause.since) or now)).total_seconds()
    if context.settings.routes:  # what waits in no queue, since an earlier release or earlier routes, counts as well
        found[ALL_ROUTES] = {"OldestWaitingSeconds": context.ledger.longest_wait_seconds()}
    return found
