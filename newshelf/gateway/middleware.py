"""What every request passes, whatever its route: one plain ASGI function around the app.

Request id, key and rate, size and time; then headers, metrics and log of the answer.
"""

import asyncio
import logging
import math
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from newshelf.config import GatewaySettings
from newshelf.errors import (
    MethodNotAllowed,
    NewshelfError,
    NotFound,
    RateLimited,
    RequestError,
    RequestTimeout,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from newshelf.gateway.context import SCOPE, Deadline, RequestContext, deadline_of
from newshelf.gateway.keys import KeyAccess
from newshelf.gateway.observability import GatewayMetrics, RequestLog, Spans
from newshelf.gateway.openapi import DOCS, DOCS_FILES
from newshelf.serving.envelope import refuse_coding

_LOG = logging.getLogger(__name__)
_TRACE_PARENT = b"traceparent"
_NO_ROUTE: dict[int, type[NewshelfError]] = {404: NotFound, 405: MethodNotAllowed}
_PROBES = frozenset({"/healthz", "/readyz"})
_OPEN_TO_ALL = _PROBES | {DOCS, "/openapi.json"}
_FILES_OPEN_TO_ALL = DOCS_FILES + "/"
_ID_BITS = 128
_HUNG_UP = 499
"""As nginx logs it: no fault of ours, and no answer."""
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
_CLOSED = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
# Swagger UI sets styles and starts itself within the page.
_FOR_DOCS = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'",
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Middleware:
    """Wraps an ASGI application.

    Args:
        app: answers what passes.
        access: checks keys.
        metrics: count every answer.
        spans: one around each request.
        log: told of each request.
        settings: limits.
        routes: the paths that are served; others are told as ``other``, since metrics must
            not grow with what strangers make up.
    """

    def __init__(
        self,
        app: App,
        *,
        access: KeyAccess,
        metrics: GatewayMetrics,
        spans: Spans,
        log: RequestLog,
        settings: GatewaySettings,
        routes: Collection[str],
    ) -> None:
        self._app = app
        self._access = access
        self._metrics = metrics
        self._spans = spans
        self._log = log
        self._settings = settings
        self._routes = frozenset(routes)
        # Names, not secrets: asking the system for each would cost more than the rest of one.
        self._random = random.Random(secrets.randbits(_ID_BITS))  # noqa: S311
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see the ASGI specification."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1002})
            return
        headers = dict(scope["headers"])
        call = RequestContext(
            f"{self._random.getrandbits(_ID_BITS):032x}",
            time.perf_counter(),
            Deadline.after(self._settings.timeout_ms),
            task=asyncio.current_task(),
        )
        scope[SCOPE] = call
        route = scope["path"] if scope["path"] in self._routes else "other"
        answer = _Answer(send, call, _FOR_DOCS if route == DOCS else _CLOSED)
        self._under_way += 1
        with self._spans.request(route, headers.get(_TRACE_PARENT)):
            try:
                self._admit(scope, headers, call)
                body = _Body(receive, self._settings.max_body_bytes, call)
                # Where GET is answered, so is HEAD; uvicorn leaves the body out.
                as_get = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
                await self._app(as_get, body.receive, answer.send)
            except (asyncio.CancelledError, ClientDisconnect) as error:
                if isinstance(error, asyncio.CancelledError) and not call.gone:
                    raise
                call.status, call.reason = _HUNG_UP, "client_hung_up"
            except NewshelfError as error:
                await answer.refuse(error)
            except HTTPException as error:
                await answer.refuse(_no_route(scope, error))
            except Exception:
                _LOG.exception("request %s met a defect", call.request_id)
                await answer.refuse(
                    NewshelfError(f"a defect; the log tells more of request {call.request_id}")
                )
            finally:
                self._under_way -= 1
            self._spans.note(request_id=call.request_id, status=call.status)
        self._metrics.request(route, call.status, call.spent_ms / 1000)
        self._log.tell(call, scope["method"], route)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes], call: RequestContext) -> None:
        path = scope["path"]
        if self._under_way > self._settings.max_requests and path not in _PROBES:
            raise Unavailable("too many requests are under way; try again")
        if path not in _OPEN_TO_ALL and not path.startswith(_FILES_OPEN_TO_ALL):
            call.key = self._access.admit(headers.get(b"authorization"))
        call.deadline = deadline_of(
            headers,
            timeout_ms=self._settings.timeout_ms,
            max_timeout_ms=self._settings.max_timeout_ms,
        )
        if (coding := headers.get(b"content-encoding")) is not None:
            refuse_coding(coding.decode("latin-1"))
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._settings.max_body_bytes:
            raise _too_large(self._settings.max_body_bytes)


class _Body:
    """Reads a body as long as it is neither too large nor too slow."""

    def __init__(self, receive: Receive, max_bytes: int, call: RequestContext) -> None:
        self._receive = receive
        self._left = self._max = max_bytes
        self._call = call
        self._ended = self._late = False

    async def receive(self) -> Message:
        """See the ASGI specification."""
        if self._ended:
            # Waits for the client to go; that has no limit.
            return await self._receive()
        # Not asyncio.timeout, which costs several microseconds of each request.
        loop = asyncio.get_running_loop()
        timer = loop.call_at(self._call.deadline.loop_s, self._give_up)
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if not self._late:
                raise
            raise RequestTimeout("the request's body did not come in time") from None
        finally:
            timer.cancel()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large(self._max)
        self._ended = not message.get("more_body", False)
        return message

    def _give_up(self) -> None:
        self._late = True
        if self._call.task is not None:
            self._call.task.cancel()


class _Answer:
    """Adds to an answer's head what all have."""

    def __init__(self, send: Send, call: RequestContext, policy: tuple[bytes, bytes]) -> None:
        self._send = send
        self._call = call
        self._policy = policy
        self._began = False

    async def send(self, message: Message) -> None:
        """See the ASGI specification."""
        if message["type"] == "http.response.start":
            self._began = True
            self._call.status = message["status"]
            request_id = (b"x-request-id", self._call.request_id.encode())
            message["headers"] = [*message["headers"], request_id, self._policy, *_HEADERS]
        await self._send(message)

    async def refuse(self, error: NewshelfError) -> None:
        """Answer with an error, unless an answer has begun: then the connection breaks."""
        self._call.reason = error.code
        if self._began:
            self._call.status = error.http_status
            raise error
        body = orjson.dumps(error.body())
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if isinstance(error, Unauthorized):
            headers.append((b"www-authenticate", b"Bearer"))
        if isinstance(error, RateLimited):
            headers.append((b"retry-after", str(math.ceil(error.retry_after_s)).encode()))
        await self.send(
            {"type": "http.response.start", "status": error.http_status, "headers": headers}
        )
        await self.send({"type": "http.response.body", "body": body})


def _no_route(scope: Scope, error: HTTPException) -> NewshelfError:
    kind = _NO_ROUTE.get(error.status_code, RequestError)
    return kind(f"{scope['method']} {scope['path'][:100]}: {error.detail}; /docs tells what is")


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the body has more than {max_bytes} bytes")
