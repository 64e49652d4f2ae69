"""How each style covers a surface and finishes an edge."""

from collections.abc import Callable

import numpy as np

from newshelf.sample.canvas import Canvas
from newshelf.sample.geometry import (
    Points,
    arc,
    array,
    closed,
    disc,
    moved,
    regular,
    spaced,
)
from newshelf.sample.look import Look
from newshelf.sample.palette import RGB, darker, lighter, mixed

__all__ = ["bow", "cover", "flower", "piece", "trim"]

Box = tuple[float, float, float, float]


def cover(canvas: Canvas, outline: Points, look: Look, size: float = 1.0) -> None:
    """Cover a surface with the style's pattern; ``size`` 1 suits a garment."""
    left, top = outline.min(axis=0)
    right, bottom = outline.max(axis=0)
    with canvas.clipped(outline):
        _PATTERNS[look.style](canvas, (left, top, right, bottom), look, size)


def piece(
    canvas: Canvas,
    outline: Points,
    look: Look,
    size: float = 1.0,
    *,
    seam: float = 0.5,
    plain: bool = False,
) -> None:
    """A piece in the product's colour, with the style's pattern and a seam around it."""
    canvas.shape(outline, look.rgb)
    if not plain:
        cover(canvas, outline, look, size)
    canvas.line(closed(outline), seam, look.seam)


def trim(canvas: Canvas, path: Points, look: Look, size: float = 1.0) -> None:
    """Finish an edge in the style, along ``path`` (left to right for a hem)."""
    _TRIMS[look.style](canvas, path, look, size)


def flower(canvas: Canvas, x: float, y: float, radius: float, petal: RGB, heart: RGB) -> None:
    """Five petals around a heart."""
    turn = x * 7.3 + y * 3.1
    for px, py in regular(x, y, radius * 0.62, 5, turn):
        canvas.shape(disc(px, py, radius * 0.5, count=12), petal)
    canvas.shape(disc(x, y, radius * 0.34, count=10), heart)


def bow(canvas: Canvas, x: float, y: float, size: float, color: RGB) -> None:
    """A ribbon tied to a bow."""
    for side in (-1, 1):
        tail = array(
            [(x, y), (x + side * size * 0.35, y + size), (x + side * size * 0.75, y + size * 0.85)]
        )
        canvas.shape(tail, darker(color, 0.12))
        loop = array(
            [(x, y), (x + side * size, y - size * 0.55), (x + side * size, y + size * 0.5)]
        )
        canvas.shape(loop, color, edge=darker(color, 0.3), width=0.3)
    canvas.shape(disc(x, y, size * 0.22), darker(color, 0.2))


def _plain(canvas: Canvas, box: Box, look: Look, size: float) -> None:
    """Minimal: nothing but the cloth."""


def _tailored(canvas: Canvas, box: Box, look: Look, size: float) -> None:
    """Classic: pinstripes, a tartan, or an argyle."""
    left, top, right, bottom = box
    variant = look.pick(3)
    soft = mixed(look.rgb, look.accent, 0.7)
    if variant == 0:
        for x in np.arange(left, right, 3.2 * size):
            canvas.line(array([(x, top), (x, bottom)]), 0.5 * size, soft)
        return
    if variant == 1:
        for step, width, opacity in ((9.0, 3.2, 0.34), (9.0, 0.7, 0.8)):
            wide, gap = width * size, step * size
            for x in np.arange(left + (0 if width > 1 else gap / 2), right, gap):
                canvas.tint(_bar(x, top, x + wide, bottom), look.accent, opacity)
            for y in np.arange(top + (0 if width > 1 else gap / 2), bottom, gap):
                canvas.tint(_bar(left, y, right, y + wide), look.accent, opacity)
        return
    step = 7 * size
    for row, y in enumerate(np.arange(top, bottom + step, step)):
        for x in np.arange(left + (row % 2) * step / 2, right + step, step):
            diamond = array([(x, y - step), (x + step / 2, y), (x, y + step), (x - step / 2, y)])
            if row % 2:
                canvas.tint(diamond, look.accent, 0.55)
            canvas.line(diamond, 0.3 * size, soft)


