"""Which method of a measure is the best, and whether it reached its goal."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.transfer.result import Goal, Row, TaskResult

__all__ = ["Verdict", "best", "judge", "measures", "ratio", "rows_of"]

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
