"""HTTP/1.1 as bytes on a socket: requests are put together once, and answers read in blocks.

A client that builds every request anew would spend on it what it wants to measure.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

import gevent.socket
from geventhttpclient.response import HTTPParseError, HTTPSocketResponse

__all__ = ["FAILURES", "Connection", "address_of", "request_head"]

_BLOCK = 65536

FAILURES = (OSError, HTTPParseError)
"""What ``Connection.post`` raises when there is no answer."""


def address_of(url: str) -> tuple[str, int]:
    """Host and port of ``http://HOST:PORT``.

    Raises:
        ValueError: it is no such address.
    """
    address = urlsplit(url)
    if address.scheme != "http" or not address.hostname:
        raise ValueError(f"{url!r} is no address: write http://HOST:PORT")
    return address.hostname, address.port or 80


def request_head(
    url: str, path: str, content_type: str, size: int, headers: Mapping[str, str]
) -> bytes:
    """Everything of a ``POST`` before its body of ``size`` bytes."""
    fields = {
        "Host": urlsplit(url).netloc,
        "Content-Type": content_type,
        "Content-Length": str(size),
        **headers,
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{key}: {value}" for key, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Connection:
    """One connection to the server, opened when it is first needed."""

    def __init__(self, address: tuple[str, int], timeout_s: float | None) -> None:
        """``timeout_s`` is for each wait: to connect, to send, and for more of an answer.

        None leaves it to the caller how long all of it may take.
        """
        self._address = address
        self._timeout_s = timeout_s
        self._socket: gevent.socket.socket | None = None

    def post(self, request: bytes) -> HTTPSocketResponse:
        """Send head and body, and wait for the answer's head; its ``read`` waits for the rest.

        Raises:
            OSError: no connection, a broken one, or no answer in time.
            HTTPParseError: the answer is not HTTP, or ends early.
        """
        if self._socket is None:
            self._socket = self._open()
        self._socket.sendall(request)
        return HTTPSocketResponse(self._socket, block_size=_BLOCK, method="POST")

    def settle(self, response: HTTPSocketResponse) -> None:
        """Keep the connection for the next request, unless the answer's sender closes it."""
        if response.should_close():
            self.close()

    def is_stale(self) -> bool:
        """Whether the server has closed it since the last answer.

        One look, as careful clients take before they send by a connection that has idled.
        """
        if self._socket is None:
            return False
        try:
            # Between answers there is nothing to read, unless it is the end.
            self._socket._sock.recv(1, gevent.socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Forget the socket; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> gevent.socket.socket:
        opened = gevent.socket.create_connection(self._address, timeout=self._timeout_s)
        opened.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
        return opened
