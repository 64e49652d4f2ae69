"""A minimal HTTP/1.1 client, and the check of a server before a run.

Requests are bytes that are assembled once, before the run, so that the client's own cost stays
small compared with what it measures.
"""

import json
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import gevent
import gevent.socket
from geventhttpclient.response import HTTPParseError, HTTPSocketResponse

from loadtest.requests import Rendered
from loadtest.traffic import BAD
from newshelf.errors import ServerError

_BLOCK = 65536
FAILURES = (OSError, HTTPParseError)
"""What ``Connection.post`` raises when there is no answer."""
_UNAUTHORIZED = (401, 403)
_MOST_CHARS = 300


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


def check_server(
    url: str,
    headers: Mapping[str, str],
    requests: Iterable[Rendered],
    *,
    number: int,
    timeout_s: float,
) -> dict[str, str]:
    """Send the first good request of each kind.

    Args:
        url: ``http://HOST:PORT``.
        headers: sent with each, such as the token.
        requests: what the run would send.
        number: makes fresh requests fresh.
        timeout_s: how long each answer is waited for.

    Returns:
        The version of each model that answered, where the answer tells it.

    Raises:
        ServerError: nobody listens, the token is refused, or a good request is not answered.
    """
    firsts: dict[str, Rendered] = {}
    for request in requests:
        firsts.setdefault(request.kind, request)
    firsts.pop(BAD, None)
    connection = Connection(address_of(url), None)
    models: dict[str, str] = {}
    try:
        for request in firsts.values():
            body = request.body(number)
            head = request_head(url, request.path, request.content_type, len(body), headers)
            status, answer = _ask(connection, url, head + body, timeout_s)
            if status != request.expected:
                raise ServerError(_refusal(url, request, status, answer))
            version = _field(answer, "model_version")
            if version:
                models[request.path.rpartition("/")[2]] = version
    finally:
        connection.close()
    return models


def _ask(connection: Connection, url: str, request: bytes, timeout_s: float) -> tuple[int, bytes]:
    try:
        with gevent.Timeout(timeout_s):
            response: HTTPSocketResponse = connection.post(request)
            answer = bytes(response.read())
    except gevent.Timeout:
        raise ServerError(f"{url} gave no answer within {timeout_s:g} s") from None
    except FAILURES as error:
        reason = getattr(error, "strerror", None) or error
        raise ServerError(
            f"nobody answers at {url} ({reason}); ./run serve --detach starts a server"
        ) from error
    connection.settle(response)
    return response.get_code(), answer


def _refusal(url: str, request: Rendered, status: int, answer: bytes) -> str:
    message = _field(answer, "message") or answer[:_MOST_CHARS].decode("utf-8", "replace")
    if status in _UNAUTHORIZED or "token" in message.lower():
        return f"{url} refuses the token ({status}: {message.strip()})"
    return f"{url} answers a good request, {request.kind!r}, with {status}: {message.strip()}"


def _field(answer: bytes, name: str) -> str | None:
    try:
        value = json.loads(answer)[name]
    except (KeyError, TypeError, ValueError):
        return None
    return str(value)
