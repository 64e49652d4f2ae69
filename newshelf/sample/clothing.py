"""Clothes, shoes and bags: one function per product type.

Coordinates are units of a 100 × 100 picture. Each function draws the cut that the style
prefers, covers it with the style's pattern and finishes its edges.
"""

from collections.abc import Callable

import numpy as np

from newshelf.sample.canvas import Canvas
from newshelf.sample.geometry import (
    arc,
    array,
    disc,
    mirrored,
    moved,
    rectangle,
    rightwards,
    sided,
    spline,
)
from newshelf.sample.look import Look
from newshelf.sample.palette import darker, lighter
from newshelf.sample.styles import bow, piece, trim

__all__ = ["CLOTHING"]


def _folds(
    canvas: Canvas, look: Look, top: float, bottom: float, spread: float, count: int
) -> None:
    """Soft vertical creases that fan out from the waist."""
    for share in np.linspace(-1, 1, count):
        x = 50 + share * spread * 0.45
        low = 50 + share * spread + look.rng.uniform(-1, 1)
        canvas.fold(array([(x, top), (low, bottom)]), 2.4, -0.3)
        canvas.fold(array([(x + 1.6, top), (low + 2.4, bottom)]), 1.6, 0.16)


def _buttons(canvas: Canvas, look: Look, x: float, top: float, bottom: float, count: int) -> None:
    tone = look.metal.mid if look.style in {"classic", "deco"} else look.second
    for y in np.linspace(top, bottom, count):
        canvas.shape(disc(x, y, 0.95, count=12), tone, edge=darker(tone, 0.5), width=0.25)


def dress(canvas: Canvas, look: Look) -> None:
    """Straight, A-line, tiered, flapper, full or colour-blocked, by style."""
    wide = look.by_style(15, 22, 30, 16, 33, 15)
    hem = look.by_style(88, 80, 92, 82, 84, 72)
    waist = 9.5 if look.style in {"classic", "romantic", "boho"} else 12.5
    bodice = mirrored([(46 + 8.5, 10), (62, 14), (61, 24), (50 + waist, 42)])
    skirt = mirrored(spline([(50 + waist, 41), (50 + (waist + wide) * 0.56, 56), (50 + wide, hem)]))
    if look.style in {"classic", "boho", "romantic"}:
        _sleeves(canvas, look, 14, 40 if look.style == "boho" else 24, 7.5)
    piece(canvas, skirt, look, seam=0.45)
    _folds(canvas, look, 46, hem, wide * 0.8, 5 if wide > 20 else 3)
    piece(canvas, bodice, look, 0.8, seam=0.45)
    neck = spline([(45.5, 9.6), (50, 18 if look.style != "minimal" else 13), (54.5, 9.6)])
    canvas.hole(np.concatenate([neck, [[54.5, 8], [45.5, 8]]]))
    trim(canvas, neck, look, 0.6)
    bottom = spline([(50 - wide, hem), (50, hem + 2.4), (50 + wide, hem)])
    trim(canvas, bottom, look)
    if look.style in {"boho", "romantic"}:
        trim(canvas, spline([(50 - wide * 0.72, 64), (50, 66), (50 + wide * 0.72, 64)]), look, 0.8)
    belt = array([(50 - waist, 41.5), (50 + waist, 41.5)])
    if look.style == "romantic":
        canvas.line(belt, 2.4, look.accent)
        bow(canvas, 50, 42, 6, look.accent)
    elif look.style in {"classic", "deco"}:
        canvas.line(belt, 2.4, look.accent if look.style == "deco" else look.second)


def _sleeves(canvas: Canvas, look: Look, top: float, bottom: float, width: float) -> None:
    for side in (-1, 1):
        drift = 12 + (bottom - top) * 0.3
        sleeve = sided(
            side,
            [
                (9, top - 3),
                (13, top - 1),
                (drift + width * 0.5, bottom),
                (drift - width * 0.7, bottom + 2),
                (10, top + 12),
            ],
        )
        piece(canvas, sleeve, look, 0.7, seam=0.45, plain=look.style == "urban")
        edge = sided(side, [(drift - width * 0.7, bottom + 2), (drift + width * 0.5, bottom)])
        trim(canvas, rightwards(edge), look, 0.7)


