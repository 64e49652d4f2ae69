"""TorchServe's Prometheus page, as the counts that a load test looks at."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Counts", "read_page"]

_REQUESTS = "ts_inference_requests"
_QUEUE_US = "ts_queue_latency_microseconds"
_BATCH = "newshelf_batch_size"
"""``newshelf.serving.observe.BATCH_SIZE``."""


@dataclass(frozen=True)
class Counts:
    """Since the server's start, of all models together."""

    requests: float = 0.0
    queued_us: float = 0.0
    """Time that all of them together were in the queue."""
    batches: Mapping[float, float] = field(default_factory=dict)
    """Batches of at most so many requests, by the histogram's bounds."""
    batched: float = 0.0
    """Requests in them."""

    def since(self, before: "Counts") -> "Counts":
        """What came since; a counter that fell began anew with the server."""
        if self.requests < before.requests or self.batched < before.batched:
            return self
        return Counts(
            self.requests - before.requests,
            self.queued_us - before.queued_us,
            {bound: count - before.batches.get(bound, 0.0)
             for bound, count in self.batches.items()},
            self.batched - before.batched,
        )  # fmt: skip

    @property
    def queue_ms(self) -> float | None:
        """Mean time in the queue of one request; None without any."""
        return self.queued_us / self.requests / 1e3 if self.requests > 0 else None

    def batch_sizes(self) -> dict[int, int]:
        """Batches by the greatest size that the histogram leaves open.

        Those above its last bound are counted by their mean size, which the sum tells.
        """
        sizes: dict[int, int] = {}
        below, known = 0.0, 0.0
        for bound in sorted(self.batches):
            here = round(self.batches[bound] - below)
            below = self.batches[bound]
            if here <= 0:
                continue
            if math.isinf(bound):
                last = max(sizes, default=0)
                size = max(round((self.batched - known) / here), last + 1)
            else:
                size = math.floor(bound)
            sizes[size] = sizes.get(size, 0) + here
            known += here * size
        return sizes


def read_page(page: str) -> Counts:
    """Add up what ``page`` tells of all models.

    Raises:
        ValueError: it is no Prometheus page.
    """
    totals: dict[str, float] = {}
    batches: dict[float, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            # The parser gives counters their suffix, with which TorchServe writes but some.
            name = sample.name.removesuffix("_total")
            totals[name] = totals.get(name, 0.0) + sample.value
            if name == f"{_BATCH}_bucket":
                bound = float(sample.labels["le"])
                batches[bound] = batches.get(bound, 0.0) + sample.value
    return Counts(
        totals.get(_REQUESTS, 0.0),
        totals.get(_QUEUE_US, 0.0),
        batches,
        totals.get(f"{_BATCH}_sum", 0.0),
    )
