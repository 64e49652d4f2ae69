"""Shoes and boots, seen from the side, and the skin that accessories share."""

from collections.abc import Callable

import numpy as np

from newshelf.catalog.sample.canvas import Canvas
from newshelf.catalog.sample.geometry import (
    Points,
    array,
    disc,
    rectangle,
    regular,
    spline,
    steps,
)
from newshelf.catalog.sample.look import Look
from newshelf.catalog.sample.palette import darker
from newshelf.catalog.sample.styles import bow, cover, trim

__all__ = ["FOOTWEAR", "skin"]


def skin(canvas: Canvas, outline: Points, look: Look, size: float = 0.7) -> None:
    """Fill an outline with the colour, the style's pattern and a seam."""
    canvas.shape(outline, look.rgb)
    cover(canvas, outline, look, size)
    canvas.line(np.concatenate([outline, outline[:1]]), 0.5, look.seam)


def _sole(canvas: Canvas, look: Look) -> None:
    """A heel, a flat or a trainer's sole, by style, below a shoe that points right."""
    tone = look.second if look.style == "urban" else darker(look.rgb, 0.5)
    if look.style == "urban":
        canvas.shape(rectangle(13, 68, 90, 77, 3.5), (244, 244, 242), edge=(150, 150, 150))
        canvas.line(array([(16, 72.5), (87, 72.5)]), 1.3, look.accent)
    elif look.style in {"classic", "deco", "romantic"}:
        width = 2.6 if look.style == "romantic" else 6
        canvas.shape(array([(14, 60), (24, 62), (14 + width + 2, 84), (14, 84)]), tone)
        canvas.shape(
            spline([(20, 64), (50, 79), (89, 80), (89, 83), (52, 83), (24, 68)], closed=True), tone
        )
    else:
        canvas.shape(
            rectangle(13, 70, 89, 74.5, 1.8), (190, 150, 96) if look.style == "boho" else tone
        )


def shoes(canvas: Canvas, look: Look) -> None:
    """Trainer, pump, sandal, loafer or T-strap, seen from the side."""
    _sole(canvas, look)
    if look.style in {"classic", "deco", "romantic"}:
        upper = spline(
            [
                (14, 42),
                (22, 48),
                (38, 64),
                (58, 66),
                (72, 66),
                (86, 73),
                (90, 80),
                (60, 80),
                (38, 76),
                (22, 66),
                (13, 56),
            ],
            closed=True,
        )
    elif look.style == "urban":
        upper = spline(
            [
                (14, 40),
                (24, 36),
                (32, 46),
                (44, 42),
                (62, 54),
                (84, 60),
                (90, 69),
                (50, 71),
                (14, 70),
            ],
            closed=True,
        )
    else:
        upper = spline(
            [
                (14, 50),
                (24, 46),
                (34, 57),
                (48, 60),
                (66, 56),
                (82, 61),
                (88, 70),
                (50, 72),
                (14, 71),
            ],
            closed=True,
        )
    if look.style in {"minimal", "boho"}:
        opening = spline([(15, 51), (25, 44), (38, 57), (50, 60), (30, 60)], closed=True)
        canvas.shape(opening, darker(look.rgb, 0.6))
    skin(canvas, upper, look)
    canvas.fold(array([(60, 68), (84, 72)]), 3, 0.3)
    if look.style == "minimal":
        canvas.line(spline([(56, 58), (58, 66), (54, 72)]), 0.6, look.seam)
    if look.style == "urban":
        for x in (44, 49, 54, 59):
            canvas.line(
                array([(x - 2, 41 + (x - 44) * 0.8), (x + 3, 50 + (x - 44) * 0.6)]),
                1.2,
                look.second,
            )
        canvas.line(spline([(22, 66), (34, 56), (40, 68)]), 2, look.accent)
    elif look.style == "romantic":
        bow(canvas, 76, 66, 6, look.accent)
    elif look.style == "deco":
        canvas.line(spline([(18, 50), (34, 44), (48, 62)]), 2, look.accent)
        canvas.shape(regular(72, 68, 4, 6), look.accent, edge=look.second)
    elif look.style == "classic":
        canvas.shape(rectangle(64, 64, 75, 69, 1), look.metal.mid, edge=look.metal.dark)
    elif look.style == "boho":
        trim(canvas, spline([(34, 57), (48, 60), (66, 56)]), look, 0.8)


def boots(canvas: Canvas, look: Look) -> None:
    """A high shaft over the shoe."""
    high = {"minimal": 34, "classic": 14, "boho": 26, "deco": 22, "romantic": 20, "urban": 20}[
        look.style
    ]
    heel = look.style in {"classic", "deco", "romantic"}
    tone = darker(look.rgb, 0.55) if look.style != "urban" else (40, 40, 44)
    canvas.shape(rectangle(24, 82, 80, 88, 2.5), tone)
    if heel:
        canvas.shape(array([(24, 80), (38, 82), (35, 95), (25, 95)]), tone)
        canvas.shape(array([(46, 86), (80, 86), (80, 90), (50, 90)]), tone)
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
    skin(canvas, shaft, look, 0.85)
    canvas.fold(array([(44, high + 6), (42, 64)]), 3, 0.24)
    canvas.fold(spline([(28, 66), (40, 70), (52, 65)]), 2, -0.4)
    trim(canvas, array([(25, high + 2), (50, high + 2)]), look, 0.9)
    if look.style in {"urban", "romantic"}:
        for y in steps(high + 8, 66, 6):
            canvas.line(array([(43, y), (52, y + 3)]), 1.0, look.second)
            canvas.line(array([(52, y), (43, y + 3)]), 1.0, look.second)
    if look.style in {"classic", "boho"}:
        canvas.line(array([(25.5, 62), (51, 62)]), 2.2, darker(look.rgb, 0.35))
        canvas.shape(disc(46, 62, 2.4), look.metal.mid, edge=look.metal.dark)
    if look.style == "romantic":
        bow(canvas, 37, high + 5, 6, look.accent)


Draw = Callable[[Canvas, Look], None]
FOOTWEAR: dict[str, Draw] = {"Shoes": shoes, "Boots": boots}
