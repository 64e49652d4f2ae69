"""Furniture and things for the home."""

import numpy as np

from newshelf.sample.palette import Metal, darker, lighter
from newshelf.sample.patterns import bow, flower, piece, trim
from newshelf.sample.pen import Pen, moved, ngon, points, sagging, scaled


def _turned(pen: Pen, outline: str, top: float, bottom: float) -> None:
    """Shade a turned body: a bright streak on the left, a dark right side."""
    left, right = points(outline)[:, 0].min(), points(outline)[:, 0].max()
    width = right - left
    lit, dark = left + width * 0.28, right - width * 0.1
    pen.fold(f"{lit},{top} {lit},{bottom}", width * 0.13, 0.34)
    pen.fold(f"{dark},{top} {dark},{bottom}", width * 0.2, -0.34)


def _tufts(pen: Pen, left: int, right: int, rows: tuple[int, ...]) -> None:
    for place, y in enumerate(rows):
        for x in range(left + place % 2 * 4, right, 8):
            pen.shape(f"disc {x},{y} .9", "seam")
            pen.shade(f"disc {x},{y + 1} 2.6", -0.3)


def _legs(pen: Pen, feet: tuple[tuple[int, int], ...], top: int) -> None:
    """Draw straight, turned or hairpin legs from ``top`` to each foot."""
    wood = pen.look.tone(pen.by("sienna-40", m="tan", b="peru"))
    metal = pen.by(Metal(darker(wood, 0.45), wood, lighter(wood, 0.4)), du=None)
    for start, foot in feet:
        pen.tube(f"{start},{top} {foot},92", pen.by(3, u=1.6), metal)
        inwards = 2.4 if foot < 50 else -2.4
        pen.on("u", pen.tube, f"{start + inwards},{top} {foot + inwards},92", 1.6)
        pen.on("cr", pen.ball, start, top + (92 - top) * 0.35, 2.6, metal)


