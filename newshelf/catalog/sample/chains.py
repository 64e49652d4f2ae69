"""Chains and strings of beads, in the links that each style prefers."""

from collections.abc import Callable

import numpy as np

from newshelf.catalog.sample.canvas import Canvas
from newshelf.catalog.sample.gems import stone
from newshelf.catalog.sample.geometry import Points, disc, moved, regular, spaced
from newshelf.catalog.sample.look import Look
from newshelf.catalog.sample.palette import lighter
from newshelf.catalog.sample.styles import flower

__all__ = ["chain"]


def chain(canvas: Canvas, path: Points, look: Look) -> None:
    """Draw the style's chain along a path."""
    _CHAINS[look.style](canvas, path, look)


def _wire(canvas: Canvas, path: Points, look: Look) -> None:
    canvas.line(path, 1.2, look.metal.dark)
    canvas.line(moved(path, -0.15, -0.15), 0.6, look.metal.light)


def _balls(canvas: Canvas, path: Points, look: Look) -> None:
    for x, y in spaced(path, 3.6):
        canvas.ball(x, y, 1.75, look.metal)


def _beads(canvas: Canvas, path: Points, look: Look) -> None:
    canvas.line(path, 1.0, (112, 76, 44))
    for place, (x, y) in enumerate(spaced(path, 4.4)):
        if place % 3 == 2:
            stone(canvas, disc(x, y, 2.2, count=12), look)
        else:
            canvas.shape(disc(x, y, 1.9, count=12), look.accent, edge=look.second, width=0.5)


def _lozenges(canvas: Canvas, path: Points, look: Look) -> None:
    for place, (x, y) in enumerate(spaced(path, 4.4)):
        fill = (28, 28, 34) if place % 2 else look.metal.mid
        canvas.shape(regular(x, y, 2.5, 4), fill, edge=look.metal.light, width=0.5)


def _blossoms(canvas: Canvas, path: Points, look: Look) -> None:
    canvas.line(path, 0.9, look.metal.dark)
    for place, (x, y) in enumerate(spaced(path, 5.2)):
        if place % 2:
            canvas.ball(x, y, 1.7, look.metal)
        else:
            flower(canvas, x, y, 2.6, lighter(look.metal.mid, 0.3), look.metal.dark)


def _links(canvas: Canvas, path: Points, look: Look) -> None:
    for place, (x, y) in enumerate(spaced(path, 4.8)):
        rx, ry = (4.2, 2.6) if place % 2 else (2.6, 4.2)
        link = disc(x, y, rx, ry, count=22)
        canvas.tube(np.concatenate([link, link[:1]]), 1.9, look.metal)


_CHAINS: dict[str, Callable[[Canvas, Points, Look], None]] = {
    "minimal": _wire,
    "classic": _balls,
    "boho": _beads,
    "deco": _lozenges,
    "romantic": _blossoms,
    "urban": _links,
}
