"""A circuit breaker: a model version that fails is left alone for a while.

States as in Nygard, Release It! (2007): *closed* lets requests through, *open* none, and
*half-open* one, whose outcome closes or opens it again.
"""

import enum
from collections import deque

__all__ = ["Breaker", "BreakerState"]


class BreakerState(enum.Enum):
    """Whether requests pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Of one model version.

    Args:
        share: of the last requests that have to fail.
        requests: how many those are; with fewer it never opens.
        open_s: for how long it stays open.
    """

    def __init__(self, share: float, requests: int, open_s: float) -> None:
        self._share = share
        self._requests = requests
        self._open_s = open_s
        self._failed: deque[bool] = deque(maxlen=requests)
        self._until_s = 0.0
        self._probing = False
        self.state = BreakerState.CLOSED

    def allow(self, now_s: float) -> bool:
        """Whether a request may be sent; each that may must be told the outcome of."""
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
        """The version answered."""
        if self.state is BreakerState.HALF_OPEN:
            self._failed.clear()
            self.state = BreakerState.CLOSED
        elif self.state is BreakerState.CLOSED:
            self._failed.append(False)

    def failed(self, now_s: float) -> None:
        """It did not, or not in time."""
        if self.state is BreakerState.HALF_OPEN:
            self._open(now_s)
        elif self.state is BreakerState.CLOSED:
            self._failed.append(True)
            full = len(self._failed) == self._requests
            if full and sum(self._failed) >= self._share * self._requests:
                self._open(now_s)

    def forgotten(self) -> None:
        """Nobody waited for the outcome: it says nothing of the version."""
        self._probing = False

    def _open(self, now_s: float) -> None:
        self._failed.clear()
        self._until_s = now_s + self._open_s
        self.state = BreakerState.OPEN
