"""The interface of predictors, free of torch and TorchServe, and the deadlines of requests.

``RawRequest`` in, ``Answer`` out; ``predict_isolated`` limits an internal error to the request that
causes it. A header carries the milliseconds that are left. The time that a request waits between
two processes of one machine (in TorchServe's queue) counts, too: they share a monotonic clock,
which the sender names.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

import orjson

from newshelf.errors import DeadlineExceeded, InvalidField, NewshelfError

TIMEOUT_HEADER = "x-newshelf-timeout-ms"
"""Request header: for how many milliseconds from now somebody waits for the answer."""
SENT_HEADER = "x-newshelf-sent"
"""Request header: when it was sent, by a clock that ``newshelf.serving.protocol`` names."""
OLD_DEADLINE_HEADER = "x-newshelf-deadline"
"""Refused: it had a moment of the sender's clock, which need not agree with the receiver's."""


@dataclass(frozen=True, slots=True)
class RawRequest:
    """One HTTP request as it came, not yet looked into."""

    parts: Mapping[str, bytes | bytearray]
    """``body`` for a plain body; otherwise the form's fields."""
    content_type: str = ""
    """The request's ``Content-Type`` with its parameters; empty when it has none."""
    request_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case names, not yet checked."""
    arrived_s: float = field(default_factory=time.monotonic)

    @classmethod
    def unhurried(cls, body: bytes) -> "RawRequest":
        """A request in JSON by this process itself, which waits however slow the machine is."""
        return cls({"body": body}, "application/json", arrived_s=math.inf)

    @classmethod
    def from_http(
        cls, parts: Mapping[str, object], headers: Mapping[str, object], request_id: str
    ) -> "RawRequest":
        """Build from the parts and headers of a model server, which may have decoded parts."""
        lowered = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
        return cls(
            parts={name: _as_bytes(value) for name, value in parts.items()},
            content_type=lowered.get("content-type", ""),
            request_id=request_id,
            headers=lowered,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer: a status and a JSON body."""

    status: int
    body: bytes


class Predictor(Protocol):
    """Answers a batch, one answer per row; a bad request gets its own 4xx."""

    def predict(self, rows: Sequence[RawRequest]) -> list[Answer]:
        """Answer every row."""
        ...


def json_answer(value: object) -> Answer:
    """A 200 with ``value`` as JSON; float32 arrays keep their shortest exact digits."""
    return Answer(200, orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))


def error_answer(error: NewshelfError) -> Answer:
    """``{"code", "message", "field"}`` with the status that the error stands for."""
    return Answer(error.http_status, orjson.dumps(error.body()))


def _as_bytes(value: object) -> bytes | bytearray:
    if isinstance(value, bytes | bytearray):
        return value
    if isinstance(value, str):
        return value.encode()
    return orjson.dumps(value)


_LOG = logging.getLogger(__name__)


def predict_isolated(
    predictor: Predictor, rows: Sequence[RawRequest], on_error: Callable[[], None] = lambda: None
) -> list[Answer]:
    """Answer every row whatever happens; call ``on_error`` after an unexpected error.

    When the batch raises, each row is tried alone, so that only the guilty one answers 500. The
    traceback goes to the log with the request's id; the client sees the id.
    """
    try:
        answers = predictor.predict(rows)
        if len(answers) != len(rows):
            raise NewshelfError(f"{len(answers)} answers for {len(rows)} requests")
    except Exception:
        ids = ", ".join(row.request_id for row in rows)
        _LOG.exception("unexpected error while answering %s", ids)
        on_error()
        if len(rows) == 1:
            why = f"internal error; see the server's log for request {rows[0].request_id!r}"
            return [error_answer(NewshelfError(why))]
        return [answer for row in rows for answer in predict_isolated(predictor, [row], on_error)]
    return answers


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
