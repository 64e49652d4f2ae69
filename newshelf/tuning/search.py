"""Finds the best point with few runs, most of them short.

1. Every computing (workers, threads, runtime, precision) with one middle batch size and delay.
2. The best of them, with the other batch sizes and delays, small ones first; where
   a step to the next larger one made it worse, larger ones still are not run.
3. Successive halving: the better half is run again, twice as long, until the last few have
   been run for the full time. (Jamieson & Talwalkar, 2016: Non-stochastic Best Arm
   Identification and Hyperparameter Optimization.)

What a point was measured to do, and which of two is better.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from newshelf.tuning.load import LoadResult
from newshelf.tuning.points import Computing, Point, Space
from newshelf.tuning.slo import Slo


@dataclass(frozen=True)
class PointMeasurement:
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


def measured(point: Point, seconds: float, load: LoadResult, slo: Slo) -> PointMeasurement:
    """Judge ``load``, which was sent to ``point`` for ``seconds``, by ``slo``."""
    return PointMeasurement(
        point=point,
        seconds=seconds,
        per_second=load.per_second,
        latency_ms=load.percentile_ms(slo.strictest.percent),
        missed=tuple(slo.missed(load)),
        client_share=load.client_cpu_s / load.measured_s,
    )


def dominates(left: PointMeasurement, right: PointMeasurement, margin: float = 0.0) -> bool:
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


def frontier(runs: Sequence[PointMeasurement], margin: float = 0.0) -> list[PointMeasurement]:
    """Those that no other dominates, and that answered at all; least throughput first."""
    kept = [run for run in runs if run.per_second > 0 and not _dominated(run, runs, margin)]
    return sorted(kept, key=lambda run: (run.per_second, -run.latency_ms))


def _dominated(run: PointMeasurement, runs: Iterable[PointMeasurement], margin: float) -> bool:
    return any(dominates(other, run, margin) for other in runs)


Measure = Callable[[Point, float], PointMeasurement]
"""Runs a point for so many seconds."""

_MARGIN = 0.1
"""Short runs of one point differ by about as much."""
_SHORT = 4
"""The first runs take this part of the full time."""
_KEPT_COMPUTINGS, _FEWEST_COMPUTINGS = 3, 2
"""The second is kept whatever it did: one short run is no proof."""
_FINALISTS = 4


@dataclass(frozen=True)
class SearchResult:
    """All that was measured, and the best of it."""

    runs: list[PointMeasurement]
    """The longest run of each point, in the order in which the points were first run."""
    best: PointMeasurement
    """Of those that were run for the full time."""
    total: int
    """Points that there are."""

    @property
    def skipped(self) -> int:
        """Points that were not run at all."""
        return self.total - len(self.runs)


def search(space: Space, measure: Measure, seconds: float) -> SearchResult:
    """Look for the point with the most throughput that keeps the objective.

    When none keeps it, the one with the lowest latency is the best.

    Args:
        space: what is tried.
        measure: runs a point.
        seconds: the full time of one run.
    """
    return _Search(space, measure, seconds).found()


@dataclass
class _Search:
    space: Space
    measure: Measure
    seconds: float
    runs: dict[Point, PointMeasurement] = field(default_factory=dict)

    def found(self) -> SearchResult:
        few = self.space.size() <= _FINALISTS
        short_s = self.seconds if few else self.seconds / _SHORT
        compared = [self._run(self.space.middle(one), short_s) for one in self.space.computing]
        for computing in _computings(compared):
            self._walk(computing, short_s)
        finalists = self._halve(list(self.runs.values()), short_s)
        # A short run may have promised too much: then the next ones get their chance.
        while not any(run.meets for run in finalists) and (left := self._promising()):
            finalists = [self._run(run.point, self.seconds) for run in _best(left, _FINALISTS)]
        full = [run for run in self.runs.values() if run.seconds >= self.seconds]
        best = min(full, key=PointMeasurement.rank)
        return SearchResult(list(self.runs.values()), best, self.space.size())

    def _run(self, point: Point, seconds: float) -> PointMeasurement:
        known = self.runs.get(point)
        if known is None or known.seconds < seconds:
            known = self.runs[point] = self.measure(point, seconds)
        return known

    def _walk(self, computing: Computing, seconds: float) -> None:
        """Run the batch sizes and delays of ``computing``, as far as they may still gain."""
        rows, columns = len(self.space.batch_sizes), len(self.space.delays_ms)
        ended: set[tuple[int, int]] = set()
        grid: dict[tuple[int, int], PointMeasurement] = {}
        for row in range(rows):
            for column in range(columns):
                at, left, up = (row, column), (row, column - 1), (row - 1, column)
                # A batch of one waits for nobody: its delays are all alike.
                alike = self.space.batch_sizes[row] == 1 and column > 0
                if alike or left in ended or up in ended:
                    if not alike:
                        ended.add(at)
                    continue
                point = Point(computing, self.space.batch_sizes[row], self.space.delays_ms[column])
                grid[at] = self._run(point, seconds)
                before = [grid[one] for one in (left, up) if one in grid]
                if any(_worse(grid[at], one) for one in before):
                    ended.add(at)

    def _promising(self) -> list[PointMeasurement]:
        """What kept the objective in a short run, and has had no full one."""
        return [run for run in self.runs.values() if run.meets and run.seconds < self.seconds]

    def _halve(
        self, runs: Sequence[PointMeasurement], seconds: float
    ) -> Sequence[PointMeasurement]:
        """The last few, each run for the full time."""
        while seconds < self.seconds:
            is_last = len(runs) <= _FINALISTS or seconds * 2 >= self.seconds
            seconds = self.seconds if is_last else seconds * 2
            number = _FINALISTS if is_last else max(_FINALISTS, math.ceil(len(runs) / 2))
            runs = [self._run(run.point, seconds) for run in _best(runs, number)]
        return runs


def _computings(runs: Sequence[PointMeasurement]) -> list[Computing]:
    """Those worth a look at their batch sizes and delays, the best first."""
    undominated = len(frontier(runs, _MARGIN))
    kept = min(_KEPT_COMPUTINGS, max(_FEWEST_COMPUTINGS, undominated))
    return [run.point.computing for run in _best(runs, kept)]


def _best(runs: Sequence[PointMeasurement], number: int) -> list[PointMeasurement]:
    """``number`` of them at most: those that none clearly dominates before the others."""
    undominated = set(map(id, frontier(runs, _MARGIN)))
    return sorted(runs, key=lambda run: (id(run) not in undominated, run.rank()))[:number]


def _worse(now: PointMeasurement, before: PointMeasurement) -> bool:
    """Whether the step from ``before`` to ``now`` says that a larger one will not do."""
    later = not now.meets and now.latency_ms > before.latency_ms * (1 + _MARGIN)
    return later or dominates(before, now, _MARGIN)
