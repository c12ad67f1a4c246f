"""`pause`, `resume`: begin no batches for a while, on one route or on all."""

from datetime import UTC, datetime

from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.model import ALL_ROUTES, Pause
from workflow_trigger_cli.errors import UsageError
from workflow_trigger_cli.stack import Stack


def pause(stack: Stack, route: str | None, reason: str) -> Pause | None:
    """Pause a route, or all. Returns the pause that was there already, which stays as it is.

    Raises:
        UsageError: the stack has no such route.
    """
    ledger, name = stack.ledger(), _named(stack, route)
    if ledger.pause(Pause(route=name, reason=reason, since=iso(datetime.now(UTC)))):
        return None
    return next((each for each in ledger.snapshot([]).pauses if each.route == name), None)


def resume(stack: Stack, route: str | None) -> tuple[list[Pause], list[Pause]]:
    """End the pause of a route, or every pause. Returns those that ended, and those that hold still.

    Raises:
        UsageError: the stack has no such route.
    """
    ledger, name = stack.ledger(), _named(stack, route)
    pauses = ledger.snapshot([]).pauses
    ended = [each for each in pauses if (route is None or each.route == name) and ledger.resume(each)]
    return ended, [each for each in pauses if each not in ended]


def _named(stack: Stack, route: str | None) -> str:
    if route is None:
        return ALL_ROUTES
    known = ["", *(each.key_prefix for each in stack.routes)]
    if route not in known:
        shown = ", ".join(each or "'' (all others)" for each in known)
        raise UsageError(f"{stack.name} has no route {route}. It has: {shown}")
    return route
