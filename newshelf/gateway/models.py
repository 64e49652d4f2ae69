"""Predictions of a model version, behind a circuit breaker per version.

States of the breaker as in Nygard, Release It! (2007): *closed* lets requests through, *open* none,
and *half-open* one, whose outcome closes or opens it again.
"""

import asyncio
import enum
from collections import deque
from dataclasses import dataclass
from typing import Literal

import orjson

from newshelf.config import GatewaySettings
from newshelf.errors import DeadlineExceeded, NewshelfError, RequestError, TooLarge, Unavailable
from newshelf.gateway.upstream import Reply, Tokens, Upstream, refused
from newshelf.serving.protocol import Deadline


class BreakerState(enum.Enum):
    """State of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Opens when ``share`` of the last ``requests`` failed; tries one after ``open_s``."""

    def __init__(self, share: float, requests: int, open_s: float) -> None:
        self._share = share
        self._requests = requests
        self._open_s = open_s
        self._failed: deque[bool] = deque(maxlen=requests)
        self._until_s = 0.0
        self._probing = False
        self.state = BreakerState.CLOSED

    def allow(self, now_s: float) -> bool:
        """Return whether a request may be sent; its outcome must then be reported."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN and now_s >= self._until_s:
            self.state = BreakerState.HALF_OPEN
            self._probing = False
        if self.state is BreakerState.HALF_OPEN and not self._probing:
            self._probing = True
            return True
        return False

    def succeeded(self) -> None:
        """Report that the version answered."""
        if self.state is BreakerState.HALF_OPEN:
            self._failed.clear()
            self.state = BreakerState.CLOSED
        elif self.state is BreakerState.CLOSED:
            self._failed.append(False)

    def failed(self, now_s: float) -> None:
        """Report that it did not answer, or not in time."""
        if self.state is BreakerState.HALF_OPEN:
            self._open(now_s)
        elif self.state is BreakerState.CLOSED:
            self._failed.append(True)
            full = len(self._failed) == self._requests
            if full and sum(self._failed) >= self._share * self._requests:
                self._open(now_s)

    def forgotten(self) -> None:
        """Report that the outcome is unknown."""
        self._probing = False

    def _open(self, now_s: float) -> None:
        self._failed.clear()
        self._until_s = now_s + self._open_s
        self.state = BreakerState.OPEN


ModelName = Literal["encoder", "recommender"]

_OK = 200
_NOT_FOUND, _TOO_LARGE, _TOO_MANY = 404, 413, 429
_LATE = 504
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class _Version:
    """A model version; its own connections keep a slow challenger from taking control's."""

    path: str
    upstream: Upstream
    breaker: Breaker


@dataclass(eq=False)
class Models:
    """The models that TorchServe serves."""

    url: str
    tokens: Tokens
    settings: GatewaySettings

    def __post_init__(self) -> None:
        self._versions: dict[tuple[str, str], _Version] = {}

    async def ask(self, model: ModelName, version: str, body: bytes, deadline: Deadline) -> Reply:
        """Request a prediction of a version, by default TorchServe's; return 200 or a client error.

        Raises ``Unavailable`` when the version is down, overloaded, failing (breaker open) or did
        not answer, and ``DeadlineExceeded`` after the deadline, which TorchServe gets too.
        """
        served = self._versions.get((model, version)) or self._open(model, version)
        loop = asyncio.get_running_loop()
        left_s = deadline.loop_s - loop.time()
        if left_s <= 0:
            raise DeadlineExceeded("the deadline passed before the model could be asked")
        # Not the version's failure: it answers as fast as it can.
        served.upstream.admit(self.settings.max_wait_share * left_s)
        if not served.breaker.allow(loop.time()):
            raise Unavailable(f"{model} {version} keeps failing; its circuit breaker is open")
        try:
            reply = _checked(await self._post(served, body, deadline))
        except DeadlineExceeded:
            # A short timeout of the client says nothing about the model.
            if left_s * 1000 < self.settings.timeout_ms / 2:
                served.breaker.forgotten()
            else:
                served.breaker.failed(loop.time())
            raise
        except _InternalError:
            # One request failed, in a worker that runs.
            served.breaker.succeeded()
            raise
        except Unavailable:
            served.breaker.failed(loop.time())
            raise
        except BaseException:
            served.breaker.forgotten()
            raise
        served.breaker.succeeded()
        return reply

    def states(self) -> dict[tuple[str, str], BreakerState]:
        """Return the breaker's state of each model and version that was used."""
        return {name: one.breaker.state for name, one in self._versions.items()}

    async def close(self) -> None:
        """Close every connection."""
        for one in self._versions.values():
            await one.upstream.close()

    def _open(self, model: str, version: str) -> _Version:
        settings = self.settings
        opened = _Version(
            f"/predictions/{model}/{version}" if version else f"/predictions/{model}",
            Upstream(self.url, connections=settings.connections, retry_share=settings.retry_share),
            Breaker(settings.breaker_share, settings.breaker_requests, settings.breaker_open_s),
        )
        self._versions[model, version] = opened
        return opened

    async def _post(self, served: _Version, body: bytes, deadline: Deadline) -> Reply:
        header = self.tokens.header
        reply = await served.upstream.post(served.path, body, header, deadline)
        if not refused(reply):
            return reply
        await self.tokens.refresh(deadline)
        header = self.tokens.header
        return await served.upstream.post(served.path, body, header, deadline)


class _InternalError(Unavailable):
    """A worker's 500."""


def _checked(reply: Reply) -> Reply:
    status = reply.status
    if status == _OK:
        return reply
    said = _code_and_message(reply.body)
    if status == _LATE:
        raise DeadlineExceeded(said[1] or "the deadline passed before the request's turn")
    is_clients = status != _TOO_MANY and 400 <= status < _SERVER_ERROR  # noqa: PLR2004
    if is_clients and said[0] is not None:
        return reply
    if status == _NOT_FOUND:
        raise Unavailable("TorchServe does not serve this version")
    if status == _TOO_LARGE:
        raise TooLarge("the body is larger than TorchServe accepts")
    if is_clients and not refused(reply):
        raise RequestError(f"the model server refused the request ({status}): {said[1]}")
    if said[0] == NewshelfError.code:
        raise _InternalError(f"internal error of the model: {said[1]}")
    raise Unavailable(f"the model server answered {status}: {said[1] or 'no reason given'}")


def _code_and_message(body: bytes) -> tuple[str | None, str]:
    """Return the code (None in TorchServe's own errors, where it is a number) and the message."""
    try:
        table = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None, ""
    if not isinstance(table, dict):
        return None, ""
    code = table.get("code")
    return code if isinstance(code, str) else None, str(table.get("message", ""))[:200]
