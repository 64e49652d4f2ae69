"""Outlines in a picture of 100 × 100 units, x to the right and y downwards.

An outline is an array of points, or a text:

    16,62 84,38                     a polyline
    curve 42,18 50,38 58,18         a smooth curve through points
    loop 27,40 50,38 73,40          a closed curve
    half 57,17 70,23 69,82          the right half (top to bottom) of a symmetric outline
    half curve 57,17 70,23 69,82    the same, smooth
    disc 50,50 20                   a circle, or with 20,30 an ellipse
    arc 50,50 20,30 180,360         part of an ellipse, clockwise from the right in degrees
    ngon 50,50 20 6 30              a regular polygon with 6 corners, the first at 30 degrees
    box 24,38 76,86 2               a rectangle with corners of radius 2

``A | B`` joins the points of two of them.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""``(n, 2)`` float64."""
Path = str | Points | Sequence[tuple[float, float]]

_T = np.linspace(0, 1, 8, endpoint=False)
_CATMULL_ROM = np.stack(
    [-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, _T**3 - _T**2]
)


def points(path: Path) -> Points:
    """Return an outline as an array, which may be shared: do not write to it."""
    return _parsed(path) if isinstance(path, str) else np.asarray(path, dtype=np.float64)


@lru_cache(maxsize=8192)
def _parsed(text: str) -> Points:
    if "|" in text:
        return np.concatenate([_parsed(part) for part in text.split("|")])
    words = text.replace(",", " ").split()
    names = [word for word in words if word.isalpha()]
    numbers = [float(word) for word in words[len(names) :]]
    if names and names[0] in _FORMS:
        return _FORMS[names[0]](*numbers)
    if not {*names} <= {"half", "curve", "loop"}:
        raise ValueError(f"not an outline: {text}")
    knots = np.reshape(numbers, (-1, 2))
    if "curve" in names or "loop" in names:
        knots = _spline(knots, closed="loop" in names)
    return np.concatenate([knots, (knots * (-1, 1) + (100, 0))[::-1]]) if "half" in names else knots


def _spline(knots: Points, *, closed: bool) -> Points:
    """Return a Catmull–Rom curve."""
    first, last = (knots[-1:], knots[:2]) if closed else (knots[:1], knots[-1:])
    padded = np.concatenate([first, knots, last])
    windows = np.stack([padded[at : len(padded) - 3 + at] for at in range(4)])
    curve = np.einsum("kt,knd->ntd", _CATMULL_ROM / 2, windows).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, knots[-1:]])


def around(x: float, y: float, rx: float, ry: float, turns: Iterable[float]) -> Points:
    """Return the points of an ellipse at angles in degrees, clockwise from the right."""
    angles = np.radians(list(turns))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def ngon(x: float, y: float, radius: float, corners: float, turn: float = 0) -> Points:
    """Return a regular polygon, its first corner at ``turn`` degrees."""
    return around(x, y, radius, radius, turn + np.arange(corners) * 360 / corners)


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> Points:
    return around(x, y, rx, ry, np.linspace(start, end, 40))


def _disc(x: float, y: float, rx: float, ry: float = 0) -> Points:
    return around(x, y, rx, ry or rx, range(0, 360, 10))


def _box(left: float, top: float, right: float, bottom: float, corner: float = 0) -> Points:
    count = 7 if corner else 1
    signs = np.repeat([(1, 1), (-1, 1), (-1, -1), (1, -1)], count, axis=0)
    turns = np.repeat([0, 90, 180, 270], count) + np.tile(np.linspace(0, 90, count), 4)
    reach = np.array([right - left, bottom - top]) / 2 - corner
    middle = np.array([left + right, top + bottom]) / 2
    return middle + signs * reach + around(0, 0, corner, corner, turns)


_FORMS: dict[str, Callable[..., Points]] = {"arc": _arc, "disc": _disc, "ngon": ngon, "box": _box}


def sagging(y: float, half: float, dip: float = 2, x: float = 50) -> Points:
    """Return a hem of ``half`` the width on both sides of ``x``, lower in the middle."""
    return points(f"curve {x - half},{y} {x},{y + dip} {x + half},{y}")


def moved(path: Path, right: float, down: float) -> Points:
    """Return the outline, shifted."""
    return np.asarray(points(path) + np.array([right, down]))


def scaled(outline: Points, share: float) -> Points:
    """Return the outline, larger or smaller around its middle."""
    middle = (outline.min(axis=0) + outline.max(axis=0)) / 2
    return np.asarray(middle + (outline - middle) * share)


def spaced(path: Path, step: float) -> Points:
    """Return points along a path, about ``step`` units apart, both ends included."""
    knots = points(path)
    lengths = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(knots, axis=0).T))])
    at = np.linspace(0, lengths[-1], max(2, round(lengths[-1] / step) + 1))
    return np.stack([np.interp(at, lengths, knots[:, axis]) for axis in (0, 1)], axis=1)
