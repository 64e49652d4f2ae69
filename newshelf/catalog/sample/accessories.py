"""Bags, scarves and hats: one function per product type."""

from collections.abc import Callable

import numpy as np

from newshelf.catalog.sample.canvas import Canvas
from newshelf.catalog.sample.footwear import skin
from newshelf.catalog.sample.geometry import (
    arc,
    array,
    disc,
    mirrored,
    rectangle,
    regular,
    spaced,
    spline,
    steps,
)
from newshelf.catalog.sample.look import Look
from newshelf.catalog.sample.palette import darker, lighter
from newshelf.catalog.sample.styles import bow, cover, flower, trim

__all__ = ["ACCESSORIES"]


def bag(canvas: Canvas, look: Look) -> None:
    """Tote, satchel, fringed pouch, fan clutch, frame bag or backpack."""
    outlines = {
        "minimal": rectangle(24, 38, 76, 86, 2),
        "classic": spline([(24, 42), (76, 42), (81, 84), (19, 84)], closed=True, steps=3),
        "boho": spline([(27, 40), (50, 38), (73, 40), (79, 66), (50, 84), (21, 66)], closed=True),
        "deco": np.concatenate([arc(50, 80, 36, 40, 180, 360), [[86, 84], [14, 84]]]),
        "romantic": spline(
            [(30, 46), (50, 42), (70, 46), (82, 72), (64, 86), (36, 86), (18, 72)], closed=True
        ),
        "urban": rectangle(25, 26, 75, 88, 9),
    }
    outline = outlines[look.style]
    strap = look.metal if look.style in {"deco", "romantic", "urban"} else None
    reach = 24 if look.style in {"boho", "urban"} else 16
    path = arc(50, 44, reach, 30 if reach < 20 else 36, 190, 350)
    if strap is None:
        canvas.line(path, 2.6, darker(look.rgb, 0.4))
    else:
        canvas.tube(path, 2.0, strap)
    skin(canvas, outline, look, 1.0)
    if look.style in {"classic", "boho"}:
        flap = np.concatenate([arc(50, 44, 27, 20, 0, 180)])
        canvas.shape(flap, darker(look.rgb, 0.12), edge=look.seam)
        trim(canvas, flap[::-1], look, 0.8)
        canvas.shape(rectangle(46.5, 60, 53.5, 68, 1), look.metal.mid, edge=look.metal.dark)
    elif look.style == "deco":
        canvas.ball(48, 42, 2.6, look.metal)
        canvas.ball(53, 42, 2.6, look.metal)
        trim(canvas, array([(15, 83), (85, 83)]), look)
    elif look.style == "romantic":
        canvas.tube(array([(30, 46), (70, 46)]), 3, look.metal)
        flower(canvas, 62, 58, 6, look.accent, (238, 200, 96))
        bow(canvas, 42, 50, 7, look.accent)
    elif look.style == "urban":
        canvas.shape(rectangle(32, 58, 68, 82, 4), darker(look.rgb, 0.2), edge=look.seam)
        canvas.tube(array([(34, 63), (66, 63)]), 1.4, look.metal)
        canvas.line(array([(30, 44), (70, 44)]), 1.2, look.accent)


def scarf(canvas: Canvas, look: Look) -> None:
    """Looped once, both ends hanging, or spread as a square."""
    if look.style in {"romantic", "deco"}:
        outline = regular(50, 50, 50, 4, 45)
        skin(canvas, outline, look, 1.15)
        for inset, width in ((33.4, 2.6), (29, 0.9)):
            low, high = 50 - inset, 50 + inset
            canvas.line(
                np.concatenate([rectangle(low, low, high, high), [[low, low]]]), width, look.accent
            )
        for x in (22, 78):
            for y in (22, 78):
                if look.style == "romantic":
                    flower(canvas, x, y, 4.5, look.accent, (238, 200, 96))
                else:
                    canvas.shape(regular(x, y, 4.5, 4), look.second, edge=look.accent, width=0.8)
        canvas.fold(array([(20, 80), (80, 20)]), 5, -0.18)
        canvas.fold(array([(26, 84), (84, 26)]), 4, 0.14)
        return
    for side, low in ((1, 86), (-1, 80)):
        end = array(
            [
                (50 + side * 1, 36),
                (50 + side * 12, 34),
                (50 + side * 17, low),
                (50 + side * 3, low + 1),
            ]
        )
        skin(canvas, end, look, 0.9)
        canvas.fold(array([(50 + side * 6, 40), (50 + side * 9, low)]), 2.4, -0.28)
        edge = array([(50 + side * 3, low + 1), (50 + side * 17, low)])
        trim(canvas, edge[np.argsort(edge[:, 0])], look, 1.0)
    loop = np.concatenate([arc(50, 27, 25, 17, 0, 360), arc(50, 23, 13, 8, 360, 0)])
    canvas.shape(arc(50, 27, 25, 17, 0, 360), look.rgb)
    cover(canvas, arc(50, 27, 25, 17, 0, 360), look, 0.9)
    canvas.hole(disc(50, 23, 13, 8))
    canvas.line(loop, 0.5, look.seam)
    for turn in (40, 75, 105, 140):
        canvas.fold(arc(50, 27, 21, 13, turn - 14, turn + 10, count=8), 2, -0.34)


