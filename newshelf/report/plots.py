"""Figures without pyplot: no global state, no display, none left open.

Lines over steps, epochs or shots, with a band for their spread.

NDCG per ranker and split, as bars.

A confusion matrix: which class was taken for which.

A 2-D map of embeddings: PCA, then t-SNE (van der Maaten & Hinton 2008).

Pictures of items and of their nearest neighbours: people would rather look than read.

Plots for reports and benchmarks: one kind of picture per module, each written as PNG.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

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
_DPI = 120


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure whose labels are given the room that they need."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whatever the name ends in."""
    figure.savefig(path, format="png", dpi=_DPI)


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


_MOST = 20
_LIGHT = 0.55
_LONGEST = 28


def draw_confusion(confusion: IntArray, classes: Sequence[str], path: Path, title: str) -> None:
    """Write a PNG: rows are true classes, columns predicted ones, shade is the row's share.

    Of more than 20 classes, those 20 are shown that were mistaken most often, among each
    other; the title says so.

    Args:
        confusion: (C, C) counts.
        classes: (C,) names.
        path: of the PNG.
        title: above.

    Raises:
        ValueError: the shape does not fit the classes.
    """
    count = len(classes)
    if confusion.shape != (count, count):
        raise ValueError(f"a matrix {confusion.shape} for {count} classes")
    if count > _MOST:
        mistakes = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * np.diag(confusion)
        worst = np.sort(np.argsort(-mistakes, kind="stable")[:_MOST])
        title = f"{title}: the {_MOST} of {count} classes mistaken most"
        confusion, classes = confusion[np.ix_(worst, worst)], [classes[row] for row in worst]
        count = _MOST
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.42 * count
    figure = new_figure(max(side + 1.2, 5.0), max(side, 4.0))
    panel = figure.subplots()
    panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = [_short(name) for name in classes]
    panel.set_xticks(range(count), names, rotation=45, ha="right", fontsize=9)
    panel.set_yticks(range(count), names, fontsize=9)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true")
    for row, column in np.argwhere(confusion > 0):
        colour = "white" if share[row, column] > _LIGHT else "#333333"
        panel.text(
            column, row, str(confusion[row, column]),
            ha="center", va="center", fontsize=8, color=colour,
        )  # fmt: skip
    panel.set_title(title, fontsize=11)
    save(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else "…" + name[1 - _LONGEST :]


_OTHER = "other"


def draw_map(
    panels: Mapping[str, FloatArray], labels: Sequence[str], path: Path, title: str = ""
) -> None:
    """Write a PNG with the maps side by side, one point per item.

    Args:
        panels: title → (N, 2) places from :func:`project`, the same items in each.
        labels: (N,) what colours a point; all but the most frequent become "other".
        path: of the PNG.
        title: above the panels.

    Raises:
        ValueError: the lengths differ, or there is no panel.
    """
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
    if title:
        figure.suptitle(title, fontsize=13)
    save(figure, path)


def _colours(labels: Sequence[str]) -> "tuple[np.ndarray, dict[str, str]]":
    """The label that each point is shown with, and the colours; "other" comes first, below."""
    frequent = [label for label, _ in Counter(labels).most_common(len(COLOURS))]
    shown = np.array([label if label in frequent else _OTHER for label in labels])
    colours = dict(zip(sorted(frequent), COLOURS, strict=False))
    return shown, ({_OTHER: MUTED} | colours) if _OTHER in shown else colours


_SIDE, _GAP, _TEXT, _LEFT, _HEAD = 132, 12, 36, 92, 34
_INK, _QUIET, _SAME_FRAME, _OTHER_FRAME = "#222222", "#6b7280", "#009e73", "#d0d4da"
_FRAME = 4


@dataclass(frozen=True)
class Tile:
    """One item of a row."""

    picture: Path | None
    """None, or a file that cannot be read, leaves an empty tile with the caption."""
    caption: str
    same: bool = False
    """Framed in green: of the query's own kind."""


@dataclass(frozen=True)
class NeighbourRow:
    """A query and what is nearest to it."""

    name: str
    """At the left, such as ``before``."""
    query: Tile
    neighbours: Sequence[Tile]


def draw_neighbours(rows: Sequence[NeighbourRow], path: Path) -> None:
    """Write a PNG with a row per query: the query, then its neighbours, nearest first.

    Raises:
        ValueError: without a row.
    """
    if not rows:
        raise ValueError("there is no row to draw")
    columns = max(len(row.neighbours) for row in rows)
    width = _LEFT + (columns + 1) * (_SIDE + _GAP) + 2 * _GAP
    height = _HEAD + len(rows) * (_SIDE + _TEXT + _GAP)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((_LEFT, 8), "query", fill=_INK, font=_font(14, bold=True))
    draw.text(
        (_column(0), 8),
        "nearest first; green: the same kind as the query",
        fill=_QUIET,
        font=_font(13),
    )
    for number, row in enumerate(rows):
        top = _HEAD + number * (_SIDE + _TEXT + _GAP)
        if number and row.query != rows[number - 1].query:
            draw.line([(0, top - 6), (width, top - 6)], fill=_OTHER_FRAME)
        draw.text((10, top + _SIDE // 2 - 8), row.name, fill=_INK, font=_font(14, bold=True))
        _put(canvas, draw, row.query, _LEFT, top, _INK)
        for place, tile in enumerate(row.neighbours):
            frame = _SAME_FRAME if tile.same else _OTHER_FRAME
            _put(canvas, draw, tile, _column(place), top, frame)
    canvas.save(path, format="PNG", optimize=True)


def _column(place: int) -> int:
    return _LEFT + (place + 1) * (_SIDE + _GAP) + 2 * _GAP


def _put(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int, frame: str
) -> None:
    inner = _SIDE - 2 * _FRAME
    draw.rectangle([left, top, left + _SIDE - 1, top + _SIDE - 1], outline=frame, width=_FRAME - 1)
    picture = _open(tile.picture, inner)
    if picture is not None:
        offset = ((inner - picture.width) // 2, (inner - picture.height) // 2)
        canvas.paste(picture, (left + _FRAME + offset[0], top + _FRAME + offset[1]))
    else:
        words = "no picture"
        draw.text((left + 30, top + _SIDE // 2 - 8), words, fill=_QUIET, font=_font(12))
    for line, text in enumerate(_two_lines(tile.caption, draw)):
        draw.text((left, top + _SIDE + 2 + 15 * line), text, fill=_INK, font=_font(12))


def _open(path: Path | None, side: int) -> Image.Image | None:
    if path is None:
        return None
    try:
        with Image.open(path) as opened:
            return ImageOps.contain(opened.convert("RGB"), (side, side))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


def _two_lines(text: str, draw: ImageDraw.ImageDraw) -> list[str]:
    """The words that fit below a tile; the second line ends in … when there are more."""
    lines: list[str] = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or draw.textlength(longer, _font(12)) <= _SIDE:
            lines[-1] = longer
        else:
            lines.append(word)
    shown = [_cut(line, draw) for line in lines[:2]]
    if len(lines) > len(shown):
        shown[-1] = _cut(f"{lines[1]}…", draw)
    return shown


def _cut(line: str, draw: ImageDraw.ImageDraw) -> str:
    if draw.textlength(line, _font(12)) <= _SIDE:
        return line
    while line and draw.textlength(f"{line}…", _font(12)) > _SIDE:
        line = line[:-1]
    return f"{line}…"


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    # Matplotlib brings its own font, so the picture is the same on every machine.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