def shirt(canvas: Canvas, look: Look) -> None:
    """Long sleeves, a collar and buttons."""
    _arms(canvas, look, 72)
    body = mirrored("57,17 70,23 68.5,50 69.5,82")
    piece(canvas, body, look, seam=0.45)
    _folds(canvas, look, 30, 80, 15, 2)
    canvas.line(array("50,22 50,82"), 0.5, look.seam)
    if look.style == "boho":
        trim(canvas, spline("42,18 50,38 58,18"), look, 0.7)
        trim(canvas, array("30.5,82 69.5,82"), look, 0.9)
        return
    if look.style == "urban":
        canvas.line(array("50,20 50,82"), 1.6, look.metal.mid)
    else:
        _buttons(
            canvas,
            look,
            51.6 if look.style != "minimal" else 50,
            30,
            76,
            6 if look.style == "classic" else 4,
        )
    for side in (-1, 1):
        collar = sided(side, [(0, 22), (8, 15), (11, 22), (5, 29)])
        canvas.shape(
            collar,
            look.second if look.style == "urban" else lighter(look.rgb, 0.12),
            edge=look.seam,
        )
    if look.style == "romantic":
        for x in (45, 50, 55):
            trim(canvas, array([(x, 30), (x, 60)]), look, 0.6)
        bow(canvas, 50, 25, 6, look.accent)
    if look.style in {"classic", "deco"}:
        canvas.shape(rectangle(55, 37, 64, 47), lighter(look.rgb, 0.08), edge=look.seam)
        trim(canvas, array("55,37.5 64,37.5"), look, 0.5)


def _arms(canvas: Canvas, look: Look, bottom: float) -> None:
    for side in (-1, 1):
        arm = sided(side, [(16, 20), (21, 24), (31, bottom), (23, bottom + 3), (17, 44)])
        piece(canvas, arm, look, 0.8, seam=0.45, plain=look.style in {"urban", "deco"})
        canvas.fold(sided(side, [(20, 44), (25, 56)]), 2, -0.3)
        cuff = sided(side, [(23, bottom + 3), (31, bottom)])
        trim(canvas, rightwards(cuff), look, 0.8)


def t_shirt(canvas: Canvas, look: Look) -> None:
    """Short sleeves and a round neck, or a print on the chest."""
    for side in (-1, 1):
        sleeve = sided(side, [(17, 22), (24, 25), (35, 44), (25, 50), (18, 40)])
        piece(canvas, sleeve, look, 0.8, seam=0.45, plain=look.style != "classic")
        edge = sided(side, [(25, 50), (35, 44)])
        trim(canvas, rightwards(edge), look, 0.6)
    body = mirrored("59,19 74,25 70.5,48 71,84")
    piece(canvas, body, look, 1.05, seam=0.45)
    _folds(canvas, look, 40, 84, 14, 2)
    neck = arc(50, 18, 9.5, 8, 0, 180)
    canvas.hole(disc(50, 17.5, 9, 7.4))
    canvas.line(neck, 1.6, look.seam)
    trim(canvas, moved(neck[::-1], 0, 1.4), look, 0.6)
    if look.style == "minimal":
        canvas.shape(rectangle(56, 38, 63, 39.2), look.seam)


def skirt(canvas: Canvas, look: Look) -> None:
    """Pencil, pleated, tiered, sunray, full or wrap."""
    hem = look.by_style(84, 78, 90, 82, 82, 66)
    wide = look.by_style(17, 28, 35, 24, 38, 22)
    outline = mirrored(spline([(63, 17), (50 + wide * 0.78, 38), (50 + wide, hem)]))
    piece(canvas, outline, look, 1.15, seam=0.45)
    count = int(look.by_style(2, 9, 6, 5, 8, 2))
    _folds(canvas, look, 24, hem, wide * 0.85, count)
    if look.style in {"boho", "romantic"}:
        for share, y in ((0.72, 40), (0.88, 62)):
            trim(
                canvas, spline([(50 - wide * share, y), (50, y + 2), (50 + wide * share, y)]), look
            )
    trim(canvas, spline([(50 - wide, hem), (50, hem + 2), (50 + wide, hem)]), look)
    canvas.shape(rectangle(36.5, 14, 63.5, 20), darker(look.rgb, 0.12), edge=look.seam)
    if look.style == "romantic":
        bow(canvas, 57, 18, 5, look.accent)
    if look.style in {"urban", "classic"}:
        canvas.shape(rectangle(47, 14.5, 53, 19.5, 1), look.metal.mid, edge=look.metal.dark)


