"""Finds the best point with few runs, most of them short.

1. Every computing (workers, threads, runtime, precision) with one middle batch size and delay.
2. The best of them, with the other batch sizes and delays, small ones first; where
   a step to the next larger one made it worse, larger ones still are not run.
3. Successive halving: the better half is run again, twice as long, until the last few have
   been run for the full time. (Jamieson & Talwalkar, 2016: Non-stochastic Best Arm
   Identification and Hyperparameter Optimization.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from newshelf.tuning.measured import Measured, dominates, frontier
from newshelf.tuning.points import Computing, Point, Space

__all__ = ["Found", "Measure", "search"]

Measure = Callable[[Point, float], Measured]
"""Runs a point for so many seconds."""

_MARGIN = 0.1
"""Short runs of one point differ by about as much."""
_SHORT = 4
"""The first runs take this part of the full time."""
_KEPT_COMPUTINGS, _FEWEST_COMPUTINGS = 3, 2
"""The second is kept whatever it did: one short run is no proof."""
_FINALISTS = 4


@dataclass(frozen=True)
class Found:
    """All that was measured, and the best of it."""

    runs: list[Measured]
    """The longest run of each point, in the order in which the points were first run."""
    best: Measured
    """Of those that were run for the full time."""
    total: int
    """Points that there are."""

    @property
    def skipped(self) -> int:
        """Points that were not run at all."""
        return self.total - len(self.runs)


def search(space: Space, measure: Measure, seconds: float) -> Found:
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
    runs: dict[Point, Measured] = field(default_factory=dict)

    def found(self) -> Found:
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
        best = min(full, key=Measured.rank)
        return Found(list(self.runs.values()), best, self.space.size())

    def _run(self, point: Point, seconds: float) -> Measured:
        known = self.runs.get(point)
        if known is None or known.seconds < seconds:
            known = self.runs[point] = self.measure(point, seconds)
        return known

    def _walk(self, computing: Computing, seconds: float) -> None:
        """Run the batch sizes and delays of ``computing``, as far as they may still gain."""
        rows, columns = len(self.space.batch_sizes), len(self.space.delays_ms)
        ended: set[tuple[int, int]] = set()
        grid: dict[tuple[int, int], Measured] = {}
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

    def _promising(self) -> list[Measured]:
        """What kept the objective in a short run, and has had no full one."""
        return [run for run in self.runs.values() if run.meets and run.seconds < self.seconds]

    def _halve(self, runs: Sequence[Measured], seconds: float) -> Sequence[Measured]:
        """The last few, each run for the full time."""
        while seconds < self.seconds:
            is_last = len(runs) <= _FINALISTS or seconds * 2 >= self.seconds
            seconds = self.seconds if is_last else seconds * 2
            number = _FINALISTS if is_last else max(_FINALISTS, math.ceil(len(runs) / 2))
            runs = [self._run(run.point, seconds) for run in _best(runs, number)]
        return runs


def _computings(runs: Sequence[Measured]) -> list[Computing]:
    """Those worth a look at their batch sizes and delays, the best first."""
    undominated = len(frontier(runs, _MARGIN))
    kept = min(_KEPT_COMPUTINGS, max(_FEWEST_COMPUTINGS, undominated))
    return [run.point.computing for run in _best(runs, kept)]


def _best(runs: Sequence[Measured], number: int) -> list[Measured]:
    """``number`` of them at most: those that none clearly dominates before the others."""
    undominated = set(map(id, frontier(runs, _MARGIN)))
    return sorted(runs, key=lambda run: (id(run) not in undominated, run.rank()))[:number]


def _worse(now: Measured, before: Measured) -> bool:
    """Whether the step from ``before`` to ``now`` says that a larger one will not do."""
    later = not now.meets and now.latency_ms > before.latency_ms * (1 + _MARGIN)
    return later or dominates(before, now, _MARGIN)
