"""Chairs and sofas."""

from collections.abc import Callable

import numpy as np

from newshelf.catalog.sample.canvas import Canvas
from newshelf.catalog.sample.geometry import Points, arc, array, disc, moved, rectangle, spline
from newshelf.catalog.sample.look import Look
from newshelf.catalog.sample.palette import RGB, Metal, darker, lighter
from newshelf.catalog.sample.styles import cover, trim

__all__ = ["FURNITURE"]

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


def _upholstery(canvas: Canvas, outline: Points, look: Look, size: float = 1.0) -> None:
    canvas.shape(outline, look.rgb)
    cover(canvas, outline, look, size)
    canvas.line(np.concatenate([outline, outline[:1]]), 0.5, look.seam)


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
        "classic": spline(
            [(27, 22), (34, 12), (50, 10), (66, 12), (73, 22), (69, 58), (31, 58)], closed=True
        ),
        "boho": np.concatenate([arc(50, 34, 31, 28, 150, 390), [[64, 60], [36, 60]]]),
        "deco": np.concatenate([arc(50, 42, 29, 32, 180, 360), [[70, 60], [30, 60]]]),
        "romantic": spline(
            [
                (50, 18),
                (62, 9),
                (75, 18),
                (70, 40),
                (60, 58),
                (40, 58),
                (30, 40),
                (25, 18),
                (38, 9),
            ],
            closed=True,
        ),
        "urban": rectangle(31, 14, 69, 34, 2),
    }[look.style]
    if look.style == "urban":
        for x in (36, 64):
            canvas.tube(array([(x, 30), (x, 64)]), 2, look.metal)
    _upholstery(canvas, back, look)
    seat = spline([(29, 60), (50, 57), (71, 60), (73, 67), (50, 71), (27, 67)], closed=True)
    _upholstery(canvas, seat, look, 0.8)
    canvas.shade(moved(seat, 0, 3), -0.12)
    canvas.fold(array([(32, 58.5), (68, 58.5)]), 3, -0.4)
    if look.style == "classic":
        _tufts(canvas, look, 36, 66, (20, 28, 36, 44))
    if look.style not in {"minimal", "urban"}:
        trim(canvas, array([(28, 68), (50, 71.5), (72, 68)]), look, 0.9)
    if look.style in {"classic", "romantic"}:
        for side in (-1, 1):
            arm = spline([(50 + side * 22, 44), (50 + side * 28, 46), (50 + side * 25, 64)])
            canvas.line(arm, 4.2, darker(look.rgb, 0.2))


def sofa(canvas: Canvas, look: Look) -> None:
    """Low block, rolled arms, day bed, shell, curved back or modular, by style."""
    _legs(canvas, look, ((18, 17), (82, 83), (50, 50)), 72)
    back = {
        "minimal": rectangle(12, 38, 88, 66, 3),
        "classic": spline(
            [(14, 42), (30, 33), (50, 30), (70, 33), (86, 42), (86, 68), (14, 68)], closed=True
        ),
        "boho": rectangle(10, 48, 90, 70, 4),
        "deco": np.concatenate([arc(50, 64, 39, 36, 180, 360)]),
        "romantic": spline(
            [
                (12, 44),
                (24, 30),
                (38, 38),
                (50, 27),
                (62, 38),
                (76, 30),
                (88, 44),
                (86, 68),
                (14, 68),
            ],
            closed=True,
        ),
        "urban": rectangle(10, 42, 90, 70, 1),
    }[look.style]
    _upholstery(canvas, back, look)
    seats = 3 if look.style in {"urban", "boho"} else 2
    wide = 68 / seats
    for place in range(seats):
        left = 16 + place * wide
        seat = rectangle(left, 57, left + wide - 0.6, 71, 2.5)
        _upholstery(canvas, seat, look, 0.85)
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
        trim(canvas, array([(11, 76), (89, 76)]), look, 0.9)
    if look.style in {"boho", "romantic"}:
        for x, tone in ((27, look.accent), (70, look.second)):
            canvas.shape(rectangle(x - 7, 46, x + 7, 59, 3), tone, edge=darker(tone, 0.3))


Draw = Callable[[Canvas, Look], None]
FURNITURE: dict[str, Draw] = {"Chairs": chair, "Sofas": sofa}
