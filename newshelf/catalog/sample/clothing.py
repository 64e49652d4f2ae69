"""Clothes, shoes and bags: one function per product type.

Coordinates are units of a 100 × 100 picture. Each function draws the cut that the style
prefers, covers it with the style's pattern and finishes its edges.
"""

from collections.abc import Callable

import numpy as np

from newshelf.catalog.sample.canvas import Canvas
from newshelf.catalog.sample.geometry import (
    Points,
    arc,
    array,
    disc,
    mirrored,
    moved,
    rectangle,
    spline,
)
from newshelf.catalog.sample.look import Look
from newshelf.catalog.sample.palette import darker, lighter
from newshelf.catalog.sample.styles import bow, cover, trim

__all__ = ["CLOTHING"]


def _panel(
    canvas: Canvas, outline: Points, look: Look, size: float = 1.0, *, plain: bool = False
) -> None:
    """One piece of cloth with its pattern and its outline."""
    canvas.shape(outline, look.rgb)
    if not plain:
        cover(canvas, outline, look, size)
    canvas.line(np.concatenate([outline, outline[:1]]), 0.45, look.seam)


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
    wide = {"minimal": 15, "classic": 22, "boho": 30, "deco": 16, "romantic": 33, "urban": 15}[
        look.style
    ]
    hem = {"minimal": 88, "classic": 80, "boho": 92, "deco": 82, "romantic": 84, "urban": 72}[
        look.style
    ]
    waist = 9.5 if look.style in {"classic", "romantic", "boho"} else 12.5
    bodice = mirrored([(46 + 8.5, 10), (62, 14), (61, 24), (50 + waist, 42)])
    skirt = mirrored(spline([(50 + waist, 41), (50 + (waist + wide) * 0.56, 56), (50 + wide, hem)]))
    if look.style in {"classic", "boho", "romantic"}:
        _sleeves(canvas, look, 14, 40 if look.style == "boho" else 24, 7.5)
    _panel(canvas, skirt, look)
    _folds(canvas, look, 46, hem, wide * 0.8, 5 if wide > 20 else 3)
    _panel(canvas, bodice, look, 0.8)
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
        sleeve = array(
            [
                (50 + side * 9, top - 3),
                (50 + side * 13, top - 1),
                (50 + side * (drift + width * 0.5), bottom),
                (50 + side * (drift - width * 0.7), bottom + 2),
                (50 + side * 10, top + 12),
            ]
        )
        _panel(canvas, sleeve, look, 0.7, plain=look.style == "urban")
        edge = array(
            [
                (50 + side * (drift - width * 0.7), bottom + 2),
                (50 + side * (drift + width * 0.5), bottom),
            ]
        )
        trim(canvas, edge[np.argsort(edge[:, 0])], look, 0.7)


def shirt(canvas: Canvas, look: Look) -> None:
    """Long sleeves, a collar and buttons."""
    _arms(canvas, look, 72)
    body = mirrored([(57, 17), (70, 23), (68.5, 50), (69.5, 82)])
    _panel(canvas, body, look)
    _folds(canvas, look, 30, 80, 15, 2)
    canvas.line(array([(50, 22), (50, 82)]), 0.5, look.seam)
    if look.style == "boho":
        trim(canvas, spline([(42, 18), (50, 38), (58, 18)]), look, 0.7)
        trim(canvas, array([(30.5, 82), (69.5, 82)]), look, 0.9)
        return
    if look.style == "urban":
        canvas.line(array([(50, 20), (50, 82)]), 1.6, look.metal.mid)
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
        collar = array([(50, 22), (50 + side * 8, 15), (50 + side * 11, 22), (50 + side * 5, 29)])
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
        trim(canvas, array([(55, 37.5), (64, 37.5)]), look, 0.5)


def _arms(canvas: Canvas, look: Look, bottom: float) -> None:
    for side in (-1, 1):
        arm = array(
            [
                (50 + side * 16, 20),
                (50 + side * 21, 24),
                (50 + side * 31, bottom),
                (50 + side * 23, bottom + 3),
                (50 + side * 17, 44),
            ]
        )
        _panel(canvas, arm, look, 0.8, plain=look.style in {"urban", "deco"})
        canvas.fold(array([(50 + side * 20, 44), (50 + side * 25, 56)]), 2, -0.3)
        cuff = array([(50 + side * 23, bottom + 3), (50 + side * 31, bottom)])
        trim(canvas, cuff[np.argsort(cuff[:, 0])], look, 0.8)


