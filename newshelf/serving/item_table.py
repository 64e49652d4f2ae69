"""The items' columns and inferred attributes, with posting lists for filters."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from newshelf.attributes.facts import Texts, implied, merge, statements
from newshelf.attributes.lexicon import Lexicon
from newshelf.catalog.schema import Product, category_path, split_values

Values = Mapping[int, Sequence[str]]


@dataclass(frozen=True)
class TextReader:
    """Reads titles and descriptions of products that the index does not know."""

    lexicon: Lexicon = field(default_factory=lambda: Lexicon(()))
    least: float = 1.0
    """Statements below this confidence do not count."""

    def read(self, products: Sequence[Product]) -> "KnownValues":
        """Return what the products' texts and fields say, with all that it implies."""
        rows = (
            (row, attribute, value, confidence)
            for row, product in enumerate(products)
            for attribute, value, confidence in self.statements(
                product.model_dump(exclude={"price"})
            )
        )
        return KnownValues.from_rows(rows, self)

    def statements(self, fields: Mapping[str, str | None]) -> Sequence[tuple[str, str, float]]:
        """Return attribute, value and confidence of all that a product's texts say."""
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


INDEX_COLUMNS = (
    "id",
    "title",
    "product_type",
    "brand",
    "color",
    "material",
    "size",
    "price",
    "availability",
    "created_at",
    "popularity",
)
"""Columns of ``items.json``, in order. All but ``id`` and ``popularity`` may be null."""

_NEVER = np.iinfo(np.int64).min
_NOW = np.iinfo(np.int64).max

IntArray = NDArray[np.int64]
Postings = Mapping[str, IntArray]


@dataclass(frozen=True)
class ItemTable:
    """``N`` items. Rows are positions in every column."""

    id: Sequence[str]
    title: Sequence[str | None]
    product_type: Sequence[str | None]
    brand: Sequence[str | None]
    color: Sequence[str | None]
    material: Sequence[str | None]
    availability: Sequence[str | None]
    price: NDArray[np.float64]
    """NaN where absent."""
    created_at: IntArray
    """Epoch seconds; the least int64 where absent."""
    popularity: NDArray[np.float64]
    """Interactions with the item; 0 for a new one."""
    known: KnownValues = field(default_factory=KnownValues)
    """What is known beyond the columns."""

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Sequence[object]], known: KnownValues | None = None
    ) -> "ItemTable":
        """Build from ``INDEX_COLUMNS``, with None where a value is absent."""
        texts = {
            name: [None if value is None else str(value) for value in columns[name]]
            for name in ("title", "product_type", "brand", "color", "material", "availability")
        }
        created_at = [_NEVER if value is None else value for value in columns["created_at"]]
        return cls(
            id=[str(value) for value in columns["id"]],
            price=np.array(columns["price"], dtype=np.float64),
            created_at=np.array(created_at, dtype=np.int64),
            popularity=np.nan_to_num(np.array(columns["popularity"], dtype=np.float64)),
            known=known or KnownValues(),
            **texts,
        )

    @classmethod
    def from_products(
        cls, products: Sequence[Product], reader: TextReader | None = None
    ) -> "ItemTable":
        """Products that a request brought along: in stock, created now, not yet popular.

        Args:
            products: the products.
            reader: says what their texts tell; without one, only their fields count.
        """
        columns: dict[str, Sequence[object]] = {
            name: [getattr(product, name) for product in products]
            for name in ("id", "title", "product_type", "brand", "color", "material", "price")
        }
        count = len(products)
        return cls.from_columns(
            {
                **columns,
                "availability": [None] * count,
                "created_at": [_NOW] * count,
                "popularity": [0.0] * count,
            },
            (reader or TextReader()).read(products),
        )

    def __len__(self) -> int:
        return len(self.id)

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Row by id."""
        return {item: row for row, item in enumerate(self.id)}

    def rows(self, ids: Collection[str | None]) -> IntArray:
        """The row of each id, ``(len(ids),)``; -1 where the table has none."""
        # A lookup in C for each id; a loop in Python takes several times as long.
        found = map(self.row_of.get, ids, repeat(-1))  # type: ignore[arg-type]
        return np.fromiter(found, dtype=np.int64, count=len(ids))

    @cached_property
    def popular_first(self) -> IntArray:
        """All rows, the most popular first; equals in the table's order."""
        return np.argsort(-self.popularity, kind="stable")

    @cached_property
    def newest_first(self) -> IntArray:
        """Rows with a date, the newest first; equals in the table's order."""
        order = np.argsort(-self.created_at, kind="stable")
        newest: IntArray = order[self.created_at[order] > _NEVER]
        return newest

    @cached_property
    def by_type(self) -> Postings:
        """Rows by ``type_path`` of each level and all levels above it."""
        return self._postings("product_type", map(_paths, self.product_type), _paths)

    @cached_property
    def by_brand(self) -> Postings:
        """Rows by brand, lower-cased."""
        brands = ([_folded(value)] if value else [] for value in self.brand)
        return self._postings("brand", brands)

    @cached_property
    def by_color(self) -> Postings:
        """Rows by each colour of the cell, and by the whole cell."""
        return self._postings("color", map(_values, self.color))

    @cached_property
    def by_material(self) -> Postings:
        """Rows by each material of the cell, and by the whole cell."""
        return self._postings("material", map(_values, self.material))

    @cached_property
    def by_style(self) -> Postings:
        """Rows by each style that is known."""
        return self._postings("style", ([] for _ in self.id))

    @cached_property
    def by_availability(self) -> Postings:
        """Rows by availability; what does not say is in stock."""
        return _postings([value or "in_stock"] for value in self.availability)

    @cached_property
    def in_stock(self) -> NDArray[np.bool_]:
        """``(N,)``: all but what is out of stock."""
        mask = np.ones(len(self), dtype=np.bool_)
        mask[self.by_availability.get("out_of_stock", [])] = False
        return mask

    @cached_property
    def interest(self) -> float:
        """All interactions with all items; at least 1."""
        return max(float(self.popularity.sum()), 1.0)

    def _postings(
        self,
        attribute: str,
        stated: Iterable[Iterable[str]],
        keys: Callable[[str], Iterable[str]] = lambda value: [_folded(value)],
    ) -> Postings:
        """Rows by what their column states, and by what is known beyond it."""
        known = self.known.rows(attribute)
        return _postings(
            {*cell, *(key for value in known.get(row, ()) for key in keys(value))}
            for row, cell in enumerate(stated)
        )


def type_path(product_type: str) -> str:
    """``"Home >Beds"`` → ``"home > beds"``, so that two spellings of a path are equal."""
    return " > ".join(category_path(product_type))


def _paths(product_type: str | None) -> list[str]:
    levels = category_path(product_type)
    return [" > ".join(levels[: depth + 1]) for depth in range(len(levels))]


def _values(cell: str | None) -> set[str]:
    return {*split_values(cell), _folded(cell)} if cell else set()


def _folded(value: str) -> str:
    return value.strip().lower()


def _postings(keys_of_rows: Iterable[Iterable[str]]) -> Postings:
    rows: dict[str, list[int]] = {}
    for row, keys in enumerate(keys_of_rows):
        for key in keys:
            rows.setdefault(key, []).append(row)
    return {key: np.array(found, dtype=np.int64) for key, found in rows.items()}