def trousers(canvas: Canvas, look: Look) -> None:
    """Slim, pleated, harem, wide or striped legs."""
    hem = look.by_style(7, 7.5, 12, 13, 10, 6)
    for side in (-1, 1):
        thigh = 15.5 if look.style == "boho" else 14
        ankle = 10 if look.style in {"deco", "boho"} else 9
        leg = spline(sided(side, [(13.5, 14), (thigh + 1, 34), (ankle + hem, 91)]))
        inner = sided(side, [(ankle - hem * 0.75, 91), (0.4, 38), (0.2, 14)])
        outline = np.concatenate([leg, inner])
        piece(canvas, outline, look, 0.9, seam=0.45)
        canvas.fold(sided(side, [(8, 24), (ankle, 90)]), 1.6, 0.2)
        canvas.fold(sided(side, [(4, 40), (6, 86)]), 2.2, -0.28)
        edge = sided(side, [(ankle - hem * 0.75, 91), (ankle + hem, 91)])
        trim(canvas, rightwards(edge), look, 0.9)
        if look.style in {"urban", "deco"}:
            canvas.line(moved(leg, -side * 1.6, 0), 1.7, look.accent, solid=False)
    canvas.shape(rectangle(36.2, 11, 63.8, 16), darker(look.rgb, 0.12), edge=look.seam)
    canvas.line(array("50,16 50,34"), 0.5, look.seam)
    if look.style in {"boho", "urban", "romantic"}:
        for side in (-1, 1):
            canvas.line(spline(sided(side, [(0, 14), (3, 22), (2, 28)])), 0.8, look.second)


def coat(canvas: Canvas, look: Look) -> None:
    """Single or double breasted, with a fur edge, a shawl collar or a zip."""
    _arms(canvas, look, 66)
    flare = 24 if look.style in {"romantic", "classic"} else 20.5
    body = mirrored([(57, 12), (71, 18), (68, 48), (50 + flare, 90)])
    piece(canvas, body, look, 1.2, seam=0.45)
    canvas.fold(array("38,40 35,90"), 3, -0.3)
    canvas.fold(array("62,40 65,90"), 3, -0.3)
    canvas.line(array("50,34 50,90"), 0.7, look.seam)
    dark = darker(look.rgb, 0.2)
    for side in (-1, 1):
        lapel = sided(side, [(6, 12), (11, 15), (13, 27), (0, 42), (0, 34)])
        canvas.shape(
            lapel, look.second if look.style in {"urban", "deco"} else dark, edge=look.seam
        )
        pocket = sided(side, [(7, 62), (16, 60)])
        canvas.line(pocket, 1.5, dark)
    canvas.shape(array("44.5,11 55.5,11 50,33"), darker(look.rgb, 0.5))
    if look.style == "urban":
        canvas.tube(array("50,33 50,89"), 1.8, look.metal)
    elif look.style != "boho":
        _buttons(canvas, look, 53, 44, 76, 2 if look.style == "minimal" else 4)
        if look.style in {"classic", "deco"}:
            _buttons(canvas, look, 45, 44, 76, 4)
    if look.style in {"romantic", "boho"}:
        canvas.line(array("31.5,50 68.5,50"), 2.6, look.accent)
        trim(canvas, spline("44,12 48,30 50,44 50,88"), look, 0.7)
    if look.style == "romantic":
        bow(canvas, 50, 51, 6, look.accent)
    trim(canvas, array([(50 - flare, 90), (50 + flare, 90)]), look, 0.9)


Draw = Callable[[Canvas, Look], None]
CLOTHING: dict[str, Draw] = {
    "Dresses": dress,
    "Shirts": shirt,
    "T-Shirts": t_shirt,
    "Skirts": skirt,
    "Trousers": trousers,
    "Coats": coat,
}
