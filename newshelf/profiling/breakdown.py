"""Where the time of many requests went, as a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from newshelf.profiling.journey import Journey
from newshelf.serving.observe import STAGES, Stage

__all__ = ["Row", "break_down", "breakdown_table"]

_NS_PER_MS = 1e6
_WORDS: dict[Stage, str] = {
    "parse": "parse the requests",
    "decode": "decode pictures",
    "preprocess": "preprocess",
    "inference": "inference",
    "postprocess": "postprocess",
}


@dataclass(frozen=True)
class Row:
    """One part of the way. The shares of the rows that are not ``within`` add up to 1."""

    name: str
    mean_ms: float
    share: float
    """Of the mean of the whole."""
    median_ms: float | None = None
    p99_ms: float | None = None
    """None where only a mean is known."""
    within: bool = False
    """A part of the row above."""


def break_down(journeys: Sequence[Journey], queue_ms: float | None) -> list[Row]:
    """The parts in their order, and last the whole.

    A request waits for all of its batch, so the stages count with the batch's time.

    Args:
        journeys: at least one.
        queue_ms: the mean wait in TorchServe's queue; None when it is not known.
    """
    total_ms = _milliseconds(journeys, lambda one: one.total_ns).mean()

    def row(name: str, part: Callable[[Journey], int]) -> Row:
        values = _milliseconds(journeys, part)
        return Row(
            name,
            float(values.mean()),
            float(values.mean() / total_ms),
            float(np.median(values)),
            float(np.percentile(values, 99, method="inverted_cdf")),
        )

    there = row("to the worker", lambda one: one.there_ns)
    rows = [there]
    if queue_ms is not None:
        socket_ms = there.mean_ms - queue_ms
        rows.append(Row("socket and frontend", socket_ms, socket_ms / total_ms, within=True))
        rows.append(Row("TorchServe's queue", queue_ms, queue_ms / total_ms, within=True))
    rows += [row(_WORDS[stage], _stage(stage)) for stage in STAGES]
    rows.append(row("between the stages", lambda one: one.between_ns))
    rows.append(row("back to the client", lambda one: one.back_ns))
    rows.append(row("whole request", lambda one: one.total_ns))
    return rows


def breakdown_table(rows: Sequence[Row], title: str) -> Table:
    """For a terminal."""
    table = Table(title=title, title_justify="left")
    table.add_column("where")
    for heading in ("mean ms", "median ms", "p99 ms", "share"):
        table.add_column(heading, justify="right")
    for row in rows:
        if row is rows[-1]:
            table.add_section()
        table.add_row(
            f"  {row.name}" if row.within else row.name,
            _shown(row.mean_ms),
            _shown(row.median_ms),
            _shown(row.p99_ms),
            f"{row.share:.1%}",
            style="dim" if row.within else None,
        )
    return table


def _milliseconds(
    journeys: Sequence[Journey], part: Callable[[Journey], int]
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array([part(one) for one in journeys], dtype=np.float64) / _NS_PER_MS


def _stage(stage: Stage) -> Callable[[Journey], int]:
    return lambda one: one.stages_ns()[stage]


def _shown(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:.3f}"
