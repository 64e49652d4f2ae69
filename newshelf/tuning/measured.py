"""What a point was measured to do, and which of two is better."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from newshelf.load.run import LoadResult
from newshelf.tuning.points import Point
from newshelf.tuning.slo import Slo

__all__ = ["Measured", "dominates", "frontier", "measured"]


@dataclass(frozen=True)
class Measured:
    """One run of load on one point."""

    point: Point
    seconds: float
    """How long it was measured."""
    per_second: float
    """Requests answered with 200."""
    latency_ms: float
    """At the objective's highest percentile; infinite when nothing was answered."""
    missed: tuple[str, ...]
    """What of the objective was not kept, in words."""
    client_share: float = 0.0
    """Of one core, that the load's clients used themselves."""

    @property
    def meets(self) -> bool:
        """Whether all of the objective was kept."""
        return not self.missed

    def rank(self) -> tuple[bool, float, float]:
        """Sorts what meets the objective first, by throughput; then the rest, by latency."""
        by_throughput = (-self.per_second, self.latency_ms)
        by_latency = (self.latency_ms, -self.per_second)
        return (not self.meets, *(by_throughput if self.meets else by_latency))


def measured(point: Point, seconds: float, load: LoadResult, slo: Slo) -> Measured:
    """Judge ``load``, which was sent to ``point`` for ``seconds``, by ``slo``."""
    return Measured(
        point=point,
        seconds=seconds,
        per_second=load.per_second,
        latency_ms=load.percentile_ms(slo.strictest.percent),
        missed=tuple(slo.missed(load)),
        client_share=load.client_cpu_s / load.measured_s,
    )


def dominates(left: Measured, right: Measured, margin: float = 0.0) -> bool:
    """Whether ``left`` is nowhere worse than ``right``, and better by ``margin`` somewhere.

    Args:
        left: throughput and latency of one point.
        right: those of another.
        margin: share by which one of the two must be better, so that noise decides nothing.
    """
    nowhere_worse = left.per_second >= right.per_second and left.latency_ms <= right.latency_ms
    more = left.per_second > right.per_second * (1 + margin)
    sooner = left.latency_ms < right.latency_ms * (1 - margin)
    return nowhere_worse and (more or sooner)


def frontier(runs: Sequence[Measured], margin: float = 0.0) -> list[Measured]:
    """Those that no other dominates, and that answered at all; least throughput first."""
    kept = [run for run in runs if run.per_second > 0 and not _dominated(run, runs, margin)]
    return sorted(kept, key=lambda run: (run.per_second, -run.latency_ms))


def _dominated(run: Measured, runs: Iterable[Measured], margin: float) -> bool:
    return any(dominates(other, run, margin) for other in runs)
