"""Why an item is recommended, in a sentence that a shopper can read."""

from collections.abc import Sequence
from dataclasses import dataclass

from newshelf.catalog.schema import category_levels, split_values

__all__ = ["Facts", "like_history", "popular", "popular_in"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a reason may name of an item."""

    id: str | None
    title: str | None
    product_type: str | None
    brand: str | None
    color: str | None
    material: str | None


def like_history(item: Facts, liked: Facts) -> str:
    """``like ‘Jade ring’ in your history: same material jade, same colour green``."""
    name = liked.title or liked.id
    start = f"like ‘{name}’ in your history" if name else "like an item in your history"
    shared = _shared(item, liked)
    return f"{start}: {', '.join(shared)}" if shared else start


def popular_in(product_type: str | None, categories: Sequence[str]) -> str:
    """``popular in Jewellery > Rings``: the first of ``categories`` that the type is in."""
    levels = _levels(product_type)
    for category in categories:
        wanted = _levels(category)
        if levels[: len(wanted)] == wanted:
            return f"popular in {' > '.join(category_levels(category))}"
    return popular()


def popular() -> str:
    """For want of anything more personal."""
    return "popular with other shoppers"


def _shared(item: Facts, liked: Facts) -> list[str]:
    shared = []
    levels = category_levels(item.product_type)
    if levels and levels == category_levels(liked.product_type):
        shared.append(f"same type {levels[-1]}")
    if item.brand and liked.brand and item.brand.lower() == liked.brand.lower():
        shared.append(f"same brand {item.brand}")
    materials = _common(item.material, liked.material)
    colors = _common(item.color, liked.color)
    shared += [f"same material {value}" for value in materials]
    shared += [f"same colour {value}" for value in colors]
    return shared


def _common(one: str | None, other: str | None) -> list[str]:
    others = split_values(other)
    return [value for value in dict.fromkeys(split_values(one)) if value in others]


def _levels(product_type: str | None) -> list[str]:
    return [level.lower() for level in category_levels(product_type)]
