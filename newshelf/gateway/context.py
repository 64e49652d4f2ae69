"""One request on its way through the gateway: what belongs to it, and what is told of it.

The moment after which nobody waits for an answer.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from newshelf.errors import DeadlineExceeded
from newshelf.serving.deadline import read_timeout
from newshelf.serving.protocol import OLD_DEADLINE_HEADER, TIMEOUT_HEADER

_HEADERS = {TIMEOUT_HEADER.encode(), OLD_DEADLINE_HEADER.encode()}


@dataclass(frozen=True, slots=True)
class Deadline:
    """One moment."""

    loop_s: float
    """Of ``time.monotonic``, by which event loops count."""

    def left_s(self) -> float:
        """Until then; negative afterwards."""
        return self.loop_s - time.monotonic()

    def earlier(self, by_s: float) -> "Deadline":
        """The moment ``by_s`` before."""
        return Deadline(self.loop_s - by_s)

    @classmethod
    def after(cls, timeout_ms: float) -> "Deadline":
        """The moment ``timeout_ms`` from now."""
        return cls(time.monotonic() + timeout_ms / 1000)


def deadline_of(headers: dict[bytes, bytes], *, timeout_ms: int, max_timeout_ms: int) -> Deadline:
    """When a request has to be answered.

    Args:
        headers: of the request, perhaps with ``TIMEOUT_HEADER``.
        timeout_ms: from now, for a request without it.
        max_timeout_ms: a later moment is brought forward to this one.

    Raises:
        InvalidField: it is no number.
        DeadlineExceeded: no time is left.
    """
    if _HEADERS.isdisjoint(headers):
        return Deadline.after(timeout_ms)
    left_ms = read_timeout(
        {name.decode(): text.decode("latin-1") for name, text in headers.items()}
    )
    if left_ms == 0:
        raise DeadlineExceeded("no time was left when the request came")
    return Deadline.after(timeout_ms if left_ms is None else min(left_ms, max_timeout_ms))


SCOPE = "newshelf.call"
"""Where it is found in the request's ASGI scope."""


@dataclass(slots=True)
class RequestContext:
    """Filled while the request is worked on."""

    request_id: str
    started_s: float
    """Of ``time.perf_counter``."""
    deadline: Deadline
    key: str | None = None
    """The name of the caller's key."""
    status: int = 500
    source: str | None = None
    """``model`` or ``fallback``."""
    reason: str | None = None
    """Why it was not the model."""
    version: str | None = None
    """Of the model that answered, or should have."""
    task: "asyncio.Task[Any] | None" = None
    """Answers the request."""
    gone: bool = False
    """Whether the client hung up."""

    def hang_up(self) -> None:
        """Stop working: nobody waits for the answer."""
        self.gone = True
        if self.task is not None:
            self.task.cancel()

    @property
    def spent_ms(self) -> float:
        """Since it came."""
        return (time.perf_counter() - self.started_s) * 1000
