"""The centrepiece of a piece of jewellery: one motif per style."""

from collections.abc import Callable

import numpy as np

from newshelf.catalog.sample.canvas import Canvas
from newshelf.catalog.sample.gems import heart, stone, teardrop
from newshelf.catalog.sample.geometry import arc, array, disc, rectangle, regular, spline
from newshelf.catalog.sample.look import Look
from newshelf.catalog.sample.palette import darker, mixed

__all__ = ["motif"]


def motif(canvas: Canvas, x: float, y: float, size: float, look: Look) -> None:
    """Draw the style's centrepiece within about ``size`` units around (x, y)."""
    _MOTIFS[look.style](canvas, x, y, size, look)


def _bezel(canvas: Canvas, x: float, y: float, size: float, look: Look) -> None:
    """Minimal: a single stone in a thin rim."""
    shapes = (
        disc(x, y, size * 0.78),
        rectangle(x - size * 0.36, y - size * 0.8, x + size * 0.36, y + size * 0.8),
        regular(x, y, size * 0.85, 4),
    )
    outline = shapes[look.pick(3)]
    canvas.shape((outline - (x, y)) * 1.13 + (x, y), look.metal.dark)
    canvas.shape((outline - (x + 0.2, y + 0.2)) * 1.1 + (x, y), look.metal.light)
    stone(canvas, outline, look)


def _halo(canvas: Canvas, x: float, y: float, size: float, look: Look) -> None:
    """Classic: a round or oval stone with prongs in a halo of small ones."""
    tall = 1.0 if look.pick(2) else 1.22
    canvas.shape(disc(x, y, size * 0.84, size * 0.84 * tall), look.metal.dark)
    for bx, by in disc(x, y, size * 0.82, size * 0.82 * tall, count=16):
        canvas.ball(bx, by, size * 0.15, look.metal)
    stone(canvas, disc(x, y, size * 0.66, size * 0.66 * tall, count=24), look)
    for turn in (45, 135, 225, 315):
        px, py = arc(x, y, size * 0.66, size * 0.66 * tall, turn, turn + 1, count=2)[0]
        canvas.ball(px, py, size * 0.12, look.metal)


def _dangles(canvas: Canvas, x: float, y: float, size: float, look: Look) -> None:
    """Boho: a hammered disc with feathers and beads hanging from it."""
    for place, share in enumerate((-0.62, 0.0, 0.62)):
        fx, top = x + share * size, y + size * (0.72 - abs(share) * 0.3)
        long = size * (0.85 if place != 1 else 1.05)
        canvas.line(array([(fx, top), (fx, top + long * 0.3)]), size * 0.07, look.metal.dark)
        leaf = spline(
            [
                (fx, top + long * 0.25),
                (fx + size * 0.19, top + long * 0.6),
                (fx, top + long),
                (fx - size * 0.19, top + long * 0.6),
            ],
            closed=True,
            steps=5,
        )
        canvas.shape(
            leaf, look.accent if look.pick(2) else look.metal.mid, edge=look.metal.dark, width=0.3
        )
        canvas.line(
            array([(fx, top + long * 0.3), (fx, top + long * 0.95)]), size * 0.05, look.metal.dark
        )
        canvas.ball(fx, top + long * 0.2, size * 0.12, look.metal)
    canvas.shape(disc(x, y, size * 0.86), look.metal.dark)
    canvas.shape(disc(x - 0.2, y - 0.2, size * 0.82), look.metal.mid)
    for turn in range(0, 360, 24):
        dx, dy = arc(x, y, size * 0.68, size * 0.68, turn, turn + 1, count=2)[0]
        canvas.shape(
            disc(dx, dy, size * 0.1, count=10), look.metal.light if turn % 48 else look.metal.dark
        )
    stone(
        canvas,
        disc(x, y, size * 0.52, count=30)
        if look.variant % 3
        else teardrop(x, y + size * 0.05, size * 0.5),
        look,
    )


