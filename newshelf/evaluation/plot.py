"""NDCG per ranker and split, as bars."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from newshelf.evaluation.comparison import Comparison

__all__ = ["draw"]

_BASELINE, _BEST, _MODEL = "#b8c0cc", "#5b7fa6", "#d9622b"


def draw(comparisons: Sequence[Comparison], path: Path, title: str) -> None:
    """Write a PNG with one panel per split and one bar per ranker.

    The first cut-off is drawn. Grey are the baselines, blue the best of them, orange the
    model. Each panel has its own scale: splits ask different questions.

    Raises:
        ValueError: without a comparison.
    """
    if not comparisons:
        raise ValueError("there is no split to draw")
    rows = max(len(comparison.rows) for comparison in comparisons)
    # Figure without pyplot: no global state, no display, no figure left open.
    figure = Figure(figsize=(1.2 + 4.3 * len(comparisons), 1.4 + 0.38 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(comparisons), squeeze=False)[0]
    for panel, comparison in zip(panels, comparisons, strict=True):
        k = comparison.k[0]
        values = [row.ndcg[k] for row in comparison.rows]
        bars = panel.barh(
            [row.ranker for row in comparison.rows],
            values,
            color=[_colour(comparison, number) for number in range(len(values))],
        )
        panel.bar_label(bars, fmt="%.3f", padding=3, fontsize=9)
        panel.invert_yaxis()
        panel.set_xlim(0, max(max(values) * 1.2, 1e-3))
        panel.set_title(f"{comparison.split} ({comparison.cases} cases)", fontsize=11)
        panel.set_xlabel(f"NDCG@{k}")
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=13)
    figure.savefig(path, format="png", dpi=120)


def _colour(comparison: Comparison, number: int) -> str:
    row = comparison.rows[number]
    if row is comparison.model:
        return _MODEL
    return _BEST if row is comparison.best_baseline else _BASELINE
