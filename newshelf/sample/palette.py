"""Colours, materials, metals and stones of the sample, and the tones of one product.

Colours and materials belong to families that all categories share. Simulated shoppers have a
taste for families: one who likes green may choose an olive coat, a jade ring and a sage vase.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import ImageColor

RGB = tuple[int, int, int]
Tone = str | RGB
"""A colour, or its name, which ``Look.tone`` explains."""

COLOR_FAMILIES = ("light", "dark", "blue", "green", "red", "amber")
MATERIAL_FAMILIES = ("natural", "luxe", "cool", "warm")


class Color(NamedTuple):
    """A colour, its family, and its names in titles."""

    family: str
    rgb: RGB
    words: str


COLORS: dict[str, Color] = {
    "White": Color("light", (240, 238, 234), "white, snow white, optic white"),
    "Ivory": Color("light", (234, 222, 196), "ivory, cream, off-white"),
    "Beige": Color("light", (211, 190, 158), "beige, sand, oatmeal"),
    "Black": Color("dark", (38, 37, 42), "black, jet black, ink"),
    "Charcoal": Color("dark", (80, 83, 92), "charcoal, anthracite, graphite"),
    "Grey": Color("dark", (150, 154, 162), "grey, ash, slate grey"),
    "Navy": Color("blue", (34, 52, 104), "navy, midnight blue, dark blue"),
    "Blue": Color("blue", (46, 104, 190), "blue, cobalt, azure"),
    "Teal": Color("blue", (34, 138, 156), "teal, petrol, sea blue"),
    "Green": Color("green", (34, 128, 82), "green, emerald green, forest"),
    "Olive": Color("green", (112, 122, 58), "olive, moss, khaki green"),
    "Sage": Color("green", (150, 180, 146), "sage, pale green, eucalyptus"),
    "Red": Color("red", (196, 40, 46), "red, scarlet, crimson"),
    "Burgundy": Color("red", (122, 28, 54), "burgundy, wine, bordeaux"),
    "Pink": Color("red", (224, 138, 158), "pink, blush, rose"),
    "Yellow": Color("amber", (224, 172, 52), "yellow, mustard, saffron"),
    "Orange": Color("amber", (208, 108, 48), "orange, rust, apricot"),
    "Brown": Color("amber", (128, 84, 52), "brown, chestnut, cognac"),
}


class Material(NamedTuple):
    """A material, its family, its cost relative to cotton, and its names in titles."""

    family: str
    cost: float
    words: str


MATERIALS: dict[str, Material] = {
    "Cotton": Material("natural", 1.0, "cotton, organic cotton, poplin"),
    "Linen": Material("natural", 1.3, "linen, washed linen, flax"),
    "Jute": Material("natural", 0.9, "jute, woven fibre, sisal"),
    "Oak": Material("natural", 1.6, "oak, solid oak, pale wood"),
    "Rattan": Material("natural", 1.2, "rattan, wicker, cane"),
    "Silk": Material("luxe", 3.0, "silk, mulberry silk, charmeuse"),
    "Velvet": Material("luxe", 2.2, "velvet, plush velvet, velour"),
    "Satin": Material("luxe", 1.8, "satin, duchesse satin, sateen"),
    "Marble": Material("luxe", 3.0, "marble, veined marble, polished stone"),
    "Porcelain": Material("luxe", 1.7, "porcelain, fine china, bone china"),
    "Denim": Material("cool", 1.2, "denim, raw denim, chambray"),
    "Nylon": Material("cool", 1.1, "nylon, technical shell, ripstop"),
    "Mesh": Material("cool", 0.9, "mesh, perforated knit, airy mesh"),
    "Steel": Material("cool", 1.5, "steel, brushed steel, stainless steel"),
    "Glass": Material("cool", 1.4, "glass, blown glass, clear glass"),
    "Wool": Material("warm", 1.9, "wool, merino, felted wool"),
    "Cashmere": Material("warm", 3.2, "cashmere, pure cashmere, fine knit"),
    "Leather": Material("warm", 2.6, "leather, full-grain leather, nappa"),
    "Brass": Material("warm", 1.8, "brass, aged brass, burnished brass"),
    "Terracotta": Material("warm", 1.0, "terracotta, fired clay, earthenware"),
    "Jade": Material("natural", 9.0, "jade, nephrite, carved jade"),
    "Amber": Material("natural", 5.0, "amber, Baltic amber, honey amber"),
    "Turquoise": Material("natural", 4.0, "turquoise, turquoise stone, matrix turquoise"),
    "Rose Quartz": Material("natural", 3.5, "rose quartz, pink quartz, quartz"),
    "Diamond": Material("luxe", 40.0, "diamond, brilliant-cut diamond, diamonds"),
    "Pearl": Material("luxe", 8.0, "pearl, freshwater pearl, akoya pearl"),
    "Ruby": Material("luxe", 24.0, "ruby, rubies, Burmese ruby"),
    "Sapphire": Material("luxe", 22.0, "sapphire, sapphires, Ceylon sapphire"),
    "Emerald": Material("luxe", 26.0, "emerald, emeralds, Colombian emerald"),
    "Silver": Material("cool", 3.0, "silver, sterling silver, 925 silver"),
    "Onyx": Material("cool", 4.5, "onyx, black onyx, polished onyx"),
    "Topaz": Material("cool", 7.0, "topaz, ice topaz, blue topaz"),
    "Gold": Material("warm", 12.0, "gold, 14k gold, solid gold"),
    "Garnet": Material("warm", 6.5, "garnet, deep garnet, almandine"),
    "Citrine": Material("warm", 6.0, "citrine, golden citrine, Madeira citrine"),
}


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


METALS: dict[str, Metal] = {
    "Gold": Metal((126, 82, 18), (214, 164, 62), (255, 238, 176)),
    "Silver": Metal((92, 96, 106), (184, 188, 198), (250, 252, 255)),
    "Rose Gold": Metal((136, 74, 58), (222, 154, 132), (255, 226, 212)),
    "Black Steel": Metal((16, 17, 20), (58, 60, 66), (150, 154, 164)),
    "Brass": Metal((98, 70, 22), (186, 146, 66), (244, 220, 150)),
}


class Stone(NamedTuple):
    """A stone or a metal in its place: cut, colour, colour of veins and flashes."""

    cut: str
    rgb: RGB
    vein: RGB
    colors: str
    """Colours that the catalogue gives a piece of jewellery with it."""


STONES: dict[str, Stone] = {
    "Diamond": Stone("facet", (206, 222, 236), (255, 255, 255), "White"),
    "Pearl": Stone("dome", (236, 226, 212), (255, 252, 248), "Ivory, White"),
    "Onyx": Stone("cabochon", (22, 22, 28), (70, 72, 84), "Black"),
    "Silver": Stone("dome", *METALS["Silver"][1:], "Grey"),
    "Sapphire": Stone("facet", (22, 52, 158), (120, 164, 255), "Navy, Blue"),
    "Topaz": Stone("facet", (74, 168, 214), (208, 244, 255), "Blue"),
    "Turquoise": Stone("matrix", (40, 170, 176), (74, 66, 56), "Teal"),
    "Jade": Stone("cabochon", (64, 148, 100), (172, 216, 180), "Green, Sage"),
    "Emerald": Stone("facet", (6, 122, 76), (126, 230, 170), "Green"),
    "Ruby": Stone("facet", (186, 18, 52), (255, 130, 150), "Red"),
    "Garnet": Stone("facet", (112, 14, 38), (226, 84, 90), "Burgundy"),
    "Rose Quartz": Stone("cabochon", (232, 160, 176), (252, 222, 228), "Pink"),
    "Amber": Stone("cabochon", (206, 112, 20), (250, 200, 90), "Orange"),
    "Gold": Stone("dome", *METALS["Gold"][1:], "Yellow"),
    "Citrine": Stone("facet", (226, 158, 28), (255, 236, 150), "Yellow"),
}

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
        color = self.tones[name] if name in self.tones else ImageColor.getrgb(name)[:3]
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
