"""NDCG per ranker and split, as bars."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from newshelf.evaluation.comparison import Comparison
from newshelf.evaluation.figures.canvas import MUTED, new_figure, save

__all__ = ["draw_bars"]

_BEST, _MODEL = "#5b7fa6", "#d9622b"


def draw_bars(comparisons: Sequence[Comparison], path: Path, title: str) -> None:
    """Write a PNG with one panel per split and one bar per ranker, with 95 % intervals.

    The first cut-off is drawn. Grey are the baselines, blue the best of them, orange the
    model. Each panel has its own scale: splits ask different questions.

    Raises:
        ValueError: without a comparison.
    """
    if not comparisons:
        raise ValueError("there is no split to draw")
    rows = max(len(comparison.rows) for comparison in comparisons)
    figure = new_figure(3.0 + 3.2 * len(comparisons), 1.4 + 0.38 * rows)
    panels = figure.subplots(1, len(comparisons), squeeze=False)[0]
    for place, (panel, comparison) in enumerate(zip(panels, comparisons, strict=True)):
        k = comparison.k[0]
        values = np.array([row.ndcg[k] for row in comparison.rows])
        ends = np.array(
            [row.intervals.get(f"NDCG@{k}", (row.ndcg[k],) * 2) for row in comparison.rows]
        )
        bars = panel.barh(
            _names(comparison),
            values,
            # A percentile interval need not hold the mean; a whisker has no negative length.
            xerr=np.maximum([values - ends[:, 0], ends[:, 1] - values], 0),
            error_kw={"ecolor": "#444444", "elinewidth": 1, "capsize": 2},
            color=[_colour(comparison, number) for number in range(len(values))],
        )
        panel.bar_label(bars, fmt="%.3f", padding=4, fontsize=9)
        panel.invert_yaxis()
        if place and _names(comparison) == _names(comparisons[0]):
            panel.tick_params(labelleft=False)
        panel.set_xlim(0, max(float(ends.max()) * 1.22, 1e-3))
        panel.set_title(f"{comparison.split} ({comparison.cases} cases)", fontsize=11)
        panel.set_xlabel(f"NDCG@{k}")
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=13)
    save(figure, path)


def _colour(comparison: Comparison, number: int) -> str:
    row = comparison.rows[number]
    if row is comparison.model:
        return _MODEL
    return _BEST if row is comparison.best_baseline else MUTED


def _names(comparison: Comparison) -> list[str]:
    return [row.ranker for row in comparison.rows]
