"""Shoes, boots, bags, scarves and hats: one function per product type."""

from collections.abc import Callable

import numpy as np

from newshelf.sample.canvas import Canvas
from newshelf.sample.geometry import (
    arc,
    array,
    disc,
    mirrored,
    rectangle,
    regular,
    rightwards,
    sided,
    spaced,
    spline,
    steps,
)
from newshelf.sample.look import Look
from newshelf.sample.palette import darker, lighter
from newshelf.sample.styles import bow, cover, flower, piece, trim

__all__ = ["ACCESSORIES"]


def _sole(canvas: Canvas, look: Look) -> None:
    """A heel, a flat or a trainer's sole, by style, below a shoe that points right."""
    tone = look.second if look.style == "urban" else darker(look.rgb, 0.5)
    if look.style == "urban":
        canvas.shape(rectangle(13, 68, 90, 77, 3.5), (244, 244, 242), edge=(150, 150, 150))
        canvas.line(array("16,72.5 87,72.5"), 1.3, look.accent)
    elif look.style in {"classic", "deco", "romantic"}:
        width = 2.6 if look.style == "romantic" else 6
        canvas.shape(array([(14, 60), (24, 62), (14 + width + 2, 84), (14, 84)]), tone)
        canvas.shape(spline("20,64 50,79 89,80 89,83 52,83 24,68", closed=True), tone)
    else:
        canvas.shape(
            rectangle(13, 70, 89, 74.5, 1.8), (190, 150, 96) if look.style == "boho" else tone
        )


def shoes(canvas: Canvas, look: Look) -> None:
    """Trainer, pump, sandal, loafer or T-strap, seen from the side."""
    _sole(canvas, look)
    if look.style in {"classic", "deco", "romantic"}:
        upper = spline(
            "14,42 22,48 38,64 58,66 72,66 86,73 90,80 60,80 38,76 22,66 13,56", closed=True
        )
    elif look.style == "urban":
        upper = spline("14,40 24,36 32,46 44,42 62,54 84,60 90,69 50,71 14,70", closed=True)
    else:
        upper = spline("14,50 24,46 34,57 48,60 66,56 82,61 88,70 50,72 14,71", closed=True)
    if look.style in {"minimal", "boho"}:
        opening = spline("15,51 25,44 38,57 50,60 30,60", closed=True)
        canvas.shape(opening, darker(look.rgb, 0.6))
    piece(canvas, upper, look, 0.7)
    canvas.fold(array("60,68 84,72"), 3, 0.3)
    if look.style == "minimal":
        canvas.line(spline("56,58 58,66 54,72"), 0.6, look.seam)
    if look.style == "urban":
        for x in (44, 49, 54, 59):
            canvas.line(
                array([(x - 2, 41 + (x - 44) * 0.8), (x + 3, 50 + (x - 44) * 0.6)]),
                1.2,
                look.second,
            )
        canvas.line(spline("22,66 34,56 40,68"), 2, look.accent)
    elif look.style == "romantic":
        bow(canvas, 76, 66, 6, look.accent)
    elif look.style == "deco":
        canvas.line(spline("18,50 34,44 48,62"), 2, look.accent)
        canvas.shape(regular(72, 68, 4, 6), look.accent, edge=look.second)
    elif look.style == "classic":
        canvas.shape(rectangle(64, 64, 75, 69, 1), look.metal.mid, edge=look.metal.dark)
    elif look.style == "boho":
        trim(canvas, spline("34,57 48,60 66,56"), look, 0.8)


def boots(canvas: Canvas, look: Look) -> None:
    """A high shaft over the shoe."""
    high = look.by_style(34, 14, 26, 22, 20, 20)
    heel = look.style in {"classic", "deco", "romantic"}
    tone = darker(look.rgb, 0.55) if look.style != "urban" else (40, 40, 44)
    canvas.shape(rectangle(24, 82, 80, 88, 2.5), tone)
    if heel:
        canvas.shape(array("24,80 38,82 35,95 25,95"), tone)
        canvas.shape(array("46,86 80,86 80,90 50,90"), tone)
    if look.style == "urban":
        for x in steps(26, 80, 6):
            canvas.shape(rectangle(x, 87, x + 4, 91), tone)
    shaft = spline(
        [
            (25, high),
            (50, high),
            (49, 50),
            (52, 64),
            (66, 68),
            (78, 74),
            (80, 83),
            (50, 84),
            (25, 84),
            (26, 60),
        ],
        closed=True,
        steps=6,
    )
    piece(canvas, shaft, look, 0.85)
    canvas.fold(array([(44, high + 6), (42, 64)]), 3, 0.24)
    canvas.fold(spline("28,66 40,70 52,65"), 2, -0.4)
    trim(canvas, array([(25, high + 2), (50, high + 2)]), look, 0.9)
    if look.style in {"urban", "romantic"}:
        for y in steps(high + 8, 66, 6):
            canvas.line(array([(43, y), (52, y + 3)]), 1.0, look.second)
            canvas.line(array([(52, y), (43, y + 3)]), 1.0, look.second)
    if look.style in {"classic", "boho"}:
        canvas.line(array("25.5,62 51,62"), 2.2, darker(look.rgb, 0.35))
        canvas.shape(disc(46, 62, 2.4), look.metal.mid, edge=look.metal.dark)
    if look.style == "romantic":
        bow(canvas, 37, high + 5, 6, look.accent)


