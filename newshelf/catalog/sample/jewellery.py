"""Jewellery: one function per product type, each carrying the style's motif."""

from collections.abc import Callable

import numpy as np

from newshelf.catalog.sample.canvas import Canvas
from newshelf.catalog.sample.chains import chain
from newshelf.catalog.sample.gems import stone
from newshelf.catalog.sample.geometry import arc, array, disc, rectangle, regular, spaced
from newshelf.catalog.sample.look import Look
from newshelf.catalog.sample.motifs import motif
from newshelf.catalog.sample.palette import lighter
from newshelf.catalog.sample.styles import bow, flower

__all__ = ["JEWELLERY"]

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
    size = {"minimal": 10, "classic": 15, "boho": 15, "deco": 16, "romantic": 15, "urban": 16}[
        look.style
    ]
    motif(canvas, 50, 31 if look.style != "boho" else 28, size, look)


def necklace(canvas: Canvas, look: Look) -> None:
    """A collar that lies in a wide curve, with motifs at its front."""
    path = arc(50, 26, 35, 40, 178, 2, count=60)
    chain(canvas, path, look)
    if look.style in {"boho", "classic"}:
        chain(canvas, arc(50, 24, 27, 29, 172, 8, count=50), look)
    size = {"minimal": 6, "classic": 8.5, "boho": 8, "deco": 9, "romantic": 9, "urban": 9}[
        look.style
    ]
    turns = (90,) if look.style in {"minimal"} else (50, 70, 90, 110, 130)
    for turn in turns:
        x, y = arc(50, 26, 35, 40, turn, turn + 1, count=2)[0]
        motif(canvas, x, y + 1, size if turn == 90 else size * 0.66, look)


def pendant(canvas: Canvas, look: Look) -> None:
    """A large motif on a fine chain."""
    for side in (-1, 1):
        ends = array([(50 + side * 25, 6), (50 + side * 12, 28), (50, 46)])
        if look.style == "urban":
            chain(canvas, ends, look)
        else:
            canvas.line(ends, 1.3, look.metal.dark)
            for x, y in spaced(ends, 2.2):
                canvas.shape(disc(x - 0.2, y - 0.2, 0.7, count=8), look.metal.light)
    bail = disc(50, 46, 2.8, 3.8)
    canvas.tube(np.concatenate([bail, bail[:1]]), 1.4, look.metal)
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
    canvas.tube(array([(16, 62), (84, 38)]), 1.8, look.metal)
    canvas.ball(84, 38, 2.6, look.metal)
    size = {"minimal": 20, "boho": 21, "deco": 27}.get(look.style, 26)
    if look.style == "minimal":
        circle = disc(50, 50, 27)
        canvas.tube(np.concatenate([circle, circle[:1]]), 2.6, look.metal)
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
