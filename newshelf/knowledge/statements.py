"""What a product's own fields and texts say of it. Read by training and by serving."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from newshelf.catalog.schema import category_levels, split_values
from newshelf.knowledge.facts import Fact, FactSource
from newshelf.knowledge.lexicon import ATTRIBUTES, Lexicon

__all__ = ["Texts", "implied", "said_values", "statements"]

_IMPLIED = 0.95
"""What is left of the confidence in a value when it implies a wider one."""
_DESCRIBED = 0.85
"""The same for what a description says: it speaks of more than the product itself."""


@dataclass(frozen=True)
class Texts:
    """A product's texts and the values that are stated, by attribute."""

    title: str
    description: str = ""
    stated: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[str, str | None]) -> "Texts":
        """From a product's fields by name; a field may be None or absent."""
        stated = {name: said_values(name, row.get(name)) for name in ATTRIBUTES}
        return cls(
            title=row.get("title") or "",
            description=row.get("description") or "",
            stated={name: values for name, values in stated.items() if values},
        )


def said_values(attribute: str, cell: str | None) -> list[str]:
    """The values of one cell: several colours, materials or styles, one type or brand."""
    if cell is None or not cell.strip():
        return []
    if attribute == "product_type":
        return [" > ".join(category_levels(cell))]
    if attribute == "brand":
        return [cell.strip()]
    return list(dict.fromkeys(split_values(cell)))


def statements(item: str, texts: Texts, lexicon: Lexicon) -> Iterator[Fact]:
    """What the fields state, and what title and description say; in no special order."""
    for attribute, values in texts.stated.items():
        for value in values:
            yield Fact(item, attribute, lexicon.canonical(attribute, value), "stated", 1.0)
    sources: tuple[tuple[FactSource, str, float], ...] = (
        ("title", texts.title, 1.0),
        ("description", texts.description, _DESCRIBED),
    )
    for source, text, trust in sources:
        for start, end, attribute, value, confidence in lexicon.find(text):
            yield Fact(item, attribute, value, source, confidence * trust, start, end)


def implied(fact: Fact, lexicon: Lexicon) -> Iterator[Fact]:
    """The wider values that a statement implies, a little less certain at each step."""
    for steps, value in enumerate(lexicon.implied(fact.attribute, fact.value), start=1):
        confidence = fact.confidence * _IMPLIED**steps
        yield Fact(fact.item_id, fact.attribute, value, "implied", confidence)
