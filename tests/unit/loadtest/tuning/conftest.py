"""Points, runs and timelines without a server."""

from collections.abc import Callable

import pytest

from loadtest.tuning.load import LoadResult
from loadtest.tuning.points import Arithmetic, Computing, Point
from loadtest.tuning.profile import RequestTimeline
from loadtest.tuning.search import PointMeasurement
from newshelf.serving.trace import BatchTrace, TraceSpan

MakePoint = Callable[..., Point]
MakeRun = Callable[..., PointMeasurement]
MakeTimeline = Callable[..., RequestTimeline]
MS = 1_000_000


def load(latencies_ms: list[float], failures: dict[str, int] | None = None) -> LoadResult:
    """Of one second."""
    return LoadResult(1.0, latencies_ms, failures or {}, 0.2)


@pytest.fixture
def point() -> MakePoint:
    def make(
        workers: int = 1,
        threads: int = 2,
        batch: int = 8,
        delay: int = 3,
        runtime: str = "onnxruntime",
        precision: str = "fp32",
    ) -> Point:
        return Point(Computing(workers, threads, Arithmetic(runtime, precision)), batch, delay)

    return make


@pytest.fixture
def run(point: MakePoint) -> MakeRun:
    def make(
        per_second: float, latency_ms: float, missed: bool = False, **of: int
    ) -> PointMeasurement:
        return PointMeasurement(
            point(**of), 1.0, per_second, latency_ms, ("p99 is too long",) if missed else ()
        )

    return make


@pytest.fixture
def timeline() -> MakeTimeline:
    """2 ms there, a batch of 10 ms, 1 ms back."""

    def make(client: int = 0, sent_ms: int = 0, size: int = 1, worker: int = 77) -> RequestTimeline:
        start = (sent_ms + 2) * MS
        spans = (
            TraceSpan("parse", start, start + MS),
            TraceSpan("decode", start + MS, start + 3 * MS),
            TraceSpan("inference", start + 4 * MS, start + 8 * MS),
            TraceSpan("postprocess", start + 9 * MS, start + 10 * MS),
        )
        batch = BatchTrace(worker, size, start, start + 10 * MS, spans)
        return RequestTimeline(client, sent_ms * MS, batch, start + 11 * MS)

    return make
