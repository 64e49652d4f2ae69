"""Jewellery: chains and motifs in six styles, and one function per product type."""

from collections.abc import Callable

import numpy as np

from newshelf.sample.canvas import Canvas
from newshelf.sample.gems import heart, stone, teardrop
from newshelf.sample.geometry import (
    Points,
    arc,
    array,
    closed,
    disc,
    moved,
    rectangle,
    regular,
    sided,
    spaced,
    spline,
)
from newshelf.sample.look import Look
from newshelf.sample.palette import darker, lighter, mixed
from newshelf.sample.styles import bow, flower

__all__ = ["JEWELLERY"]


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
        canvas.tube(closed(link), 1.9, look.metal)


_CHAINS: dict[str, Callable[[Canvas, Points, Look], None]] = {
    "minimal": _wire,
    "classic": _balls,
    "boho": _beads,
    "deco": _lozenges,
    "romantic": _blossoms,
    "urban": _links,
}


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


_BAND = {"minimal": 2.6, "classic": 4.2, "boho": 4.6, "deco": 5.0, "romantic": 3.4, "urban": 7.5}


def ring(canvas: Canvas, look: Look) -> None:
    """A band seen from slightly above, the motif on top."""
    width = _BAND[look.style]
    band = arc(50, 61, 26, 27, -270, 90, count=90)
    canvas.tube(band, width, look.metal)
    shadow = arc(50, 61, 26 - width * 0.5, 27 - width * 0.5, 190, 350)
    canvas.line(shadow, 0.8, look.metal.dark)
    if look.style == "boho":
        for x, y in spaced(band, 4.2):
            canvas.ball(x, y, 2.5, look.metal)
    elif look.style == "romantic":
        for turn in (205, 225, 315, 335):
            x, y = arc(50, 61, 27, 28, turn, turn + 1, count=2)[0]
            flower(canvas, x, y, 3.0, look.metal.light, look.metal.dark)
    elif look.style == "deco":
        for turn in (212, 226, 314, 328):
            x, y = arc(50, 61, 27, 28, turn, turn + 1, count=2)[0]
            canvas.shape(
                rectangle(x - 2.8, y - 3.4, x + 2.8, y + 3.4),
                (28, 28, 34),
                edge=look.metal.light,
                width=0.9,
            )
    elif look.style == "urban":
        for turn in range(20, 180, 32):
            x, y = arc(50, 61, 26, 27, turn, turn + 1, count=2)[0]
            canvas.ball(x, y, 2.2, look.metal)
    if look.style == "minimal" and look.material in {"Gold", "Silver"} and look.variant % 3 == 0:
        return
    size = look.by_style(10, 15, 15, 16, 15, 16)
    motif(canvas, 50, 31 if look.style != "boho" else 28, size, look)


def necklace(canvas: Canvas, look: Look) -> None:
    """A collar that lies in a wide curve, with motifs at its front."""
    path = arc(50, 26, 35, 40, 178, 2, count=60)
    chain(canvas, path, look)
    if look.style in {"boho", "classic"}:
        chain(canvas, arc(50, 24, 27, 29, 172, 8, count=50), look)
    size = look.by_style(6, 8.5, 8, 9, 9, 9)
    turns = (90,) if look.style in {"minimal"} else (50, 70, 90, 110, 130)
    for turn in turns:
        x, y = arc(50, 26, 35, 40, turn, turn + 1, count=2)[0]
        motif(canvas, x, y + 1, size if turn == 90 else size * 0.66, look)


def pendant(canvas: Canvas, look: Look) -> None:
    """A large motif on a fine chain."""
    for side in (-1, 1):
        ends = sided(side, [(25, 6), (12, 28), (0, 46)])
        if look.style == "urban":
            chain(canvas, ends, look)
        else:
            canvas.line(ends, 1.3, look.metal.dark)
            for x, y in spaced(ends, 2.2):
                canvas.shape(disc(x - 0.2, y - 0.2, 0.7, count=8), look.metal.light)
    bail = disc(50, 46, 2.8, 3.8)
    canvas.tube(closed(bail), 1.4, look.metal)
    size = {"minimal": 13, "boho": 15, "deco": 18}.get(look.style, 19)
    motif(canvas, 50, 48 + size, size, look)


