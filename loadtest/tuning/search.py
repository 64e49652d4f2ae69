"""Search for the best point with few runs, most of them short.

1. Run every computing (workers, threads, runtime, precision) with a medium batch size and delay.
2. Run the best of them with the other batch sizes and delays, small ones first; if a step to
   the next larger one is worse, skip the still larger ones.
3. Successive halving: run the better half again, twice as long, until the last few have run for
   the full time. (Jamieson & Talwalkar, 2016: Non-stochastic Best Arm Identification and
   Hyperparameter Optimization.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from loadtest.slo import Slo
from loadtest.tuning.load import LoadResult
from loadtest.tuning.points import Computing, Point, SearchSpace


@dataclass(frozen=True)
class PointMeasurement:
    """Result of a load on a point."""

    point: Point
    seconds: float
    per_second: float
    """Requests that were answered with 200."""
    latency_ms: float
    """At the SLO's highest percentile; infinite if nothing was answered."""
    missed: tuple[str, ...]
    """Exceeded limits of the SLO, in words."""
    client_share: float = 0.0
    """Share of a core that the clients used."""

    @property
    def meets(self) -> bool:
        """True if the SLO was met."""
        return not self.missed

    def rank(self) -> tuple[bool, float, float]:
        """Return a sort key: what meets the SLO by throughput, then the rest by latency."""
        by_throughput = (-self.per_second, self.latency_ms)
        by_latency = (self.latency_ms, -self.per_second)
        return (not self.meets, *(by_throughput if self.meets else by_latency))


def judge(point: Point, seconds: float, load: LoadResult, slo: Slo) -> PointMeasurement:
    """Check ``load``, which was sent to ``point`` for ``seconds``, against ``slo``."""
    return PointMeasurement(
        point=point,
        seconds=seconds,
        per_second=load.per_second,
        latency_ms=load.percentile_ms(slo.strictest.percent),
        missed=tuple(slo.missed(load.percentile_ms, load.failed_share)),
        client_share=load.client_cpu_s / load.measured_s,
    )


def dominates(left: PointMeasurement, right: PointMeasurement, margin: float = 0.0) -> bool:
    """Return whether ``left`` is no worse than ``right``, and one figure better by ``margin``."""
    nowhere_worse = left.per_second >= right.per_second and left.latency_ms <= right.latency_ms
    more = left.per_second > right.per_second * (1 + margin)
    sooner = left.latency_ms < right.latency_ms * (1 - margin)
    return nowhere_worse and (more or sooner)


def frontier(runs: Sequence[PointMeasurement], margin: float = 0.0) -> list[PointMeasurement]:
    """Return the runs that no other dominates, without failed ones, by throughput."""
    kept = [
        run
        for run in runs
        if run.per_second > 0 and not any(dominates(other, run, margin) for other in runs)
    ]
    return sorted(kept, key=lambda run: (run.per_second, -run.latency_ms))


Measure = Callable[[Point, float], PointMeasurement]
"""Runs a point for a number of seconds."""

_MARGIN = 0.1
"""Short runs of a point differ by about as much."""
_SHORT = 4
"""The first runs take this fraction of the full time."""
_KEPT_COMPUTINGS, _FEWEST_COMPUTINGS = 3, 2
"""The second best is always kept: a short run is weak evidence."""
_FINALISTS = 4


@dataclass(frozen=True)
class SearchResult:
    """All runs, and the best of them."""

    runs: list[PointMeasurement]
    """The longest run of each point, in the order in which the points were first run."""
    best: PointMeasurement
    """Of those with the full time."""
    total: int


def search(space: SearchSpace, measure: Measure, seconds: float) -> SearchResult:
    """Search for the highest-throughput point that meets the SLO, or else of the lowest latency."""
    return _Search(space, measure, seconds).found()


@dataclass
class _Search:
    space: SearchSpace
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
        # A short run may have been too optimistic: then the next ones get a full run.
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
        """Run the batch sizes and delays of ``computing``, as far as they may help."""
        rows, columns = len(self.space.batch_sizes), len(self.space.delays_ms)
        ended: set[tuple[int, int]] = set()
        grid: dict[tuple[int, int], PointMeasurement] = {}
        for row in range(rows):
            for column in range(columns):
                at, left, up = (row, column), (row, column - 1), (row - 1, column)
                # A batch of one waits for no request, so all delays are equal.
                equal = self.space.batch_sizes[row] == 1 and column > 0
                if equal or left in ended or up in ended:
                    if not equal:
                        ended.add(at)
                    continue
                point = Point(computing, self.space.batch_sizes[row], self.space.delays_ms[column])
                grid[at] = self._run(point, seconds)
                before = [grid[one] for one in (left, up) if one in grid]
                if any(_worse(grid[at], one) for one in before):
                    ended.add(at)

    def _promising(self) -> list[PointMeasurement]:
        """Return the runs that met the SLO in a short run and have no full one."""
        return [run for run in self.runs.values() if run.meets and run.seconds < self.seconds]

    def _halve(
        self, runs: Sequence[PointMeasurement], seconds: float
    ) -> Sequence[PointMeasurement]:
        """Return the last few, each with a full run."""
        while seconds < self.seconds:
            is_last = len(runs) <= _FINALISTS or seconds * 2 >= self.seconds
            seconds = self.seconds if is_last else seconds * 2
            number = _FINALISTS if is_last else max(_FINALISTS, math.ceil(len(runs) / 2))
            runs = [self._run(run.point, seconds) for run in _best(runs, number)]
        return runs


def _computings(runs: Sequence[PointMeasurement]) -> list[Computing]:
    """Return those whose batch sizes and delays are tried, the best first."""
    undominated = len(frontier(runs, _MARGIN))
    kept = min(_KEPT_COMPUTINGS, max(_FEWEST_COMPUTINGS, undominated))
    return [run.point.computing for run in _best(runs, kept)]


def _best(runs: Sequence[PointMeasurement], number: int) -> list[PointMeasurement]:
    """Return at most ``number`` runs, the clearly undominated ones first."""
    undominated = set(map(id, frontier(runs, _MARGIN)))
    return sorted(runs, key=lambda run: (id(run) not in undominated, run.rank()))[:number]


def _worse(now: PointMeasurement, before: PointMeasurement) -> bool:
    """Return whether the step from ``before`` to ``now`` rules out larger steps."""
    later = not now.meets and now.latency_ms > before.latency_ms * (1 + _MARGIN)
    return later or dominates(before, now, _MARGIN)
