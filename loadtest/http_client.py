"""A minimal HTTP/1.1 client, and the check of a server before a run.

Requests are bytes that are assembled once, before the run, so that the client's own cost stays
small compared with what it measures.
"""

import ssl
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import gevent
import gevent.socket
import httpx
from geventhttpclient.response import HTTPParseError, HTTPSocketResponse

from loadtest.requests import Rendered
from loadtest.traffic import BAD
from newshelf.errors import ServerError

FAILURES = (OSError, HTTPParseError)
"""Raised by ``HttpConnection.post`` when there is no response."""
_BLOCK = 65536
_UNAUTHORIZED = (401, 403)
_MAX_MESSAGE = 300


def address_of(url: str) -> tuple[str, int]:
    """Return host and port of ``http://HOST:PORT``.

    Raises:
        ValueError: the URL has another form.
    """
    address = urlsplit(url)
    if address.scheme != "http" or not address.hostname:
        raise ValueError(f"{url!r} is not an address: write http://HOST:PORT")
    return address.hostname, address.port or 80


def with_head(request: Rendered, url: str, headers: Mapping[str, str]) -> Rendered:
    """Return ``request`` as a whole ``POST``: its HTTP head, then its body."""
    fields = {
        "Host": urlsplit(url).netloc,
        "Content-Type": request.content_type,
        # A body has the same length each time.
        "Content-Length": str(request.size),
        **headers,
    }
    lines = [f"POST {request.path} HTTP/1.1", *(f"{key}: {value}" for key, value in fields.items())]
    return request.after_head("\r\n".join([*lines, "", ""]).encode("latin-1"))


class HttpConnection:
    """A connection to the server that is opened when first needed."""

    def __init__(
        self, address: tuple[str, int], *, source: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        """Remember the address. Waits have no timeout: the caller limits the whole exchange.

        Args:
            address: host and port.
            source: address of this machine to connect from; empty leaves it to the system.
            tls: a context of ``gevent.ssl``; None for plain HTTP.
        """
        self._address = address
        self._source = (source, 0) if source else None
        self._tls = tls
        self._socket: gevent.socket.socket | None = None

    def post(self, data: bytes) -> HTTPSocketResponse:
        """Send head and body, and wait for the response's head; its ``read`` waits for the rest.

        Raises:
            OSError: the connection cannot be opened, or breaks.
            HTTPParseError: the response is not HTTP, or ends early.
        """
        if self._socket is None:
            opened = gevent.socket.create_connection(self._address, source_address=self._source)
            opened.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
            if self._tls is not None:
                opened = self._tls.wrap_socket(opened, server_hostname=self._address[0])
            self._socket = opened
        self._socket.sendall(data)
        return HTTPSocketResponse(self._socket, block_size=_BLOCK, method="POST")

    def settle(self, response: HTTPSocketResponse) -> None:
        """Keep the connection for the next request unless the server closes it."""
        if response.should_close():
            self.close()

    def is_stale(self) -> bool:
        """Return whether the server has closed the connection since the last response."""
        if self._socket is None:
            return False
        try:
            # Between responses there is nothing to read except the end.
            self._socket._sock.recv(1, gevent.socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Close the socket; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def check_server(
    url: str,
    headers: Mapping[str, str],
    requests: Iterable[Rendered],
    *,
    number: int,
    timeout_s: float,
) -> dict[str, str]:
    """Send the first good request of each kind, so that a mistake is reported once.

    Requests have no HTTP head yet; ``number`` makes fresh ones fresh.

    Returns:
        The version of each model, where the response has it.

    Raises:
        ServerError: no server listens, it refuses the token, or a good request fails.
    """
    firsts: dict[str, Rendered] = {}
    for request in requests:
        firsts.setdefault(request.kind, request)
    firsts.pop(BAD, None)
    models: dict[str, str] = {}
    with httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False) as http:
        for request in firsts.values():
            kind = {"Content-Type": request.content_type}
            try:
                response = http.post(request.path, content=request.body(number), headers=kind)
            except httpx.TimeoutException:
                raise ServerError(f"{url} did not respond within {timeout_s:g} s") from None
            except httpx.TransportError as error:
                raise ServerError(
                    f"no server responds at {url} ({error}); ./run serve --detach starts one"
                ) from error
            if response.status_code != request.expected:
                raise ServerError(_refusal(url, request, response))
            version = _field(response, "model_version")
            if version:
                models[request.path.rpartition("/")[2]] = version
    return models


def _refusal(url: str, request: Rendered, response: httpx.Response) -> str:
    status = response.status_code
    message = (_field(response, "message") or response.text[:_MAX_MESSAGE]).strip()
    if status in _UNAUTHORIZED or "token" in message.lower():
        return f"{url} refuses the token ({status}: {message})"
    return f"{url} answers a good request, {request.kind!r}, with {status}: {message}"


def _field(response: httpx.Response, name: str) -> str | None:
    try:
        return str(response.json()[name])
    except (KeyError, TypeError, ValueError):
        return None
