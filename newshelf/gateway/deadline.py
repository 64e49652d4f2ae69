"""The moment after which nobody waits for an answer."""

import re
import time
from dataclasses import dataclass

from newshelf.errors import DeadlineExceeded, InvalidField
from newshelf.serving.protocol import DEADLINE_HEADER

__all__ = ["Deadline", "deadline_of"]

_MILLISECONDS = re.compile(rb"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Deadline:
    """One moment on two clocks."""

    epoch_ms: int
    """As TorchServe's workers are told."""
    loop_s: float
    """Of ``time.monotonic``, by which event loops count."""

    def left_s(self) -> float:
        """Until then; negative afterwards."""
        return self.loop_s - time.monotonic()

    def earlier(self, by_s: float) -> "Deadline":
        """The moment ``by_s`` before."""
        return Deadline(self.epoch_ms - int(by_s * 1000), self.loop_s - by_s)

    @classmethod
    def after(cls, timeout_ms: float) -> "Deadline":
        """The moment ``timeout_ms`` from now."""
        return cls(
            time.time_ns() // 1_000_000 + int(timeout_ms), time.monotonic() + timeout_ms / 1000
        )


def deadline_of(header: bytes | None, *, timeout_ms: int, max_timeout_ms: int) -> Deadline:
    """When a request has to be answered.

    Args:
        header: the request's ``DEADLINE_HEADER``, in milliseconds since the epoch.
        timeout_ms: from now, for a request without one.
        max_timeout_ms: a later moment is brought forward to this one.

    Raises:
        InvalidField: it is no number.
        DeadlineExceeded: the moment has passed.
    """
    if header is None:
        return Deadline.after(timeout_ms)
    if not _MILLISECONDS.fullmatch(header.strip()):
        raise InvalidField(
            f"{header[:40].decode('latin-1')!r} is no time in milliseconds since the epoch",
            field=DEADLINE_HEADER,
        )
    left_ms = int(header) - time.time_ns() // 1_000_000
    if left_ms <= 0:
        raise DeadlineExceeded(f"the deadline passed {-left_ms} ms before the request came")
    return Deadline.after(min(left_ms, max_timeout_ms))
