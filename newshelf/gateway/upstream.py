"""Asks TorchServe: kept connections, a deadline for each request, few and safe retries."""

import asyncio
from collections import deque
from urllib.parse import urlsplit

from newshelf.errors import DeadlineExceeded, Unavailable
from newshelf.gateway.deadline import Deadline
from newshelf.gateway.http1 import Connection, ConnectionLost, Reply
from newshelf.serving.deadline import sent_now
from newshelf.serving.protocol import SENT_HEADER, TIMEOUT_HEADER

__all__ = ["RetryBudget", "Upstream"]


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
