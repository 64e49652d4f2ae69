"""Which products the sample has: their types, styles, colours, materials and prices."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from newshelf.catalog.schema import Availability
from newshelf.sample.look import STYLES
from newshelf.sample.palette import COLORS, MATERIALS, METALS
from newshelf.sample.shelves import CATEGORIES, CATEGORY_SHARE, SHELVES, STONE_COLORS, Shelf
from newshelf.sample.wording import BRANDS, write

__all__ = ["DAY", "END", "Blueprint", "item_frame", "plan_products"]

DAY = 86_400
END = 1_767_225_600
"""The sample's present, epoch seconds: 2026-01-01. Fixed, for the sake of determinism."""

_NEW_SHARE = 0.12
_NEW_DAYS = 3
_UNKNOWN_SHARE = 0.10
"""Share of the products whose colour, and of those whose material, is not filled in."""
_OUT_OF_STOCK_SHARE = 0.05


@dataclass(frozen=True)
class Blueprint:
    """Everything that decides one product's picture and row."""

    number: int
    kind: str
    """Key of ``SHELVES``."""
    style: str
    color: str
    material: str
    is_new: bool

    @property
    def shelf(self) -> Shelf:
        """The product type."""
        return SHELVES[self.kind]

    @property
    def item_id(self) -> str:
        """The product's id."""
        return f"NS{self.number:05d}"

    @property
    def image_link(self) -> str:
        """Where its picture lies in the catalogue's folder."""
        return f"images/{self.item_id}.jpg"


def plan_products(count: int, seed: int) -> list[Blueprint]:
    """Choose ``count`` products; every type appears when there are at least 60."""
    rng = np.random.default_rng([seed, 1])
    kinds = _spread_kinds(count)
    order = rng.permutation(count)
    is_new = np.zeros(count, dtype=bool)
    is_new[rng.permutation(count)[: round(count * _NEW_SHARE)]] = True
    blueprints = []
    for number in range(count):
        kind = kinds[order[number]]
        style = STYLES[int(rng.integers(len(STYLES)))]
        color, material = _color_and_material(SHELVES[kind], rng)
        blueprints.append(Blueprint(number, kind, style, color, material, bool(is_new[number])))
    return blueprints


def _spread_kinds(count: int) -> list[str]:
    kinds: list[str] = []
    for category in CATEGORIES:
        own = [kind for kind, shelf in SHELVES.items() if shelf.category == category]
        wanted = (
            count - len(kinds)
            if category == CATEGORIES[-1]
            else round(count * CATEGORY_SHARE[category])
        )
        kinds += [own[place % len(own)] for place in range(wanted)]
    return kinds


def _color_and_material(shelf: Shelf, rng: np.random.Generator) -> tuple[str, str]:
    material = shelf.materials[int(rng.integers(len(shelf.materials)))]
    colors = STONE_COLORS.get(material) if shelf.category == "Jewellery" else tuple(COLORS)
    if not colors:
        raise ValueError(f"no colour is known for {material}")
    return colors[int(rng.integers(len(colors)))], material


def item_frame(blueprints: list[Blueprint], metals: list[str], seed: int) -> pd.DataFrame:
    """The items table. ``metals`` are those of the pictures, one per product."""
    rows = [
        _row(blueprint, metal, np.random.default_rng([seed, 2, blueprint.number]))
        for blueprint, metal in zip(blueprints, metals, strict=True)
    ]
    return pd.DataFrame(rows)


def _row(blueprint: Blueprint, metal: str, rng: np.random.Generator) -> dict[str, object]:
    shelf = blueprint.shelf
    jewel = shelf.category == "Jewellery"
    noun = shelf.nouns[int(rng.integers(len(shelf.nouns)))]
    wording = write(
        blueprint.style, blueprint.color, blueprint.material, noun, metal if jewel else None, rng
    )
    material: str | None = blueprint.material
    if jewel and blueprint.material not in METALS and rng.random() < 0.5:
        material = f"{blueprint.material}, {metal}"
    age_days = rng.uniform(0, _NEW_DAYS) if blueprint.is_new else rng.uniform(95, 700)
    cost = MATERIALS[blueprint.material].cost ** 0.85 * float(np.exp(rng.normal(0, 0.22)))
    available = rng.random() >= _OUT_OF_STOCK_SHARE
    return {
        "id": blueprint.item_id,
        "title": wording.title,
        "description": wording.description,
        "product_type": f"{shelf.category} > {blueprint.kind}",
        "brand": BRANDS[int(rng.integers(len(BRANDS)))],
        "color": None if rng.random() < _UNKNOWN_SHARE else blueprint.color,
        "material": None if rng.random() < _UNKNOWN_SHARE else material,
        "size": shelf.sizes[int(rng.integers(len(shelf.sizes)))] if shelf.sizes else None,
        "price": max(1, round(shelf.price * cost)) - 0.01,
        "image_link": blueprint.image_link,
        "availability": str(Availability.IN_STOCK if available else Availability.OUT_OF_STOCK),
        "created_at": END - round(age_days * DAY),
    }
