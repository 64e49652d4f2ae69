"""Measurements of a batch: stage times, counts, batch size, and spans on request.

A request with ``TRACE_HEADER`` gets ``SPANS_HEADER`` in its answer: one line of JSON with the start
and end of each stage of its batch, in time since the epoch, which a client on the same machine can
compare with its own. ``METRICS`` lists what TorchServe's metrics file must declare.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import orjson

Stage = Literal["parse", "decode", "preprocess", "inference", "postprocess"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which a batch passes them: requests are opened and checked; pictures decoded;
texts tokenized, and inputs resized and moved to the device; graphs run; products retrieved,
filtered and ranked, and answers written."""


@dataclass(frozen=True, slots=True)
class WorkerMetric:
    """One metric, as a metrics file declares it."""

    name: str
    """It ends with the unit, ``_seconds``, and that of a counter with ``_total``."""

    @property
    def kind(self) -> Literal["histogram", "counter"]:
        """Return the type of the metric."""
        return "counter" if self.name.endswith("_total") else "histogram"


class TraceSpan(NamedTuple):
    """Time spent in one stage."""

    stage: Stage
    start_ns: int
    """As ``time.perf_counter_ns`` gives it."""
    end_ns: int


BATCH_SIZE = WorkerMetric("newshelf_batch_size")
"""Requests answered in one batch."""
CACHE_HITS = WorkerMetric("newshelf_embedding_cache_hits_total")
"""Products whose embedding was kept from an earlier request, or is that of an equal one."""
CACHE_MISSES = WorkerMetric("newshelf_embedding_cache_misses_total")
"""Products that had to be encoded."""
UNREAD_TEXTS = WorkerMetric("newshelf_unread_texts_total")
"""Encoded products with a text of which the text tower knows no word."""
_STAGES = {stage: WorkerMetric(f"newshelf_{stage}_seconds") for stage in STAGES}
METRICS = (*_STAGES.values(), BATCH_SIZE, CACHE_HITS, CACHE_MISSES, UNREAD_TEXTS)


@dataclass
class RecordingObserver:
    """Keeps the measurements until someone takes them."""

    taken: list[tuple[WorkerMetric, float]] = field(default_factory=list)
    spans: list[TraceSpan] = field(default_factory=list)

    def observe(self, metric: WorkerMetric, value: float) -> None:
        """Keep a value; of a counter, how many more."""
        self.taken.append((metric, value))

    def trace(self, spans: Sequence[TraceSpan]) -> None:
        """Keep when each stage of a batch began and ended."""
        self.spans.extend(spans)

    def drain(self) -> list[tuple[WorkerMetric, float]]:
        """Hand over the measurements that were kept since the last call."""
        taken, self.taken = self.taken, []
        return taken

    def drain_spans(self) -> list[TraceSpan]:
        """Hand over the spans that were kept since the last call."""
        spans, self.spans = self.spans, []
        return spans


class StageTimer:
    """Measures the stages of one batch. Stages must not be nested."""

    def __init__(self) -> None:
        self._spans: list[TraceSpan] = []
        self._counts: dict[WorkerMetric, int] = {}

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time spent inside to ``stage``."""
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            self._spans.append(TraceSpan(stage, start, time.perf_counter_ns()))

    def count(self, metric: WorkerMetric, number: int) -> None:
        """Add ``number`` to the counter ``metric``."""
        self._counts[metric] = self._counts.get(metric, 0) + number

    def report(self, observer: RecordingObserver | None, batch_size: int) -> None:
        """Tell ``observer`` every stage's seconds, the counts, and how many requests there were."""
        if observer is None:
            return
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


TRACE_HEADER = "x-newshelf-trace"
SPANS_HEADER = "x-newshelf-spans"
_CLOSE_NS = 20_000
"""Two spans of one stage with less than this between them are reported as one: a batch of many
pictures would else have hundreds."""


@dataclass(frozen=True, slots=True)
class BatchTrace:
    """One batch in one worker; moments are nanoseconds since the epoch."""

    worker: int
    size: int
    start_ns: int
    end_ns: int
    spans: tuple[TraceSpan, ...]
    """In order, not overlapping."""


def wants_trace(headers: Mapping[str, object]) -> bool:
    """Return True when a request asks for its spans; header names are matched in any case."""
    return any(name.lower() == TRACE_HEADER for name in headers)


def write_trace(worker: int, size: int, start_ns: int, spans: Sequence[TraceSpan]) -> str:
    """The value of ``SPANS_HEADER`` for a batch that ends now; times are ``perf_counter_ns``."""
    end_ns = time.perf_counter_ns()
    # Read once per batch: the two clocks may drift apart over a worker's life.
    epoch_ns = time.time_ns() - end_ns
    told = {
        "worker": worker,
        "size": size,
        "start_ns": start_ns + epoch_ns,
        "took_ns": end_ns - start_ns,
        "spans": [
            [span.stage, span.start_ns - start_ns, span.end_ns - start_ns]
            for span in _joined(spans)
        ],
    }
    return orjson.dumps(told).decode()


def read_trace(value: str) -> BatchTrace:
    """Parse what ``write_trace`` wrote, or raise ``ValueError``."""
    try:
        told = orjson.loads(value)
        start_ns = int(told["start_ns"])
        spans = [
            TraceSpan(STAGES[STAGES.index(stage)], start_ns + begin, start_ns + end)
            for stage, begin, end in told["spans"]
        ]
        return BatchTrace(
            int(told["worker"]),
            int(told["size"]),
            start_ns,
            start_ns + int(told["took_ns"]),
            tuple(spans),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a trace of this version: {value[:200]!r}") from error


def _joined(spans: Iterable[TraceSpan]) -> list[TraceSpan]:
    joined: list[TraceSpan] = []
    for span in spans:
        last = joined[-1] if joined else None
        if last and last.stage == span.stage and span.start_ns - last.end_ns < _CLOSE_NS:
            joined[-1] = TraceSpan(last.stage, last.start_ns, span.end_ns)
        else:
            joined.append(span)
    return joined
