"""One request of each kind before any load: what would fail a thousand times is said once."""

import json
from collections.abc import Iterable, Mapping

import gevent
from geventhttpclient.response import HTTPSocketResponse

from loadtest.rendered import Rendered
from loadtest.traffic import BAD
from loadtest.wire import FAILURES, Connection, address_of, request_head
from newshelf.errors import ServerError

__all__ = ["check_server"]

_UNAUTHORIZED = (401, 403)
_MOST_CHARS = 300


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
