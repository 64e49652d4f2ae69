"""The frontier as a picture: throughput against latency."""

from collections.abc import Sequence
from pathlib import Path

from newshelf.evaluation.figures.canvas import COLOURS, MUTED, new_figure, save
from newshelf.tuning.measured import Measured, frontier
from newshelf.tuning.slo import Slo

__all__ = ["draw_frontier"]

_BLUE, _ORANGE, _GREEN = COLOURS[:3]
_ROOM = 1.08
"""Between the fastest point and the right edge."""


def draw_frontier(
    runs: Sequence[Measured], best: Measured, slo: Slo, path: Path, title: str
) -> None:
    """Write a PNG with every point that answered; the longest run of each counts.

    Args:
        runs: what was measured.
        best: one of them, which is marked.
        slo: its strictest latency is drawn as a line.
        path: of the PNG.
        title: above the picture.
    """
    figure = new_figure(9.0, 5.5)
    axes = figure.add_subplot()
    answered = [run for run in runs if run.per_second > 0]
    full = max(run.seconds for run in answered)
    short = [run for run in answered if run.seconds < full]
    axes.scatter(*_places(short), color=MUTED, s=22, label="left after a short run", zorder=2)
    finalists = [run for run in answered if run.seconds >= full]
    axes.scatter(*_places(finalists), color=_BLUE, s=36, label=f"run for {full:g} s", zorder=3)
    axes.plot(*_places(frontier(answered)), color=_BLUE, alpha=0.4, label="none is better in both")
    limit = slo.strictest
    axes.axhline(limit.most_ms, color=_ORANGE, linestyle="--", label=f"objective: {limit}")
    word = "chosen" if best.meets else "nearest, none keeps the objective"
    label = f"{word}:\n{best.point}".replace(", batch", ",\nbatch")
    axes.scatter(*_places([best]), color=_GREEN, marker="*", s=260, label=label, zorder=4)
    axes.set_xlabel("requests per second")
    axes.set_ylabel(f"p{limit.percent:g} in milliseconds")
    axes.set_xlim(0, max(run.per_second for run in answered) * _ROOM)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_title(title, loc="left")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def _places(runs: Sequence[Measured]) -> tuple[list[float], list[float]]:
    return [run.per_second for run in runs], [run.latency_ms for run in runs]
