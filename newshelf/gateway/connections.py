"""The sockets of one process: uvicorn's HTTP protocol, with limits on what a peer may hold.

A connection is *busy* from a request's head to the end of its answer, and *waits* otherwise.
When there are too many, the one that has waited longest makes room for the new one, so idle
sockets keep nobody out; a busy one is never closed for another.
"""

import resource
from asyncio import TimerHandle, Transport
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from newshelf.config import GatewaySettings
from newshelf.errors import HeadTooLarge, NewshelfError, RequestError, RequestTimeout, Unavailable
from newshelf.gateway.call import SCOPE, Call

__all__ = ["Connections", "LimitedHttp", "raise_file_limit"]

Scope = MutableMapping[str, Any]

_OTHER_FILES = 512
"""Descriptors of a process that are no clients' connections: the model's, the store's, files."""
_MAX_HEADERS = 100
_MAX_PIPELINED = 16
_LINGER_S = 2.0
"""After a refusal the peer is still read from: closed at once, it might not see the answer."""


def raise_file_limit(settings: GatewaySettings) -> None:
    """Let this process and its children open as many files as there may be connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass
class _Group:
    """The connections of one peer, or all of them."""

    most: int
    open: int = 0
    waiting: "dict[LimitedHttp, None]" = field(default_factory=dict)
    """Those that are not busy, the one that has waited longest first."""


class Connections:
    """The open connections of one process.

    Args:
        settings: how many there may be, and how long each may take.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = settings.max_connections
        if files != resource.RLIM_INFINITY:
            most = max(2, min(most, files - _OTHER_FILES))
        self._all = _Group(most)
        self._each = settings.max_connections_per_peer or most // 2
        self._peers: dict[str, _Group] = {}

    def join(self, peer: str, connection: "LimitedHttp") -> tuple[_Group, ...]:
        """Count a new connection, which waits.

        Returns:
            What it is counted in; nothing when all others are busy.
        """
        groups = (self._peers.get(peer) or _Group(self._each), self._all)
        for group in groups:
            if group.open >= group.most:
                if not group.waiting:
                    return ()
                next(iter(group.waiting)).give_way()
        for group in groups:
            group.open += 1
            group.waiting[connection] = None
        self._peers[peer] = groups[0]
        return groups

    def leave(self, peer: str, connection: "LimitedHttp") -> None:
        """Forget a connection that ``join`` counted."""
        for group in (self._peers[peer], self._all):
            group.open -= 1
            group.waiting.pop(connection, None)
        if not self._peers[peer].open:
            del self._peers[peer]


class LimitedHttp(HttpToolsProtocol):
    """HTTP/1.1 on one connection.

    Args:
        connections: of this process.
        options: uvicorn's.
    """

    def __init__(self, *, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections
        self._settings = connections.settings
        self._peer = ""
        self._groups: tuple[_Group, ...] = ()
        self._running: Scope | None = None
        """Of the request that is being answered; the connection is busy."""
        self._in_head = self._in_body = False
        """What has begun to come and is not whole."""
        self._step = 0
        """Counts heads and bodies that began or were whole."""
        self._bare = 0
        """Bytes since a head, or a part of a body, was whole."""
        self._why: NewshelfError | None = None
        """Of a refusal by one of the parser's callbacks."""
        self._refused = False
        self._timer: TimerHandle | None = None

    def give_way(self) -> None:
        """End this connection at once."""
        self._forget()
        self.transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """See ``asyncio.Protocol``."""
        super().connection_made(transport)
        self._peer = _peer(self.client)
        self._groups = self._connections.join(self._peer, self)
        if self._groups:
            self._watch(progress=True)
        else:
            self._refuse(Unavailable("too many requests are under way; try again"))
            # Not read from any longer: it is not counted.
            self._forget()
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        super().connection_lost(exc)
        self._forget()
        if self._running is not None and SCOPE in self._running:
            call: Call = self._running[SCOPE]
            call.hang_up()

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        step, most = self._step, self._settings.max_head_bytes
        while data and not (self._refused or self.transport.is_closing()):
            part, data = data[: most - self._bare], data[most - self._bare :]
            self._bare += len(part)
            super().data_received(part)
            if self._bare >= most:
                self._refuse(HeadTooLarge(f"the head has {most} bytes or more"))
        if not self._refused:
            self._watch(progress=self._step != step)

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``: the peer does not read its answer."""
        super().pause_writing()
        self._watch(progress=True)

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        super().resume_writing()
        self._watch(progress=True)

    # What the parser calls. Raised errors end in ``send_400_response``.

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head = True
        self._step += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, of a head or after a body in chunks."""
        super().on_header(name, value)
        if len(self.headers) > _MAX_HEADERS:
            self._why = HeadTooLarge(f"the head has more than {_MAX_HEADERS} headers")
            raise self._why

    def on_headers_complete(self) -> None:
        """A head is whole."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise RequestError(f"more than {_MAX_PIPELINED} requests wait for their answers")
        self._in_head, self._in_body = False, True
        self._step += 1
        self._bare = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Part of a body."""
        self._bare = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._in_body = False
        self._step += 1
        self._bare = 0
        super().on_message_complete()

    # What uvicorn calls.

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what the parser did not take."""
        self._refuse(self._why or RequestError("the request is not HTTP/1.1"))

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that has waited too long, even if its last answer was not read."""
        self.transport.abort()

    def on_response_complete(self) -> None:
        """An answer has been written; the next request may be waiting already."""
        self._running = None
        for group in self._groups:
            group.waiting[self] = None
        super().on_response_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle.scope
        for group in self._groups:
            group.waiting.pop(self, None)
        super()._start_asgi_task(cycle, app)

    def _watch(self, *, progress: bool) -> None:
        """Limit the time of what the peer has to do next; anew after ``progress``."""
        settings, coming = self._settings, self._in_head or self._in_body
        idle = self._running is None and self.timeout_keep_alive_task is None
        if not (coming or idle or self.flow.write_paused):
            self._stop_timer()
        elif progress or self._timer is None:
            self._stop_timer()
            between = idle and not coming and self.cycle is not None
            limit_s = settings.keep_alive_s if between else settings.receive_timeout_s
            self._timer = self.loop.call_later(limit_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self._running is not None and not self.flow.write_paused:
            # Its body comes slowly; the request's own deadline judges that.
            self._watch(progress=True)
        elif self._in_head:
            limit_s = self._settings.receive_timeout_s
            self._refuse(RequestTimeout(f"the head was not whole after {limit_s:g} s"))
        else:
            self.transport.abort()

    def _refuse(self, error: NewshelfError) -> None:
        """Answer with an error and end the connection."""
        if self._running is not None:
            # Its answer would be taken for the one that is under way.
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
        self._stop_timer()
        self._timer = self.loop.call_later(_LINGER_S, self.transport.abort)

    def _forget(self) -> None:
        self._stop_timer()
        if self._groups:
            self._groups = ()
            self._connections.leave(self._peer, self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _peer(client: tuple[str, int] | None) -> str:
    """An address; of IPv6 its first half, since a host may have all of the other."""
    address = ip_address(client[0].partition("%")[0]) if client else None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(ip_network((address, 64), strict=False))
    return str(address)
