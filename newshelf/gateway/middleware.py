"""ASGI middleware of all routes: request id, key, rate, size and deadline; then the answer's
headers, metrics and log line.
"""

import asyncio
import logging
import math
import random
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import get_args

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from newshelf.config import GatewaySettings, Language
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
from newshelf.gateway.connections import peer_of
from newshelf.gateway.context import SCOPE, RequestContext, deadline_of, json_response
from newshelf.gateway.keys import KeyAccess, scope_of
from newshelf.gateway.models import ModelName
from newshelf.gateway.observability import GatewayMetrics, RequestLog, Spans
from newshelf.gateway.open_inference import with_error
from newshelf.gateway.openapi import DOCS, DOCS_FILES
from newshelf.gateway.pages import HEADERS, error_page, page_paths
from newshelf.gateway.translation import ENGLISH, in_language, preferred_language
from newshelf.serving.products import refuse_coding
from newshelf.serving.protocol import Deadline

_LOG = logging.getLogger(__name__)
_TRACE_PARENT = b"traceparent"
_NO_ROUTE: dict[int, type[NewshelfError]] = {404: NotFound, 405: MethodNotAllowed}
_PROBES = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
_MODELS = {f"/v2/models/{name}{end}" for name in get_args(ModelName) for end in ("", "/ready")}
_OPEN_TO_ALL = _PROBES | _MODELS | {"/v2", DOCS, "/openapi.json"}
_FILES_OPEN_TO_ALL = DOCS_FILES + "/"
_ID_BITS = 128
_HUNG_UP = 499
"""nginx's code for a client that disconnected."""
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
_VARY = (b"vary", b"accept-language")
_CLOSED = [(b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"), *_HEADERS]
# Swagger UI has inline scripts and styles.
_FOR_DOCS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'",
    ),
    *_HEADERS,
]


@dataclass(eq=False)
class Middleware:
    """Wraps an ASGI application; metrics name paths that are not served ``other``."""

    app: ASGIApp
    access: KeyAccess
    metrics: GatewayMetrics
    spans: Spans
    log: RequestLog
    settings: GatewaySettings
    routes: Collection[str]

    def __post_init__(self) -> None:
        # Request ids are no secrets; asking the system for each would cost more than its request.
        self._random = random.Random(secrets.randbits(_ID_BITS))  # noqa: S311
        self._in_progress = 0
        self._pages = page_paths(self.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1002})
            return
        headers = dict(scope["headers"])
        context = RequestContext(
            f"{self._random.getrandbits(_ID_BITS):032x}",
            time.perf_counter(),
            Deadline.after(self.settings.timeout_ms),
            task=asyncio.current_task(),
        )
        scope[SCOPE] = context
        route = self._route(scope["path"])
        accept = headers.get(b"accept-language")
        fixed = accept is None or scope["path"] in _OPEN_TO_ALL
        language = ENGLISH if fixed else preferred_language(accept)
        browsed = self._is_page(scope["path"])
        sent = HEADERS if browsed else _FOR_DOCS if route == DOCS else _CLOSED
        answer = _Answer(send, context, sent, language)
        answer.page = Request(scope) if browsed else None
        answer.open_inference = scope["path"].startswith("/v2")
        self._in_progress += 1
        with self.spans.request(route, headers.get(_TRACE_PARENT)):
            try:
                self._admit(scope, headers, context)
                body = _Body(receive, self._max_bytes(scope["path"]), context)
                # HEAD is answered like GET; uvicorn omits the body.
                as_get = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
                await self.app(as_get, body.receive, answer.send)
            except (asyncio.CancelledError, ClientDisconnect) as error:
                if isinstance(error, asyncio.CancelledError) and not context.gone:
                    raise
                context.status, context.reason = _HUNG_UP, "client_hung_up"
            except NewshelfError as error:
                await answer.refuse(error)
            except HTTPException as error:
                kind = _NO_ROUTE.get(error.status_code, RequestError)
                asked = f"{scope['method']} {scope['path'][:100]}"
                await answer.refuse(kind(f"{asked}: {error.detail}; see /docs"))
            except Exception:
                _LOG.exception("internal error in request %s", context.request_id)
                await answer.refuse(
                    NewshelfError(f"internal error; see the log for request {context.request_id}")
                )
            finally:
                self._in_progress -= 1
            self.spans.note(request_id=context.request_id, status=context.status)
        self.metrics.request(route, context.status, context.spent_ms / 1000)
        self.log.request(context, scope["method"], route)

    def _is_page(self, path: str) -> bool:
        return f"{path}/".startswith(self._pages)

    def _route(self, path: str) -> str:
        """Return the served path, with a name in braces for an id at its end, or ``other``."""
        if path in self.routes:
            return path
        named = ((one.partition("{")[0], one) for one in self.routes if "{" in one)
        return next((route for prefix, route in named if path.startswith(prefix)), "other")

    def _admit(self, scope: Scope, headers: dict[bytes, bytes], context: RequestContext) -> None:
        path = scope["path"]
        if self._in_progress > self.settings.max_requests and path not in _PROBES:
            raise Unavailable("too many requests in progress; try again")
        context.address = peer_of(scope["client"])
        if self._is_page(path):
            self.access.visit(context.address, self.settings.shop.rate_per_s)
        elif path not in _OPEN_TO_ALL and not path.startswith(_FILES_OPEN_TO_ALL):
            context.key = self.access.admit(headers.get(b"authorization"), path, context.address)
        max_bytes = self._max_bytes(path)
        # Changes of the shop and of units wait for the store, and for large bodies.
        patient = scope_of(path) in {"items", "admin"}
        context.deadline = deadline_of(
            headers,
            default_ms=self.settings.max_timeout_ms if patient else self.settings.timeout_ms,
            max_ms=self.settings.max_timeout_ms,
        )
        if (coding := headers.get(b"content-encoding")) is not None:
            refuse_coding(coding.decode("latin-1"))
        length = headers.get(b"content-length")
        if length is not None and int(length) > max_bytes:
            raise _too_large(max_bytes)

    def _max_bytes(self, path: str) -> int:
        settings = self.settings
        items = scope_of(path) == "items"
        return settings.max_items_body_bytes if items else settings.max_body_bytes


