"""What one product looks like, before it has a shape."""

from dataclasses import dataclass

import numpy as np

from newshelf.sample.palette import COLORS, MATERIALS, METALS, RGB, Metal, darker, lighter

__all__ = ["STYLES", "Look", "make_look"]

STYLES = ("minimal", "classic", "boho", "deco", "romantic", "urban")

_GOLD: RGB = (206, 164, 72)
_ACCENTS: dict[str, tuple[RGB, ...]] = {
    "boho": ((196, 92, 44), (40, 150, 150), (236, 214, 160), (150, 44, 70)),
    "deco": (_GOLD,),
    "romantic": ((246, 222, 226), (250, 240, 224), (240, 184, 196)),
    "urban": ((206, 232, 40), (250, 112, 36), (246, 246, 246)),
}
_METALS: dict[str, tuple[str, ...]] = {
    "minimal": ("Silver", "Gold"),
    "classic": ("Gold", "Silver"),
    "boho": ("Brass", "Silver"),
    "deco": ("Gold",),
    "romantic": ("Rose Gold", "Gold"),
    "urban": ("Black Steel", "Silver"),
}
_PALE = 130
"""Mean of the channels from which on a colour counts as pale."""


@dataclass(frozen=True)
class Look:
    """Style, colour and material of one product, with the tones that go with them."""

    style: str
    color: str
    material: str
    metal_name: str
    rgb: RGB
    """The colour, tinted a little: no two dyes are the same."""
    accent: RGB
    """The ornament's first colour."""
    second: RGB
    """The ornament's second colour."""
    variant: int
    """Which of a pattern's variants covers every piece of this product."""
    rng: np.random.Generator

    @property
    def metal(self) -> Metal:
        """Tones of the metal parts."""
        return METALS[self.metal_name]

    @property
    def finish(self) -> str:
        """How the surface takes the light: the material's family."""
        return MATERIALS[self.material].family

    @property
    def seam(self) -> RGB:
        """For outlines and seams: the colour, darker, or lighter when it is nearly black."""
        return darker(self.rgb, 0.34) if sum(self.rgb) > 3 * 60 else lighter(self.rgb, 0.22)

    def by_style(self, *values: float) -> float:
        """One of six values, in the order of ``STYLES``."""
        return values[STYLES.index(self.style)]

    def pick(self, count: int) -> int:
        """A number below ``count``, the same whenever this product is asked."""
        return self.variant % count


def make_look(style: str, color: str, material: str, rng: np.random.Generator) -> Look:
    """Choose the tones for a style, a colour and a material."""
    tint = rng.normal(0, 5, 3)
    red, green, blue = (
        int(np.clip(part + shift, 4, 250))
        for part, shift in zip(COLORS[color].rgb, tint, strict=True)
    )
    rgb = (red, green, blue)
    pale = sum(rgb) > 3 * _PALE
    accents = _ACCENTS.get(style, ())
    accent = (
        accents[int(rng.integers(len(accents)))] if accents else _plain_accent(style, rgb, pale)
    )
    if sum(abs(a - b) for a, b in zip(accent, rgb, strict=True)) < _PALE:
        accent = darker(rgb, 0.55) if pale else lighter(rgb, 0.6)
    metals = _METALS[style]
    metal = material if material in METALS else metals[int(rng.integers(len(metals)))]
    second: RGB = (34, 32, 38) if pale else (244, 238, 226)
    return Look(style, color, material, metal, rgb, accent, second, int(rng.integers(60)), rng)


def _plain_accent(style: str, rgb: RGB, pale: bool) -> RGB:
    if style == "classic":
        return (30, 40, 84) if pale else (238, 228, 204)
    return darker(rgb, 0.16) if pale else lighter(rgb, 0.14)
