"""Asks TorchServe: kept connections, a deadline for each request, few and safe retries.

One connection to TorchServe: HTTP/1.1, one request at a time, kept open.

httptools parses; what a general client does besides (redirects, cookies, proxies, content
codings) costs more here than the rest of the gateway's work on a request.

TorchServe's inference token: read from its key file, renewed before it expires.

A renewed token ends the old one, and several processes share the file; so whoever is
refused reads the file again first, and asks for a new token only when the file's own has
expired.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools

from newshelf.errors import DeadlineExceeded, ServerError, Unavailable
from newshelf.server.state import Key, Keys, read_keys
from newshelf.serving.deadline import Deadline, sent_now
from newshelf.serving.protocol import SENT_HEADER, TIMEOUT_HEADER

_MAX_BODY_BYTES = 16 * 1024 * 1024
"""Above what TorchServe sends (``max_response_size``); who sends more is no TorchServe."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    status: int
    content_type: str
    body: bytes


class ConnectionLost(Exception):
    """The connection ended, or what came is no HTTP."""

    def __init__(self, reason: str, *, began: bool) -> None:
        super().__init__(reason)
        self.began = began
        """Whether a byte of the answer had come, so that the request must not be repeated."""


class Connection(asyncio.Protocol):
    """A connection; ``usable`` says whether another request may be sent."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Reply] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._began = False
        self._content_type = ""
        self._parts: list[bytes] = []
        self._size = 0
        self.usable = False

    def send(self, request: bytes) -> "asyncio.Future[Reply]":
        """Send a whole request.

        Returns:
            Its answer; or ``ConnectionLost`` as its exception.
        """
        if self._transport is None or self._waiter is not None:
            raise RuntimeError("not connected, or a request is under way")
        self._parser = httptools.HttpResponseParser(self)
        self._began = False
        self._content_type = ""
        self._parts, self._size = [], 0
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiter

    def close(self) -> None:
        """End it at once, whatever is under way."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

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
            # An answer that nobody asked for.
            self.close()
            return
        self._began = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the answer is no HTTP: {error}")
            self.close()

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if name.lower() == b"content-type":
            self._content_type = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """One part of the body."""
        self._parts.append(body)
        self._size += len(body)
        if self._size > _MAX_BODY_BYTES:
            self._fail(f"the answer has more than {_MAX_BODY_BYTES} bytes")
            self.close()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        parser, waiter = self._parser, self._waiter
        if parser is None or waiter is None:
            return
        self._parser = self._waiter = None
        if not parser.should_keep_alive():
            self.close()
        if not waiter.done():
            body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            waiter.set_result(Reply(parser.get_status_code(), self._content_type, body))

    def _fail(self, reason: str) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(ConnectionLost(reason, began=self._began))


