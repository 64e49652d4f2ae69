"""What a predictor tells about its work: stage times and batch size.

``METRICS`` is the list that the model server's metrics file must declare.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

__all__ = ["BATCH_SIZE", "METRICS", "Metric", "Observer", "Recorder", "Silent", "Stage", "Stages"]

Stage = Literal["decode", "preprocess", "inference", "postprocess"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, as a metrics file declares it."""

    name: str
    unit: Literal["s", "count"]
    help: str
    kind: Literal["histogram"] = "histogram"
    dimensions: tuple[str, ...] = ("ModelName", "Level")


BATCH_SIZE = Metric("newshelf_batch_size", "count", "Requests answered in one batch.")
_STAGES: dict[Stage, Metric] = {
    "decode": Metric(
        "newshelf_decode_seconds", "s", "Parsing the requests and decoding their pictures."
    ),
    "preprocess": Metric(
        "newshelf_preprocess_seconds", "s", "Resizing, tokenizing and moving to the device."
    ),
    "inference": Metric("newshelf_inference_seconds", "s", "The graphs' forwards."),
    "postprocess": Metric(
        "newshelf_postprocess_seconds", "s", "Retrieval, filters, ranking and writing answers."
    ),
}
METRICS: tuple[Metric, ...] = (*_STAGES.values(), BATCH_SIZE)


class Observer(Protocol):
    """Takes one measurement."""

    def observe(self, metric: Metric, value: float) -> None:
        """``value`` is in ``metric.unit``."""
        ...


class Silent:
    """Forgets every measurement."""

    def observe(self, metric: Metric, value: float) -> None:
        """Do nothing."""


@dataclass
class Recorder:
    """Keeps the measurements until someone takes them."""

    taken: list[tuple[Metric, float]] = field(default_factory=list)

    def observe(self, metric: Metric, value: float) -> None:
        """Keep it."""
        self.taken.append((metric, value))

    def drain(self) -> list[tuple[Metric, float]]:
        """Hand over what was kept since the last call."""
        taken, self.taken = self.taken, []
        return taken


class Stages:
    """Sums the seconds of each stage over one batch. Stages must not be nested."""

    def __init__(self) -> None:
        self._seconds: dict[Stage, float] = dict.fromkeys(_STAGES, 0.0)

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time spent inside to ``stage``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] += time.perf_counter() - start

    def report(self, observer: Observer, batch_size: int) -> None:
        """Tell ``observer`` every stage's seconds, and how many requests there were."""
        for stage, seconds in self._seconds.items():
            observer.observe(_STAGES[stage], seconds)
        observer.observe(BATCH_SIZE, batch_size)
