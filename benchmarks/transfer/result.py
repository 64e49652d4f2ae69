"""What a task of the benchmark gives back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev

__all__ = ["Goal", "Row", "TaskResult"]

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
