"""Colours, materials, metals and stones of the sample, and the tones of one product.

Colours and materials belong to families that all categories share. Simulated shoppers have a
taste for families: one who likes green may choose an olive coat, a jade ring and a sage vase.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL.ImageColor import getrgb

RGB = tuple[int, int, int]
Tone = str | RGB
"""A colour, or its name, which ``Look.tone`` explains."""

COLOR_FAMILIES = ("light", "dark", "blue", "green", "red", "amber")
MATERIAL_FAMILIES = ("natural", "luxe", "cool", "warm")

SHOP: dict[str, Any] = tomllib.loads(
    (files("newshelf.sample") / "shop.toml").read_text(encoding="utf-8")
)
"""The tables of ``shop.toml``."""
Row = TypeVar("Row")


def _rows(table: str, row: Callable[..., Row]) -> dict[str, Row]:
    return {
        name: row(**{key: getrgb(v) if str(v).startswith("#") else v for key, v in fields.items()})
        for name, fields in SHOP[table].items()
    }


class Color(NamedTuple):
    """A colour, its family, and its names in titles by language."""

    family: str
    rgb: RGB
    words: Mapping[str, str]


class Material(NamedTuple):
    """A material, its family, its cost relative to cotton, and its names by language."""

    family: str
    cost: float
    words: Mapping[str, str]


class Metal(NamedTuple):
    """Three tones of a metal or another shiny body, from shadow to highlight."""

    dark: RGB
    mid: RGB
    light: RGB

    def lit(self, light: float) -> RGB:
        """Return the tone for a light of 0 … 1."""
        if light < 0.5:
            return mixed(self.dark, self.mid, 2 * light)
        return mixed(self.mid, self.light, min(2 * light - 1, 1))


class Stone(NamedTuple):
    """A stone or a metal in its place: cut, colour, colour of veins and flashes."""

    cut: str
    rgb: RGB
    vein: RGB
    colors: str
    """Colours that the catalogue gives a piece of jewellery with it."""


COLORS = _rows("colors", Color)
MATERIALS = _rows("materials", Material)
METALS = _rows("metals", Metal)
STONES = _rows("stones", Stone)

_STYLES: dict[str, tuple[tuple[str, ...], tuple[RGB, ...]]] = {
    "minimal": (("Silver", "Gold"), ()),
    "classic": (("Gold", "Silver"), ()),
    "boho": (("Brass", "Silver"), ((196, 92, 44), (40, 150, 150), (236, 214, 160), (150, 44, 70))),
    "deco": (("Gold",), ((206, 164, 72),)),
    "romantic": (("Rose Gold", "Gold"), ((246, 222, 226), (250, 240, 224), (240, 184, 196))),
    "urban": (("Black Steel", "Silver"), ((206, 232, 40), (250, 112, 36), (246, 246, 246))),
}
"""Metals that a style prefers, and colours of its ornament."""
STYLES = tuple(_STYLES)
_PALE = 3 * 130
"""Sum of the channels above which a colour counts as pale."""


@dataclass(frozen=True)
class Look:
    """Tones of one product, and the random numbers that draw it."""

    style: str
    material: str
    metal_name: str
    tones: dict[str, RGB]
    """``rgb`` is the product's colour; ``accent`` and ``second`` those of its ornament."""
    variant: int
    """Chooses among the variants of a pattern, the same for every piece of this product."""
    rng: np.random.Generator

    @property
    def finish(self) -> str:
        """The material's family, which decides how the surface takes the light."""
        return MATERIALS[self.material].family

    def tone(self, tone: Tone) -> RGB:
        """Return the colour of a name in ``tones`` or Pillow's; ``tan+20`` is 20 % lighter."""
        if not isinstance(tone, str):
            return tone
        name, sign, percent = re.split("([+-]|$)", tone, maxsplit=1)
        color = self.tones[name] if name in self.tones else getrgb(name)[:3]
        return (lighter if sign == "+" else darker)(color, int(percent or 0) / 100)


def make_look(style: str, color: str, material: str, rng: np.random.Generator) -> Look:
    """Choose the tones for a style, a colour and a material."""
    red, green, blue = np.clip(COLORS[color].rgb + rng.normal(0, 5, 3), 4, 250).astype(int).tolist()
    rgb = (red, green, blue)
    pale = sum(rgb) > _PALE
    metals, accents = _STYLES[style]
    if accents:
        accent = accents[int(rng.integers(len(accents)))]
    elif style == "classic":
        accent = (30, 40, 84) if pale else (238, 228, 204)
    else:
        accent = darker(rgb, 0.16) if pale else lighter(rgb, 0.14)
    if sum(abs(a - b) for a, b in zip(accent, rgb, strict=True)) < _PALE // 3:
        accent = darker(rgb, 0.55) if pale else lighter(rgb, 0.6)
    metal = material if material in METALS else metals[int(rng.integers(len(metals)))]
    tones = {"rgb": rgb, "accent": accent, **METALS[metal]._asdict()}
    tones["second"] = (34, 32, 38) if pale else (244, 238, 226)
    # Outlines of what is nearly black are lighter than the product.
    tones["seam"] = darker(rgb, 0.34) if sum(rgb) > 3 * 60 else lighter(rgb, 0.22)
    return Look(style, material, metal, tones, int(rng.integers(60)), rng)


def mixed(first: RGB, second: RGB, share: float) -> RGB:
    """Mix ``share`` (0 … 1) of ``second`` into ``first``."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def darker(color: RGB, share: float = 0.25) -> RGB:
    """Mix with black."""
    return mixed(color, (8, 8, 14), share)


def lighter(color: RGB, share: float = 0.25) -> RGB:
    """Mix with white."""
    return mixed(color, (255, 255, 255), share)
