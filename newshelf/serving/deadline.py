"""A moment after which nobody waits for the answer."""

import re
import time

from newshelf.errors import DeadlineExceeded, InvalidField
from newshelf.serving.protocol import DEADLINE_HEADER, RawRequest

__all__ = ["check_deadline", "refuse_late"]

_MILLISECONDS = re.compile(r"-?[0-9]{1,18}")
"""Some 30 million years either way; a header has room for numbers that no clock knows."""


def check_deadline(request: RawRequest) -> int | None:
    """Refuse a request whose deadline has passed while it waited in the queue.

    Returns:
        The deadline in milliseconds since the epoch, for later checks; None without one.

    Raises:
        DeadlineExceeded: the moment has passed.
        InvalidField: the header is no number.
    """
    if request.deadline is None:
        return None
    text = request.deadline.strip()
    if not _MILLISECONDS.fullmatch(text):
        raise InvalidField(
            f"{text[:40]!r} is no time in milliseconds since the epoch", field=DEADLINE_HEADER
        )
    deadline_ms = int(text)
    refuse_late(deadline_ms)
    return deadline_ms


def refuse_late(deadline_ms: int | None) -> None:
    """Check once more, before something that costs.

    Raises:
        DeadlineExceeded: the moment, in milliseconds since the epoch, has passed.
    """
    if deadline_ms is None:
        return
    late_ms = time.time_ns() // 1_000_000 - deadline_ms
    if late_ms > 0:
        raise DeadlineExceeded(f"the deadline passed {late_ms} ms before the request's turn")
