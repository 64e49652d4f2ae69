"""The product types: what they are made of, what they cost and how they are drawn."""

from collections.abc import Callable
from typing import NamedTuple

from newshelf.sample.accessories import ACCESSORIES
from newshelf.sample.canvas import Canvas
from newshelf.sample.clothing import CLOTHING
from newshelf.sample.home import HOME
from newshelf.sample.jewellery import JEWELLERY
from newshelf.sample.look import Look

__all__ = ["CATEGORIES", "CATEGORY_SHARE", "DRAWINGS", "SHELVES", "STONE_COLORS", "Shelf"]

CATEGORIES = ("Clothing", "Jewellery", "Home")
CATEGORY_SHARE = {"Clothing": 0.60, "Jewellery": 0.18, "Home": 0.22}

STONE_COLORS: dict[str, tuple[str, ...]] = {
    "Diamond": ("White",),
    "Pearl": ("Ivory", "White"),
    "Onyx": ("Black",),
    "Silver": ("Grey",),
    "Sapphire": ("Navy", "Blue"),
    "Topaz": ("Blue",),
    "Turquoise": ("Teal",),
    "Jade": ("Green", "Sage"),
    "Emerald": ("Green",),
    "Ruby": ("Red",),
    "Garnet": ("Burgundy",),
    "Rose Quartz": ("Pink",),
    "Amber": ("Orange",),
    "Gold": ("Yellow",),
    "Citrine": ("Yellow",),
}
"""A piece of jewellery has the colour of its stone, or of its metal."""

_CLOTH = ("Cotton", "Linen", "Silk", "Velvet", "Satin", "Denim", "Nylon", "Wool", "Cashmere")
_THIN = ("Cotton", "Linen", "Silk", "Satin", "Mesh", "Nylon", "Wool", "Cashmere")
_THICK = ("Cotton", "Velvet", "Nylon", "Denim", "Wool", "Cashmere", "Leather")
_TOUGH = ("Cotton", "Jute", "Satin", "Velvet", "Nylon", "Mesh", "Leather", "Wool")
_HARD = ("Oak", "Rattan", "Marble", "Porcelain", "Steel", "Glass", "Brass", "Terracotta")
_SEAT = ("Oak", "Rattan", "Linen", "Velvet", "Satin", "Steel", "Nylon", "Leather", "Wool")
_SOFT = ("Linen", "Cotton", "Velvet", "Silk", "Nylon", "Denim", "Wool", "Leather")
_STONES = tuple(STONE_COLORS)

_LETTERS = ("XS", "S", "M", "L", "XL")
_FEET = ("36", "37", "38", "39", "40", "41", "42", "43")


class Shelf(NamedTuple):
    """One product type."""

    category: str
    nouns: tuple[str, ...]
    materials: tuple[str, ...]
    price: float
    """Of a cotton one, or the like."""
    sizes: tuple[str, ...]
    floor: bool = False
    """Whether it stands in its picture."""


DRAWINGS: dict[str, Callable[[Canvas, Look], None]] = {
    **CLOTHING,
    **ACCESSORIES,
    **JEWELLERY,
    **HOME,
}
"""How each product type is drawn, by the key of ``SHELVES``."""


SHELVES: dict[str, Shelf] = {
    "Dresses": Shelf("Clothing", ("dress", "day dress", "evening dress"), _CLOTH, 59, _LETTERS),
    "Shirts": Shelf("Clothing", ("shirt", "blouse", "button-up"), _THIN, 39, _LETTERS),
    "T-Shirts": Shelf("Clothing", ("t-shirt", "tee", "short-sleeved top"), _THIN, 19, _LETTERS),
    "Skirts": Shelf("Clothing", ("skirt", "midi skirt", "swing skirt"), _CLOTH, 45, _LETTERS),
    "Trousers": Shelf("Clothing", ("trousers", "pants", "slacks"), _CLOTH, 55, _LETTERS),
    "Coats": Shelf("Clothing", ("coat", "overcoat", "long jacket"), _THICK, 129, _LETTERS),
    "Shoes": Shelf("Clothing", ("shoes", "pair of shoes", "footwear"), _TOUGH, 69, _FEET),
    "Boots": Shelf("Clothing", ("boots", "ankle boots", "pair of boots"), _TOUGH, 99, _FEET),
    "Bags": Shelf("Clothing", ("bag", "handbag", "carryall"), _TOUGH, 59, ()),
    "Scarves": Shelf("Clothing", ("scarf", "shawl", "neckerchief"), _THIN, 25, ("one size",)),
    "Hats": Shelf(
        "Clothing", ("hat", "headwear", "day hat"), _TOUGH, 29, ("55 cm", "57 cm", "59 cm")
    ),
    "Rings": Shelf(
        "Jewellery",
        ("ring", "finger ring", "band ring"),
        _STONES,
        35,
        ("50", "52", "54", "56", "58"),
    ),
    "Necklaces": Shelf(
        "Jewellery", ("necklace", "collar necklace", "collier"), _STONES, 55, ("42 cm", "45 cm")
    ),
    "Pendants": Shelf(
        "Jewellery", ("pendant", "pendant on a chain", "drop pendant"), _STONES, 40, ()
    ),
    "Earrings": Shelf(
        "Jewellery", ("earrings", "pair of earrings", "drop earrings"), _STONES, 30, ()
    ),
    "Bracelets": Shelf(
        "Jewellery", ("bracelet", "bangle", "wrist piece"), _STONES, 45, ("17 cm", "19 cm")
    ),
    "Brooches": Shelf("Jewellery", ("brooch", "pin", "lapel brooch"), _STONES, 32, ()),
    "Vases": Shelf(
        "Home", ("vase", "flower vase", "vessel"), _HARD, 29, ("24 cm", "32 cm"), floor=True
    ),
    "Lamps": Shelf(
        "Home",
        ("table lamp", "lamp", "bedside light"),
        (*_HARD, "Linen", "Silk"),
        65,
        ("45 cm", "58 cm"),
        floor=True,
    ),
    "Cushions": Shelf(
        "Home",
        ("cushion", "throw pillow", "scatter cushion"),
        _SOFT,
        22,
        ("40 x 40 cm", "50 x 50 cm"),
    ),
    "Mugs": Shelf(
        "Home",
        ("mug", "cup", "coffee mug"),
        ("Oak", "Porcelain", "Marble", "Steel", "Glass", "Terracotta", "Brass"),
        12,
        ("25 cl", "35 cl"),
        floor=True,
    ),
    "Rugs": Shelf(
        "Home",
        ("rug", "carpet", "floor mat"),
        ("Jute", "Cotton", "Silk", "Velvet", "Nylon", "Wool", "Leather"),
        110,
        ("120 x 180 cm", "160 x 230 cm"),
    ),
    "Clocks": Shelf(
        "Home", ("wall clock", "clock", "timepiece for the wall"), _HARD, 42, ("30 cm", "40 cm")
    ),
    "Chairs": Shelf("Home", ("chair", "side chair", "seat"), _SEAT, 140, (), floor=True),
    "Sofas": Shelf(
        "Home", ("sofa", "couch", "settee"), _SEAT, 620, ("2 seats", "3 seats"), floor=True
    ),
}
