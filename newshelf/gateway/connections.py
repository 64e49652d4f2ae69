"""Client connections of one process: uvicorn's HTTP protocol, with limits per peer and in time.

A connection is *busy* from a request's headers to the end of its answer, and *waits* otherwise.
If there are too many, the one that has waited longest is closed for the new one; a busy one never
is.
"""

import re
from asyncio import TimerHandle, Transport
from collections import Counter
from collections.abc import MutableMapping
from ipaddress import IPv6Address, ip_address, ip_network
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from newshelf.config import GatewaySettings
from newshelf.errors import HeadTooLarge, NewshelfError, RequestError, RequestTimeout, Unavailable
from newshelf.gateway.context import SCOPE, RequestContext

_OTHER_FILES = 512
"""File descriptors for everything but clients: TorchServe, the store, files."""
_MAX_HEADERS = 100
_MAX_PIPELINED = 16
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
"""Java's client offers HTTP/2 with its first request: the parser would stop before the body."""
_LINGER_S = 2.0
"""Time to read from a refused peer: if closed at once, it may not see the answer."""


class Connections:
    """Open connections of one process, whose limit of open files it raises."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        soft, hard = getrlimit(RLIMIT_NOFILE)
        wanted = settings.max_connections + _OTHER_FILES
        files = wanted if hard == RLIM_INFINITY else min(wanted, hard)
        if soft != RLIM_INFINITY and soft < files:
            setrlimit(RLIMIT_NOFILE, (files, hard))
        self._most = max(2, files - _OTHER_FILES)
        self._most_per_peer = settings.max_connections_per_peer or self._most // 2
        self._open: Counter[str] = Counter()
        self._count = 0
        self.waiting: dict[LimitedHttp, None] = {}
        """The one that has waited longest comes first."""

    def join(self, new: "LimitedHttp") -> bool:
        """Add a connection; return whether there was room, or could be made."""
        if self._open[new.peer] >= self._most_per_peer:
            longest = next((one for one in self.waiting if one.peer == new.peer), None)
        elif self._count >= self._most:
            longest = next(iter(self.waiting), None)
        else:
            longest = new
        if longest is None:
            return False
        if longest is not new:
            longest.abort()
        self._open[new.peer] += 1
        self._count += 1
        self.waiting[new] = None
        return True

    def leave(self, one: "LimitedHttp") -> None:
        """Remove a connection that ``join`` added."""
        self.waiting.pop(one, None)
        self._open[one.peer] -= 1
        self._count -= 1
        if not self._open[one.peer]:
            del self._open[one.peer]


class LimitedHttp(HttpToolsProtocol):
    """HTTP/1.1 on one connection."""

    def __init__(self, *, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections
        self._settings = connections.settings
        self.peer = ""
        self._joined = self._refused = False
        self._running: MutableMapping[str, Any] | None = None
        """Scope of the request in progress: the connection is busy."""
        self._bare = 0
        """Bytes since the last complete head or part of a body."""
        self._why: NewshelfError = RequestError("the request is not HTTP/1.1")
        self._timer: TimerHandle | None = None

    def abort(self) -> None:
        """Close this connection at once."""
        self._leave()
        self.transport.abort()

    # Called by asyncio.

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """See ``asyncio.Protocol``."""
        super().connection_made(transport)
        self.peer = peer_of(self.client)
        self._joined = self._connections.join(self)
        self._watch(progress=True)
        if not self._joined:
            self._refuse(Unavailable("too many requests in progress; try again"))
            # Not counted, so it must not linger.
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        super().connection_lost(exc)
        self._leave()
        if self._running is not None and SCOPE in self._running:
            context: RequestContext = self._running[SCOPE]
            context.hang_up()

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        scope, cycle, most = self.scope, self.cycle, self._settings.max_head_bytes
        while data and not (self._refused or self.transport.is_closing()):
            part, data = data[: most - self._bare], data[most - self._bare :]
            self._bare += len(part)
            if _UPGRADE.search(part) and (self.cycle is None or not self.cycle.more_body):
                head, blank, rest = part.partition(b"\r\n\r\n")
                part = _UPGRADE.sub(b"\r\nx-not-served:", head) + blank + rest
            super().data_received(part)
            if self._bare >= most:
                self._refuse(HeadTooLarge(f"request line and headers have {most} bytes or more"))
        if not self._refused:
            self._watch(progress=self.scope is not scope or self.cycle is not cycle)

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``; the peer does not read its answer."""
        super().pause_writing()
        self._watch(progress=True)

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        super().resume_writing()
        self._watch(progress=True)

    # Called by the parser. Raised errors lead to ``send_400_response``.

    def on_headers_complete(self) -> None:
        """Handle complete headers."""
        if len(self.headers) > _MAX_HEADERS:
            self._why = HeadTooLarge(f"there are more than {_MAX_HEADERS} headers")
            raise self._why
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise RequestError(f"more than {_MAX_PIPELINED} requests wait for their answers")
        self._bare = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Handle part of a body."""
        self._bare = 0
        super().on_body(body)

    # Called by uvicorn.

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse a request that the parser rejected."""
        self._refuse(self._why)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has waited too long, even if its last answer was not read."""
        self.transport.abort()

    def on_response_complete(self) -> None:
        """Handle the end of an answer; the next request may already wait."""
        self._running = None
        if self._joined:
            self._connections.waiting[self] = None
        super().on_response_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle.scope
        self._connections.waiting.pop(self, None)
        super()._start_asgi_task(cycle, app)

    def _watch(self, *, progress: bool) -> None:
        """Limit the time of the peer's next step; ``progress`` restarts the timer."""
        idle = self._running is None and self.timeout_keep_alive_task is None
        coming = self._in_head() or (self.cycle is not None and self.cycle.more_body)
        if not (coming or idle or self.flow.write_paused):
            self._set_timer(None)
        elif progress or self._timer is None:
            self._set_timer(self._settings.receive_timeout_s)

    def _in_head(self) -> bool:
        """Return whether a request is arriving whose cycle has not begun."""
        return self.scope is not None and (self.cycle is None or self.cycle.scope is not self.scope)

    def _too_slow(self) -> None:
        if self._running is not None and not self.flow.write_paused:
            # A slow body: the request's own deadline applies.
            self._watch(progress=True)
        elif self._in_head() and not self._refused:
            limit_s = self._settings.receive_timeout_s
            self._refuse(RequestTimeout(f"the headers were not complete after {limit_s:g} s"))
        else:
            self.transport.abort()

    def _refuse(self, error: NewshelfError) -> None:
        if self._running is not None:
            # It would be taken for the answer in progress.
            self.transport.abort()
            return
        self._refused = True
        body = orjson.dumps(error.body())
        head = (
            b"content-type: application/json\r\ncache-control: no-store\r\n"
            b"x-content-type-options: nosniff\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        self.transport.write(STATUS_LINE[error.http_status] + head + body)
        self.transport.write_eof()
        self._set_timer(_LINGER_S)

    def _leave(self) -> None:
        self._set_timer(None)
        if self._joined:
            self._joined = False
            self._connections.leave(self)

    def _set_timer(self, limit_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        late = self._too_slow
        self._timer = None if limit_s is None else self.loop.call_later(limit_s, late)


def peer_of(client: tuple[str, int] | None) -> str:
    """Return the address; of IPv6 the first half, since a host may have the whole other half."""
    name = client[0].partition("%")[0] if client else ""
    try:
        address = ip_address(name)
    except ValueError:
        # A proxy names its client as it likes.
        return name
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(ip_network((address, 64), strict=False))
    return str(address)
