"""What is known of items beyond their columns, and how a text is read for it.

In an index::

    knowledge.json  row, attribute, value, confidence: one statement each
    lexicon.json    the words by which filters and inline products are understood
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from newshelf.catalog.schema import Product
from newshelf.knowledge.facts import merge
from newshelf.knowledge.lexicon import Lexicon
from newshelf.knowledge.statements import Texts, implied, statements

__all__ = ["KnownValues", "TextReader"]

Values = Mapping[int, Sequence[str]]


@dataclass(frozen=True)
class TextReader:
    """Reads titles and descriptions of products that the index does not know."""

    lexicon: Lexicon = field(default_factory=lambda: Lexicon(()))
    least: float = 1.0
    """Statements below this confidence do not count."""

    def read(self, products: Sequence[Product]) -> "KnownValues":
        """What the products' texts and fields say, with all that it implies."""
        rows = (
            (row, attribute, value, confidence)
            for row, product in enumerate(products)
            for attribute, value, confidence in self._statements(product)
        )
        return KnownValues.from_rows(rows, self)

    def _statements(self, product: Product) -> Iterable[tuple[str, str, float]]:
        fields = product.model_dump(exclude={"price"})
        facts = list(statements("", Texts.of(fields), self.lexicon))
        facts += [wider for fact in facts for wider in implied(fact, self.lexicon)]
        return [(fact.attribute, fact.value, fact.confidence) for fact in merge(facts)]


@dataclass(frozen=True)
class KnownValues:
    """Values by attribute and row, the surest first."""

    values: Mapping[str, Values] = field(default_factory=dict)
    reader: TextReader = field(default_factory=TextReader)

    @classmethod
    def from_rows(
        cls, rows: Iterable[tuple[int, str, str, float]], reader: TextReader
    ) -> "KnownValues":
        """Keep what is as certain as the reader asks for.

        Args:
            rows: row of the item, attribute, value, confidence.
            reader: of the same catalogue.
        """
        values: dict[str, dict[int, list[str]]] = {}
        for row, attribute, value, confidence in sorted(rows, key=lambda item: -item[3]):
            if confidence >= reader.least:
                values.setdefault(attribute, {}).setdefault(row, []).append(value)
        return cls(values, reader)

    def rows(self, attribute: str) -> Values:
        """Row → its values of ``attribute``; rows without any are absent."""
        return self.values.get(attribute, {})

    def of(self, attribute: str, row: int) -> Sequence[str]:
        """The values of one row."""
        return self.rows(attribute).get(row, ())

    def asked(self, attribute: str, value: str) -> str:
        """The name under which a filter's value is known: ``红色`` → ``red``."""
        return self.reader.lexicon.canonical(attribute, value)
