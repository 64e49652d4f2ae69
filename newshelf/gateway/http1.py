"""One connection to TorchServe: HTTP/1.1, one request at a time, kept open.

httptools parses; what a general client does besides (redirects, cookies, proxies, content
codings) costs more here than the rest of the gateway's work on a request.
"""

import asyncio
from dataclasses import dataclass
from typing import cast

import httptools

__all__ = ["Connection", "ConnectionLost", "Reply"]

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
