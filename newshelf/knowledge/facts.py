"""What is known of products, one statement at a time, and how sources are put together."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from newshelf.knowledge.lexicon import fold

__all__ = ["SINGLE_VALUED", "Fact", "FactSource", "merge"]

FactSource = Literal["stated", "title", "description", "tagger", "picture+text model", "implied"]

SINGLE_VALUED = ("product_type", "brand")
"""A product has one of each, so another value contradicts a stated one."""

_DOUBT = 0.5
"""What is left of the confidence in a value that contradicts a stated one."""


class Fact(NamedTuple):
    """One statement on one product; the columns of ``knowledge.parquet``."""

    item_id: str
    attribute: str
    value: str
    source: FactSource
    confidence: float
    start: int | None = None
    end: int | None = None


def merge(facts: Iterable[Fact]) -> list[Fact]:
    """One row per product, attribute and value: the most confident source's.

    Values that contradict each other are kept, each in its own row; where an attribute has
    one value only and it is stated, the confidence in any other is halved, unless the two
    are levels of one path.

    Returns:
        Product by product as they came, the surest first within an attribute.
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
