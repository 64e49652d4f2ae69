"""Pictures of items and of their nearest neighbours: people would rather look than read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

__all__ = ["NeighbourRow", "Tile", "draw_neighbours"]

_SIDE, _GAP, _TEXT, _LEFT, _HEAD = 132, 12, 36, 92, 34
_INK, _QUIET, _SAME, _OTHER = "#222222", "#6b7280", "#009e73", "#d0d4da"
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
            draw.line([(0, top - 6), (width, top - 6)], fill=_OTHER)
        draw.text((10, top + _SIDE // 2 - 8), row.name, fill=_INK, font=_font(14, bold=True))
        _put(canvas, draw, row.query, _LEFT, top, _INK)
        for place, tile in enumerate(row.neighbours):
            frame = _SAME if tile.same else _OTHER
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
