"""A pen that draws a product, lights it, and places it on a studio background.

Shapes are drawn at three times the final size; everything soft is computed at the final size. A
picture has 100 × 100 units, x to the right and y downwards.

An outline is an array of points, or a text:

    16,62 84,38                     a polyline
    curve 42,18 50,38 58,18         a smooth curve through points
    loop 27,40 50,38 73,40          a closed curve
    half 57,17 70,23 69,82          the right half (top to bottom) of a symmetric outline
    half curve 57,17 70,23 69,82    the same, smooth
    disc 50,50 20                   a circle, or with 20,30 an ellipse
    arc 50,50 20,30 180,360         part of an ellipse, clockwise from the right in degrees,
                                    of 40 points or of the number given last
    ngon 50,50 20 6 30              a regular polygon with 6 corners, the first at 30 degrees
    box 24,38 76,86 2               a rectangle with corners of radius 2
    row 50,30 50,76 4               4 points on a straight line
    sag 60 15 2 50                  a hem from 35,60 to 65,60 that is 2 lower at its middle, x = 50
    heart 50,50 20                  a heart that reaches 20 to its sides

``A | B`` joins the points of two of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from newshelf.sample.palette import RGB, Look, Metal, Tone, darker, lighter

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


def _box(left: float, top: float, right: float, bottom: float, corner: float = 0) -> Points:
    count = 7 if corner else 1
    signs = np.repeat([(1, 1), (-1, 1), (-1, -1), (1, -1)], count, axis=0)
    turns = np.repeat([0, 90, 180, 270], count) + np.tile(np.linspace(0, 90, count), 4)
    reach = np.array([right - left, bottom - top]) / 2 - corner
    middle = np.array([left + right, top + bottom]) / 2
    return middle + signs * reach + around(0, 0, corner, corner, turns)


def _arc(
    x: float, y: float, rx: float, ry: float, start: float, end: float, count: float = 40
) -> Points:
    return around(x, y, rx, ry, np.linspace(start, end, round(count)))


def _row(x: float, y: float, last_x: float, last_y: float, count: float) -> Points:
    return np.linspace((x, y), (last_x, last_y), round(count))


def _sag(y: float, half: float, dip: float = 2, x: float = 50) -> Points:
    return _spline(np.array([(x - half, y), (x, y + dip), (x + half, y)]), closed=False)


def _heart(x: float, y: float, size: float) -> Points:
    turns = np.linspace(0, 2 * np.pi, 40)
    ys = (5 * np.cos(2 * turns) - 13 * np.cos(turns)) / 16
    ys += (2 * np.cos(3 * turns) + np.cos(4 * turns)) / 16
    return np.stack([np.sin(turns) ** 3, ys], axis=1) * size + (x, y)


_FORMS: dict[str, Callable[..., Points]] = {
    "arc": _arc,
    "disc": lambda x, y, rx, ry=0: around(x, y, rx, ry or rx, range(0, 360, 10)),
    "ngon": ngon,
    "box": _box,
    "row": _row,
    "sag": _sag,
    "heart": _heart,
}


def moved(path: Path, right: float, down: float) -> Points:
    """Return the outline, shifted."""
    return np.asarray(points(path) + np.array([right, down]))


def spaced(path: Path, step: float) -> Points:
    """Return points along a path, about ``step`` units apart, both ends included."""
    knots = points(path)
    lengths = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(knots, axis=0).T))])
    at = np.linspace(0, lengths[-1], max(2, round(lengths[-1] / step) + 1))
    return np.stack([np.interp(at, lengths, knots[:, axis]) for axis in (0, 1)], axis=1)


SIZE = 224
"""Edge of a finished picture in pixels."""
_FACTOR = 3
_EDGE = SIZE * _FACTOR
_MARGIN = 32
"""How far the window of a texture moves, in pixels."""
_BACKDROPS = ((238, 237, 235), (228, 230, 234), (236, 229, 220), (224, 231, 230), (235, 226, 228))
_DIM_BACKDROPS = ((176, 180, 188), (190, 182, 172), (168, 182, 186))
"""For pale products, which would be lost on white."""
_PALE = 200
_GLOSS = {"luxe": 210.0, "cool": 120.0}

Floats = npt.NDArray[np.floating[Any]]
P = ParamSpec("P")
T = TypeVar("T")


class Pen:
    """Draws the shapes of one product, in units of a 100 × 100 picture."""

    def __init__(self, look: Look, *, floor: bool, jewel: bool) -> None:
        self.look = look
        self._floor, self._jewel = floor, jewel
        self._picture = Image.new("RGB", (_EDGE, _EDGE))
        self._ink = ImageDraw.Draw(self._picture)
        self._mask = Image.new("L", (_EDGE, _EDGE))
        self._mask_ink = ImageDraw.Draw(self._mask)
        self._shade = Image.new("L", (SIZE, SIZE), 128)
        self._shade_ink = ImageDraw.Draw(self._shade)
        self._is_clipping = False
        rng = look.rng
        self._scale = rng.uniform(0.92, 1.02) * (1.08 if jewel else 1.0)
        turn = 0.0 if floor else np.radians(rng.normal(0, 2.6))
        middle = 50 + np.array([rng.normal(0, 1.2), rng.normal(0, 1.0)])
        flip = -1 if rng.random() < 0.5 and not jewel else 1
        rotation = [[flip * np.cos(turn), -np.sin(turn)], [flip * np.sin(turn), np.cos(turn)]]
        self._linear = self._scale * np.array(rotation)
        self._origin, self._middle = middle - self._linear @ (50, 50), 50

    def by(self, default: T, **cases: T) -> T:
        """Return the value of the style: ``by(20, c=24, br=30)`` goes by the styles' initials."""
        initial = self.look.style[0]
        return next((value for initials, value in cases.items() if initial in initials), default)

    def on(
        self, initials: str, draw: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call ``draw`` if the initial of the style is among ``initials``."""
        if self.look.style[0] in initials:
            draw(*args, **kwargs)

    @contextmanager
    def local(self, x: float, y: float, size: float) -> Iterator[None]:
        """Draw around (x, y), in units of ``size``."""
        linear, origin, scale = self._linear, self._origin, self._scale
        self._linear, self._origin = linear * size, origin + linear @ (x, y)
        self._scale, self._middle, middle = scale * size, 0, self._middle
        yield
        self._linear, self._origin, self._scale, self._middle = linear, origin, scale, middle

    def sides(self) -> Iterator[int]:
        """Draw twice: as given, and mirrored at the vertical axis in the middle."""
        linear, origin = self._linear, self._origin
        yield 1
        self._linear, self._origin = linear * (-1, 1), origin + linear @ (2 * self._middle, 0)
        yield -1
        self._linear, self._origin = linear, origin

    @contextmanager
    def clipped(self, path: Path) -> Iterator[None]:
        """Show what is drawn inside only within the polygon, and leave the outline alone."""
        corners = np.reshape(self._place(path), (-1, 2))
        left, top = np.clip(corners.min(axis=0), 0, _EDGE - 1).astype(int).tolist()
        right, bottom = np.clip(corners.max(axis=0) + 2, 1, _EDGE).astype(int).tolist()
        whole, pen, origin = self._picture, self._ink, self._origin
        self._picture = whole.crop((left, top, right, bottom))
        self._ink = ImageDraw.Draw(self._picture)
        inside = Image.new("L", self._picture.size)
        ImageDraw.Draw(inside).polygon((corners - (left, top)).ravel().tolist(), fill=255)
        self._origin = origin - np.array([left, top]) * (100 / _EDGE)
        self._is_clipping = True
        yield
        whole.paste(self._picture, (left, top), inside)
        self._picture, self._ink, self._origin, self._is_clipping = whole, pen, origin, False

    def shape(self, path: Path, tone: Tone, edge: Tone | None = None, width: float = 0.5) -> None:
        """Draw a polygon, with an outline if ``edge`` is given."""
        corners = self._place(path)
        self._ink.polygon(corners, fill=self.look.tone(tone))
        if not self._is_clipping:
            self._mask_ink.polygon(corners, fill=255)
        if edge is not None:
            self.line(path, edge, width, closed=True)

    def line(
        self, path: Path, tone: Tone, width: float, *, closed: bool = False, solid: bool = True
    ) -> None:
        """Draw a line of ``width`` units; one that is not solid only shows on the product."""
        corners = self._place(path)
        corners += corners[:2] if closed else []
        pixels = max(1, round(width * self._scale * _EDGE / 100))
        # Round joints are slow, and the gaps of thin lines vanish when reduced.
        joint = "curve" if pixels > 2 * _FACTOR else None
        self._ink.line(corners, fill=self.look.tone(tone), width=pixels, joint=joint)
        if solid and not self._is_clipping:
            self._mask_ink.line(corners, fill=255, width=pixels, joint=joint)

    def hole(self, path: Path) -> None:
        """Cut a shape out, so that the background shows."""
        self._mask_ink.polygon(self._place(path), fill=0)

    def tint(self, path: Path, tone: Tone, opacity: float) -> None:
        """Draw a translucent polygon over the product."""
        pen = ImageDraw.Draw(self._picture, "RGBA")
        pen.polygon(self._place(path), fill=(*self.look.tone(tone), round(255 * opacity)))

    def tube(
        self, path: Path, width: float, metal: Metal | None = None, *, closed: bool = False
    ) -> None:
        """Draw a round rod: shadow, body and highlight, lit from the upper left."""
        dark, mid, light = metal or ("dark", "mid", "light")
        self.line(path, dark, width, closed=closed)
        body = points(path)
        self.line(body - width * 0.08, mid, width * 0.66, closed=closed, solid=False)
        self.line(body - width * 0.17, light, width * 0.22, closed=closed, solid=False)

    def ball(self, x: float, y: float, radius: float, metal: Metal | None = None) -> None:
        """Draw a sphere."""
        self.dome(ngon(x, y, radius, 24), metal, steps=3)

    def dome(self, outline: Points, metal: Metal | None = None, *, steps: int = 6) -> None:
        """Draw a shiny round body, lit from the upper left."""
        metal = metal or Metal(*map(self.look.tone, ("dark", "mid", "light")))
        middle, reach = outline.mean(axis=0), np.ptp(outline, axis=0) / 2
        self.shape(outline, metal.dark)
        for share in np.linspace(0.9, 0.22, steps):
            inner = middle + (outline - middle) * share - reach * 0.42 * (1 - share)
            self.shape(inner, metal.lit(1.3 - share))

    def shade(self, path: Path, strength: float) -> None:
        """Darken (negative) or lighten (positive) a region with soft edges, −1 … 1."""
        self._shade_ink.polygon(self._place(path, SIZE), fill=round(128 + 127 * strength))

    def fold(self, path: Path, width: float, strength: float) -> None:
        """Draw a soft crease along a line."""
        pixels = max(1, round(width * self._scale * SIZE / 100))
        fill = round(128 + 127 * strength)
        self._shade_ink.line(self._place(path, SIZE), fill=fill, width=pixels)

    def _place(self, path: Path, edge: int = _EDGE) -> list[float]:
        placed = (points(path) @ self._linear.T + self._origin) * (edge / 100)
        return placed.ravel().tolist()

    def finished(self) -> Image.Image:
        """Return the picture, ``SIZE`` × ``SIZE`` RGB."""
        look = self.look
        pale = min(look.tones["rgb"]) > _PALE or look.material in {"Diamond", "Silver", "Pearl"}
        backdrops = _DIM_BACKDROPS if pale else _BACKDROPS
        backdrop = backdrops[int(look.rng.integers(len(backdrops)))]
        finish = "plain" if self._jewel else look.finish
        self._picture.putalpha(self._mask)
        product = self._picture.reduce(_FACTOR)
        alpha = product.getchannel("A")
        cover = _floats(alpha)[..., None] / 255
        x, y = look.rng.integers(0, _MARGIN, size=2)
        light = self._light(alpha) + _texture(finish)[y : y + SIZE, x : x + SIZE]
        gloss = np.maximum(light - 1.05, 0) * _GLOSS.get(finish, 20.0)
        lit = _floats(product.convert("RGB")) * light[..., None] + gloss[..., None]
        whole = lit * cover + self._ground(backdrop) * self._shadow(alpha) * (1 - cover)
        return Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8))

    def _light(self, alpha: Image.Image) -> Floats:
        """Return the brightness factor from the outline's pseudo height and the soft shades."""
        down, across = np.gradient(_blurred(alpha, 7))
        relief = (3.36 if self._jewel else 4.2) * (0.6 * across + 0.8 * down)
        shade = 2 * _blurred(self._shade, 2.6) - 1
        return np.asarray(1 + np.clip(relief, -0.3, 0.22) + 0.6 * shade)

    def _ground(self, backdrop: RGB) -> Floats:
        """Return a wall that darkens away from a light; below it a floor, out of focus."""
        rows = np.linspace(-1, 1, SIZE, dtype=np.float32)
        x, y = self.look.rng.uniform(-0.3, 0.3), self.look.rng.uniform(-0.5, 0.0)
        distance = (rows - np.float32(x)) ** 2 + (rows[:, None] - np.float32(y)) ** 2
        share = np.clip(distance / 2.4, 0, 1)[..., None]
        near, far = np.array([lighter(backdrop, 0.3), darker(backdrop, 0.1)], dtype=np.float32)
        floor = 0.07 * np.clip(rows * 7 - 3, 0, 1)[:, None, None] if self._floor else 0
        return np.asarray((near + (far - near) * share) * (1 - floor))

    def _shadow(self, alpha: Image.Image) -> Floats:
        """Return the brightness factor of the background: an ellipse below, or the outline."""
        cast = Image.new("L", (SIZE, SIZE))
        if not self._floor:
            cast.paste(alpha, (4, 6))
            return 1 - 0.34 * _blurred(cast, 5)[..., None]
        bottom = (alpha.getbbox() or (0, 0, SIZE, SIZE))[3]
        feet = alpha.crop((0, bottom - 14, SIZE, bottom)).getbbox() or (0, 0, SIZE, 0)
        left, right = feet[0], feet[2]
        depth = max(4, (right - left) // 8)
        box = (left - 2, bottom - depth, right + depth, bottom + depth // 2)
        ImageDraw.Draw(cast).ellipse(box, fill=210)
        return 1 - 0.45 * _blurred(cast, 4)[..., None]


def _floats(picture: Image.Image) -> Floats:
    return np.asarray(picture, dtype=np.float32)


def _blurred(picture: Image.Image, radius: float) -> Floats:
    return _floats(picture.filter(ImageFilter.GaussianBlur(radius))) / 255


@cache
def _texture(finish: str) -> Floats:
    """Return a finish's pattern around 0, larger than a picture by ``_MARGIN``."""
    edge = SIZE + _MARGIN
    rng, rows = np.random.default_rng(20_240), np.arange(edge, dtype=np.float32)
    texture: Floats = np.zeros((edge, edge), dtype=np.float32)
    if finish == "natural":  # a woven cloth or a grain: threads along and across
        texture = 0.045 * (_noise(rng, edge, 8, 1) + _noise(rng, edge, 1, 8))
        texture += 0.035 * np.sin(rows * 2.1) * np.sin(rows * 2.1)[:, None]
    elif finish == "warm":  # a nap: soft spots and a grain
        texture = 0.04 * _noise(rng, edge, 4, 4) + 0.02 * _noise(rng, edge, 1, 1)
    elif finish == "cool":  # brushed: fine diagonal lines
        texture = 0.035 * np.sin((rows + rows[:, None]) * 1.3)
    return texture


def _noise(rng: np.random.Generator, edge: int, width: int, height: int) -> Floats:
    """Return soft spots of about ``width`` × ``height`` pixels."""
    spots = rng.standard_normal((edge // height, edge // width)).astype(np.float32)
    return _floats(Image.fromarray(spots).resize((edge, edge), Image.Resampling.BICUBIC))
