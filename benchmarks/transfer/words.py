"""Values, goals and verdicts as a reader sees them; shared by terminal and report."""

from benchmarks.transfer.result import Row
from benchmarks.transfer.verdict import Verdict, ratio

__all__ = ["goal_words", "reached_words", "row_cells", "row_words", "value_words"]

_LARGE = 10


def value_words(value: float, *, percent: bool) -> str:
    """``86.1 %``, ``0.1421``, or ``12.0`` where fractions of thousands say nothing."""
    if percent:
        return f"{value:.1%}".replace("%", " %")
    return f"{value:.1f}" if abs(value) >= _LARGE else f"{value:.4f}"


def row_words(row: Row, *, percent: bool) -> str:
    """Mean (or median) ± standard deviation over the seeds; the value alone with one seed."""
    mean = value_words(row.middle, percent=percent)
    if len(row.values) == 1:
        return mean
    spread = value_words(row.spread, percent=percent)
    if percent:
        return f"{mean.removesuffix(' %')} ± {spread}"
    return f"{mean} ± {spread}"


def row_cells(
    row: Row, measure: str, yardstick: Row | None, *, first: bool, percent: bool
) -> list[str]:
    """Measure (in the first of its rows alone), method, value, ratio to the best baseline."""
    times = ratio(row, yardstick)
    return [
        measure if first else "",
        f"{row.method} (baseline)" if row.baseline else row.method,
        row_words(row, percent=percent),
        "–" if times is None else f"{times:.2f}",
    ]


def goal_words(verdict: Verdict, *, percent: bool, lower: bool) -> str:
    """``≥ 86.0 %``, ``≥ 1.5 × baseline = 12.3 %``, ``≥ baseline + 3.0 points = 71.2 %``."""
    goal, sign = verdict.goal, "≤" if lower else "≥"
    if goal.kind == "value":
        return f"{sign} {value_words(goal.at_least, percent=percent)}"
    needed = "?" if verdict.needed is None else value_words(verdict.needed, percent=percent)
    if goal.kind == "times":
        return f"{sign} {goal.at_least:g} × baseline = {needed}"
    by = f"{100 * goal.at_least:.1f} points" if percent else f"{goal.at_least:g}"
    return f"{sign} baseline + {by} = {needed}"


def reached_words(verdict: Verdict) -> str:
    """``yes`` or ``no``, and why when nothing could be compared."""
    if verdict.method is None:
        return "no: not measured"
    if verdict.needed is None:
        return "no: no baseline"
    return "yes" if verdict.reached else "no"
