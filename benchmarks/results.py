"""Results of a task: rows, goals and verdicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev

from newshelf.errors import SetupError

_KINDS = ("value", "times", "plus")


@dataclass(frozen=True)
class Row:
    """One method on one measure, a value per seed (fractions, not percent).

    Raises:
        ValueError: without a value, or for one that is not finite.
    """

    measure: str
    """What is measured, such as ``accuracy, 5 shots``; rows are grouped by it."""
    method: str
    values: Sequence[float]
    """One per seed."""
    baseline: bool = False
    """What a user would have without the method; the best one is the row's yardstick."""
    robust: bool = False
    """Report the median: of timings on a machine that has other work, too."""

    def __post_init__(self) -> None:
        # Plain floats, whatever a method counts in: they are written as JSON.
        values = tuple(float(value) for value in self.values)
        if not values or not all(math.isfinite(value) for value in values):
            raise ValueError(f"{self.measure}, {self.method}: no result is {list(values)}")
        object.__setattr__(self, "values", values)

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.values)

    @property
    def middle(self) -> float:
        """What is reported and judged: the mean over the seeds, or their median."""
        return median(self.values) if self.robust else self.mean

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; 0 with one."""
        return stdev(self.values) if len(self.values) > 1 else 0.0


@dataclass(frozen=True)
class Goal:
    """What the best method of a measure should reach.

    Raises:
        ValueError: for an unknown kind.
    """

    measure: str
    at_least: float
    """An absolute value; or with ``times``/``plus``, relative to the best baseline row. For
    a measure of which less is better, read "at most"."""
    kind: str = "value"
    """``value``, ``times`` (of the best baseline) or ``plus`` (points above it)."""
    method: str = ""
    """The row that is judged: the one chosen without the test data. Empty is the best row, which
    is right where a measure has one method only."""

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"goal of {self.measure}: {self.kind} is none of {_KINDS}")


@dataclass(frozen=True)
class TaskResult:
    """All rows of a task, its goals, its pictures and what a reader must know."""

    task: str
    title: str
    protocol: str
    """Data, split, what was chosen on what; Markdown."""
    rows: Sequence[Row]
    goals: Sequence[Goal] = ()
    notes: Sequence[str] = ()
    """What was tried, where it stops, ceilings; one Markdown sentence or two each."""
    figures: Mapping[str, Path] = field(default_factory=dict)
    """Caption → PNG in ``Context.figures``."""
    details: str = ""
    """What the rows leave out, after the notes; Markdown."""
    percent: bool = True
    """Print values as percent."""
    lower_is_better: Sequence[str] = ()
    """Measures of which less is better, such as steps until a value is reached."""


_ROUNDING = 1e-9
"""Of sums and products: a method that equals its goal has reached it."""


@dataclass(frozen=True)
class Verdict:
    """One goal beside what was measured."""

    goal: Goal
    method: Row | None
    """The goal's own row, or the best one that is no baseline; None when it was not measured."""
    baseline: Row | None
    """The best baseline; None when there is none."""
    needed: float | None
    """The goal as an absolute value; None when it is relative to a baseline that is not there."""
    reached: bool
    """False also when there is nothing to compare: what was not shown was not reached."""


def measures(result: TaskResult) -> list[str]:
    """The measures in the order of their first row."""
    return list(dict.fromkeys(row.measure for row in result.rows))


def rows_of(result: TaskResult, measure: str) -> list[Row]:
    """The rows of a measure, in their order."""
    return [row for row in result.rows if row.measure == measure]


def best(rows: Sequence[Row], *, baseline: bool, lower: bool = False) -> Row | None:
    """The row with the highest (or lowest) value among the baselines, or among the others."""
    chosen = [row for row in rows if row.baseline == baseline]
    if not chosen:
        return None
    pick = min if lower else max
    return pick(chosen, key=lambda row: row.middle)


def ratio(row: Row, baseline: Row | None) -> float | None:
    """The value of ``row`` / that of ``baseline``; None without one, or when that is 0."""
    return row.middle / baseline.middle if baseline is not None and baseline.middle else None


def judge(result: TaskResult) -> list[Verdict]:
    """Every goal of a task, in its order.

    ::

        needed = at_least                       (value)
                 at_least · best baseline       (times)
                 at_least + best baseline       (plus)
    """
    return [_verdict(result, goal) for goal in result.goals]


def _verdict(result: TaskResult, goal: Goal) -> Verdict:
    lower = goal.measure in result.lower_is_better
    rows = rows_of(result, goal.measure)
    own = [row for row in rows if goal.method in ("", row.method)]
    method = best(own, baseline=False, lower=lower)
    baseline = best(rows, baseline=True, lower=lower)
    needed = _needed(goal, baseline)
    reached = False
    if method is not None and needed is not None:
        ahead = needed - method.middle if lower else method.middle - needed
        reached = ahead >= -_ROUNDING
    return Verdict(goal, method, baseline, needed, reached)


def _needed(goal: Goal, baseline: Row | None) -> float | None:
    if goal.kind == "value":
        return goal.at_least
    if baseline is None:
        return None
    if goal.kind == "times":
        return goal.at_least * baseline.middle
    return goal.at_least + baseline.middle


class BenchmarkError(SetupError):
    """A contender did not start, answered wrongly, or could not be loaded as asked."""