def _vase(pen: Pen) -> None:
    """Draw a cylinder, amphora, gourd, stepped, tulip or faceted vase."""
    for _ in pen.sides():
        pen.on("c", pen.tube, "curve 57,22 69,24 70,42", 2.4)
    outline = pen.by(
        "half 61,16 64,20 64,88 60,91",
        c="half curve 60,14 57,20 56,28 72,44 70,62 58,82 62,91",
        b="half curve 57,18 56,30 66,40 60,50 76,68 66,91",
        d="half 72,14 72,24 66,24 66,40 61,40 61,78 68,78 68,91",
        r="half curve 68,14 60,26 59,36 70,56 68,78 58,86 62,91",
        u="half 57,14 57,30 74,52 66,91",
    )
    piece(pen, outline, 0.9)
    body = points(outline)
    pen.shape(f"disc 50,{body[0, 1]} {body[0, 0] - 50},2.4", "rgb-45", "seam")
    _turned(pen, outline, 34, 86)
    reach, y = body[min(len(body) // 2 - 2, len(body) // 6)] - (50, 0)
    pen.on("cbdru", trim, pen, sagging(y, reach), 0.8)


def _lamp(pen: Pen) -> None:
    """Draw a table lamp with a drum, pleated, woven, fan, ruffled or caged shade."""
    foot = pen.by(15, m=12, u=17)
    pen.shape(f"disc 50,90 {foot},3.6", "dark")
    pen.shape(f"disc 49.6,89 {foot * 0.92},2.8", "mid")
    stem = "half curve 52,50 54,56 60,68 57,80 53,84 56,89"
    pen.on("cbr", pen.shape, stem, pen.by("accent", c="mid"), "dark")
    pen.on("cbr", _turned, pen, stem, 58, 86)
    for low, half in pen.by((), d=((88, 11), (83, 7.5), (78, 4.5))):
        pen.shape(f"box {50 - half},{low - 5} {50 + half},{low}", "mid", "second")
    pen.on("mdu", pen.tube, pen.by("50,46 50,88", d="50,48 50,74"), pen.by(2.6, d=4))
    pen.by(_shade, u=_cage)(pen)


def _cage(pen: Pen) -> None:
    pen.shape("disc 50,34 9,11", "moccasin", "goldenrod+30")
    pen.line("curve 46,38 49,28 51,38 54,28", "peru", 0.8)
    for x in (-1, -0.5, 0, 0.5, 1):
        pen.line(f"curve {50 + 6 * x},14 {50 + 22 * x},34 {50 + 10 * x},51", "dark", 1.3)
    pen.shape("box 40,9 60,19 2", "rgb", "seam")
    pen.shape("box 36,48 64,55 2", "rgb", "seam")


def _shade(pen: Pen) -> None:
    outline, half = pen.by(
        ("box 29,14 71,48 1", 21),
        c=("half 63,12 78,50", 28),
        b=("loop 34,50 26,34 36,14 64,14 74,34 66,50", 18),
        d=("arc 50,48 34,38 180,360", 34),
        r=("half curve 59,10 64,26 82,48", 32),
    )
    piece(pen, outline, 0.8)
    pen.shade("disc 48,34 10,12", 0.4)
    trim(pen, sagging(points(outline)[:, 1].max(), half, 1), 0.9)


def _cushion(pen: Pen) -> None:
    outline = pen.by("loop 14,18 50,22 86,18 82,52 86,88 50,84 14,88 18,52", r="disc 50,52 36,35")
    pen.on("r", trim, pen, "arc 50,52 36,35 0,360", 1.6)
    piece(pen, outline, 1.25)
    pen.shade("disc 44,42 22,18", 0.22)
    for x, y in ((24, 28), (76, 28), (24, 78), (76, 78)):
        pen.fold(f"{x},{y} {20 + x * 0.6},{20.8 + y * 0.6}", 3, -0.26)
    pen.on("b", trim, pen, "curve 16,86 50,84 84,86", 1.4)
    for x in (14, 86):
        pen.on("b", pen.shape, f"disc {x},18 3", "accent")
    pen.on("cd", pen.line, outline, "accent", 1.8, closed=True)
    pen.on("r", bow, pen, 50, 52, 9)
    pen.on("u", pen.tube, "20,74 80,74", 1.6)


def _mug(pen: Pen) -> None:
    # Outline, the left and right ends and the height of its mouth.
    body, left, right, top = pen.by(
        ("box 24,26 68,82 5", 27, 65, 26),
        c=("curve 70,24 69,54 60,80 56,84 | curve 36,84 32,80 23,54 22,24", 22, 70, 24),
        b=("loop 26,26 66,26 72,56 62,82 30,82 20,56", 26, 66, 25),
        d=("74,22 68,58 58,74 58,84 34,84 34,74 24,58 18,22", 18, 74, 22),
        r=("curve 74,26 67,44 70,62 58,82 60,85 | curve 32,85 34,82 22,62 25,44 18,26", 18, 74, 26),
        u=("box 22,22 70,82 2", 23, 69, 22),
    )
    handle = pen.by("disc 69,50 17,16", u="box 60,36 86,66 2")
    pen.line(handle, pen.by("rgb-15", du="mid"), 5, closed=True)
    piece(pen, body, 0.85)
    _turned(pen, body, top + 4, 80)
    middle, half = (left + right) / 2, (right - left) / 2
    pen.shape(f"disc {middle},{top + 1} {half},4.5", "rgb+30", "seam")
    pen.shape(f"disc {middle},{top + 1.8} {half * 0.88},3.2", "sienna-60")
    pen.on("cdru", trim, pen, sagging(top + 8, half, 3, middle), 0.7)


def _rug(pen: Pen) -> None:
    """Draw a rectangular, round or half-round rug, seen from above."""
    for x in pen.by((), cb=range(0, 60, 3)):
        pen.line(f"{21 + x},4 {21 + x},96", "wheat", 0.8)
    outline = pen.by("box 20,8 80,92 1", mr="disc 50,50 42", d="arc 50,86 46,74 180,360")
    piece(pen, outline, 1.5)
    for share, width in ((0.93, 1.6), (0.84, 0.7)):
        pen.line(scaled(points(outline), share), "accent", width, closed=True)
    pen.on("m", pen.line, "disc 50,50 22", "accent", 0.8, closed=True)
    pen.on("c", pen.shape, "disc 50,50 15,20", "accent", "second", 1)
    pen.on("c", pen.shape, "disc 50,50 9,13", "rgb", "second", 0.6)
    for radius, tone in pen.by((), b=((18, "accent"), (13, "second"), (8, "rgb"))):
        pen.shape(f"ngon 50,50 {radius} 4", tone)
    for x, y in ngon(50, 50, 34, 10):
        pen.on("r", flower, pen, x, y, 3.6, "accent")


def _clock(pen: Pen) -> None:
    radius = pen.by(40, bdr=34)
    for place, (x, y) in enumerate(ngon(0, 0, 1, 48)):
        reach, tone, width = ((46, "mid", 2.2), (41, "second", 1.6))[place % 2]
        pen.on("d", pen.line, f"50,50 {50 + reach * x},{50 + reach * y}", tone, width)
    for x, y in ngon(50, 50, 40, 20):
        pen.on("b", pen.shape, f"disc {x},{y} 5.4", "accent", "second", 0.6)
    for x, y in ngon(50, 50, 38, 12):
        pen.on("r", flower, pen, x, y, 6.4, "accent")
    rim = pen.by(f"disc 50,50 {radius}", u=f"ngon 50,50 {radius + 2} 8 22.5")
    piece(pen, rim)
    pen.on("cbdru", pen.tube, rim, 3.4, closed=True)
    face, tone = radius * pen.by(0.66, m=0.9), pen.by("rgb+72", m="rgb")
    pen.shape(f"disc 50,50 {face}", tone, "seam")
    ink = "black+10" if sum(pen.look.tone(tone)) > 300 else "whitesmoke"
    for place, (x, y) in enumerate(ngon(0, 0, face * 0.86, 12, -90)):
        if pen.by(True, m=place % 3 == 0):
            mark = [(50 + x, 50 + y), (50 + x * 0.88, 50 + y * 0.88)]
            pen.line(mark, ink, 1.6 if place % 3 else 2.4)
    pen.line(f"50,50 {50 - face * 0.45},{50 - face * 0.22}", ink, 2.4)
    pen.line(f"50,50 {50 + face * 0.38},{50 - face * 0.6}", ink, 1.6)
    pen.shape("disc 50,50 2.2", "accent")


def _chair(pen: Pen) -> None:
    """Draw a shell, wing chair, peacock chair, fan back, heart back or school chair."""
    _legs(pen, ((34, 30), (66, 70), (39, 38), (61, 62)), 62)
    for x in (36, 64):
        pen.on("u", pen.tube, f"{x},30 {x},64", 2)
    back = pen.by(
        "box 31,16 69,50 9",
        c="loop 27,22 34,12 50,10 66,12 73,22 69,58 31,58",
        b="arc 50,34 31,28 150,390 | 64,60 36,60",
        d="arc 50,42 29,32 180,360 | 70,60 30,60",
        r="loop 50,18 62,9 75,18 70,40 60,58 40,58 30,40 25,18 38,9",
        u="box 31,14 69,34 2",
    )
    piece(pen, back)
    seat = "loop 29,60 50,57 71,60 73,67 50,71 27,67"
    piece(pen, seat, 0.8)
    pen.shade(moved(seat, 0, 3), -0.12)
    pen.fold("32,58.5 68,58.5", 3, -0.4)
    pen.on("c", _tufts, pen, 36, 66, (20, 28, 36, 44))
    pen.on("cbdr", trim, pen, "28,68 50,71.5 72,68", 0.9)
    for _ in pen.sides():
        pen.on("cr", pen.line, "curve 72,44 78,46 75,64", "rgb-20", 4.2)


def _sofa(pen: Pen) -> None:
    """Draw a low block, rolled arms, a day bed, shell, curved back or modular sofa."""
    _legs(pen, ((18, 17), (82, 83), (50, 50)), 72)
    back = pen.by(
        "box 12,38 88,66 3",
        c="loop 14,42 30,33 50,30 70,33 86,42 86,68 14,68",
        b="box 10,48 90,70 4",
        d="arc 50,64 39,36 180,360",
        r="loop 12,44 24,30 38,38 50,27 62,38 76,30 88,44 86,68 14,68",
        u="box 10,42 90,70 1",
    )
    piece(pen, back)
    width = pen.by(34, bu=68 / 3)
    for left in np.arange(16, 83, width):
        piece(pen, f"box {left},57 {left + width - 0.6},71 2.5", 0.85)
        pen.fold(f"{left + 2},57 {left + width - 3},57", 3, -0.35)
    pen.shape("box 10,69 90,76 1", "rgb-15", "seam")
    for _ in pen.sides():
        pen.on("cbdr", pen.shape, "box 83,54 93,76", "rgb-10", "seam")
        pen.shape(pen.by("disc 88,54 6.5", mu="box 82,48 94,76 2"), "rgb", "seam")
        pen.on("cdr", pen.shape, "disc 88,54 3", "accent", "seam")
    pen.on("c", _tufts, pen, 22, 80, (40, 47, 54))
    pen.on("cbdru", trim, pen, "11,76 89,76", 0.9)
    for x, tone in pen.by((), br=((27, "accent"), (70, "second"))):
        pen.shape(f"box {x - 7},46 {x + 7},59 3", tone, f"{tone}-30")


HOME = {
    "Vases": _vase,
    "Lamps": _lamp,
    "Cushions": _cushion,
    "Mugs": _mug,
    "Rugs": _rug,
    "Clocks": _clock,
    "Chairs": _chair,
    "Sofas": _sofa,
}