def _fan(canvas: Canvas, x: float, y: float, size: float, look: Look) -> None:
    """Deco: a stepped octagon with a fan of enamel and metal above it."""
    ink = (28, 28, 34)
    reach = size * 1.15
    for place, turn in enumerate(np.linspace(196, 344, 9)):
        ray = arc(x, y + size * 0.25, reach, reach, turn - 9, turn + 9, count=4)
        blade = np.concatenate([[[x, y + size * 0.25]], ray])
        canvas.shape(
            blade, look.metal.mid if place % 2 == 0 else ink, edge=look.metal.dark, width=0.3
        )
    canvas.line(arc(x, y + size * 0.25, reach, reach, 188, 352), size * 0.1, look.metal.light)
    for half, low in ((0.8, 0.95), (0.52, 1.12), (0.26, 1.28)):
        canvas.shape(
            rectangle(x - size * half, y + size * 0.55, x + size * half, y + size * low),
            look.metal.mid,
            edge=ink,
            width=0.3,
        )
    canvas.shape(regular(x, y + size * 0.2, size * 0.8, 8, 22.5), ink)
    canvas.shape(regular(x, y + size * 0.2, size * 0.74, 8, 22.5), look.metal.light)
    stone(canvas, regular(x, y + size * 0.2, size * 0.64, 8, 22.5), look)


def _petals(canvas: Canvas, x: float, y: float, size: float, look: Look) -> None:
    """Romantic: a flower around the stone, or a heart between leaves."""
    leaf = mixed(look.metal.mid, (120, 150, 96), 0.35)
    for side in (-1, 1):
        outline = spline(
            [
                (x + side * size * 0.3, y + size * 0.6),
                (x + side * size * 1.05, y + size * 0.4),
                (x + side * size * 1.1, y + size * 0.95),
                (x + side * size * 0.5, y + size * 0.95),
            ],
            closed=True,
            steps=5,
        )
        canvas.shape(outline, leaf, edge=darker(leaf, 0.4), width=0.3)
    if look.pick(2):
        canvas.shape(heart(x, y + size * 0.05, size * 0.95), look.metal.dark)
        canvas.shape(heart(x - 0.2, y + size * 0.02, size * 0.9), look.metal.light)
        stone(canvas, heart(x, y + size * 0.03, size * 0.76), look)
        return
    for px, py in regular(x, y, size * 0.62, 6, 30):
        canvas.shape(disc(px, py, size * 0.4, count=20), look.metal.dark)
        canvas.shape(disc(px - 0.15, py - 0.15, size * 0.36, count=20), look.metal.mid)
        canvas.shape(
            disc(px - size * 0.08, py - size * 0.08, size * 0.2, count=14), look.metal.light
        )
    stone(canvas, disc(x, y, size * 0.46, count=24), look)


def _bolt(canvas: Canvas, x: float, y: float, size: float, look: Look) -> None:
    """Urban: a heavy hexagon like a bolt, with rivets."""
    outline = (
        regular(x, y, size, 6, 30)
        if look.pick(2)
        else rectangle(x - size * 0.8, y - size * 0.8, x + size * 0.8, y + size * 0.8, size * 0.12)
    )
    canvas.shape(outline, look.metal.dark)
    canvas.shape((outline - (x, y)) * 0.92 + (x - 0.2, y - 0.2), look.metal.mid)
    canvas.shape((outline - (x, y)) * 0.66 + (x, y), look.metal.dark)
    for bx, by in (outline[:: max(1, len(outline) // 6)] - (x, y)) * 0.8 + (x, y):
        canvas.ball(bx, by, size * 0.09, look.metal)
    half = size * 0.46
    inner = (
        regular(x, y, half * 1.2, 6, 30)
        if look.pick(2)
        else rectangle(x - half, y - half, x + half, y + half)
    )
    stone(canvas, inner, look)


_MOTIFS: dict[str, Callable[[Canvas, float, float, float, Look], None]] = {
    "minimal": _bezel,
    "classic": _halo,
    "boho": _dangles,
    "deco": _fan,
    "romantic": _petals,
    "urban": _bolt,
}
