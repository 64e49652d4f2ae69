"""A token bucket: so many requests each second, and some at once."""

__all__ = ["TokenBucket"]


class TokenBucket:
    """Fills evenly, and holds what ``burst`` requests take.

    Args:
        rate_per_s: tokens that come each second.
        burst: tokens that it holds at most, and at the beginning.
        now_s: any clock that only goes on, the same in every call.
    """

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._at_s = now_s

    def take(self, now_s: float, tokens: int = 1) -> float:
        """Take tokens if there is one: more than there are become a debt, which is paid first.

        Returns:
            0 when they were taken; else the seconds until there is one.
        """
        came = (now_s - self._at_s) * self._rate_per_s
        self._tokens = min(self._burst, self._tokens + came)
        self._at_s = now_s
        if self._tokens >= 1:
            self._tokens -= tokens
            return 0.0
        return (1 - self._tokens) / self._rate_per_s