class RetryBudget:
    """Retries may be a share of the requests, so that they cannot bring down who is weak.

    After "Addressing Cascading Failures" in Beyer et al., Site Reliability Engineering (2016).
    """

    def __init__(self, share: float, burst: float) -> None:
        self._share = share
        self._burst = burst
        self._tokens = burst

    def request(self) -> None:
        """Count one request."""
        self._tokens = min(self._burst, self._tokens + self._share)

    def take(self) -> bool:
        """Whether one may be sent again."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Upstream:
    """Connections to one server, opened as they are needed and kept.

    Args:
        url: ``http://HOST:PORT``.
        connections: at most; as many more requests wait for one, further ones are refused.
        retry_share: of the requests that may be sent twice, beside a few at once.
    """

    def __init__(self, url: str, *, connections: int, retry_share: float) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._netloc = address.netloc
        self._connections = connections
        self._budget = RetryBudget(retry_share, burst=max(10, connections) if retry_share else 0)
        self._idle: list[Connection] = []
        self._open = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.retries = 0
        """How many requests were sent again."""

    async def post(self, path: str, body: bytes, authorization: str, deadline: Deadline) -> Reply:
        """``POST`` JSON for a prediction, again if it was certainly not answered.

        Predictions change nothing, so a request may be repeated as long as no byte of its
        answer has come: the connection was refused, or a kept one had been closed.

        Raises:
            DeadlineExceeded: there was no answer in time.
            Unavailable: no connection, or it broke.
        """
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"{authorization}{TIMEOUT_HEADER}: {max(0, int(deadline.left_s() * 1000))}\r\n"
            f"{SENT_HEADER}: {sent_now()}\r\n\r\n"
        )
        return await self._exchange(head.encode("latin-1") + body, deadline)

    async def get(self, path: str, authorization: str, deadline: Deadline) -> Reply:
        """``GET``; see ``post``."""
        head = f"GET {path} HTTP/1.1\r\nHost: {self._netloc}\r\n{authorization}\r\n"
        return await self._exchange(head.encode("latin-1"), deadline)

    async def close(self) -> None:
        """End the kept connections."""
        while self._idle:
            self._idle.pop().close()

    async def _exchange(self, request: bytes, deadline: Deadline) -> Reply:
        self._budget.request()
        try:
            async with asyncio.timeout_at(deadline.loop_s):
                try:
                    return await self._once(request)
                except (ConnectionLost, OSError) as error:
                    if isinstance(error, ConnectionLost) and error.began:
                        raise
                    if not self._budget.take():
                        raise
                    self.retries += 1
                    return await self._once(request)
        except TimeoutError as error:
            raise DeadlineExceeded("the model did not answer before the deadline") from error
        except (ConnectionLost, OSError) as error:
            raise Unavailable(f"the model server cannot be asked: {error}") from error

    async def _once(self, request: bytes) -> Reply:
        connection = await self._acquire()
        try:
            return await connection.send(request)
        except BaseException:
            # Late, cancelled or broken: the answer may still come, and belongs to nobody.
            connection.close()
            raise
        finally:
            self._release(connection)

    async def _acquire(self) -> Connection:
        while True:
            while self._idle:
                # The one used last: it is the least likely to have been closed meanwhile.
                connection = self._idle.pop()
                if connection.usable:
                    return connection
                self._open -= 1
            if self._open < self._connections:
                return await self._connect()
            await self._wait()

    async def _connect(self) -> Connection:
        self._open += 1
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, self._host, self._port)
        except BaseException:
            self._open -= 1
            self._wake()
            raise
        return connection

    async def _wait(self) -> None:
        if len(self._waiting) >= self._connections:
            raise Unavailable("too many requests wait for the model server")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                # Its turn had come: the next one's, then.
                self._wake()
            raise

    def _release(self, connection: Connection) -> None:
        if connection.usable:
            self._idle.append(connection)
        else:
            self._open -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


_EARLY = timedelta(minutes=1)
_OK = 200


def refused(reply: Reply) -> bool:
    """Whether TorchServe refused the token, and so did nothing."""
    return 400 <= reply.status < 404 and b"InvalidKeyException" in reply.body  # noqa: PLR2004


class Tokens:
    """The header that predictions need.

    Args:
        key_file: None where TorchServe asks for no token.
        management: where new tokens are asked for; None renews nothing, and reads what
            somebody else wrote.
    """

    def __init__(self, key_file: Path | None, management: Upstream | None) -> None:
        self._key_file = key_file
        self._management = management
        self._key: Key | None = None
        self._renewing = asyncio.Lock()
        self.header = ""
        """A whole header line, or nothing."""

    def read(self) -> None:
        """Take the token of the key file.

        Raises:
            ServerError: it cannot be read.
        """
        if self._key_file is not None:
            self._take(read_keys(self._key_file))

    async def refresh(self, deadline: Deadline) -> None:
        """After a refusal, or when the time has come: read the file, and renew what expired.

        Raises:
            Unavailable: there is no new token.
        """
        if self._key_file is None:
            raise Unavailable("TorchServe asks for a token, and no key file is named")
        async with self._renewing:
            try:
                keys = read_keys(self._key_file)
                if self._management is not None and _expired(keys.inference):
                    line = _line(keys.api)
                    reply = await self._management.get("/token?type=inference", line, deadline)
                    if reply.status != _OK:
                        raise Unavailable("TorchServe's token expired and was not renewed")
                    # The new one is in the file; the answer has no body.
                    keys = read_keys(self._key_file)
            except ServerError as error:
                raise Unavailable(error.message) from error
            self._take(keys)

    def stale(self) -> bool:
        """Whether the token expires so soon that it should be renewed."""
        return self._key is not None and _expired(self._key)

    def _take(self, keys: Keys) -> None:
        self._key = keys.inference
        self.header = _line(keys.inference)


def _expired(key: Key) -> bool:
    return key.expired(datetime.now(UTC) + _EARLY)


def _line(key: Key) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in key.header().items())