def _bar(left: float, top: float, right: float, bottom: float) -> Points:
    return array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _woven(canvas: Canvas, box: Box, look: Look, size: float) -> None:
    """Boho: woven bands of zigzags, lozenges and beads."""
    left, top, right, bottom = box
    colors = (look.accent, look.second, mixed(look.accent, look.second, 0.45))
    step = 3.6 * size
    every = 2 + look.pick(2)
    for row, y in enumerate(np.arange(top + step, bottom, step * 1.7)):
        color = colors[row % 3]
        if row % every == every - 1:
            xs = np.arange(left - step, right + step, step)
            zigzag = np.stack(
                [xs, y + np.where(np.arange(len(xs)) % 2, step / 2, -step / 2)], axis=1
            )
            canvas.line(zigzag, 1.1 * size, color)
            canvas.line(moved(zigzag, 0, 1.6 * size), 0.5 * size, look.second)
        elif row % 2:
            for x in np.arange(left, right + step, step * 1.5):
                canvas.shape(regular(x, y, step * 0.62, 4, 0), color)
                canvas.shape(regular(x, y, step * 0.26, 4, 0), look.rgb)
        else:
            canvas.line(array([(left, y), (right, y)]), 0.6 * size, color)
            for x in np.arange(left, right, step * 0.8):
                canvas.shape(disc(x, y + 1.5 * size, 0.6 * size, count=8), look.second)


def _geometric(canvas: Canvas, box: Box, look: Look, size: float) -> None:
    """Deco: fans, chevrons or a sunburst in gold lines."""
    left, top, right, bottom = box
    variant = look.pick(3)
    ground = darker(look.rgb, 0.3) if sum(look.rgb) > 200 else lighter(look.rgb, 0.1)
    if variant == 0:
        step = 9 * size
        rows = np.arange(top, bottom + step, step / 2)
        for row, y in enumerate(rows):
            for x in np.arange(left + (row % 2) * step / 2, right + step, step):
                for share, fill in (
                    (0.5, look.accent),
                    (0.45, look.rgb),
                    (0.3, look.accent),
                    (0.25, ground),
                ):
                    canvas.shape(disc(x, y, step * share, count=20), fill)
    elif variant == 1:
        middle, gap = (left + right) / 2, 6.5 * size
        reach = (right - left) / 2
        for y in np.arange(top - reach, bottom + gap, gap):
            peak = array([(left, y + reach), (middle, y), (right, y + reach)])
            canvas.line(peak, 1.6 * size, look.accent)
            canvas.line(moved(peak, 0, 2.2 * size), 0.9 * size, look.second)
    else:
        middle, reach = (left + right) / 2, 2 * max(right - left, bottom - top)
        for ray in arc(middle, bottom, reach, reach, 182, 358, count=17)[::2]:
            spread = (ray - [middle, bottom])[::-1] * [-1, 1] * 0.045
            canvas.tint(np.array([[middle, bottom], ray + spread, ray - spread]), look.accent, 0.9)
        for share in (0.16, 0.2):
            canvas.line(
                arc(middle, bottom, reach * share, reach * share, 180, 360), size, look.second
            )


def _floral(canvas: Canvas, box: Box, look: Look, size: float) -> None:
    """Romantic: scattered flowers with leaves."""
    left, top, right, bottom = box
    step = (6.5 + look.rng.uniform(0, 3)) * size
    leaf = mixed((92, 138, 84), look.rgb, 0.15)
    heart: RGB = (238, 200, 96)
    petals = (look.accent, lighter(look.accent, 0.3), mixed(look.accent, (214, 84, 120), 0.5))
    for row, y in enumerate(np.arange(top, bottom + step, step)):
        for column, x in enumerate(np.arange(left + (row % 2) * step / 2, right + step, step)):
            cx, cy = x + look.rng.uniform(-1, 1) * size, y + look.rng.uniform(-1, 1) * size
            canvas.line(array([(cx - 2 * size, cy + 2 * size), (cx, cy)]), 0.8 * size, leaf)
            petal = petals[(row + 2 * column) % 3]
            flower(canvas, cx, cy, (1.7 + 0.6 * (column % 2)) * size, petal, heart)


