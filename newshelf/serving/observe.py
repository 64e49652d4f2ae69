"""What a predictor tells about its work: stage times, batch size, counts.

``METRICS`` is the list that the model server's metrics file must declare.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, get_args

__all__ = [
    "BATCH_SIZE",
    "CACHE_HITS",
    "CACHE_MISSES",
    "METRICS",
    "STAGES",
    "UNREAD_TEXTS",
    "Metric",
    "Observer",
    "Recorder",
    "Silent",
    "Span",
    "Stage",
    "Stages",
]

Stage = Literal["parse", "decode", "preprocess", "inference", "postprocess"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which a batch passes them."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, as a metrics file declares it."""

    name: str
    unit: Literal["s", "count"]
    help: str
    kind: Literal["histogram", "counter"] = "histogram"
    dimensions: tuple[str, ...] = ("ModelName", "Level")


class Span(NamedTuple):
    """Time spent in one stage."""

    stage: Stage
    start_ns: int
    """As ``time.perf_counter_ns`` gives it."""
    end_ns: int


BATCH_SIZE = Metric("newshelf_batch_size", "count", "Requests answered in one batch.")
CACHE_HITS = Metric(
    "newshelf_embedding_cache_hits_total",
    "count",
    "Products whose embedding was kept from an earlier request, or is that of an equal one.",
    kind="counter",
)
CACHE_MISSES = Metric(
    "newshelf_embedding_cache_misses_total",
    "count",
    "Products that had to be encoded.",
    kind="counter",
)
UNREAD_TEXTS = Metric(
    "newshelf_unread_texts_total",
    "count",
    "Encoded products with a text of which the text tower knows no word.",
    kind="counter",
)
_STAGES: dict[Stage, Metric] = {
    "parse": Metric("newshelf_parse_seconds", "s", "Opening and checking the requests."),
    "decode": Metric("newshelf_decode_seconds", "s", "Decoding the requests' pictures."),
    "preprocess": Metric(
        "newshelf_preprocess_seconds", "s", "Resizing, tokenizing and moving to the device."
    ),
    "inference": Metric("newshelf_inference_seconds", "s", "The graphs' forwards."),
    "postprocess": Metric(
        "newshelf_postprocess_seconds", "s", "Retrieval, filters, ranking and writing answers."
    ),
}
METRICS: tuple[Metric, ...] = (
    *_STAGES.values(),
    BATCH_SIZE,
    CACHE_HITS,
    CACHE_MISSES,
    UNREAD_TEXTS,
)


class Observer(Protocol):
    """Takes measurements."""

    def observe(self, metric: Metric, value: float) -> None:
        """``value`` is in ``metric.unit``; of a counter, how many more."""
        ...

    def trace(self, spans: Sequence[Span]) -> None:
        """When each stage of a batch began and ended."""
        ...


class Silent:
    """Forgets every measurement."""

    def observe(self, metric: Metric, value: float) -> None:
        """Do nothing."""

    def trace(self, spans: Sequence[Span]) -> None:
        """Do nothing."""


@dataclass
class Recorder:
    """Keeps the measurements until someone takes them."""

    taken: list[tuple[Metric, float]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    def observe(self, metric: Metric, value: float) -> None:
        """Keep it."""
        self.taken.append((metric, value))

    def trace(self, spans: Sequence[Span]) -> None:
        """Keep them."""
        self.spans.extend(spans)

    def drain(self) -> list[tuple[Metric, float]]:
        """Hand over the measurements that were kept since the last call."""
        taken, self.taken = self.taken, []
        return taken

    def drain_spans(self) -> list[Span]:
        """Hand over the spans that were kept since the last call."""
        spans, self.spans = self.spans, []
        return spans


class Stages:
    """Measures the stages of one batch. Stages must not be nested."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._counts: dict[Metric, int] = {}

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time spent inside to ``stage``."""
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            self._spans.append(Span(stage, start, time.perf_counter_ns()))

    def count(self, metric: Metric, number: int) -> None:
        """Add ``number`` to the counter ``metric``."""
        self._counts[metric] = self._counts.get(metric, 0) + number

    def report(self, observer: Observer, batch_size: int) -> None:
        """Tell ``observer`` every stage's seconds, the counts, and how many requests there were."""
        sums = dict.fromkeys(_STAGES, 0)
        for stage, start_ns, end_ns in self._spans:
            sums[stage] += end_ns - start_ns
        for stage, nanoseconds in sums.items():
            observer.observe(_STAGES[stage], nanoseconds / 1e9)
        for metric, number in self._counts.items():
            if number:
                observer.observe(metric, number)
        observer.observe(BATCH_SIZE, batch_size)
        observer.trace(self._spans)
