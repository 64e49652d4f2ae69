"""Deadlines of requests, in the gateway and in the workers, by the monotonic clock.

A header carries the milliseconds that are left. The time that a request waits between two
processes of one machine (in TorchServe's queue) counts, too: they share a monotonic clock, which
the sender names.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from newshelf.errors import DeadlineExceeded, InvalidField
from newshelf.serving.protocol import OLD_DEADLINE_HEADER, SENT_HEADER, TIMEOUT_HEADER, RawRequest

_MILLISECONDS = re.compile(r"[0-9]{1,12}")
"""Fewer digits than the milliseconds since 1970 have."""
_BOOT, _TIME = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/time")


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment after which nobody waits for an answer."""

    loop_s: float
    """Of ``time.monotonic``, which event loops use as well."""

    def left_s(self) -> float:
        """Return the seconds until the deadline; negative after it."""
        return self.loop_s - time.monotonic()

    def earlier(self, by_s: float) -> "Deadline":
        """Return the deadline ``by_s`` seconds before this one."""
        return Deadline(self.loop_s - by_s)

    @classmethod
    def after(cls, timeout_ms: float) -> "Deadline":
        """Return the deadline in ``timeout_ms``."""
        return cls(time.monotonic() + timeout_ms / 1000)


def check_deadline(request: RawRequest, max_timeout_ms: int) -> float:
    """Return a request's deadline, of ``time.monotonic``, and refuse one that waited too long."""
    left_s = timeout_ms(request.headers, max_timeout_ms, max_timeout_ms) / 1000
    clock, _, at_ms = request.headers.get(SENT_HEADER, "").partition(" ")
    if clock and clock == _clock() and _MILLISECONDS.fullmatch(at_ms):
        left_s -= max(0.0, request.arrived_s - int(at_ms) / 1000)
    deadline_s = request.arrived_s + left_s
    refuse_late(deadline_s)
    return deadline_s


def timeout_ms(headers: Mapping[str, str], default_ms: int, max_ms: int) -> int:
    """Return the milliseconds of ``TIMEOUT_HEADER``, at most ``max_ms``; names are in lower case.

    Raises ``InvalidField`` if it is not a number, or there is an ``OLD_DEADLINE_HEADER``.
    """
    if OLD_DEADLINE_HEADER in headers:
        raise InvalidField(
            f"clock times are not read: send the milliseconds that are left in {TIMEOUT_HEADER}",
            field=OLD_DEADLINE_HEADER,
        )
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return default_ms
    if not _MILLISECONDS.fullmatch(text.strip()):
        raise InvalidField(f"{text[:40]!r} is no number of milliseconds", field=TIMEOUT_HEADER)
    return min(int(text), max_ms)


def sent_now() -> str:
    """Return the value of ``SENT_HEADER`` for a request that is sent now."""
    return f"{_clock()} {int(time.monotonic() * 1000)}"


def refuse_late(deadline_s: float | None) -> None:
    """Check the deadline again, before expensive work."""
    if deadline_s is not None and (late_s := time.monotonic() - deadline_s) >= 0:
        raise DeadlineExceeded(
            f"the time was over {late_s * 1000:.0f} ms before the request's turn"
        )


@cache
def _clock() -> str:
    """Return a name of this machine's monotonic clock; empty if it has none."""
    try:
        return f"{_BOOT.read_text().strip()}.{_TIME.stat().st_ino}"
    except OSError:
        return ""
