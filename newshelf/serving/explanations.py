"""Explanations of recommended items, as sentences for shoppers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from newshelf.attributes.lexicon import Lexicon
from newshelf.catalog.schema import category_levels, category_path, split_values

_WORDINGS = {"material": "same material {}", "color": "same colour {}", "style": "same {} style"}
_AT_MOST = 2
"""Values of one attribute in one reason."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of an item that an explanation may name."""

    id: str | None
    title: str | None
    product_type: str | None
    brand: str | None
    color: str | None
    material: str | None
    known: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What is known beyond the fields: attribute → values, the surest first."""


def like_history(item: Facts, liked: Facts, lexicon: Lexicon | None = None) -> str:
    """``like ‘Jade ring’ in your history: same material jade, same minimal style``."""
    name = liked.title or liked.id
    start = f"like ‘{name}’ in your history" if name else "like an item in your history"
    shared = _shared(item, liked, lexicon or Lexicon(()))
    return f"{start}: {', '.join(shared)}" if shared else start


def popular_in(product_type: str | None, categories: Sequence[str]) -> str:
    """``popular in Jewellery > Rings``: the first of ``categories`` that the type is in."""
    levels = category_path(product_type)
    for category in categories:
        wanted = category_path(category)
        if levels[: len(wanted)] == wanted:
            return f"popular in {' > '.join(category_levels(category))}"
    return popular()


def popular() -> str:
    """For want of anything more personal."""
    return "popular with other shoppers"


def _shared(item: Facts, liked: Facts, lexicon: Lexicon) -> list[str]:
    shared = []
    if value := _common_type(item, liked):
        shared.append(f"same type {category_levels(value)[-1]}")
    if brand := _common_brand(item, liked):
        shared.append(f"same brand {brand}")
    for attribute, wording in _WORDINGS.items():
        shared += [wording.format(value) for value in _common(attribute, item, liked, lexicon)]
    return shared


def _common(attribute: str, item: Facts, liked: Facts, lexicon: Lexicon) -> list[str]:
    """The values that both have, as the item spells them; none that another one implies."""
    others = {lexicon.canonical(attribute, value) for value in _values(attribute, liked)}
    shared: dict[str, str] = {}
    for value in _values(attribute, item):
        name = lexicon.canonical(attribute, value)
        if name in others:
            shared.setdefault(name, value)
    wider = {value for name in shared for value in lexicon.implied(attribute, name)}
    return [value for name, value in shared.items() if name not in wider][:_AT_MOST]


def _values(attribute: str, item: Facts) -> list[str]:
    stated = {"color": item.color, "material": item.material}.get(attribute)
    return [*split_values(stated), *item.known.get(attribute, ())]


def _common_type(item: Facts, liked: Facts) -> str | None:
    """The stated type where both have one; otherwise the most special that is known."""
    if item.product_type and liked.product_type:
        same = category_levels(item.product_type) == category_levels(liked.product_type)
        return item.product_type if same else None
    others = [category_path(value) for value in _types(liked)]
    shared = [value for value in _types(item) if category_path(value) in others]
    return max(shared, key=lambda value: len(category_levels(value)), default=None)


def _common_brand(item: Facts, liked: Facts) -> str | None:
    brands = [item.brand] if item.brand else item.known.get("brand", ())
    others = [liked.brand] if liked.brand else liked.known.get("brand", ())
    folded = {brand.lower() for brand in others}
    return next((brand for brand in brands if brand.lower() in folded), None)


def _types(item: Facts) -> Sequence[str]:
    return [item.product_type] if item.product_type else item.known.get("product_type", ())
