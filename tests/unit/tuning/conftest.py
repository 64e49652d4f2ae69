"""Points, and loads of them without a server."""

from collections.abc import Callable

import numpy as np
import pytest

from newshelf.tuning.load import LoadResult
from newshelf.tuning.points import Arithmetic, Computing, Point
from newshelf.tuning.search import PointMeasurement

MakePoint = Callable[..., Point]
MakeRun = Callable[..., PointMeasurement]


def load(latencies_ms: list[float], failures: dict[str, int] | None = None) -> LoadResult:
    """Of one second."""
    return LoadResult(1.0, np.array(latencies_ms, dtype=np.float64), failures or {}, 0.2)


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
