"""TorchServe's own count of how long requests waited in its queue."""

import re
import time
from dataclasses import dataclass

from newshelf.server.client import Client

__all__ = ["QueueCount", "read_queue"]

_SAMPLE = re.compile(r"^(ts_\w+)\{(.*)\} (\S+)$", flags=re.MULTILINE)
_QUEUE, _REQUESTS = "ts_queue_latency_microseconds", "ts_inference_requests_total"
_LOOKS, _PAUSE_S = 20, 0.1


@dataclass(frozen=True)
class QueueCount:
    """Since the server's start."""

    requests: float
    waited_ms: float
    """Of all of them together, until they were put into a batch."""

    def since(self, before: "QueueCount") -> float | None:
        """Mean milliseconds of one request since then; None without one."""
        requests = self.requests - before.requests
        return (self.waited_ms - before.waited_ms) / requests if requests > 0 else None


def read_queue(client: Client, model: str) -> QueueCount:
    """Read the counters when they have settled: TorchServe counts after it has answered."""
    before = _read(client.metrics(), model)
    for _ in range(_LOOKS):
        time.sleep(_PAUSE_S)
        now = _read(client.metrics(), model)
        if now == before:
            break
        before = now
    return before


def _read(page: str, model: str) -> QueueCount:
    sums = {_QUEUE: 0.0, _REQUESTS: 0.0}
    for name, labels, value in _SAMPLE.findall(page):
        if name in sums and f'model_name="{model}"' in labels:
            sums[name] += float(value)
    return QueueCount(sums[_REQUESTS], sums[_QUEUE] / 1e3)
