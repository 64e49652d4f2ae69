"""Lines over steps, epochs or shots, with a band for their spread."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from newshelf.evaluation.figures.canvas import COLOURS, new_figure, save

__all__ = ["Line", "draw_lines"]

_PER_ROW = 3
_MARKED = 30


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Raises:
        ValueError: no point, or lengths that differ.
    """

    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] | None = None
    """Half of the height of the band around ``y``, such as the standard deviation."""

    def __post_init__(self) -> None:
        lengths = {len(self.x), len(self.y), len(self.y if self.spread is None else self.spread)}
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError(f"a line of {len(self.x)} x and {len(self.y)} y has no shape")


def draw_lines(
    panels: Mapping[str, Mapping[str, Line]],
    path: Path,
    *,
    xlabel: str,
    ylabel: str,
    percent: bool = False,
    log_x: bool = False,
) -> None:
    """Write a PNG: a panel per title, each with its own scale, and a line per name.

    The names stand in each panel, or once below where they are the same in all of them.

    Args:
        panels: title → name → line; the same name has the same colour in every panel.
        path: of the PNG.
        xlabel: what x counts. Whole numbers are assumed.
        ylabel: what y measures.
        percent: y is a fraction, shown as percent.
        log_x: for shots or steps that double.

    Raises:
        ValueError: without a panel.
    """
    if not panels:
        raise ValueError("there is no panel to draw")
    columns = min(len(panels), _PER_ROW)
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(max(6.0, 4.2 * columns), 3.4 * rows)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    shared = len(panels) > 1 and all(lines.keys() == set(names) for lines in panels.values())
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    for panel, (title, lines) in zip(axes, panels.items(), strict=False):
        for name, line in lines.items():
            _draw(panel, name, line, COLOURS[names.index(name) % len(COLOURS)])
        panel.set_title(title, fontsize=11)
        panel.set_xlabel(xlabel)
        panel.set_ylabel(ylabel)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="#e6e8ec", linewidth=0.8)
        if log_x:
            _mark_shots(panel, lines)
        else:
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if percent:
            panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        if len(lines) > 1 and not shared:
            panel.legend(frameon=False, fontsize=9)
    if shared and len(names) > 1:
        _name_below(figure, axes[0], 2 * columns)
    save(figure, path)


def _name_below(figure: Figure, panel: Axes, most: int) -> None:
    """Name the lines of ``panel`` in rows of at most ``most``, as long as each other."""
    lines = panel.get_lines()
    rows = math.ceil(len(lines) / most)
    figure.legend(
        handles=lines,
        loc="outside lower center",
        ncols=math.ceil(len(lines) / rows),
        frameon=False,
        fontsize=9,
    )


def _draw(panel: Axes, name: str, line: Line, colour: str) -> None:
    mark = "o" if len(line.x) <= _MARKED else ""
    panel.plot(line.x, line.y, color=colour, label=name, marker=mark, markersize=3.5)
    if line.spread is not None:
        y, spread = np.asarray(line.y), np.asarray(line.spread)
        panel.fill_between(line.x, y - spread, y + spread, color=colour, alpha=0.15, linewidth=0)


def _mark_shots(panel: Axes, lines: Mapping[str, Line]) -> None:
    panel.set_xscale("log")
    places = sorted({x for line in lines.values() for x in line.x})
    panel.set_xticks(places, [f"{x:g}" for x in places])
    panel.minorticks_off()
