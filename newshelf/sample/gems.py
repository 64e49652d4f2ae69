"""Stones: faceted, polished round, and pearls; and plain metal in their place."""

from typing import NamedTuple

import numpy as np

from newshelf.sample.canvas import Canvas
from newshelf.sample.geometry import Points, array, disc, regular, spline
from newshelf.sample.look import Look
from newshelf.sample.palette import METALS, RGB, Metal, darker, lighter, mixed

__all__ = ["STONES", "Stone", "heart", "stone", "teardrop"]


class Stone(NamedTuple):
    """How a stone is worked, its body colour and the colour of its veins or flashes."""

    kind: str
    rgb: RGB
    vein: RGB


STONES: dict[str, Stone] = {
    "Diamond": Stone("facet", (206, 222, 236), (255, 255, 255)),
    "Ruby": Stone("facet", (186, 18, 52), (255, 130, 150)),
    "Sapphire": Stone("facet", (22, 52, 158), (120, 164, 255)),
    "Emerald": Stone("facet", (6, 122, 76), (126, 230, 170)),
    "Topaz": Stone("facet", (74, 168, 214), (208, 244, 255)),
    "Garnet": Stone("facet", (112, 14, 38), (226, 84, 90)),
    "Citrine": Stone("facet", (226, 158, 28), (255, 236, 150)),
    "Jade": Stone("cabochon", (64, 148, 100), (172, 216, 180)),
    "Turquoise": Stone("matrix", (40, 170, 176), (74, 66, 56)),
    "Amber": Stone("cabochon", (206, 112, 20), (250, 200, 90)),
    "Rose Quartz": Stone("cabochon", (232, 160, 176), (252, 222, 228)),
    "Onyx": Stone("cabochon", (22, 22, 28), (70, 72, 84)),
    "Pearl": Stone("pearl", (236, 226, 212), (255, 252, 248)),
}


def heart(x: float, y: float, radius: float) -> Points:
    """The outline of a heart."""
    t = np.linspace(0, 2 * np.pi, 40)[:-1]
    across = 16 * np.sin(t) ** 3
    down = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x + across * radius / 16, y + down * radius / 16], axis=1)


def teardrop(x: float, y: float, radius: float) -> Points:
    """The outline of a drop, its point above."""
    knots = [
        (x, y - radius * 1.5),
        (x + radius * 0.62, y - radius * 0.3),
        (x + radius * 0.72, y + radius * 0.5),
        (x, y + radius),
        (x - radius * 0.72, y + radius * 0.5),
        (x - radius * 0.62, y - radius * 0.3),
    ]
    return spline(knots, closed=True, steps=6)


def stone(canvas: Canvas, outline: Points, look: Look) -> None:
    """Fill an outline with the product's stone, or with its metal."""
    kind = STONES.get(look.material)
    if kind is None:
        _dome(canvas, outline, METALS.get(look.material, look.metal))
    elif kind.kind == "facet":
        _facets(canvas, outline, kind, look)
    elif kind.kind == "pearl":
        _dome(canvas, outline, Metal((164, 146, 132), kind.rgb, kind.vein))
    else:
        _cabochon(canvas, outline, kind, look)


def _facets(canvas: Canvas, outline: Points, kind: Stone, look: Look) -> None:
    center = outline.mean(axis=0)
    every = max(1, len(outline) // 12)
    girdle = outline[::every]
    canvas.shape(outline, darker(kind.rgb, 0.4))
    table = center + (np.roll(girdle, 1, axis=0) + girdle - 2 * center) * 0.29
    for place in range(len(girdle)):
        here, there = girdle[place], girdle[place - 1]
        low, high = table[(place + 1) % len(girdle)], table[place]
        direction = ((here + there) / 2 - center) / (np.ptp(outline, axis=0).max() / 2)
        light = -0.34 * direction.sum() + look.rng.uniform(-0.3, 0.3)
        canvas.shape(np.array([here, there, high]), _lit(kind, light + 0.12), solid=False)
        canvas.shape(np.array([here, high, low]), _lit(kind, light - 0.2), solid=False)
    canvas.shape(table, _lit(kind, 0.1))
    for place in range(0, len(table), 2):
        canvas.shape(
            np.array([center, table[place], table[place - 1]]),
            _lit(kind, look.rng.uniform(-0.25, 0.6)),
        )
    spark = center + (table[len(table) * 5 // 8 % len(table)] - center) * 0.6
    size = np.ptp(outline, axis=0).max() * 0.07
    canvas.shape(regular(spark[0], spark[1], size, 4), (255, 255, 255))


def _lit(kind: Stone, light: float) -> RGB:
    return (
        mixed(kind.rgb, kind.vein, min(light, 1))
        if light > 0
        else darker(kind.rgb, min(-light, 0.75))
    )


def _cabochon(canvas: Canvas, outline: Points, kind: Stone, look: Look) -> None:
    center = outline.mean(axis=0)
    reach = np.ptp(outline, axis=0) / 2
    canvas.shape(outline, darker(kind.rgb, 0.4))
    with canvas.clipped(outline):
        for share in np.linspace(0.95, 0.2, 7):
            body = mixed(darker(kind.rgb, 0.3), lighter(kind.rgb, 0.14), 1 - share)
            canvas.shape(center - reach * 0.14 * (1 - share) + (outline - center) * share, body)
        _veins(canvas, center, reach, kind, look)
        # Light that entered above leaves below: the glow of a translucent stone.
        glow = center + reach * 0.34 + (outline - center) * 0.48
        canvas.tint(glow, kind.vein, 0.0 if kind.kind == "matrix" else 0.26)
        canvas.tint(center + reach * 0.42 + (outline - center) * 0.3, kind.vein, 0.2)
        shine = disc(
            center[0] - reach[0] * 0.34,
            center[1] - reach[1] * 0.42,
            reach[0] * 0.3,
            reach[1] * 0.17,
        )
        canvas.tint(shine, (255, 255, 255), 0.72)


def _veins(canvas: Canvas, center: Points, reach: Points, kind: Stone, look: Look) -> None:
    dark = darker(kind.rgb, 0.35)
    for place in range(6):
        y = np.linspace(-0.9, 0.9, 6)[place]
        knots = [(x, y + look.rng.uniform(-0.3, 0.3)) for x in np.linspace(-1.1, 1.1, 5)]
        path = center + spline(knots, steps=4) * reach
        tone = kind.vein if kind.kind == "matrix" or place % 2 else dark
        canvas.line(
            path,
            float(reach.max()) * (0.05 if kind.kind == "matrix" else 0.08),
            mixed(kind.rgb, tone, 0.6),
        )


def _dome(canvas: Canvas, outline: Points, metal: Metal) -> None:
    center = outline.mean(axis=0)
    reach = np.ptp(outline, axis=0) / 2
    canvas.shape(outline, metal.dark)
    tones = [mixed(metal.dark, metal.mid, share) for share in (0.4, 0.75, 1.0)]
    tones += [mixed(metal.mid, metal.light, share) for share in (0.3, 0.6, 0.9)]
    for share, tone in zip((0.95, 0.86, 0.74, 0.58, 0.42, 0.22), tones, strict=True):
        canvas.shape(
            center - reach * 0.3 * (1 - share) + (outline - center) * share, tone, solid=False
        )
    # Reflected light along the lower right edge.
    rim = array(
        [
            tuple(center + reach * (np.cos(a) * 0.8, np.sin(a) * 0.8))
            for a in np.linspace(0.2, 1.3, 8)
        ]
    )
    canvas.line(rim, float(reach.max()) * 0.09, mixed(metal.mid, metal.light, 0.35))