class _Body:
    """Reads a body, and refuses one that is too large or too slow."""

    def __init__(self, receive: Receive, max_bytes: int, context: RequestContext) -> None:
        self._receive = receive
        self._left = self._max = max_bytes
        self._context = context
        self._ended = self._late = False

    async def receive(self) -> Message:
        if self._ended:
            # This waits for the client to disconnect, without a limit.
            return await self._receive()
        # asyncio.timeout costs several microseconds per request.
        loop = asyncio.get_running_loop()
        timer = loop.call_at(self._context.deadline.loop_s, self._give_up)
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if not self._late:
                raise
            raise RequestTimeout("the request's body did not arrive in time") from None
        finally:
            timer.cancel()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large(self._max)
        self._ended = not message.get("more_body", False)
        return message

    def _give_up(self) -> None:
        self._late = True
        if self._context.task is not None:
            self._context.task.cancel()


class _Answer:
    def __init__(
        self,
        send: Send,
        context: RequestContext,
        headers: Sequence[tuple[bytes, bytes]],
        language: Language,
    ) -> None:
        self._send = send
        self._context = context
        self._headers = headers
        self._language = language
        self.open_inference = False
        self.page: Request | None = None
        """The request of a browser, whose errors are pages."""
        self._began = False
        self._untranslated: Message | None = None
        """Start of an answer whose body is awaited, as its length will change."""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._began = True
            self._context.status = message["status"]
            request_id = (b"x-request-id", self._context.request_id.encode())
            own = [*message["headers"], request_id, *self._headers]
            is_json = (b"content-type", b"application/json") in own
            if is_json:
                own += [(b"content-language", self._language.encode()), _VARY]
            message["headers"] = own
            if is_json and self._language != ENGLISH:
                self._untranslated = message
                return
        if self._untranslated is not None:
            start, self._untranslated = self._untranslated, None
            if not message.get("more_body", False):
                body = in_language(message.get("body", b""), self._language)
                length = (b"content-length", str(len(body)).encode())
                others = [header for header in start["headers"] if header[0] != length[0]]
                start, message = {**start, "headers": [*others, length]}, {**message, "body": body}
            await self._send(start)
        await self._send(message)

    async def refuse(self, error: NewshelfError) -> None:
        """Answer with an error; if an answer has begun, raise it to break the connection."""
        self._context.reason = error.code
        if self._began:
            self._context.status = error.http_status
            raise error
        said = with_error(error.body()) if self.open_inference else error.body()
        response = json_response(said) if self.page is None else error_page(self.page, error)
        body, headers = response.body, response.raw_headers
        if isinstance(error, Unauthorized):
            headers.append((b"www-authenticate", b"Bearer"))
        if isinstance(error, RateLimited):
            headers.append((b"retry-after", str(math.ceil(error.retry_after_s)).encode()))
        await self.send(
            {"type": "http.response.start", "status": error.http_status, "headers": headers}
        )
        await self.send({"type": "http.response.body", "body": body})


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the body has more than {max_bytes} bytes")
