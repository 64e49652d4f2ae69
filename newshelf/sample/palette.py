"""Colours and materials of the sample, each in a family that all categories share.

The families are what the simulated shoppers have a taste for: someone who likes green
may choose an olive coat, a jade ring and a sage vase.
"""

from typing import NamedTuple

__all__ = [
    "COLORS",
    "COLOR_FAMILIES",
    "MATERIALS",
    "MATERIAL_FAMILIES",
    "METALS",
    "RGB",
    "Color",
    "Material",
    "Metal",
    "darker",
    "lighter",
    "mixed",
]

RGB = tuple[int, int, int]

COLOR_FAMILIES = ("light", "dark", "blue", "green", "red", "amber")
MATERIAL_FAMILIES = ("natural", "luxe", "cool", "warm")


class Color(NamedTuple):
    """A colour, its family, and what a title may call it."""

    family: str
    rgb: RGB
    words: tuple[str, ...]


COLORS: dict[str, Color] = {
    "White": Color("light", (240, 238, 234), ("white", "snow white", "optic white")),
    "Ivory": Color("light", (234, 222, 196), ("ivory", "cream", "off-white")),
    "Beige": Color("light", (211, 190, 158), ("beige", "sand", "oatmeal")),
    "Black": Color("dark", (38, 37, 42), ("black", "jet black", "ink")),
    "Charcoal": Color("dark", (80, 83, 92), ("charcoal", "anthracite", "graphite")),
    "Grey": Color("dark", (150, 154, 162), ("grey", "ash", "slate grey")),
    "Navy": Color("blue", (34, 52, 104), ("navy", "midnight blue", "dark blue")),
    "Blue": Color("blue", (46, 104, 190), ("blue", "cobalt", "azure")),
    "Teal": Color("blue", (34, 138, 156), ("teal", "petrol", "sea blue")),
    "Green": Color("green", (34, 128, 82), ("green", "emerald green", "forest")),
    "Olive": Color("green", (112, 122, 58), ("olive", "moss", "khaki green")),
    "Sage": Color("green", (150, 180, 146), ("sage", "pale green", "eucalyptus")),
    "Red": Color("red", (196, 40, 46), ("red", "scarlet", "crimson")),
    "Burgundy": Color("red", (122, 28, 54), ("burgundy", "wine", "bordeaux")),
    "Pink": Color("red", (224, 138, 158), ("pink", "blush", "rose")),
    "Yellow": Color("amber", (224, 172, 52), ("yellow", "mustard", "saffron")),
    "Orange": Color("amber", (208, 108, 48), ("orange", "rust", "apricot")),
    "Brown": Color("amber", (128, 84, 52), ("brown", "chestnut", "cognac")),
}


class Material(NamedTuple):
    """A material, its family, and how much it costs beside cotton."""

    family: str
    cost: float
    words: tuple[str, ...]


MATERIALS: dict[str, Material] = {
    "Cotton": Material("natural", 1.0, ("cotton", "organic cotton", "poplin")),
    "Linen": Material("natural", 1.3, ("linen", "washed linen", "flax")),
    "Jute": Material("natural", 0.9, ("jute", "woven fibre", "sisal")),
    "Oak": Material("natural", 1.6, ("oak", "solid oak", "pale wood")),
    "Rattan": Material("natural", 1.2, ("rattan", "wicker", "cane")),
    "Silk": Material("luxe", 3.0, ("silk", "mulberry silk", "charmeuse")),
    "Velvet": Material("luxe", 2.2, ("velvet", "plush velvet", "velour")),
    "Satin": Material("luxe", 1.8, ("satin", "duchesse satin", "sateen")),
    "Marble": Material("luxe", 3.0, ("marble", "veined marble", "polished stone")),
    "Porcelain": Material("luxe", 1.7, ("porcelain", "fine china", "bone china")),
    "Denim": Material("cool", 1.2, ("denim", "raw denim", "chambray")),
    "Nylon": Material("cool", 1.1, ("nylon", "technical shell", "ripstop")),
    "Mesh": Material("cool", 0.9, ("mesh", "perforated knit", "airy mesh")),
    "Steel": Material("cool", 1.5, ("steel", "brushed steel", "stainless steel")),
    "Glass": Material("cool", 1.4, ("glass", "blown glass", "clear glass")),
    "Concrete": Material("cool", 1.1, ("concrete", "cast concrete", "cement")),
    "Wool": Material("warm", 1.9, ("wool", "merino", "felted wool")),
    "Cashmere": Material("warm", 3.2, ("cashmere", "pure cashmere", "fine knit")),
    "Leather": Material("warm", 2.6, ("leather", "full-grain leather", "nappa")),
    "Brass": Material("warm", 1.8, ("brass", "aged brass", "burnished brass")),
    "Terracotta": Material("warm", 1.0, ("terracotta", "fired clay", "earthenware")),
    "Jade": Material("natural", 9.0, ("jade", "nephrite", "carved jade")),
    "Amber": Material("natural", 5.0, ("amber", "Baltic amber", "honey amber")),
    "Turquoise": Material("natural", 4.0, ("turquoise", "turquoise stone", "matrix turquoise")),
    "Rose Quartz": Material("natural", 3.5, ("rose quartz", "pink quartz", "quartz")),
    "Diamond": Material("luxe", 40.0, ("diamond", "brilliant-cut diamond", "diamonds")),
    "Pearl": Material("luxe", 8.0, ("pearl", "freshwater pearl", "akoya pearl")),
    "Ruby": Material("luxe", 24.0, ("ruby", "rubies", "Burmese ruby")),
    "Sapphire": Material("luxe", 22.0, ("sapphire", "sapphires", "Ceylon sapphire")),
    "Emerald": Material("luxe", 26.0, ("emerald", "emeralds", "Colombian emerald")),
    "Silver": Material("cool", 3.0, ("silver", "sterling silver", "925 silver")),
    "Onyx": Material("cool", 4.5, ("onyx", "black onyx", "polished onyx")),
    "Topaz": Material("cool", 7.0, ("topaz", "ice topaz", "blue topaz")),
    "Gold": Material("warm", 12.0, ("gold", "14k gold", "solid gold")),
    "Garnet": Material("warm", 6.5, ("garnet", "deep garnet", "almandine")),
    "Citrine": Material("warm", 6.0, ("citrine", "golden citrine", "Madeira citrine")),
}


class Metal(NamedTuple):
    """Three tones of a metal, from its shadow to its highlight."""

    dark: RGB
    mid: RGB
    light: RGB


METALS: dict[str, Metal] = {
    "Gold": Metal((126, 82, 18), (214, 164, 62), (255, 238, 176)),
    "Silver": Metal((92, 96, 106), (184, 188, 198), (250, 252, 255)),
    "Rose Gold": Metal((136, 74, 58), (222, 154, 132), (255, 226, 212)),
    "Black Steel": Metal((16, 17, 20), (58, 60, 66), (150, 154, 164)),
    "Brass": Metal((98, 70, 22), (186, 146, 66), (244, 220, 150)),
}


def mixed(first: RGB, second: RGB, share: float) -> RGB:
    """``share`` of ``second`` in ``first``, 0 … 1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def darker(color: RGB, share: float = 0.25) -> RGB:
    """Towards black."""
    return mixed(color, (8, 8, 14), share)


def lighter(color: RGB, share: float = 0.25) -> RGB:
    """Towards white."""
    return mixed(color, (255, 255, 255), share)
