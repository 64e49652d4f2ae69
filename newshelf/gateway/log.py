"""The log: one JSON object in each line of standard error.

No line holds a unit, a product, a body or a key; a request is told by its id.
"""

import asyncio
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

import orjson

from newshelf.gateway.call import Call

__all__ = ["JsonLines", "RequestLog", "set_up_log"]

_SERVER_ERROR = 500
_TOGETHER_S = 0.05
"""A write costs more than a line."""


class JsonLines(logging.Formatter):
    """``at``, ``level``, ``event`` and ``logger``, with the ``trace`` of a defect."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def set_up_log() -> None:
    """Send what this process logs to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # Tells of each look at an unchanged schema.
    logging.getLogger("alembic").setLevel(logging.WARNING)


class RequestLog:
    """A line about each answered request; those of a moment are written together.

    Args:
        out: where to.
        everything: also those that were answered without a fault of ours.
    """

    def __init__(self, out: TextIO, *, everything: bool) -> None:
        self._out = out
        self._everything = everything
        self._lines: list[bytes] = []

    def tell(self, call: Call, method: str, route: str) -> None:
        """One request; to be called within a running event loop."""
        failed = call.status >= _SERVER_ERROR
        if not (failed or self._everything):
            return
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": "error" if failed else "info",
            "event": "request",
            "request_id": call.request_id,
            "method": method,
            "route": route,
            "status": call.status,
            "duration_ms": round(call.spent_ms, 3),
            "key": call.key,
            "source": call.source,
            "version": call.version,
            "reason": call.reason,
        }
        self._lines.append(orjson.dumps(line))
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_later(_TOGETHER_S, self.flush)

    def flush(self) -> None:
        """Write what is there."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._out.write(b"\n".join([*lines, b""]).decode())
            self._out.flush()
