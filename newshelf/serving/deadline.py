"""The moment after which nobody waits for an answer, by the clock that only goes forward.

What travels is the time that is left. What a request waits between two processes of one machine
(in TorchServe's queue) counts, too: they share a monotonic clock, which the sender names.
"""

import re
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from newshelf.errors import DeadlineExceeded, InvalidField
from newshelf.serving.protocol import OLD_DEADLINE_HEADER, SENT_HEADER, TIMEOUT_HEADER, RawRequest

_MILLISECONDS = re.compile(r"[0-9]{1,12}")
"""Fewer than the milliseconds since 1970 have."""
_BOOT, _TIME = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/time")


def check_deadline(request: RawRequest, max_timeout_ms: int) -> float:
    """Refuse a request that waited for too long in the queue.

    Args:
        request: perhaps with a time that it names.
        max_timeout_ms: from its arrival, for one that names none, or a longer one.

    Returns:
        When it has to be answered, of ``time.monotonic``, for ``refuse_late``.

    Raises:
        DeadlineExceeded: its time is over.
        InvalidField: the header is no number.
    """
    timeout_ms = read_timeout(request.headers)
    left_ms = max_timeout_ms if timeout_ms is None else min(timeout_ms, max_timeout_ms)
    clock, _, at_ms = request.headers.get(SENT_HEADER, "").partition(" ")
    left_s = left_ms / 1000
    if clock and clock == _clock() and _MILLISECONDS.fullmatch(at_ms):
        left_s -= max(0.0, request.arrived_s - int(at_ms) / 1000)
    deadline_s = request.arrived_s + left_s
    refuse_late(deadline_s)
    return deadline_s


def read_timeout(headers: Mapping[str, str]) -> int | None:
    """The milliseconds that ``TIMEOUT_HEADER`` names; None without one.

    Raises:
        InvalidField: it is no number, or there is an ``OLD_DEADLINE_HEADER``.
    """
    if OLD_DEADLINE_HEADER in headers:
        raise InvalidField(
            f"moments of a clock are not read: send the milliseconds that are left in "
            f"{TIMEOUT_HEADER}",
            field=OLD_DEADLINE_HEADER,
        )
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    if not _MILLISECONDS.fullmatch(text.strip()):
        raise InvalidField(f"{text[:40]!r} is no number of milliseconds", field=TIMEOUT_HEADER)
    return int(text)


def sent_now() -> str:
    """The value of ``SENT_HEADER`` for a request that is sent now."""
    return f"{_clock()} {int(time.monotonic() * 1000)}"


def refuse_late(deadline_s: float | None) -> None:
    """Check once more, before something that costs.

    Args:
        deadline_s: of ``time.monotonic``; None for none.

    Raises:
        DeadlineExceeded: it has passed.
    """
    if deadline_s is not None and (late_s := time.monotonic() - deadline_s) >= 0:
        raise DeadlineExceeded(
            f"the time was over {late_s * 1000:.0f} ms before the request's turn"
        )


@cache
def _clock() -> str:
    """Names this machine's monotonic clock; empty where it cannot be told from others."""
    try:
        return f"{_BOOT.read_text().strip()}.{_TIME.stat().st_ino}"
    except OSError:
        return ""
