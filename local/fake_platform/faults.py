"""What goes wrong at the simulated platform: answers of a fault's own, connections that end, answers cut in half."""

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from local.fake_platform.state import Fault, PlatformState

type Message = dict[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]


class Faults:
    """Faults below HTTP's manners: connections that end, answers that come early or in half."""

    def __init__(self, app: Any, state: PlatformState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        transport: Any = getattr(getattr(receive, "__self__", None), "transport", None)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                now = formatdate(self._state.clock(), usegmt=True).encode()
                message = {**message, "headers": [*message["headers"], (b"date", now)]}
            ending = scope.get("ending")
            if ending == "drop":
                transport.abort()
                return
            if ending == "truncate" and message["type"] == "http.response.body":
                await send({**message, "body": message["body"][: len(message["body"]) // 2], "more_body": True})
                transport.close()
                return
            if ending == "pause" and message["type"] == "http.response.body":
                half = len(message["body"]) // 2
                await send({**message, "body": message["body"][:half], "more_body": True})
                await asyncio.sleep(scope["pause_seconds"])
                message = {**message, "body": message["body"][half:]}
            await send(message)

        if scope["method"] == "POST" and scope["path"].endswith("/run"):
            early = self._state.take_fault("run-early")
            if early is not None and early.kind == "cut":
                await receive()
                transport.abort()
                return
            if early is not None:
                await answer_of(early)(scope, receive, send)  # type: ignore[arg-type]
                return
        await self._app(scope, receive, watched)


def answer_of(fault: Fault) -> Response:
    """The answer that a fault puts in the place of the platform's own."""
    return Response(fault.body, fault.status, {"content-type": "application/json", **fault.headers})


async def faulty(state: PlatformState, request: Request, call: str) -> Response | None:
    """The answer to a question while something is wrong."""
    fault = state.take_fault(call, request.query_params.get("workflow_id"))
    if fault is None:
        return None
    if fault.kind in {"drop", "truncate"}:
        request.scope["ending"] = fault.kind
        return JSONResponse({"detail": "this answer is cut"})
    if fault.kind == "pause":
        request.scope.update(ending="pause", pause_seconds=fault.seconds)
        return None
    if fault.kind == "slow":
        await asyncio.sleep(fault.seconds)
        return None
    return answer_of(fault)
