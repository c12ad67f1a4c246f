"""Every remote call of the product passes through a hook, which may count it, hold it back, or end the invocation."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

from botocore.exceptions import ClientError

from workflow_trigger.adapters.dynamodb.ledger import OPEN_ROWS_INDEX
from workflow_trigger.adapters.unstructured.connections import Connections


class Killed(BaseException):
    """The invocation has ended at once, as by a kill: nothing that it still wanted to do is done."""


class Hook(Protocol):
    """Stands between the product and everything remote."""

    def around[T](self, name: str, call: Callable[[], T]) -> T:
        """Make a call, or do not."""


class PassThrough:
    """Calls go through."""

    def around[T](self, name: str, call: Callable[[], T]) -> T:
        del name
        return call()


class KillAt(PassThrough):
    """Counts calls, and ends the invocation before or after one of them."""

    def __init__(self, number: int | None = None, *, after: bool = False) -> None:
        self.number, self.after = number, after
        self.names: list[str] = []
        self.dead = False
        self.killed = False

    def revive(self) -> None:
        """The next invocation starts."""
        self.dead = False

    def around[T](self, name: str, call: Callable[[], T]) -> T:
        if self.dead:
            raise Killed
        index = len(self.names)
        self.names.append(name)
        if index == self.number and not self.after:
            self._die()
        result = call()
        if self.dead:
            raise Killed
        if index == self.number:
            self._die()
        return result

    def _die(self) -> None:
        self.dead = self.killed = True
        raise Killed


class StepThrough(PassThrough):
    """An invocation in a thread of its own that makes one remote call at a time, when it is told to."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._permits = threading.Semaphore(0)
        self._waiting = threading.Event()
        self._dead = False
        self.is_over = False  # before the thread itself is, which a busy machine may let live on for a while
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(work,), daemon=True)

    def start(self) -> None:
        """Run up to the first call."""
        self.thread.start()
        self._settled()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001  looked at by the test
            self.failure = error
        finally:
            self.is_over = True
            self._waiting.set()

    def around[T](self, name: str, call: Callable[[], T]) -> T:
        del name
        self._waiting.set()
        self._permits.acquire()
        if self._dead:
            raise Killed
        return call()

    def _settled(self) -> None:
        if not self._waiting.wait(timeout=60):
            raise AssertionError("an invocation hangs")

    def step(self) -> None:
        """Let it make its next call and go on to the one after."""
        if self.is_over:
            return
        self._waiting.clear()
        self._permits.release()
        self._settled()

    def finish(self) -> None:
        """Let it go on to its end."""
        while not self.is_over:
            self.step()
        self.thread.join()

    def kill(self) -> None:
        """End it where it is."""
        self._dead = True
        self.finish()


class HookedClient:
    """A boto3 client whose calls, and whose bodies' reads, pass through a hook."""

    def __init__(self, client: Any, hook: Callable[[], Hook], name: str) -> None:
        self._client, self._hook, self._name = client, hook, name
        self.exceptions, self.meta = client.exceptions, client.meta

    def __getattr__(self, operation: str) -> Any:
        method = getattr(self._client, operation)
        if operation == "get_paginator":
            return lambda each: _HookedPaginator(method(each), self._hook, f"{self._name} {each}")

        def call(**arguments: Any) -> Any:
            answer = self._hook().around(f"{self._name} {operation}", lambda: method(**arguments))
            if operation == "get_object":
                answer["Body"] = _HookedBody(answer["Body"], self._hook)
            return answer

        return call


class LaggingIndex:
    """A DynamoDB client whose index answers with what it answered so many queries ago."""

    def __init__(self, client: Any, queries: int = 5) -> None:
        self._client, self._answers = client, deque[Any](maxlen=queries + 1)
        self.exceptions, self.meta = client.exceptions, client.meta

    def __getattr__(self, operation: str) -> Any:
        return getattr(self._client, operation)

    def query(self, **arguments: Any) -> Any:
        """Of whole documents: what asks for some attributes alone judges nothing."""
        answer = self._client.query(**arguments)
        if "ProjectionExpression" in arguments or arguments.get("IndexName") != OPEN_ROWS_INDEX:
            return answer
        self._answers.append(answer)
        return self._answers[0]


class _HookedPaginator:
    def __init__(self, paginator: Any, hook: Callable[[], Hook], name: str) -> None:
        self._paginator, self._hook, self._name = paginator, hook, name

    def paginate(self, **arguments: Any) -> Iterator[Any]:
        return iter(self._hook().around(self._name, lambda: list(self._paginator.paginate(**arguments))))


class _HookedBody:
    def __init__(self, body: Any, hook: Callable[[], Hook]) -> None:
        self._body, self._hook = body, hook

    def read(self, amount: int) -> bytes:
        content: bytes = self._hook().around("s3 read", lambda: self._body.read(amount))
        return content

    def close(self) -> None:
        self._body.close()


class Denied(PassThrough):
    """A function that is not allowed to make a call."""

    def __init__(self, call: str) -> None:
        self._call = call

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        if name == self._call:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, name)
        return super().around(name, call)


class HookedConnections(Connections):
    """Connections whose requests pass through a hook."""

    def __init__(self, connections: Connections, hook: Callable[[], Hook]) -> None:
        self._connections, self._hook = connections, hook

    @property
    def kept(self) -> Any:
        return _HookedPool(self._connections.kept, self._hook)

    def fresh(self) -> Any:
        return _HookedPool(self._connections.fresh(), self._hook)


class _HookedPool:
    """A urllib3 pool whose requests pass through a hook."""

    def __init__(self, pool: Any, hook: Callable[[], Hook]) -> None:
        self._pool, self._hook = pool, hook

    def request(self, method: str, url: str, **arguments: Any) -> Any:
        name = f"platform {method} {url.rpartition('/api/v1')[2].partition('?')[0].strip('/').rpartition('/')[2]}"
        return self._hook().around(name, lambda: self._pool.request(method, url, **arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.clear()


@contextlib.contextmanager
def ended_by_kill() -> Iterator[None]:
    """An invocation that may be killed."""
    with contextlib.suppress(Killed):
        yield
