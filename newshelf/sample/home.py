"""Things for the home and furniture: one function per product type."""

from collections.abc import Callable

import numpy as np

from newshelf.sample.canvas import Canvas
from newshelf.sample.geometry import (
    arc,
    array,
    closed,
    disc,
    mirrored,
    moved,
    rectangle,
    regular,
    sided,
    spline,
)
from newshelf.sample.look import Look
from newshelf.sample.palette import RGB, Metal, darker, lighter
from newshelf.sample.styles import bow, flower, piece, trim

__all__ = ["HOME"]


def _wood(look: Look) -> RGB:
    return {"minimal": (206, 176, 136), "boho": (170, 120, 70), "urban": (58, 58, 62)}.get(
        look.style, (104, 66, 40)
    )


def _round(canvas: Canvas, left: float, right: float, top: float, bottom: float) -> None:
    """Shade a turned body: light from the left, a bright streak, a dark right side."""
    width = right - left
    canvas.fold(
        array([(left + width * 0.28, top), (left + width * 0.28, bottom)]), width * 0.13, 0.34
    )
    canvas.fold(
        array([(right - width * 0.1, top), (right - width * 0.1, bottom)]), width * 0.2, -0.34
    )


def vase(canvas: Canvas, look: Look) -> None:
    """Cylinder, amphora, gourd, stepped, tulip or faceted."""
    right = {
        "minimal": array("61,16 64,20 64,88 60,91"),
        "classic": spline("60,14 57,20 56,28 72,44 70,62 58,82 62,91"),
        "boho": spline("57,18 56,30 66,40 60,50 76,68 66,91"),
        "deco": array("72,14 72,24 66,24 66,40 61,40 61,78 68,78 68,91"),
        "romantic": spline("68,14 60,26 59,36 70,56 68,78 58,86 62,91"),
        "urban": array("57,14 57,30 74,52 66,91"),
    }[look.style]
    if look.style == "classic":
        for side in (-1, 1):
            canvas.tube(spline(sided(side, [(7, 22), (19, 24), (20, 42)])), 2.4, look.metal)
    piece(canvas, mirrored(right), look, 0.9, seam=0.4)
    mouth = right[0][0] - 50
    canvas.shape(disc(50, right[0][1], mouth, 2.4), darker(look.rgb, 0.45), edge=look.seam)
    _round(canvas, 100 - right[:, 0].max(), right[:, 0].max(), 34, 86)
    if look.style != "minimal":
        row = min(len(right) - 2, len(right) // 3)
        reach, y = right[row][0] - 50, right[row][1]
        trim(canvas, spline([(50 - reach, y), (50, y + 2), (50 + reach, y)]), look, 0.8)


def lamp(canvas: Canvas, look: Look) -> None:
    """A table lamp: drum, pleated, woven, fan, ruffled or caged shade."""
    foot = {"minimal": 12, "urban": 17}.get(look.style, 15)
    canvas.shape(disc(50, 90, foot, 3.6), look.metal.dark)
    canvas.shape(disc(49.6, 89, foot * 0.92, 2.8), look.metal.mid)
    if look.style in {"classic", "romantic", "boho"}:
        stem = mirrored(spline("52,50 54,56 60,68 57,80 53,84 56,89"))
        canvas.shape(
            stem, look.metal.mid if look.style == "classic" else look.accent, edge=look.metal.dark
        )
        _round(canvas, 42, 58, 58, 86)
    elif look.style == "deco":
        for low, half in ((88, 11), (83, 7.5), (78, 4.5)):
            canvas.shape(
                rectangle(50 - half, low - 5, 50 + half, low), look.metal.mid, edge=look.second
            )
        canvas.tube(array("50,48 50,74"), 4, look.metal)
    else:
        canvas.tube(array("50,46 50,88"), 2.6, look.metal)
    if look.style == "urban":
        canvas.shape(disc(50, 34, 9, 11), (255, 236, 180), edge=(220, 170, 70))
        canvas.line(spline("46,38 49,28 51,38 54,28"), 0.8, (226, 130, 30))
        for x in (-1, -0.5, 0, 0.5, 1):
            canvas.line(
                spline([(50 + 6 * x, 14), (50 + 22 * x, 34), (50 + 10 * x, 51)]),
                1.3,
                look.metal.dark,
            )
        canvas.shape(rectangle(40, 9, 60, 19, 2), look.rgb, edge=look.seam)
        canvas.shape(rectangle(36, 48, 64, 55, 2), look.rgb, edge=look.seam)
        return
    outline = {
        "minimal": rectangle(29, 14, 71, 48, 1),
        "classic": mirrored("63,12 78,50"),
        "boho": spline("34,50 26,34 36,14 64,14 74,34 66,50", closed=True),
        "deco": np.concatenate([arc(50, 48, 34, 38, 180, 360)]),
        "romantic": mirrored(spline("59,10 64,26 82,48")),
    }[look.style]
    piece(canvas, outline, look, 0.8, seam=0.4)
    canvas.shade(disc(48, 34, 10, 12), 0.4)
    low = outline[:, 1].max()
    edge = outline[outline[:, 1] > low - 4]
    trim(
        canvas, spline([(edge[:, 0].min(), low), (50, low + 1), (edge[:, 0].max(), low)]), look, 0.9
    )


def cushion(canvas: Canvas, look: Look) -> None:
    """A square with soft sides, or a bolster's round face."""
    if look.style == "romantic":
        outline = disc(50, 52, 36, 35)
        trim(canvas, closed(outline), look, 1.6)
    else:
        outline = spline("14,18 50,22 86,18 82,52 86,88 50,84 14,88 18,52", closed=True)
    piece(canvas, outline, look, 1.25, seam=0.4)
    canvas.shade(disc(44, 42, 22, 18), 0.22)
    for corner in ((24, 28), (76, 28), (24, 78), (76, 78)):
        canvas.fold(
            array([corner, (50 + (corner[0] - 50) * 0.6, 52 + (corner[1] - 52) * 0.6)]), 3, -0.26
        )
    if look.style == "boho":
        trim(canvas, spline("16,86 50,84 84,86"), look, 1.4)
        for x in (14, 86):
            canvas.shape(disc(x, 18, 3), look.accent)
    elif look.style in {"classic", "deco"}:
        canvas.line(closed(outline), 1.8, look.accent)
    elif look.style == "romantic":
        bow(canvas, 50, 52, 9, look.accent)
    elif look.style == "urban":
        canvas.tube(array("20,74 80,74"), 1.6, look.metal)


def mug(canvas: Canvas, look: Look) -> None:
    """A cup with a handle."""
    body = {
        "minimal": rectangle(24, 26, 68, 82, 5),
        "classic": mirrored(spline("70,24 69,54 60,80 56,84"), 46),
        "boho": spline("26,26 66,26 72,56 62,82 30,82 20,56", closed=True),
        "deco": mirrored(array("74,22 68,58 58,74 58,84"), 46),
        "romantic": mirrored(spline("74,26 67,44 70,62 58,82 60,85"), 46),
        "urban": rectangle(22, 22, 70, 82, 2),
    }[look.style]
    tone = look.metal.mid if look.style in {"deco", "urban"} else darker(look.rgb, 0.15)
    handle = rectangle(60, 36, 86, 66, 2) if look.style == "urban" else disc(69, 50, 17, 16)
    canvas.line(closed(handle), 5, tone)
    piece(canvas, body, look, 0.85, seam=0.4)
    left, top = body.min(axis=0)
    right = body[:, 0].max()
    _round(canvas, float(left), float(right), float(top) + 4, 80)
    at_top = body[body[:, 1] < top + 2]
    middle, half = (at_top[:, 0].min() + at_top[:, 0].max()) / 2, float(np.ptp(at_top[:, 0])) / 2
    canvas.shape(disc(middle, top + 1, half, 4.5), lighter(look.rgb, 0.3), edge=look.seam)
    canvas.shape(disc(middle, top + 1.8, half * 0.88, 3.2), (74, 48, 34))
    if look.style not in {"minimal", "boho"}:
        trim(
            canvas,
            spline([(middle - half, top + 8), (middle, top + 11), (middle + half, top + 8)]),
            look,
            0.7,
        )


def rug(canvas: Canvas, look: Look) -> None:
    """Seen from above: a rectangle, a round or a runner."""
    if look.style in {"minimal", "romantic"}:
        outline = disc(50, 50, 42, 42)
    elif look.style == "deco":
        outline = np.concatenate([arc(50, 86, 46, 74, 180, 360)])
    else:
        outline = rectangle(20, 8, 80, 92, 1)
    if look.style in {"boho", "classic"}:
        for y, way in ((8, -1), (92, 1)):
            for x in np.arange(21, 80, 2.4):
                canvas.line(array([(x, y), (x, y + way * 4)]), 0.8, (226, 212, 184))
    piece(canvas, outline, look, 1.5, seam=0.4)
    middle = (outline.min(axis=0) + outline.max(axis=0)) / 2
    for share, width in ((0.93, 1.6), (0.84, 0.7)):
        border = middle + (outline - middle) * share
        canvas.line(closed(border), width, look.accent)
    _rug_center(canvas, look)


def _rug_center(canvas: Canvas, look: Look) -> None:
    if look.style == "classic":
        canvas.shape(disc(50, 50, 15, 20), look.accent, edge=look.second, width=1)
        canvas.shape(disc(50, 50, 9, 13), look.rgb, edge=look.second, width=0.6)
    elif look.style == "boho":
        for share, tone in ((18, look.accent), (13, look.second), (8, look.rgb)):
            canvas.shape(regular(50, 50, share, 4), tone)
    elif look.style == "romantic":
        for x, y in regular(50, 50, 34, 10):
            flower(canvas, x, y, 3.6, look.accent, (238, 200, 96))
    elif look.style == "minimal":
        canvas.line(arc(50, 50, 22, 22, 0, 360), 0.8, look.accent)


def clock(canvas: Canvas, look: Look) -> None:
    """A wall clock with a face and hands."""
    radius = 34 if look.style in {"deco", "boho", "romantic"} else 40
    if look.style == "deco":
        for ray in regular(50, 50, 46, 24):
            canvas.line(array([(50, 50), (ray[0], ray[1])]), 2.2, look.metal.mid)
        for ray in regular(50, 50, 41, 24, 7.5):
            canvas.line(array([(50, 50), (ray[0], ray[1])]), 1.6, look.second)
    elif look.style == "boho":
        for ray in regular(50, 50, 40, 20):
            canvas.shape(
                disc(ray[0], ray[1], 5.4, count=16), look.accent, edge=look.second, width=0.6
            )
    elif look.style == "romantic":
        for ray in regular(50, 50, 38, 12):
            flower(canvas, ray[0], ray[1], 6.4, look.accent, (238, 200, 96))
    rim = (
        regular(50, 50, radius + 2, 8, 22.5)
        if look.style == "urban"
        else disc(50, 50, radius, count=72)
    )
    piece(canvas, rim, look, 1.0, seam=0.4)
    if look.style != "minimal":
        canvas.tube(closed(rim), 3.4, look.metal)
    face = radius * (0.66 if look.style != "minimal" else 0.9)
    tone = look.rgb if look.style == "minimal" else lighter(look.rgb, 0.72)
    canvas.shape(disc(50, 50, face, count=60), tone, edge=look.seam)
    ink: RGB = (30, 30, 36) if sum(tone) > 300 else (240, 240, 240)
    for place, (x, y) in enumerate(regular(50, 50, face * 0.86, 12, -90)):
        if look.style == "minimal" and place % 3:
            continue
        canvas.line(
            array([(x, y), (50 + (x - 50) * 0.88, 50 + (y - 50) * 0.88)]),
            1.6 if place % 3 else 2.4,
            ink,
        )
    canvas.line(array([(50, 50), (50 - face * 0.45, 50 - face * 0.22)]), 2.4, ink)
    canvas.line(array([(50, 50), (50 + face * 0.38, 50 - face * 0.6)]), 1.6, ink)
    canvas.shape(disc(50, 50, 2.2), look.accent)


_WOODS: dict[str, RGB] = {"minimal": (206, 176, 136), "boho": (170, 120, 70)}


def _legs(canvas: Canvas, look: Look, feet: tuple[tuple[float, float], ...], top: float) -> None:
    """Straight, turned, hairpin or metal legs from ``top`` to each foot."""
    wood = _WOODS.get(look.style, (104, 66, 40))
    metal = Metal(darker(wood, 0.45), wood, lighter(wood, 0.4))
    if look.style in {"deco", "urban"}:
        metal = look.metal
    for start, foot in feet:
        leg = array([(start, top), (foot, 92)])
        canvas.tube(leg, 1.6 if look.style == "urban" else 3.0, metal)
        if look.style == "urban":
            canvas.tube(moved(leg, 2.4 if foot < 50 else -2.4, 0), 1.6, metal)
        elif look.style in {"classic", "romantic"}:
            canvas.ball(start, top + (92 - top) * 0.35, 2.6, metal)


def _tufts(canvas: Canvas, look: Look, left: float, right: float, rows: tuple[float, ...]) -> None:
    for place, y in enumerate(rows):
        for x in np.arange(left + (place % 2) * 4, right, 8):
            canvas.shape(disc(x, y, 0.9, count=10), look.seam)
            canvas.shade(disc(x, y + 1, 2.6), -0.3)


def chair(canvas: Canvas, look: Look) -> None:
    """Shell, wing chair, peacock chair, fan back, heart back or stool with a back."""
    _legs(canvas, look, ((34, 30), (66, 70), (39, 38), (61, 62)), 62)
    back = {
        "minimal": rectangle(31, 16, 69, 50, 9),
        "classic": spline("27,22 34,12 50,10 66,12 73,22 69,58 31,58", closed=True),
        "boho": np.concatenate([arc(50, 34, 31, 28, 150, 390), [[64, 60], [36, 60]]]),
        "deco": np.concatenate([arc(50, 42, 29, 32, 180, 360), [[70, 60], [30, 60]]]),
        "romantic": spline("50,18 62,9 75,18 70,40 60,58 40,58 30,40 25,18 38,9", closed=True),
        "urban": rectangle(31, 14, 69, 34, 2),
    }[look.style]
    if look.style == "urban":
        for x in (36, 64):
            canvas.tube(array([(x, 30), (x, 64)]), 2, look.metal)
    piece(canvas, back, look)
    seat = spline("29,60 50,57 71,60 73,67 50,71 27,67", closed=True)
    piece(canvas, seat, look, 0.8)
    canvas.shade(moved(seat, 0, 3), -0.12)
    canvas.fold(array("32,58.5 68,58.5"), 3, -0.4)
    if look.style == "classic":
        _tufts(canvas, look, 36, 66, (20, 28, 36, 44))
    if look.style not in {"minimal", "urban"}:
        trim(canvas, array("28,68 50,71.5 72,68"), look, 0.9)
    if look.style in {"classic", "romantic"}:
        for side in (-1, 1):
            arm = spline(sided(side, [(22, 44), (28, 46), (25, 64)]))
            canvas.line(arm, 4.2, darker(look.rgb, 0.2))


def sofa(canvas: Canvas, look: Look) -> None:
    """Low block, rolled arms, day bed, shell, curved back or modular, by style."""
    _legs(canvas, look, ((18, 17), (82, 83), (50, 50)), 72)
    back = {
        "minimal": rectangle(12, 38, 88, 66, 3),
        "classic": spline("14,42 30,33 50,30 70,33 86,42 86,68 14,68", closed=True),
        "boho": rectangle(10, 48, 90, 70, 4),
        "deco": np.concatenate([arc(50, 64, 39, 36, 180, 360)]),
        "romantic": spline("12,44 24,30 38,38 50,27 62,38 76,30 88,44 86,68 14,68", closed=True),
        "urban": rectangle(10, 42, 90, 70, 1),
    }[look.style]
    piece(canvas, back, look)
    seats = 3 if look.style in {"urban", "boho"} else 2
    wide = 68 / seats
    for place in range(seats):
        left = 16 + place * wide
        seat = rectangle(left, 57, left + wide - 0.6, 71, 2.5)
        piece(canvas, seat, look, 0.85)
        canvas.fold(array([(left + 2, 57), (left + wide - 3, 57)]), 3, -0.35)
        canvas.shade(moved(seat[:4], 0, 1), 0.1)
    base = rectangle(10, 69, 90, 76, 1)
    canvas.shape(base, darker(look.rgb, 0.15), edge=look.seam)
    for x in (12, 88):
        arm = (
            rectangle(x - 6, 48, x + 6, 76, 2)
            if look.style in {"minimal", "urban"}
            else disc(x, 54, 6.5)
        )
        if look.style not in {"minimal", "urban"}:
            canvas.shape(rectangle(x - 5, 54, x + 5, 76), darker(look.rgb, 0.1), edge=look.seam)
        canvas.shape(arm, look.rgb, edge=look.seam)
        if look.style in {"classic", "deco", "romantic"}:
            canvas.shape(disc(x, 54, 3), look.accent, edge=look.seam)
    if look.style == "classic":
        _tufts(canvas, look, 22, 80, (40, 47, 54))
    if look.style != "minimal":
        trim(canvas, array("11,76 89,76"), look, 0.9)
    if look.style in {"boho", "romantic"}:
        for x, tone in ((27, look.accent), (70, look.second)):
            canvas.shape(rectangle(x - 7, 46, x + 7, 59, 3), tone, edge=darker(tone, 0.3))


Draw = Callable[[Canvas, Look], None]
HOME: dict[str, Draw] = {
    "Chairs": chair,
    "Sofas": sofa,
    "Vases": vase,
    "Lamps": lamp,
    "Cushions": cushion,
    "Mugs": mug,
    "Rugs": rug,
    "Clocks": clock,
}
