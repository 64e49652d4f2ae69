"""The context of one request in the gateway: its id, deadline, caller and outcome."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from newshelf.errors import DeadlineExceeded
from newshelf.gateway.keys import ApiKey, KeyAccess
from newshelf.rollout.assignment import Tester
from newshelf.serving.protocol import OLD_DEADLINE_HEADER, TIMEOUT_HEADER, Deadline, timeout_ms

_HEADERS = {TIMEOUT_HEADER.encode(), OLD_DEADLINE_HEADER.encode()}


def deadline_of(headers: dict[bytes, bytes], *, default_ms: int, max_ms: int) -> Deadline:
    """Return the deadline of a request that arrives now; see ``timeout_ms``."""
    if _HEADERS.isdisjoint(headers):
        return Deadline.after(default_ms)
    named = {name.decode("latin-1"): text.decode("latin-1") for name, text in headers.items()}
    left_ms = timeout_ms(named, default_ms, max_ms)
    if left_ms == 0:
        raise DeadlineExceeded("no time was left when the request came")
    return Deadline.after(left_ms)


SCOPE = "newshelf.call"
"""Key of the context in the request's ASGI scope."""


@dataclass(slots=True)
class RequestContext:
    """Filled while the request is processed."""

    request_id: str
    started_s: float
    """Of ``time.perf_counter``."""
    deadline: Deadline
    address: str = ""
    """Of the client."""
    key: ApiKey | None = None
    status: int = 500
    source: str | None = None
    """``model`` or ``fallback``."""
    reason: str | None = None
    version: str | None = None
    """Version of the model that answered, or should have."""
    tester: Tester | None = None
    """Of a request that sees one variant."""
    task: "asyncio.Task[Any] | None" = None
    gone: bool = False
    """Whether the client has disconnected."""

    def hang_up(self) -> None:
        """Cancel the task: nobody waits for the answer."""
        self.gone = True
        if self.task is not None:
            self.task.cancel()

    def count(self, access: KeyAccess, what: str, number: int) -> None:
        """Count what the request brings at its key's rate."""
        if self.key is not None:
            access.count(self.key, self.address, what, number)

    @property
    def spent_ms(self) -> float:
        """Milliseconds since the request arrived."""
        return (time.perf_counter() - self.started_s) * 1000


def context_of(request: Request) -> RequestContext:
    """Return the context that the middleware made."""
    context: RequestContext = request.scope[SCOPE]
    return context


async def end_task(task: "asyncio.Task[None]") -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def read_body(request: Request) -> tuple[bytes, str]:
    """Return the whole body, without the generator of ``request.body``, and its content type."""
    chunks: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message["body"])
        if not message["more_body"]:
            return b"".join(chunks), request.headers.get("content-type", "")


def json_response(value: object) -> Response:
    """Return an answer; records in ``value`` may be pydantic's."""
    body = orjson.dumps(value, default=lambda record: record.model_dump())
    return Response(body, media_type="application/json")
