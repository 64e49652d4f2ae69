"""Newshelf's histograms as the metrics port shows them."""

import re
import time
from dataclasses import dataclass

from newshelf.server.client import Client
from newshelf.serving.trace import BATCH_SIZE, METRICS

__all__ = ["HISTOGRAMS", "Histogram", "Histograms", "histograms", "settled", "told"]

HISTOGRAMS = [metric for metric in METRICS if metric.kind == "histogram"]
_SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", flags=re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_LOOKS, _PAUSE_S = 50, 0.2


@dataclass(frozen=True)
class Histogram:
    """One metric of one model."""

    count: float
    sum: float
    buckets: dict[float, float]
    """Observations up to and including each upper bound."""


Histograms = dict[tuple[str, str], Histogram]
"""By model and metric."""


def histograms(page: str) -> Histograms:
    """Those of both models; all zero when there is none yet."""
    values: dict[tuple[str, str, str], float] = {}
    for name, inside, value in _SAMPLE.findall(page):
        labels = dict(_LABEL.findall(inside))
        values[labels.get("ModelName", ""), name, labels.get("le", "")] = float(value)
    return {
        (model, metric.name): Histogram(
            values.get((model, f"{metric.name}_count", ""), 0),
            values.get((model, f"{metric.name}_sum", ""), 0),
            {
                float(bound): value
                for (whose, name, bound), value in values.items()
                if (whose, name) == (model, f"{metric.name}_bucket")
            },
        )
        for model in ("encoder", "recommender")
        for metric in HISTOGRAMS
    }


def settled(client: Client, *, batched: float = 0) -> Histograms:
    """What the page says when nothing is on its way any more.

    Workers tell the frontend of a batch after answering it. So look
    until both models together have told of ``batched`` requests, and two looks agree.
    """
    looks = (_look(client) for _ in range(_LOOKS))
    before = next(looks)
    for now in looks:
        if now == before and told(now) >= batched:
            return now
        before = now
    raise AssertionError(f"the metrics page never told of {batched} requests: {before}")


def told(page: Histograms) -> float:
    """Requests that both models have told of."""
    return sum(seen.sum for (_, name), seen in page.items() if name == BATCH_SIZE.name)


def _look(client: Client) -> Histograms:
    time.sleep(_PAUSE_S)
    return histograms(client.metrics())
