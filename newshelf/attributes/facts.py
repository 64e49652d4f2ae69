"""Facts about products: extraction from fields and texts, and merging of several sources."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from newshelf.attributes.lexicon import ATTRIBUTES, Lexicon, fold
from newshelf.catalog.schema import category_levels, split_values

FactSource = Literal["stated", "title", "description", "tagger", "picture+text model", "implied"]

SINGLE_VALUED = ("product_type", "brand")
"""Attributes with one value per product, so that other values contradict a stated one."""

_DOUBT = 0.5
"""Factor of the confidence in a value that contradicts a stated one."""


class Fact(NamedTuple):
    """A fact about a product; the columns of ``knowledge.parquet``."""

    item_id: str
    attribute: str
    value: str
    source: FactSource
    confidence: float
    start: int | None = None
    end: int | None = None


def merge(facts: Iterable[Fact]) -> list[Fact]:
    """Return one fact per product, attribute and value, from the most confident source.

    If a single-valued attribute is stated, the confidence in other values is halved, unless both
    are levels of one path. Facts are by decreasing confidence within an attribute.
    """
    best: dict[tuple[str, str, str], Fact] = {}
    for fact in facts:
        key = (fact.item_id, fact.attribute, fold(fact.value))
        if key not in best or fact.confidence > best[key].confidence:
            best[key] = fact
    stated: dict[tuple[str, str], str] = {
        (item, attribute): value
        for (item, attribute, value), fact in best.items()
        if fact.source == "stated" and attribute in SINGLE_VALUED
    }
    order = {item: place for place, item in enumerate(dict.fromkeys(key[0] for key in best))}
    rows = [_doubted(fact, stated.get((fact.item_id, fact.attribute))) for fact in best.values()]
    return sorted(
        rows,
        key=lambda fact: (order[fact.item_id], fact.attribute, -fact.confidence, fact.value),
    )


def _doubted(fact: Fact, stated: str | None) -> Fact:
    value = fold(fact.value)
    if stated is None or value == stated or stated.startswith(f"{value} > "):
        return fact
    return fact._replace(confidence=fact.confidence * _DOUBT)


_IMPLIED = 0.95
"""Factor of the confidence per step from a value to a broader one."""
_DESCRIBED = 0.85
"""Factor for descriptions, which mention more than the product itself."""


@dataclass(frozen=True)
class Texts:
    """A product's texts and its stated values by attribute."""

    title: str
    description: str = ""
    stated: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[str, str | None]) -> "Texts":
        """Return the texts of a product's fields by name; fields may be None or absent."""
        stated = {name: stated_values(name, row.get(name)) for name in ATTRIBUTES}
        return cls(
            title=row.get("title") or "",
            description=row.get("description") or "",
            stated={name: values for name, values in stated.items() if values},
        )


def stated_values(attribute: str, cell: str | None) -> list[str]:
    """Return the values of a cell: several colours, materials or styles, one type or brand."""
    if cell is None or not cell.strip():
        return []
    if attribute == "product_type":
        return [" > ".join(category_levels(cell))]
    if attribute == "brand":
        return [cell.strip()]
    return list(dict.fromkeys(split_values(cell)))


def statements(item: str, texts: Texts, lexicon: Lexicon) -> Iterator[Fact]:
    """Yield the facts from fields, title and description."""
    for attribute, values in texts.stated.items():
        for value in values:
            yield Fact(item, attribute, lexicon.canonical(attribute, value), "stated", 1.0)
    sources: tuple[tuple[FactSource, str, float], ...] = (
        ("title", texts.title, 1.0),
        ("description", texts.description, _DESCRIBED),
    )
    for source, text, factor in sources:
        for start, end, attribute, value, confidence in lexicon.find(text):
            yield Fact(item, attribute, value, source, confidence * factor, start, end)


def implied(fact: Fact, lexicon: Lexicon) -> Iterator[Fact]:
    """Yield the broader values that a fact implies, with less confidence at each step."""
    for steps, value in enumerate(lexicon.implied(fact.attribute, fact.value), start=1):
        confidence = fact.confidence * _IMPLIED**steps
        yield Fact(fact.item_id, fact.attribute, value, "implied", confidence)
