"""Faster input and output of TorchServe's workers.

TorchServe's worker sends metrics to the frontend as lines on standard output. Written one by one,
each wakes the frontend's reader, which takes a core from the forward passes: a batch's lines are
written together.

TorchServe's protocol has some forty fields per request, and its worker makes a system call for
each: 51 µs of CPU time for a request with a picture of 30 kB. Reading in blocks takes 25 µs.
"""

import logging
import socket
import sys
from io import BufferedReader
from typing import Any

from ts.protocol import otf_message_handler

_METRICS = logging.getLogger("ts.metrics.caching_metric")
_LAST = "[METRICS]PredictionTime."
"""TorchServe's own metric, which follows the handler's in every batch."""
_ARRIVED = "Backend received inference at"
"""One more line per batch, which nobody reads."""


class _OneWrite(logging.Handler):
    """Keeps a batch's lines until the last of them has come."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line; write what was kept with the last one, and with what went wrong."""
        line = record.getMessage()
        self._lines.append(line)
        if line.startswith(_LAST) or record.levelno > logging.INFO:
            lines, self._lines = self._lines, []
            logging.getLogger().log(record.levelno, "\n".join(lines))


_ONE_WRITE = _OneWrite()


def write_metrics_at_once() -> None:
    """Let this process write a batch's metrics together; a second call changes nothing."""
    _METRICS.addHandler(_ONE_WRITE)
    _METRICS.propagate = False
    logging.getLogger().addFilter(_is_told)


def _is_told(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_ARRIVED)


_whole_request = otf_message_handler._retrieve_request
_readers: dict[socket.socket, BufferedReader] = {}
"""One: a worker has a single connection."""


def read_in_blocks() -> None:
    """Let this process read from the frontend in blocks; a second call changes nothing.

    What was read before was read to the end of a message, so nothing is lost.
    """
    otf_message_handler._retrieve_buffer = _retrieve
    otf_message_handler._retrieve_request = _request


def _retrieve(connection: socket.socket, length: int) -> bytes:
    """The next ``length`` bytes; ends the process when the frontend is gone, as TorchServe does."""
    reader = _readers.get(connection)
    if reader is None:
        reader = _readers[connection] = connection.makefile("rb")
    data = reader.read(length)
    if len(data) < length:
        sys.exit(0)
    return data


def _request(connection: socket.socket) -> dict[str, Any] | None:
    """The next request. Of a form's parts with one name, TorchServe would keep the last: the
    later ones get a number, by which ``newshelf.serving.requests`` refuses them.
    """
    request: dict[str, Any] | None = _whole_request(connection)
    seen: set[str] = set()
    for part in request["parameters"] if request else ():
        if part["name"] in seen:
            part["name"] += f"[{len(seen)}]"
        seen.add(part["name"])
    return request