def earrings(canvas: Canvas, look: Look) -> None:
    """A pair: studs, drops, hoops or dangling fans."""
    for x in (30, 70):
        top = {"minimal": 42, "classic": 26}.get(look.style, 22)
        if look.style == "urban":
            hoop = arc(x, 50, 15, 21, -80, 260, count=50)
            canvas.tube(hoop, 5.4, look.metal)
            motif(canvas, x, 70, 8.5, look)
            continue
        hook = arc(x + 2.6, top - 6, 3, 6, 90, 330, count=24)
        if look.style != "minimal":
            canvas.line(hook, 1.3, look.metal.dark)
            canvas.line(hook - 0.2, 0.5, look.metal.light)
        if look.style == "minimal":
            motif(canvas, x, 32, 7, look)
            canvas.line(array([(x, 37), (x, 62)]), 1.1, look.metal.dark)
            canvas.line(array([(x - 0.2, 37), (x - 0.2, 62)]), 0.5, look.metal.light)
            canvas.ball(x, 64, 2.4, look.metal)
        elif look.style == "classic":
            motif(canvas, x, 32, 9, look)
            canvas.line(array([(x, 41), (x, 50)]), 1, look.metal.dark)
            stone(canvas, disc(x, 60, 8, 10, count=24), look)
            canvas.ball(x, 50, 1.8, look.metal)
        elif look.style == "romantic":
            bow(canvas, x, 26, 8, look.metal.mid)
            canvas.line(array([(x, 27), (x, 44)]), 1, look.metal.dark)
            motif(canvas, x, 56, 13, look)
        else:
            canvas.line(array([(x, top), (x, 40)]), 1.2, look.metal.dark)
            canvas.ball(x, 30, 2.4, look.metal)
            motif(canvas, x, 48, 14, look)


def bracelet(canvas: Canvas, look: Look) -> None:
    """A bangle or a chain that lies open, motifs at the front."""
    back, front = arc(50, 48, 37, 22, 180, 360), arc(50, 48, 37, 24, 180, 0)
    width = _BAND[look.style] * 1.25
    if look.style in {"minimal", "deco", "urban"} and look.variant % 5 < 3:
        canvas.tube(back, width * 0.8, look.metal)
        canvas.tube(front, width, look.metal)
        if look.style != "minimal":
            for turn in range(24, 170, 12):
                x, y = arc(50, 48, 37, 24, turn, turn + 1, count=2)[0]
                canvas.shape(
                    regular(x, y, width * 0.36, 4 if look.style == "deco" else 6),
                    (28, 28, 34),
                    edge=look.metal.light,
                    width=0.5,
                )
    else:
        chain(canvas, back, look)
        chain(canvas, front, look)
    size = {"minimal": 6.5, "boho": 8.5, "deco": 11}.get(look.style, 10)
    turns = {"minimal": (90,), "urban": (90,), "deco": (90,), "boho": (60, 90, 120)}.get(
        look.style, (38, 64, 90, 116, 142)
    )
    for turn in turns:
        x, y = arc(50, 48, 37, 24, turn, turn + 1, count=2)[0]
        motif(canvas, x, y, size if turn == 90 else size * 0.74, look)


def brooch(canvas: Canvas, look: Look) -> None:
    """One large motif with its pin."""
    canvas.tube(array("16,62 84,38"), 1.8, look.metal)
    canvas.ball(84, 38, 2.6, look.metal)
    size = {"minimal": 20, "boho": 21, "deco": 27}.get(look.style, 26)
    if look.style == "minimal":
        circle = disc(50, 50, 27)
        canvas.tube(closed(circle), 2.6, look.metal)
    if look.style == "romantic":
        for x, y in regular(50, 50, 30, 10):
            flower(canvas, x, y, 5, lighter(look.metal.mid, 0.3), look.metal.dark)
    if look.style == "urban":
        for turn in (0, 60, 120, 180, 240, 300):
            x, y = arc(50, 50, 33, 33, turn, turn + 1, count=2)[0]
            canvas.tube(array([(50, 50), (x, y)]), 5, look.metal)
    motif(canvas, 50, {"boho": 40, "deco": 48}.get(look.style, 50), size, look)


Draw = Callable[[Canvas, Look], None]
JEWELLERY: dict[str, Draw] = {
    "Rings": ring,
    "Necklaces": necklace,
    "Pendants": pendant,
    "Earrings": earrings,
    "Bracelets": bracelet,
    "Brooches": brooch,
}