def t_shirt(canvas: Canvas, look: Look) -> None:
    """Short sleeves and a round neck, or a print on the chest."""
    for side in (-1, 1):
        sleeve = array(
            [
                (50 + side * 17, 22),
                (50 + side * 24, 25),
                (50 + side * 35, 44),
                (50 + side * 25, 50),
                (50 + side * 18, 40),
            ]
        )
        _panel(canvas, sleeve, look, 0.8, plain=look.style != "classic")
        edge = array([(50 + side * 25, 50), (50 + side * 35, 44)])
        trim(canvas, edge[np.argsort(edge[:, 0])], look, 0.6)
    body = mirrored([(59, 19), (74, 25), (70.5, 48), (71, 84)])
    _panel(canvas, body, look, 1.05)
    _folds(canvas, look, 40, 84, 14, 2)
    neck = arc(50, 18, 9.5, 8, 0, 180)
    canvas.hole(disc(50, 17.5, 9, 7.4))
    canvas.line(neck, 1.6, look.seam)
    trim(canvas, moved(neck[::-1], 0, 1.4), look, 0.6)
    if look.style == "minimal":
        canvas.shape(rectangle(56, 38, 63, 39.2), look.seam)


def skirt(canvas: Canvas, look: Look) -> None:
    """Pencil, pleated, tiered, sunray, full or wrap."""
    hem = {"minimal": 84, "classic": 78, "boho": 90, "deco": 82, "romantic": 82, "urban": 66}[
        look.style
    ]
    wide = {"minimal": 17, "classic": 28, "boho": 35, "deco": 24, "romantic": 38, "urban": 22}[
        look.style
    ]
    outline = mirrored(spline([(63, 17), (50 + wide * 0.78, 38), (50 + wide, hem)]))
    _panel(canvas, outline, look, 1.15)
    count = {"minimal": 2, "classic": 9, "boho": 6, "deco": 5, "romantic": 8, "urban": 2}[
        look.style
    ]
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
    hem = {"minimal": 7, "classic": 7.5, "boho": 12, "deco": 13, "romantic": 10, "urban": 6}[
        look.style
    ]
    for side in (-1, 1):
        thigh = 15.5 if look.style == "boho" else 14
        ankle = 10 if look.style in {"deco", "boho"} else 9
        leg = spline(
            [(50 + side * 13.5, 14), (50 + side * (thigh + 1), 34), (50 + side * (ankle + hem), 91)]
        )
        inner = array(
            [(50 + side * (ankle - hem * 0.75), 91), (50 + side * 0.4, 38), (50 + side * 0.2, 14)]
        )
        outline = np.concatenate([leg, inner])
        _panel(canvas, outline, look, 0.9)
        canvas.fold(array([(50 + side * 8, 24), (50 + side * ankle, 90)]), 1.6, 0.2)
        canvas.fold(array([(50 + side * 4, 40), (50 + side * 6, 86)]), 2.2, -0.28)
        edge = array([(50 + side * (ankle - hem * 0.75), 91), (50 + side * (ankle + hem), 91)])
        trim(canvas, edge[np.argsort(edge[:, 0])], look, 0.9)
        if look.style in {"urban", "deco"}:
            canvas.line(moved(leg, -side * 1.6, 0), 1.7, look.accent, solid=False)
    canvas.shape(rectangle(36.2, 11, 63.8, 16), darker(look.rgb, 0.12), edge=look.seam)
    canvas.line(array([(50, 16), (50, 34)]), 0.5, look.seam)
    if look.style in {"boho", "urban", "romantic"}:
        for side in (-1, 1):
            canvas.line(
                spline([(50, 14), (50 + side * 3, 22), (50 + side * 2, 28)]), 0.8, look.second
            )


def coat(canvas: Canvas, look: Look) -> None:
    """Single or double breasted, with a fur edge, a shawl collar or a zip."""
    _arms(canvas, look, 66)
    flare = 24 if look.style in {"romantic", "classic"} else 20.5
    body = mirrored([(57, 12), (71, 18), (68, 48), (50 + flare, 90)])
    _panel(canvas, body, look, 1.2)
    canvas.fold(array([(38, 40), (35, 90)]), 3, -0.3)
    canvas.fold(array([(62, 40), (65, 90)]), 3, -0.3)
    canvas.line(array([(50, 34), (50, 90)]), 0.7, look.seam)
    dark = darker(look.rgb, 0.2)
    for side in (-1, 1):
        lapel = array(
            [(50 + side * 6, 12), (50 + side * 11, 15), (50 + side * 13, 27), (50, 42), (50, 34)]
        )
        canvas.shape(
            lapel, look.second if look.style in {"urban", "deco"} else dark, edge=look.seam
        )
        pocket = array([(50 + side * 7, 62), (50 + side * 16, 60)])
        canvas.line(pocket, 1.5, dark)
    canvas.shape(array([(44.5, 11), (55.5, 11), (50, 33)]), darker(look.rgb, 0.5))
    if look.style == "urban":
        canvas.tube(array([(50, 33), (50, 89)]), 1.8, look.metal)
    elif look.style != "boho":
        _buttons(canvas, look, 53, 44, 76, 2 if look.style == "minimal" else 4)
        if look.style in {"classic", "deco"}:
            _buttons(canvas, look, 45, 44, 76, 4)
    if look.style in {"romantic", "boho"}:
        canvas.line(array([(31.5, 50), (68.5, 50)]), 2.6, look.accent)
        trim(canvas, spline([(44, 12), (48, 30), (50, 44), (50, 88)]), look, 0.7)
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
