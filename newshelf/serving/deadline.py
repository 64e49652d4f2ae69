"""A moment after which nobody waits for the answer."""

import time

from newshelf.errors import DeadlineExceeded, InvalidField
from newshelf.serving.protocol import DEADLINE_HEADER, RawRequest

__all__ = ["check_deadline"]


def check_deadline(request: RawRequest) -> None:
    """Refuse a request whose deadline has passed while it waited in the queue.

    Raises:
        DeadlineExceeded: the moment has passed.
        InvalidField: the header is no number.
    """
    if request.deadline is None:
        return
    try:
        deadline_ms = int(request.deadline)
    except ValueError as error:
        raise InvalidField(
            f"{request.deadline[:40]!r} is no time in milliseconds since the epoch",
            field=DEADLINE_HEADER,
        ) from error
    late_ms = time.time() * 1000 - deadline_ms
    if late_ms > 0:
        raise DeadlineExceeded(f"the deadline passed {late_ms:.0f} ms before the request's turn")
