"""What a worker prints for a batch: its metrics, in one write.

TorchServe's worker tells metrics to the frontend by lines on its standard output. Written one
by one, each of them wakes the frontend's reader, which takes a core from the forwards.
"""

import logging

__all__ = ["write_metrics_at_once"]

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
