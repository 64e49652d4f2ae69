"""One request on its way through the gateway: what belongs to it, and what is told of it."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from newshelf.gateway.deadline import Deadline

__all__ = ["SCOPE", "Call"]

SCOPE = "newshelf.call"
"""Where it is found in the request's ASGI scope."""


@dataclass(slots=True)
class Call:
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
