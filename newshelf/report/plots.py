"""Plots as PNG files: lines, bars, confusion matrices, maps of embeddings, neighbours of items.

Figures are made without pyplot: no global state, no display, no figure left open.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# Okabe & Ito's palette, which colour-blind readers tell apart; then four more.
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7b4ba0",
    "#8c6d31",
    "#b0c41f",
    "#222222",
)
MUTED = "#c3c8d0"
_GRID = "#e6e8ec"
_DPI = 120


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure that makes room for its labels."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes) -> None:
    """Leave two spines, and a faint horizontal grid below the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def legend_right(axes: Axes) -> None:
    """Put the legend to the right of the axes, if anything is labelled."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whatever the file's suffix."""
    figure.savefig(path, format="png", dpi=_DPI)


_PER_ROW = 3
_MARKED = 30
"""Points of a line up to which each gets a marker."""


@dataclass(frozen=True)
class Line:
    """One line of a panel."""

    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] | None = None
    """Half the height of the band around ``y``, such as a standard deviation."""

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
    """Write a PNG with a panel per title, each with its own scale, and a line per name.

    A name has the same colour in every panel; if all panels have the same lines, there is one
    legend below them. x takes whole numbers; y may be a fraction, labelled as percent.
    """
    if not panels:
        raise ValueError("there is no panel to draw")
    columns = min(len(panels), _PER_ROW)
    rows = math.ceil(len(panels) / columns)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    shared = len(panels) > 1 and all(lines.keys() == set(names) for lines in panels.values())
    listed = 0 if shared or len(names) == 1 else max(len(lines) for lines in panels.values())
    figure = new_figure(max(6.0, 4.2 * columns), (3.4 + 0.2 * listed) * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    for panel, (title, lines) in zip(axes, panels.items(), strict=False):
        for name, line in lines.items():
            _draw_line(panel, name, line, COLOURS[names.index(name) % len(COLOURS)])
        panel.set_title(title, fontsize=11)
        panel.set_xlabel(xlabel)
        panel.set_ylabel(ylabel)
        style_axes(panel)
        if log_x:
            panel.set_xscale("log")
            places = sorted({x for line in lines.values() for x in line.x})
            panel.set_xticks(places, [f"{x:g}" for x in places])
            panel.minorticks_off()
        else:
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if percent:
            panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        if len(lines) > 1 and not shared:
            # Next to the lines, long names would leave them no width.
            panel.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.0, -0.16))
    if shared and len(names) > 1:
        handles = axes[0].get_lines()
        columns = min(2 * columns, len(names))
        style = {"ncols": columns, "frameon": False, "fontsize": 9}
        figure.legend(handles=handles, loc="outside lower center", **style)
    save(figure, path)


def _draw_line(panel: Axes, name: str, line: Line, colour: str) -> None:
    mark = "o" if len(line.x) <= _MARKED else ""
    panel.plot(line.x, line.y, color=colour, label=name, marker=mark, markersize=3.5)
    if line.spread is not None:
        y, spread = np.asarray(line.y), np.asarray(line.spread)
        panel.fill_between(line.x, y - spread, y + spread, color=colour, alpha=0.15, linewidth=0)


@dataclass(frozen=True)
class Bar:
    """One bar of a panel."""

    name: str
    value: float
    interval: tuple[float, float]
    colour: str = MUTED


@dataclass(frozen=True)
class BarPanel:
    """Horizontal bars on one scale."""

    title: str
    xlabel: str
    bars: Sequence[Bar]
    """From top to bottom."""


def draw_bars(panels: Sequence[BarPanel], path: Path, title: str) -> None:
    """Write a PNG with the panels side by side, each with its own scale."""
    if not panels:
        raise ValueError("there is no panel to draw")
    rows = max(len(panel.bars) for panel in panels)
    figure = new_figure(3.0 + 3.2 * len(panels), 1.4 + 0.38 * rows)
    first = [bar.name for bar in panels[0].bars]
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        bars = panel.bars
        names = [bar.name for bar in bars]
        values = np.array([bar.value for bar in bars])
        low, high = np.array([bar.interval for bar in bars]).T
        drawn = axes.barh(
            names,
            values,
            # A percentile interval need not contain the mean; a whisker has no negative length.
            xerr=np.maximum([values - low, high - values], 0),
            error_kw={"ecolor": "#444444", "elinewidth": 1, "capsize": 2},
            color=[bar.colour for bar in bars],
        )
        axes.bar_label(drawn, fmt="%.3f", padding=4, fontsize=9)
        axes.invert_yaxis()
        if place and names == first:
            axes.tick_params(labelleft=False)
        axes.set_xlim(0, max(float(high.max()) * 1.22, 1e-3))
        axes.set_title(panel.title, fontsize=11)
        axes.set_xlabel(panel.xlabel)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=13)
    save(figure, path)


