"""Points in a picture of 100 × 100 units, x to the right and y downwards."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = [
    "Path",
    "Points",
    "arc",
    "array",
    "closed",
    "disc",
    "mirrored",
    "moved",
    "rectangle",
    "regular",
    "rightwards",
    "sided",
    "spaced",
    "spline",
    "steps",
]

Points = npt.NDArray[np.float64]
"""``(n, 2)`` float64."""


Path = str | Points | Iterable[tuple[float, float]]
"""Points in any of three forms; as text, pairs: ``"16,62 84,38"``."""


def array(points: Path) -> Points:
    """Points in any form as an array."""
    if isinstance(points, str):
        pairs = [pair.split(",") for pair in points.split()]
        return np.array([(float(x), float(y)) for x, y in pairs])
    return np.asarray(points if isinstance(points, np.ndarray) else list(points), dtype=np.float64)


def sided(side: int, points: Iterable[tuple[float, float]]) -> Points:
    """Points right (1) or left (-1) of the middle, given by their distance from it."""
    return array((50 + side * x, y) for x, y in points)


def rightwards(points: Points) -> Points:
    """The points, from left to right."""
    ordered: Points = points[np.argsort(points[:, 0])]
    return ordered


def closed(points: Points) -> Points:
    """The points, and the first of them once more."""
    return np.concatenate([points, points[:1]])


def disc(x: float, y: float, rx: float, ry: float | None = None, *, count: int = 40) -> Points:
    """An ellipse; a circle when ``ry`` is left out."""
    return arc(x, y, rx, rx if ry is None else ry, 0, 360, count=count)[:-1]


def steps(start: float, end: float, step: float) -> list[float]:
    """``start``, ``start + step``, … below ``end``, as plain floats."""
    return [float(at) for at in np.arange(start, end, step)]


def arc(
    x: float, y: float, rx: float, ry: float, start: float, end: float, *, count: int = 40
) -> Points:
    """From angle ``start`` to ``end`` in degrees, clockwise from the right."""
    return _turns(start, end, count) * (rx, ry) + (x, y)


@lru_cache(maxsize=4096)
def _turns(start: float, end: float, count: int) -> Points:
    angles = np.radians(np.linspace(start, end, count))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def regular(x: float, y: float, radius: float, corners: int, turn: float = 0) -> Points:
    """A regular polygon, its first corner at ``turn`` degrees."""
    return arc(x, y, radius, radius, turn, turn + 360, count=corners + 1)[:-1]


def rectangle(left: float, top: float, right: float, bottom: float, corner: float = 0) -> Points:
    """A rectangle, with round corners of radius ``corner``."""
    if corner <= 0:
        return array([(left, top), (right, top), (right, bottom), (left, bottom)])
    corners = (
        (right - corner, top + corner, 270),
        (right - corner, bottom - corner, 0),
        (left + corner, bottom - corner, 90),
        (left + corner, top + corner, 180),
    )
    return np.concatenate(
        [arc(x, y, corner, corner, turn, turn + 90, count=7) for x, y, turn in corners]
    )


def moved(points: Points, right: float, down: float) -> Points:
    """The points, shifted."""
    shifted: Points = points + np.array([right, down])
    return shifted


def mirrored(right: Path, axis: float = 50) -> Points:
    """Close the right half of an outline (top to bottom) with its mirror image."""
    half = array(right)
    left = half[::-1].copy()
    left[:, 0] = 2 * axis - left[:, 0]
    return np.concatenate([half, left])


def spline(points: Path, *, closed: bool = False, steps: int = 8) -> Points:
    """A Catmull–Rom curve through the points."""
    knots = array(points)
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        padded = np.concatenate([knots[:1], knots, knots[-1:]])
    before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = 0.5 * (
        2 * start[:, None]
        + (end - before)[:, None] * t
        + (2 * before - 5 * start + 4 * end - after)[:, None] * t**2
        + (3 * start - before - 3 * end + after)[:, None] * t**3
    )
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, knots[-1:]])


def spaced(path: Points, step: float) -> Points:
    """Points along a path, about ``step`` units apart, both ends included."""
    lengths = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    count = max(2, round(lengths[-1] / step) + 1)
    at = np.linspace(0, lengths[-1], count)
    return np.stack([np.interp(at, lengths, path[:, axis]) for axis in (0, 1)], axis=1)
