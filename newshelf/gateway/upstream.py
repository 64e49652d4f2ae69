"""HTTP client for TorchServe: kept connections, a deadline per request, few and safe retries; and
TorchServe's inference token.

A connection has one request at a time, which httptools parses. A general client's redirects,
cookies, proxies and content codings would cost more than the rest of the gateway's work on a
request.

The token is read from TorchServe's key file, and renewed before it expires. A new token ends the
old one, and several processes share the file: a process whose token is refused first reads the file
again, and requests a new token only if the file's has expired.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools

from newshelf.errors import DeadlineExceeded, Overloaded, ServerError, Unavailable
from newshelf.server.state import Key, Keys, read_keys
from newshelf.serving.protocol import SENT_HEADER, TIMEOUT_HEADER, Deadline, sent_now

_MAX_BODY_BYTES = 16 * 1024 * 1024
"""More than TorchServe sends (``max_response_size``)."""
_OK = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    status: int
    content_type: str
    body: bytes


class ConnectionLost(Exception):
    """The connection ended, or the answer is not HTTP."""

    def __init__(self, reason: str, *, began: bool) -> None:
        super().__init__(reason)
        self.began = began
        """Whether a byte of the answer has arrived; the request must then not be repeated."""


class Connection(asyncio.Protocol):
    """One connection; ``usable`` tells whether another request may be sent."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Reply] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._began = False
        self._content_type = ""
        self._chunks: list[bytes] = []
        self._size = 0
        self.usable = False

    def send(self, request: bytes) -> "asyncio.Future[Reply]":
        """Send a complete request; return the future of its answer or ``ConnectionLost``."""
        if self._transport is None or self._waiter is not None:
            raise RuntimeError("not connected, or a request is in progress")
        self._parser = httptools.HttpResponseParser(self)
        self._began = False
        self._content_type = ""
        self._chunks, self._size = [], 0
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiter

    def close(self) -> None:
        """Close it at once."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = cast("asyncio.Transport", transport)
        self.usable = True

    def connection_lost(self, error: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self.usable = False
        self._fail(f"the connection was lost: {error}" if error else "the connection was closed")

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if self._waiter is None or self._parser is None:
            # An answer without a request.
            self.close()
            return
        self._began = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the answer is not HTTP: {error}")
            self.close()

    # Called by httptools.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Handle a header."""
        if name.lower() == b"content-type":
            self._content_type = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Handle a part of the body."""
        self._chunks.append(body)
        self._size += len(body)
        if self._size > _MAX_BODY_BYTES:
            self._fail(f"the answer has more than {_MAX_BODY_BYTES} bytes")
            self.close()

    def on_message_complete(self) -> None:
        """Handle the end of the answer."""
        parser, waiter = self._parser, self._waiter
        if parser is None or waiter is None:
            return
        self._parser = self._waiter = None
        if not parser.should_keep_alive():
            self.close()
        if not waiter.done():
            body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            waiter.set_result(Reply(parser.get_status_code(), self._content_type, body))

    def _fail(self, reason: str) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(ConnectionLost(reason, began=self._began))


_NEWEST = 1 / 32
"""Weight of the newest answer; earlier ones are forgotten exponentially."""


class Pace:
    """Seconds per request of a server's queue: Little's law, fitted by least squares.

    Long queues weigh most: only there, workers in parallel and full batches show.
    """

    def __init__(self) -> None:
        self._products_s = self._squares = 0.0

    def learn(self, place: int, spent_s: float) -> None:
        """Add an answer after ``spent_s`` to a request that was number ``place`` of the queue."""
        self._products_s += _NEWEST * (place * spent_s - self._products_s)
        self._squares += _NEWEST * (place * place - self._squares)

    def wait_s(self, ahead: int) -> float:
        """Return the seconds that ``ahead`` requests take; 0 before the first answer."""
        return ahead * self._products_s / self._squares if self._squares else 0.0


class Upstream:
    """Connections to one server, opened on demand and kept; as many requests may wait for one.

    Retries are limited to a share of the requests, so that they cannot overload a weak server: see
    "Addressing Cascading Failures" in Beyer et al., Site Reliability Engineering (2016).
    """

    def __init__(self, url: str, *, connections: int, retry_share: float) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._netloc = address.netloc
        self._connections = connections
        self._retry_share = retry_share
        self._most_retries = self._retries_left = max(10.0, connections) if retry_share else 0.0
        self._idle: list[Connection] = []
        self._open = 0
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._pace = Pace()
        self.retries = 0

    def admit(self, within_s: float) -> None:
        """Raise ``Overloaded`` if a request that is sent now would wait longer."""
        wait_s = self._pace.wait_s(self._open - len(self._idle) + len(self._waiting))
        if wait_s > within_s or len(self._waiting) >= self._connections:
            raise Overloaded("too many requests wait for the model server")

    async def post(self, path: str, body: bytes, authorization: str, deadline: Deadline) -> Reply:
        """``POST`` JSON for a prediction; retry if it was certainly not answered.

        Predictions change nothing, so a request may be repeated until a byte of its answer has
        arrived: the connection was refused, or a kept one had been closed.
        """
        place = self._open - len(self._idle) + len(self._waiting) + 1
        begun_s = time.monotonic()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"{authorization}{TIMEOUT_HEADER}: {max(0, int(deadline.left_s() * 1000))}\r\n"
            f"{SENT_HEADER}: {sent_now()}\r\n\r\n"
        )
        reply = await self._exchange(head.encode("latin-1") + body, deadline)
        if reply.status == _OK:
            self._pace.learn(place, time.monotonic() - begun_s)
        return reply

    async def get(self, path: str, authorization: str, deadline: Deadline) -> Reply:
        """``GET``; see ``post``."""
        head = f"GET {path} HTTP/1.1\r\nHost: {self._netloc}\r\n{authorization}\r\n"
        return await self._exchange(head.encode("latin-1"), deadline)

    async def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop().close()

    async def _exchange(self, request: bytes, deadline: Deadline) -> Reply:
        self._retries_left = min(self._most_retries, self._retries_left + self._retry_share)
        try:
            async with asyncio.timeout_at(deadline.loop_s):
                try:
                    return await self._once(request)
                except (ConnectionLost, OSError) as error:
                    began = isinstance(error, ConnectionLost) and error.began
                    if began or self._retries_left < 1:
                        raise
                    self._retries_left -= 1
                    self.retries += 1
                    return await self._once(request)
        except TimeoutError as error:
            raise DeadlineExceeded("the model did not answer before the deadline") from error
        except (ConnectionLost, OSError) as error:
            raise Unavailable(f"the model server cannot be reached: {error}") from error

    async def _once(self, request: bytes) -> Reply:
        connection = await self._acquire()
        try:
            return await connection.send(request)
        except BaseException:
            # Late, cancelled or lost: an answer may still arrive, which belongs to no request.
            connection.close()
            raise
        finally:
            self._pass_on(connection)

    async def _acquire(self) -> Connection:
        while self._idle:
            # The last used one: it is the least likely to have been closed since.
            connection = self._idle.pop()
            if connection.usable:
                return connection
            self._open -= 1
        if self._open >= self._connections:
            passed = await self._wait()
            return passed if passed is not None and passed.usable else await self._connect()
        self._open += 1
        return await self._connect()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            return (await loop.create_connection(Connection, self._host, self._port))[1]
        except BaseException:
            self._pass_on(None)
            raise

    async def _wait(self) -> Connection | None:
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled():
                self._pass_on(turn.result())
            raise

    def _pass_on(self, connection: Connection | None) -> None:
        """Give the longest waiting request the connection, or the place of one that is closed."""
        usable = connection if connection is not None and connection.usable else None
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(usable)
                return
        if usable is None:
            self._open -= 1
        else:
            self._idle.append(usable)


_EARLY = timedelta(minutes=1)


def refused(reply: Reply) -> bool:
    """Return whether TorchServe refused the token, and so did nothing."""
    return 400 <= reply.status < 404 and b"InvalidKeyException" in reply.body  # noqa: PLR2004


class Tokens:
    """The authorization header of predictions; without ``management`` it renews no token."""

    def __init__(self, key_file: Path | None, management: Upstream | None) -> None:
        self._key_file = key_file
        self._management = management
        self._key: Key | None = None
        self._renewing = asyncio.Lock()
        self.header = ""

    def read(self) -> None:
        """Read the token from the key file."""
        if self._key_file is not None:
            self._use(read_keys(self._key_file))

    async def refresh(self, deadline: Deadline) -> None:
        """Read the file, and renew an expired token."""
        if self._key_file is None:
            raise Unavailable("TorchServe requires a token, and no key file is named")
        async with self._renewing:
            try:
                keys = read_keys(self._key_file)
                if self._management is not None and _expired(keys.inference):
                    line = _line(keys.api)
                    reply = await self._management.get("/token?type=inference", line, deadline)
                    if reply.status != _OK:
                        raise Unavailable("TorchServe's token expired and was not renewed")
                    # TorchServe writes the new one into the file; the answer has no body.
                    keys = read_keys(self._key_file)
            except ServerError as error:
                raise Unavailable(error.message) from error
            self._use(keys)

    def stale(self) -> bool:
        """Return whether the token expires soon."""
        return self._key is not None and _expired(self._key)

    def _use(self, keys: Keys) -> None:
        self._key = keys.inference
        self.header = _line(keys.inference)


def _expired(key: Key) -> bool:
    return key.expired(datetime.now(UTC) + _EARLY)


def _line(key: Key) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in key.header().items())
