"""The products of the sample: types, styles, colours, materials, prices, titles, descriptions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from newshelf.catalog.schema import Availability
from newshelf.config import Language
from newshelf.sample.palette import COLORS, MATERIALS, METALS, SHOP, STONES, STYLES

_STYLE_IN_TITLE, _COLOR_IN_TITLE, _MATERIAL_IN_TITLE = 0.45, 0.72, 0.68
_STYLE_IN_DESCRIPTION, _OTHERS_IN_DESCRIPTION = 0.85, 0.55


def write(
    language: Language,
    style: str,
    color: str,
    material: str,
    noun: str,
    metal: str | None,
    rng: np.random.Generator,
) -> tuple[str, str]:
    """Compose a title and a description; ``metal`` holds the stone of a piece of jewellery."""
    words = SHOP["wording"][language]
    color_word = pick(rng, COLORS[color].words[language])
    material_word = pick(rng, MATERIALS[material].words[language])
    say_color, say_material = rng.random() < _COLOR_IN_TITLE, rng.random() < _MATERIAL_IN_TITLE
    said = {"noun": noun}
    if rng.random() < _STYLE_IN_TITLE:
        said["style"] = pick(rng, words["styles"][style])
    # A gold ring is not called yellow, nor a ruby red.
    if say_color and metal is None:
        said["color"] = color_word
    if say_material:
        said["material"] = material_word
        if metal not in (None, material) and rng.random() < 0.5:
            said["metal"] = name_of(str(metal), language).lower()
    forms = words["title" if metal is None else "solid" if metal == material else "set"]
    title = words["space"].join(
        form.format(said[word]) for word, form in forms.items() if word in said
    )
    sentences = []
    if rng.random() < _STYLE_IN_DESCRIPTION:
        sentences.append(pick(rng, words["hints"][style]))
    if rng.random() < _OTHERS_IN_DESCRIPTION:
        made = pick(rng, words["made"]).format(material_word)
        sentences.append(words["space"].join([*([] if metal else [color_word]), noun, made]))
    sentences.append(pick(rng, words["others"]))
    shuffled = [_capital(sentences[place]) for place in rng.permutation(len(sentences))]
    return _capital(title), words["stop"].join([*shuffled, ""]).rstrip()


def name_of(name: str, language: Language) -> str:
    """Return the name of a category, a metal or a size in the language."""
    return str(SHOP["names"][language].get(name, name))


def pick(rng: np.random.Generator, choices: str | Sequence[str]) -> str:
    """Return one of the choices, which may be in one text."""
    words = choices.split(", ") if isinstance(choices, str) else choices
    return words[int(rng.integers(len(words)))]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


class ProductType(NamedTuple):
    """A product type: its category, and its nouns by language, materials and sizes."""

    category: str
    nouns: Mapping[str, str]
    materials: str
    """Name of an assortment."""
    price: float
    """The price in cotton, or the like."""
    sizes: str = ""
    floor: bool = False
    """Whether it stands in its picture."""


CATEGORIES: dict[str, dict[str, Any]] = SHOP["types"]
PRODUCT_TYPES = {
    kind: ProductType(category, **fields)
    for category, types in CATEGORIES.items()
    for kind, fields in types.items()
}
_SHARES = {"Clothing": 0.60, "Jewellery": 0.18, "Home": 0.22}
DAY = 86_400
END = 1_767_225_600
"""The sample's present, epoch seconds: 2026-01-01. Fixed, so that a seed decides everything."""
_NEW_SHARE, _NEW_DAYS = 0.12, 3
# Of the products, those without a colour, those without a material, and those out of stock.
_UNKNOWN_SHARE, _OUT_OF_STOCK_SHARE = 0.10, 0.05


@dataclass(frozen=True)
class Blueprint:
    """The choices that determine a product's picture and row."""

    number: int
    kind: str
    """Key of ``PRODUCT_TYPES``."""
    style: str
    color: str
    material: str
    is_new: bool

    @property
    def type(self) -> ProductType:
        """The product type."""
        return PRODUCT_TYPES[self.kind]

    @property
    def item_id(self) -> str:
        """The product's id."""
        return f"NS{self.number:05d}"

    @property
    def image_link(self) -> str:
        """The path of its picture in the catalogue's folder."""
        return f"images/{self.item_id}.jpg"


def plan_products(count: int, seed: int) -> list[Blueprint]:
    """Choose ``count`` products; every type appears when there are at least 60."""
    rng = np.random.default_rng([seed, 1])
    kinds: list[str] = []
    for category, types in CATEGORIES.items():
        wanted = round(count * _SHARES[category]) if category != "Home" else count - len(kinds)
        kinds += [list(types)[place % len(types)] for place in range(wanted)]
    order = rng.permutation(count)
    new = set(rng.permutation(count)[: round(count * _NEW_SHARE)].tolist())
    blueprints = []
    for number in range(count):
        kind = kinds[order[number]]
        style = STYLES[int(rng.integers(len(STYLES)))]
        material = pick(rng, SHOP["assortments"][PRODUCT_TYPES[kind].materials])
        jewel = PRODUCT_TYPES[kind].category == "Jewellery"
        color = pick(rng, STONES[material].colors if jewel else ", ".join(COLORS))
        blueprints.append(Blueprint(number, kind, style, color, material, number in new))
    return blueprints


def item_frame(
    blueprints: list[Blueprint], metals: list[str], seed: int, language: Language = "en"
) -> pd.DataFrame:
    """Return the items table. ``metals`` are those of the pictures, one per product."""
    rows = [
        _row(blueprint, metal, np.random.default_rng([seed, 2, blueprint.number]), language)
        for blueprint, metal in zip(blueprints, metals, strict=True)
    ]
    return pd.DataFrame(rows)


def _row(
    blueprint: Blueprint, metal: str, rng: np.random.Generator, language: Language
) -> dict[str, object]:
    kind, material, color = blueprint.type, blueprint.material, blueprint.color
    jewel = kind.category == "Jewellery"
    noun = pick(rng, kind.nouns[language])
    held_by = metal if jewel else None
    title, description = write(language, blueprint.style, color, material, noun, held_by, rng)
    materials = [_named(material, MATERIALS[material].words, language)]
    if jewel and material not in METALS and rng.random() < 0.5:
        materials.append(name_of(metal, language))
    age_days = rng.uniform(0, _NEW_DAYS) if blueprint.is_new else rng.uniform(95, 700)
    cost = MATERIALS[material].cost ** 0.85 * float(np.exp(rng.normal(0, 0.22)))
    available = rng.random() >= _OUT_OF_STOCK_SHARE
    category = name_of(kind.category, language)
    color_name = _named(color, COLORS[color].words, language)
    return {
        "id": blueprint.item_id,
        "title": title,
        "description": description,
        "product_type": f"{category} > {_named(blueprint.kind, kind.nouns, language)}",
        "brand": pick(rng, SHOP["brands"]["names"]),
        "color": None if rng.random() < _UNKNOWN_SHARE else color_name,
        "material": None if rng.random() < _UNKNOWN_SHARE else ", ".join(materials),
        "size": name_of(pick(rng, kind.sizes), language) if kind.sizes else None,
        "price": max(1, round(kind.price * cost)) - 0.01,
        "image_link": blueprint.image_link,
        "availability": str(Availability.IN_STOCK if available else Availability.OUT_OF_STOCK),
        "created_at": END - round(age_days * DAY),
    }


def _named(key: str, words: Mapping[str, str], language: Language) -> str:
    return key if language == "en" else words[language].split(", ")[0]
