"""MiniStack in this process: the same emulator as over HTTP, asked without a socket.

A use-case test asks DynamoDB and S3 some thousand times, and most of such a call is HTTP, on both sides. What goes over
the wire is tested where the template is deployed, and where functions run in processes of their own.
"""

import asyncio
import contextlib
import functools
import importlib
import io
import site
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3 import HTTPResponse

from local.stack import TOOLS, Aws


class Application:
    """An ASGI application, asked by one thread at a time; a thread of its own would cost two switches a call."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self._application = application
        self._loop, self._lock = asyncio.new_event_loop(), threading.Lock()
        self._elsewhere = ThreadPoolExecutor(1)

    def answer(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """What botocore's HTTP client would have brought."""
        with contextlib.suppress(RuntimeError):  # a thread that runs a loop, as the platform's, cannot run another
            asyncio.get_running_loop()
            return self._elsewhere.submit(self.answer, request).result()
        with self._lock:
            return self._loop.run_until_complete(self._answer(request))

    async def _answer(self, request: AWSPreparedRequest) -> AWSResponse:
        content, told = _content(request), list[dict[str, Any]]()
        asked = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return asked.pop() if asked else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            told.append(message)

        await self._application(_scope(request, len(content)), receive, send)
        start, *body = told
        raw = HTTPResponse(
            io.BytesIO(b"".join(each.get("body", b"") for each in body)),
            headers={name.decode(): value.decode() for name, value in start["headers"]},
            status=start["status"],
            preload_content=False,
            decode_content=False,
            request_method=request.method,
        )
        return AWSResponse(request.url, raw.status, raw.headers, raw)  # type: ignore[arg-type]


@dataclass(frozen=True)
class InProcess(Aws):
    """Clients of an application in this process."""

    application: Application
    signature = UNSIGNED  # a signature takes a tenth of a call; the deployed tests sign

    @functools.cache  # noqa: B019  as the one that it stands for
    def client(self, service: str) -> Any:
        """A boto3 client, made once, that opens no connection."""
        client = super().client(service)
        client.meta.events.register(f"before-send.{service}", self.application.answer)
        return client


def ministack_in_process() -> InProcess:
    """MiniStack as its own environment has it: what it needs is not what the product needs."""
    (packages,) = (TOOLS / "ministack/lib").glob("python*/site-packages")
    site.addsitedir(str(packages))
    application = Application(importlib.import_module("ministack.app").app)
    return InProcess("http://127.0.0.1", application)


def _content(request: AWSPreparedRequest) -> bytes:
    body = request.body or b""
    content = body.read() if hasattr(body, "read") else body
    return content.encode() if isinstance(content, str) else bytes(content)


def _scope(request: AWSPreparedRequest, length: int) -> dict[str, Any]:
    url = urlsplit(request.url)
    headers = {"Host": url.netloc.encode(), "Content-Length": str(length).encode()}
    for name, value in request.headers.items():
        headers[name] = value if isinstance(value, bytes) else str(value).encode()
    return {
        "type": "http",
        "method": request.method,
        "scheme": url.scheme,
        "path": unquote(url.path),
        "raw_path": url.path.encode(),
        "query_string": url.query.encode(),
        "headers": [(name.lower().encode(), value) for name, value in headers.items()],
        "client": ("127.0.0.1", 0),
    }
