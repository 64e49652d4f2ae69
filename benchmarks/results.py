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
    """The measure, such as ``accuracy, 5 shots``; rows are grouped by it."""
    method: str
    values: Sequence[float]
    """One per seed."""
    baseline: bool = False
    """A user would have it without the method; ratios are to the best one."""
    robust: bool = False
    """Report the median, for timings on a machine with other work."""

    def __post_init__(self) -> None:
        # Plain floats, whatever a method counts in: they are written as JSON.
        values = tuple(float(value) for value in self.values)
        if not values or not all(math.isfinite(value) for value in values):
            raise ValueError(f"{self.measure}, {self.method}: no result is {list(values)}")
        object.__setattr__(self, "values", values)

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return fmean(self.values)

    @property
    def middle(self) -> float:
        """Reported and judged value: the mean over the seeds, or their median."""
        return median(self.values) if self.robust else self.mean

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; 0 with one."""
        return stdev(self.values) if len(self.values) > 1 else 0.0


@dataclass
class RowBuilder:
    """Collects values of measures and methods, one per seed."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    baselines: set[str] = field(default_factory=set)

    def add(self, method: str, measured: Mapping[str, float], *, baseline: bool = False) -> None:
        """Add the values of one seed, by measure."""
        for measure, value in measured.items():
            self.values.setdefault((measure, method), []).append(value)
        if baseline:
            self.baselines.add(method)

    def rows(self, order: Sequence[str] = ()) -> list[Row]:
        """Return the rows by measure in ``order``; as they were added when it is empty."""
        rows = [
            Row(measure, method, values, method in self.baselines)
            for (measure, method), values in self.values.items()
        ]
        return sorted(rows, key=lambda row: order.index(row.measure)) if order else rows


@dataclass(frozen=True)
class Goal:
    """Goal of the best method of a measure.

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
    """Rows of a task, goals, figures and notes."""

    task: str
    title: str
    protocol: str
    """Data, split, what was chosen on what; Markdown."""
    rows: Sequence[Row]
    goals: Sequence[Goal] = ()
    notes: Sequence[str] = ()
    """Attempts, limits and ceilings; a Markdown sentence or two each."""
    figures: Mapping[str, Path] = field(default_factory=dict)
    """Caption → PNG in the context's folder of figures."""
    details: str = ""
    """Further tables after the notes; Markdown."""
    percent: bool = True
    """Print values as percent."""
    lower_is_better: Sequence[str] = ()
    """Measures of which less is better, such as steps to a value."""


class BenchmarkError(SetupError):
    """A contender did not start, answered wrongly, or could not be loaded as asked."""


_ROUNDING = 1e-9
"""Tolerance for sums and products: a method that equals its goal has reached it."""


@dataclass(frozen=True)
class Verdict:
    """One goal, judged."""

    goal: Goal
    method: Row | None
    """The goal's own row, or the best one that is not a baseline; None if it was not measured."""
    baseline: Row | None
    """The best baseline, if there is one."""
    needed: float | None
    """The goal as an absolute value; None if it is relative to a missing baseline."""
    reached: bool
    """False also without anything to compare."""


@dataclass(frozen=True)
class RowGroup:
    """The rows of one measure."""

    measure: str
    rows: Sequence[Row]
    lower: bool
    """Less is better."""
    baseline: Row | None
    """The best baseline, if there is one."""
    method: Row | None
    """The best row that is not a baseline."""
    verdict: Verdict | None


def row_groups(result: TaskResult) -> list[RowGroup]:
    """Return the rows by measure, in the order of their first row."""
    verdicts = {verdict.goal.measure: verdict for verdict in judge(result)}
    groups = []
    for measure in dict.fromkeys(row.measure for row in result.rows):
        rows, lower = _rows_of(result, measure)
        baseline = best(rows, baseline=True, lower=lower)
        method = best(rows, baseline=False, lower=lower)
        groups.append(RowGroup(measure, rows, lower, baseline, method, verdicts.get(measure)))
    return groups


def _rows_of(result: TaskResult, measure: str) -> tuple[list[Row], bool]:
    """Return the rows of a measure, and whether less is better."""
    rows = [row for row in result.rows if row.measure == measure]
    return rows, measure in result.lower_is_better


def best(rows: Sequence[Row], *, baseline: bool, lower: bool = False) -> Row | None:
    """Return the row with the highest (or lowest) value among the baselines, or the others."""
    chosen = [row for row in rows if row.baseline == baseline]
    if not chosen:
        return None
    pick = min if lower else max
    return pick(chosen, key=lambda row: row.middle)


def ratio(row: Row, baseline: Row | None) -> float | None:
    """Return the value of ``row`` / that of ``baseline``; None without one, or if it is 0."""
    return row.middle / baseline.middle if baseline is not None and baseline.middle else None


def judge(result: TaskResult) -> list[Verdict]:
    """Return a verdict for every goal of a task.

    ::

        needed = at_least                       (value)
                 at_least · best baseline       (times)
                 at_least + best baseline       (plus)
    """
    return [_verdict(result, goal) for goal in result.goals]


def _verdict(result: TaskResult, goal: Goal) -> Verdict:
    rows, lower = _rows_of(result, goal.measure)
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
