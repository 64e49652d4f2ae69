"""The interface of predictors, free of torch and TorchServe: ``RawRequest`` in, ``Answer`` out.

``predict_isolated`` limits an internal error to the request that causes it.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from newshelf.errors import NewshelfError

TIMEOUT_HEADER = "x-newshelf-timeout-ms"
"""Request header: for how many milliseconds from now somebody waits for the answer."""
SENT_HEADER = "x-newshelf-sent"
"""Request header: when it was sent, by a clock that ``newshelf.serving.deadline`` names."""
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


def predict_isolated(predictor: Predictor, rows: Sequence[RawRequest]) -> list[Answer]:
    """Answer every row whatever happens.

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
        if len(rows) == 1:
            why = f"internal error; see the server's log for request {rows[0].request_id!r}"
            return [error_answer(NewshelfError(why))]
        return [answer for row in rows for answer in predict_isolated(predictor, [row])]
    return answers