def bag(canvas: Canvas, look: Look) -> None:
    """Tote, satchel, fringed pouch, fan clutch, frame bag or backpack."""
    outlines = {
        "minimal": rectangle(24, 38, 76, 86, 2),
        "classic": spline("24,42 76,42 81,84 19,84", closed=True, steps=3),
        "boho": spline("27,40 50,38 73,40 79,66 50,84 21,66", closed=True),
        "deco": np.concatenate([arc(50, 80, 36, 40, 180, 360), [[86, 84], [14, 84]]]),
        "romantic": spline("30,46 50,42 70,46 82,72 64,86 36,86 18,72", closed=True),
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
    piece(canvas, outline, look, 1.0)
    if look.style in {"classic", "boho"}:
        flap = np.concatenate([arc(50, 44, 27, 20, 0, 180)])
        canvas.shape(flap, darker(look.rgb, 0.12), edge=look.seam)
        trim(canvas, flap[::-1], look, 0.8)
        canvas.shape(rectangle(46.5, 60, 53.5, 68, 1), look.metal.mid, edge=look.metal.dark)
    elif look.style == "deco":
        canvas.ball(48, 42, 2.6, look.metal)
        canvas.ball(53, 42, 2.6, look.metal)
        trim(canvas, array("15,83 85,83"), look)
    elif look.style == "romantic":
        canvas.tube(array("30,46 70,46"), 3, look.metal)
        flower(canvas, 62, 58, 6, look.accent, (238, 200, 96))
        bow(canvas, 42, 50, 7, look.accent)
    elif look.style == "urban":
        canvas.shape(rectangle(32, 58, 68, 82, 4), darker(look.rgb, 0.2), edge=look.seam)
        canvas.tube(array("34,63 66,63"), 1.4, look.metal)
        canvas.line(array("30,44 70,44"), 1.2, look.accent)


def scarf(canvas: Canvas, look: Look) -> None:
    """Looped once, both ends hanging, or spread as a square."""
    if look.style in {"romantic", "deco"}:
        outline = regular(50, 50, 50, 4, 45)
        piece(canvas, outline, look, 1.15)
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
        canvas.fold(array("20,80 80,20"), 5, -0.18)
        canvas.fold(array("26,84 84,26"), 4, 0.14)
        return
    for side, low in ((1, 86), (-1, 80)):
        end = sided(side, [(1, 36), (12, 34), (17, low), (3, low + 1)])
        piece(canvas, end, look, 0.9)
        canvas.fold(sided(side, [(6, 40), (9, low)]), 2.4, -0.28)
        edge = sided(side, [(3, low + 1), (17, low)])
        trim(canvas, rightwards(edge), look, 1.0)
    loop = np.concatenate([arc(50, 27, 25, 17, 0, 360), arc(50, 23, 13, 8, 360, 0)])
    canvas.shape(arc(50, 27, 25, 17, 0, 360), look.rgb)
    cover(canvas, arc(50, 27, 25, 17, 0, 360), look, 0.9)
    canvas.hole(disc(50, 23, 13, 8))
    canvas.line(loop, 0.5, look.seam)
    for turn in (40, 75, 105, 140):
        canvas.fold(arc(50, 27, 21, 13, turn - 14, turn + 10, count=8), 2, -0.34)


def _cap(canvas: Canvas, look: Look) -> None:
    crown = np.concatenate([arc(46, 60, 30, 34, 180, 360), [[76, 64], [16, 64]]])
    canvas.shape(spline("60,58 84,60 97,70 78,70 58,66", closed=True), look.second)
    piece(canvas, crown, look, 0.9)
    canvas.line(arc(46, 60, 12, 33, 190, 350), 0.6, look.seam, solid=False)
    canvas.shape(disc(46, 26.5, 2), look.accent)
    canvas.shape(rectangle(40, 44, 56, 54, 2), look.accent, edge=look.second)


def _beanie(canvas: Canvas, look: Look) -> None:
    crown = np.concatenate([arc(50, 60, 27, 40, 180, 360), [[77, 74], [23, 74]]])
    piece(canvas, crown, look, 0.7)
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
        crown = mirrored(spline("50,33 60,28 68,36 73,66"))
    else:
        crown = np.concatenate(
            [arc(50, 58, 25, 34 if look.style == "deco" else 28, 180, 360), [[76, 68], [24, 68]]]
        )
    piece(canvas, crown, look, 0.8)
    band = spline("25.5,63 50,67 74.5,63")
    canvas.line(band, 6, look.accent)
    trim(canvas, band, look, 0.8)
    if look.style == "romantic":
        for x, size in ((66, 6), (57, 4.4), (73, 4)):
            flower(canvas, x, 61, size, lighter(look.accent, 0.2), (238, 200, 96))
    elif look.style == "boho":
        feather = spline("68,64 78,46 86,30 80,48 72,64")
        canvas.shape(feather, look.second, edge=look.accent)
    elif look.style == "deco":
        for turn in (200, 225, 250):
            tip = arc(68, 62, 15, 15, turn + 45, turn + 46, count=2)[0]
            canvas.line(array([(68, 62), (tip[0], tip[1])]), 2, look.second)
        canvas.shape(disc(68, 62, 3), look.accent)
    for x, _ in spaced(array("34,0 66,0"), 16):
        canvas.fold(array([(x, 40), (x, 58)]), 3, -0.12)


Draw = Callable[[Canvas, Look], None]
ACCESSORIES: dict[str, Draw] = {
    "Shoes": shoes,
    "Boots": boots,
    "Bags": bag,
    "Scarves": scarf,
    "Hats": hat,
}