def _cap(canvas: Canvas, look: Look) -> None:
    crown = np.concatenate([arc(46, 60, 30, 34, 180, 360), [[76, 64], [16, 64]]])
    canvas.shape(
        spline([(60, 58), (84, 60), (97, 70), (78, 70), (58, 66)], closed=True), look.second
    )
    skin(canvas, crown, look, 0.9)
    canvas.line(arc(46, 60, 12, 33, 190, 350), 0.6, look.seam, solid=False)
    canvas.shape(disc(46, 26.5, 2), look.accent)
    canvas.shape(rectangle(40, 44, 56, 54, 2), look.accent, edge=look.second)


def _beanie(canvas: Canvas, look: Look) -> None:
    crown = np.concatenate([arc(50, 60, 27, 40, 180, 360), [[77, 74], [23, 74]]])
    skin(canvas, crown, look)
    canvas.shape(rectangle(21.5, 62, 78.5, 77, 3), darker(look.rgb, 0.08), edge=look.seam)
    for x in steps(26, 76, 4):
        canvas.fold(array([(x, 63), (x, 76)]), 1, -0.22)


def hat(canvas: Canvas, look: Look) -> None:
    """Beanie, fedora, straw hat, cloche, sun hat or cap."""
    if look.style == "urban":
        _cap(canvas, look)
        return
    if look.style == "minimal":
        _beanie(canvas, look)
        return
    wide = {"classic": 40, "boho": 46, "deco": 31, "romantic": 47}[look.style]
    low = 68
    canvas.shape(
        disc(50, low, wide, wide * (0.42 if look.style == "deco" else 0.27)),
        darker(look.rgb, 0.1),
        edge=look.seam,
    )
    canvas.shape(disc(50, low - 2, wide * 0.95, wide * 0.2), look.rgb)
    if look.style == "classic":
        crown = mirrored(spline([(50, 33), (60, 28), (68, 36), (73, 66)]))
    else:
        crown = np.concatenate(
            [arc(50, 58, 25, 34 if look.style == "deco" else 28, 180, 360), [[76, 68], [24, 68]]]
        )
    skin(canvas, crown, look, 0.8)
    band = spline([(25.5, 63), (50, 67), (74.5, 63)])
    canvas.line(band, 6, look.accent)
    trim(canvas, band, look, 0.8)
    if look.style == "romantic":
        for x, size in ((66, 6), (57, 4.4), (73, 4)):
            flower(canvas, x, 61, size, lighter(look.accent, 0.2), (238, 200, 96))
    elif look.style == "boho":
        feather = spline([(68, 64), (78, 46), (86, 30), (80, 48), (72, 64)])
        canvas.shape(feather, look.second, edge=look.accent)
    elif look.style == "deco":
        for turn in (200, 225, 250):
            tip = arc(68, 62, 15, 15, turn + 45, turn + 46, count=2)[0]
            canvas.line(array([(68, 62), (tip[0], tip[1])]), 2, look.second)
        canvas.shape(disc(68, 62, 3), look.accent)
    for x, _ in spaced(array([(34, 0), (66, 0)]), 16):
        canvas.fold(array([(x, 40), (x, 58)]), 3, -0.12)


Draw = Callable[[Canvas, Look], None]
ACCESSORIES: dict[str, Draw] = {
    "Bags": bag,
    "Scarves": scarf,
    "Hats": hat,
}
