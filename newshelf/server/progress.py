"""Whether started processes still get on, however slow the machine is."""

import time
from collections.abc import Callable

import psutil

from newshelf.server.process import ProcessRef, members

__all__ = ["OnWait", "Progress"]

OnWait = Callable[[str], None]
"""Told now and then what a start waits for."""
_LOOK_S = 1.0
_TELL_S = 15.0
_LEAST_SHARE, _LEAST_S = 0.02, 1.0
"""Of the limit: what idles, and answers a question now and then, uses less of a processor."""


class Progress:
    """Watches the processor time of a session that starts.

    Args:
        process: the session's.
        what: it waits for, in words.
        limit_s: without progress, after which the start has failed.
        on_wait: told about every quarter of a minute.
    """

    def __init__(self, process: ProcessRef, what: str, limit_s: float, on_wait: OnWait) -> None:
        self._process = process
        self._what = what
        self._limit_s = limit_s
        self._on_wait = on_wait
        self._began_s = self._moved_s = self._told_s = time.monotonic()
        self._looked_s = -_LOOK_S
        self._spent_s = 0.0

    def failed(self) -> bool:
        """Look, and say whether it stands still for too long; cheap to be called often."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            spent_s = sum(map(_spent_s, members(self._process)))
            # Less, when a process has ended: that is a change as well.
            if abs(spent_s - self._spent_s) >= max(_LEAST_S, _LEAST_SHARE * self._limit_s):
                self._spent_s, self._moved_s = spent_s, now_s
            if now_s - self._told_s >= _TELL_S:
                self._told_s = now_s
                self._on_wait(
                    f"waiting for {self._what}: {now_s - self._began_s:.0f} s, "
                    f"{spent_s:.0f} s of processor time"
                )
        return now_s - self._moved_s >= self._limit_s


def _spent_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