def _blocks(canvas: Canvas, box: Box, look: Look, size: float) -> None:
    """Urban: colour blocks and racing stripes."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    variant = look.pick(3)
    if variant == 0:
        slope = array([(left, top + height * 0.62), (right, top + height * 0.4)])
        lower = np.concatenate([slope, [[right, bottom], [left, bottom]]])
        canvas.shape(lower, look.second)
        canvas.line(slope, 2.4 * size, look.accent)
    elif variant == 1:
        for x in (left + width * 0.66, left + width * 0.76):
            canvas.shape(_bar(x, top, x + 2.6 * size, bottom), look.accent)
        canvas.shape(
            _bar(left + width * 0.71, top, left + width * 0.71 + 1.6 * size, bottom), look.second
        )
    else:
        y = top + height * 0.36
        canvas.shape(_bar(left, y, right, y + 7 * size), look.second)
        canvas.shape(_bar(left, y + 7 * size, right, y + 9.4 * size), look.accent)
        canvas.shape(_bar(left, bottom - 4 * size, right, bottom), look.second)


def _seam(canvas: Canvas, path: Points, look: Look, size: float) -> None:
    canvas.line(path, 0.3 * size, look.seam, solid=False)


def _piping(canvas: Canvas, path: Points, look: Look, size: float) -> None:
    canvas.line(path, 1.3 * size, look.accent)
    canvas.line(moved(path, 0, -1.8 * size), 0.35 * size, look.accent, solid=False)


def _fringe(canvas: Canvas, path: Points, look: Look, size: float) -> None:
    colors = (look.accent, look.second, look.rgb)
    for place, (x, y) in enumerate(spaced(path, 1.5 * size)):
        drop = (4.4 + look.rng.uniform(-0.6, 0.8)) * size
        canvas.line(array([(x, y), (x + 0.3, y + drop)]), 0.6 * size, colors[place % 3])
    canvas.line(path, 1.0 * size, look.accent)
    for x, y in spaced(path, 6 * size):
        canvas.shape(disc(x, y + 0.6 * size, 1.15 * size, count=12), look.second)


def _stepped(canvas: Canvas, path: Points, look: Look, size: float) -> None:
    canvas.line(path, 2.6 * size, look.accent)
    canvas.line(moved(path, 0, -2.1 * size), 0.9 * size, look.second, solid=False)
    for x, y in spaced(path, 3.4 * size):
        canvas.shape(
            array(
                [
                    (x - 1.2 * size, y + 1.2 * size),
                    (x, y - 1 * size),
                    (x + 1.2 * size, y + 1.2 * size),
                ]
            ),
            darker(look.accent, 0.45),
        )


def _lace(canvas: Canvas, path: Points, look: Look, size: float) -> None:
    for x, y in spaced(path, 2.6 * size):
        canvas.shape(disc(x, y, 1.7 * size, count=14), look.accent)
    for x, y in spaced(path, 2.6 * size):
        canvas.shape(disc(x, y + 0.5 * size, 0.5 * size, count=8), darker(look.accent, 0.28))


def _tape(canvas: Canvas, path: Points, look: Look, size: float) -> None:
    canvas.line(path, 2.6 * size, look.second)
    canvas.line(path, 0.9 * size, look.accent)


Pattern = Callable[[Canvas, Box, Look, float], None]
_PATTERNS: dict[str, Pattern] = {
    "minimal": _plain,
    "classic": _tailored,
    "boho": _woven,
    "deco": _geometric,
    "romantic": _floral,
    "urban": _blocks,
}
_TRIMS: dict[str, Callable[[Canvas, Points, Look, float], None]] = {
    "minimal": _seam,
    "classic": _piping,
    "boho": _fringe,
    "deco": _stepped,
    "romantic": _lace,
    "urban": _tape,
}
