"""A product on a studio background: supersampled shapes, relief, finish and shadow.

Shapes are drawn at ``FACTOR`` times the final size and reduced with Lanczos; everything
soft (relief, folds, shadow) is computed at the final size, where blurring is cheap.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from newshelf.sample.geometry import Points, disc
from newshelf.sample.palette import RGB, Metal, darker, lighter

__all__ = ["FACTOR", "SIZE", "Canvas", "Pose", "Studio"]

SIZE = 224
"""Edge of a finished picture in pixels."""
FACTOR = 3
_EDGE = SIZE * FACTOR
_MARGIN = 32
"""By which the window of a texture moves."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pose:
    """How a product lies in the picture."""

    turn: float = 0.0
    """Degrees clockwise."""
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    """In units of the 100 × 100 picture."""
    flip: bool = False


@dataclass(frozen=True)
class Studio:
    """Background and light."""

    backdrop: RGB
    floor: bool
    """Whether the product stands (the shadow lies below it) or lies flat."""
    relief: float = 1.0
    """How round the product looks."""
    finish: str = "plain"
    """A material's family, or ``plain``."""


class Canvas:
    """Draws shapes given in units of a 100 × 100 picture."""

    def __init__(self, pose: Pose) -> None:
        self._picture = Image.new("RGB", (_EDGE, _EDGE))
        self._pen = ImageDraw.Draw(self._picture)
        self._mask = Image.new("L", (_EDGE, _EDGE))
        self._mask_pen = ImageDraw.Draw(self._mask)
        self._shade = Image.new("L", (SIZE, SIZE), 128)
        self._shade_pen = ImageDraw.Draw(self._shade)
        turn = np.radians(pose.turn)
        flip = -1 if pose.flip else 1
        self._linear = pose.scale * np.array(
            [[flip * np.cos(turn), -np.sin(turn)], [flip * np.sin(turn), np.cos(turn)]]
        )
        self._origin = np.array([50 + pose.shift[0], 50 + pose.shift[1]])
        self._scale = pose.scale * _EDGE / 100
        self._corner = np.zeros(2)
        self._is_clipping = False

    def shape(
        self,
        points: Points,
        fill: RGB,
        *,
        edge: RGB | None = None,
        width: float = 0.5,
        solid: bool = True,
    ) -> None:
        """A polygon, with an outline if ``edge`` is given.

        One that is not solid lies within what was drawn before, and is cheaper.
        """
        corners = self._place(points)
        self._pen.polygon(corners, fill=fill)
        if solid and not self._is_clipping:
            self._mask_pen.polygon(corners, fill=255)
        if edge is not None:
            self.line(np.concatenate([points, points[:1]]), width, edge, solid=solid)

    def hole(self, points: Points) -> None:
        """Cut a shape out, so that the background shows."""
        self._mask_pen.polygon(self._place(points), fill=0)

    def line(self, points: Points, width: float, fill: RGB, *, solid: bool = True) -> None:
        """A line of ``width`` units; one that is not solid only shows on the product."""
        corners = self._place(points)
        pixels = max(1, round(width * self._scale))
        # Round joints are slow, and the gaps of thin lines vanish when reduced.
        joint = "curve" if pixels > 2 * FACTOR else None
        self._pen.line(corners, fill=fill, width=pixels, joint=joint)
        if solid and not self._is_clipping:
            self._mask_pen.line(corners, fill=255, width=pixels, joint=joint)

    def tint(self, points: Points, color: RGB, opacity: float) -> None:
        """A translucent polygon over the product."""
        pen = ImageDraw.Draw(self._picture, "RGBA")
        pen.polygon(self._place(points), fill=(*color, round(255 * opacity)))

    def tube(self, points: Points, width: float, metal: Metal) -> None:
        """A round rod: shadow, body and highlight, lit from the upper left."""
        self.line(points, width, metal.dark)
        self.line(points - width * 0.08, width * 0.66, metal.mid, solid=False)
        self.line(points - width * 0.17, width * 0.22, metal.light, solid=False)

    def ball(self, x: float, y: float, radius: float, metal: Metal) -> None:
        """A sphere, lit from the upper left."""
        self.shape(disc(x, y, radius, count=27), metal.dark)
        for share, offset, color in (
            (0.84, 0.1, metal.mid),
            (0.5, 0.26, lighter(metal.mid, 0.35)),
            (0.22, 0.36, metal.light),
        ):
            shifted = disc(x - offset * radius, y - offset * radius, radius * share, count=18)
            self.shape(shifted, color, solid=False)

    def shade(self, points: Points, strength: float) -> None:
        """Darken (negative) or lighten (positive) a region with soft edges, −1 … 1."""
        self._shade_pen.polygon(self._place(points, SIZE), fill=round(128 + 127 * strength))

    def fold(self, points: Points, width: float, strength: float) -> None:
        """A soft crease along a line."""
        pixels = max(1, round(width * self._scale / FACTOR))
        self._shade_pen.line(
            self._place(points, SIZE), fill=round(128 + 127 * strength), width=pixels
        )

    @contextmanager
    def clipped(self, points: Points) -> Iterator[None]:
        """What is drawn inside shows only within the polygon and leaves the outline alone.

        Drawing goes to a copy of the polygon's box, so that its cost follows its size.
        """
        corners = np.reshape(self._place(points), (-1, 2))
        low = np.clip(np.floor(corners.min(axis=0)), 0, _EDGE - 1).astype(int)
        high = np.clip(np.ceil(corners.max(axis=0)) + 1, low + 1, _EDGE).astype(int)
        left, top = (int(part) for part in low)
        whole, pen = self._picture, self._pen
        self._picture = whole.crop((left, top, int(high[0]), int(high[1])))
        inside = Image.new("L", self._picture.size)
        ImageDraw.Draw(inside).polygon((corners - low).ravel().tolist(), fill=255)
        self._pen = ImageDraw.Draw(self._picture)
        self._corner = low.astype(np.float64)
        self._is_clipping = True
        yield
        whole.paste(self._picture, (left, top), inside)
        self._picture, self._pen = whole, pen
        self._corner = np.zeros(2)
        self._is_clipping = False

    def _place(self, points: Points, edge: int = _EDGE) -> list[float]:
        placed = ((points - 50) @ self._linear.T + self._origin) * (edge / 100)
        flat: list[float] = (placed - self._corner).ravel().tolist()
        return flat

    def finished(self, studio: Studio, rng: np.random.Generator) -> Image.Image:
        """The picture, ``SIZE`` × ``SIZE`` RGB."""
        color, alpha_picture = self._reduced()
        alpha = np.asarray(alpha_picture, dtype=np.float32) / 255
        light = self._light(alpha_picture, studio)
        light += _texture(studio.finish, rng)
        color = color * light[..., None]
        color += _gloss(light, studio)[..., None] * alpha[..., None]
        ground = _backdrop(studio, rng) * _shadow(alpha_picture, studio)[..., None]
        whole = color + ground * (1 - alpha[..., None])
        return Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8))

    def _reduced(self) -> tuple[Floats, Image.Image]:
        """Colours premultiplied by the mask, and the mask, at the final size."""
        left, top, right, bottom = self._mask.getbbox() or (0, 0, _EDGE, _EDGE)
        # A margin for Lanczos, on whole final pixels.
        low = [max(0, edge // FACTOR - 3) * FACTOR for edge in (left, top)]
        high = [min(SIZE, edge // FACTOR + 4) * FACTOR for edge in (right, bottom)]
        box = (low[0], low[1], high[0], high[1])
        mask = self._mask.crop(box)
        product = Image.new("RGB", mask.size)
        product.paste(self._picture.crop(box), mask=mask)
        size = (mask.width // FACTOR, mask.height // FACTOR)
        corner = (low[0] // FACTOR, low[1] // FACTOR)
        color, alpha = Image.new("RGB", (SIZE, SIZE)), Image.new("L", (SIZE, SIZE))
        color.paste(product.resize(size, Image.Resampling.LANCZOS), corner)
        alpha.paste(mask.resize(size, Image.Resampling.LANCZOS), corner)
        return np.asarray(color, dtype=np.float32), alpha

    def _light(self, alpha: Image.Image, studio: Studio) -> Floats:
        """Brightness factor from the outline's pseudo height and the soft shades."""
        height = np.asarray(alpha.filter(ImageFilter.GaussianBlur(7)), dtype=np.float32) / 255
        down, across = np.gradient(height)
        relief = 4.2 * studio.relief * (0.6 * across + 0.8 * down)
        soft = self._shade.filter(ImageFilter.GaussianBlur(2.6))
        shade = np.asarray(soft, dtype=np.float32) / 128 - 1
        light = 1 + np.clip(relief, -0.3, 0.22) + 0.6 * shade
        return np.asarray(light, dtype=np.float32)


def _gloss(light: Floats, studio: Studio) -> Floats:
    """Extra white where smooth materials catch the light."""
    strength = {"luxe": 210.0, "cool": 120.0}.get(studio.finish, 20.0)
    gloss = np.maximum(light - 1.05, 0) * strength
    return np.asarray(gloss, dtype=np.float32)


def _backdrop(studio: Studio, rng: np.random.Generator) -> Floats:
    rows = np.linspace(-1, 1, SIZE, dtype=np.float32)
    x, y = np.float32(rng.uniform(-0.3, 0.3)), np.float32(rng.uniform(-0.5, 0.0))
    distance = (rows[None, :] - x) ** 2 + (rows[:, None] - y) ** 2
    base = np.asarray(lighter(studio.backdrop, 0.3), dtype=np.float32)
    far = np.asarray(darker(studio.backdrop, 0.1), dtype=np.float32)
    share = np.clip(distance / 2.4, 0, 1)[..., None]
    ground = base * (1 - share) + far * share
    if studio.floor:
        # The floor begins where the wall ends, out of focus.
        ground = ground * (1 - 0.07 * np.clip(rows * 7 - 3, 0, 1)[:, None, None])
    return np.asarray(ground, dtype=np.float32)


def _shadow(alpha: Image.Image, studio: Studio) -> Floats:
    """Brightness factor of the background."""
    cast = Image.new("L", (SIZE, SIZE))
    if studio.floor:
        bottom = (alpha.getbbox() or (0, 0, SIZE, SIZE))[3]
        foot = alpha.crop((0, max(0, bottom - 14), SIZE, bottom)).getbbox() or (0, 0, SIZE, 0)
        left, right = foot[0], foot[2]
        depth = max(4, (right - left) // 8)
        box = (left - 2, bottom - depth, right + depth, bottom + depth // 2)
        ImageDraw.Draw(cast).ellipse(box, fill=210)
        blurred, strength = cast.filter(ImageFilter.GaussianBlur(4)), 0.45
    else:
        cast.paste(alpha, (4, 6))
        blurred, strength = cast.filter(ImageFilter.GaussianBlur(5)), 0.34
    shadow = 1 - strength * np.asarray(blurred, dtype=np.float32) / 255
    return np.asarray(shadow, dtype=np.float32)


def _texture(finish: str, rng: np.random.Generator) -> Floats:
    """``(224, 224)`` float32 around 0: a random window of the finish's pattern."""
    whole = _pattern(finish)
    x, y = rng.integers(0, _MARGIN, size=2)
    return whole[y : y + SIZE, x : x + SIZE]


@cache
def _pattern(finish: str) -> Floats:
    edge = SIZE + _MARGIN
    rng = np.random.default_rng(20_240)
    noise = rng.standard_normal((edge, edge)).astype(np.float32)
    rows = np.arange(edge, dtype=np.float32)
    if finish == "natural":  # a woven cloth or a grain: threads along and across
        along = _smooth(noise, 9, axis=1) + _smooth(noise.T.copy(), 9, axis=0)
        weave = np.sin(rows * 2.1)[None, :] * np.sin(rows * 2.1)[:, None]
        return _single(0.13 * along + 0.035 * weave)
    if finish == "warm":  # a nap: soft spots
        return _single(0.2 * _smooth(_smooth(noise, 4, axis=0), 4, axis=1))
    if finish == "cool":  # brushed: fine diagonal lines
        lines = np.sin((rows[None, :] + rows[:, None]) * 1.3)
        return _single(0.035 * lines)
    return np.zeros((edge, edge), dtype=np.float32)


def _smooth(noise: Floats, length: int, *, axis: int) -> Floats:
    """Mean of ``length`` neighbours along an axis, around the edge."""
    total = sum(np.roll(noise, step, axis=axis) for step in range(length))
    return _single(np.asarray(total) / length)


def _single(values: npt.NDArray[Any]) -> Floats:
    return values.astype(np.float32)