_MAX_CLASSES = 20
_LIGHT_TEXT_FROM = 0.55
_MAX_CLASS_NAME = 28


def draw_confusion(confusion: IntArray, classes: Sequence[str], path: Path, title: str) -> None:
    """Write a PNG of (C, C) counts: rows are true classes, columns predicted ones.

    Of more than 20 classes, only the 20 with the most mistakes are drawn; the title says so.
    """
    count = len(classes)
    if confusion.shape != (count, count):
        raise ValueError(f"a matrix {confusion.shape} for {count} classes")
    if count > _MAX_CLASSES:
        mistakes = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * np.diag(confusion)
        worst = np.sort(np.argsort(-mistakes, kind="stable")[:_MAX_CLASSES])
        title = f"{title}: the {_MAX_CLASSES} of {count} classes mistaken most"
        confusion, classes = confusion[np.ix_(worst, worst)], [classes[row] for row in worst]
        count = _MAX_CLASSES
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.42 * count
    figure = new_figure(max(side + 1.2, 5.0), max(side, 4.0))
    panel = figure.subplots()
    panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    most = _MAX_CLASS_NAME
    names = [name if len(name) <= most else "…" + name[1 - most :] for name in classes]
    panel.set_xticks(range(count), names, rotation=45, ha="right", fontsize=9)
    panel.set_yticks(range(count), names, fontsize=9)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true")
    for row, column in np.argwhere(confusion > 0):
        colour = "white" if share[row, column] > _LIGHT_TEXT_FROM else "#333333"
        panel.text(
            column, row, str(confusion[row, column]),
            ha="center", va="center", fontsize=8, color=colour,
        )  # fmt: skip
    panel.set_title(title, fontsize=11)
    save(figure, path)


_OTHER = "other"


def draw_map(panels: Mapping[str, FloatArray], labels: Sequence[str], path: Path) -> None:
    """Write a PNG with maps of (N, 2) places side by side; ``labels`` (N,) give the colours."""
    if not panels or any(len(places) != len(labels) for places in panels.values()):
        raise ValueError(f"{len(labels)} labels for {[len(p) for p in panels.values()]} places")
    shown, colours = _colours(labels)
    figure = new_figure(4.9 * len(panels) + 2.2, 5.2)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (name, places) in zip(axes, panels.items(), strict=True):
        for label, colour in colours.items():
            chosen = shown == label
            panel.scatter(
                *places[chosen].T, s=9, color=colour, label=label, linewidths=0, alpha=0.8
            )
        panel.set_title(name, fontsize=11)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_color("#d5d9e0")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside right center", frameon=False, fontsize=9, markerscale=2.5
    )
    save(figure, path)


def _colours(labels: Sequence[str]) -> "tuple[np.ndarray, dict[str, str]]":
    """Return each point's label, and label → colour; "other" is first, and drawn below."""
    frequent = [label for label, _ in Counter(labels).most_common(len(COLOURS))]
    shown = np.array([label if label in frequent else _OTHER for label in labels])
    colours = dict(zip(sorted(frequent), COLOURS, strict=False))
    return shown, ({_OTHER: MUTED} | colours) if _OTHER in shown else colours


_SIDE, _ROOM, _FONT_PX = 132, 34, 11
"""Pixels of a tile's picture, of its caption, and of the caption's letters."""
_LETTERS, _LINES = 22, 2
"""Characters per line, and lines, of a caption."""


@dataclass(frozen=True)
class Tile:
    """One item of a row."""

    picture: Path | None
    """The tile is grey if this is None or cannot be read."""
    caption: str = ""
    colour: str = "white"
    """Of its frame."""


def draw_tiles(rows: Sequence[Sequence[Tile]], path: Path) -> None:
    """Write a picture of rows of items, in the format of the file's suffix."""
    size = _SIDE * max(map(len, rows)), (_SIDE + _ROOM) * len(rows)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for line, row in enumerate(rows):
        for column, tile in enumerate(row):
            x, y = column * _SIDE, line * (_SIDE + _ROOM)
            sheet.paste(_open(tile.picture), (x, y))
            draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), outline=tile.colour, width=3)
            lines = textwrap.wrap(tile.caption, _LETTERS, max_lines=_LINES, placeholder="…")
            place = x + 3, y + _SIDE + 2
            draw.multiline_text(place, "\n".join(lines), "black", font_size=_FONT_PX)
    sheet.save(path, quality=80)


def _open(path: Path | None) -> Image.Image:
    """Return a square picture; a grey one if there is none that can be read."""
    try:
        if path is not None:
            with Image.open(path) as opened:
                return ImageOps.pad(opened.convert("RGB"), (_SIDE, _SIDE), color="white")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        pass
    return Image.new("RGB", (_SIDE, _SIDE), MUTED)
