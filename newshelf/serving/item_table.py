"""The items' columns and inferred attributes, and the filters and categories that select items."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import chain, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newshelf.attributes.lexicon import Lexicon, Texts, implied, merge, statements
from newshelf.catalog.schema import Product, category_path, split_values
from newshelf.serving.columns import (
    Arrays,
    Column,
    IdHashes,
    Postings,
    Strings,
    TextColumn,
    build_postings,
    typed_column,
)
from newshelf.serving.schemas import Filters
from newshelf.serving.search.base import IntArray, Mask


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


_nothing: Callable[[], NDArray[Any]] = partial(np.zeros, 0, np.int32)
_BETWEEN = "\n"
"""Separates attribute and value where both are one text."""


@dataclass(frozen=True, eq=False)
class KnownValues:
    """Statements about items, in the order of their rows, and of one row the surest first."""

    row: NDArray[np.int32] = field(default_factory=_nothing)
    """``(S,)``: of the item."""
    code: NDArray[np.int32] = field(default_factory=_nothing)
    """``(S,)``: place in ``meanings``."""
    sure: NDArray[np.float32] = field(default_factory=_nothing)
    """``(S,)``: confidence."""
    meanings: Sequence[str] = ()
    """Attribute and value."""
    reader: TextReader = field(default_factory=TextReader)
    """Of the same catalogue. What is less certain than it asks for does not count."""

    @classmethod
    def from_rows(
        cls, rows: Iterable[tuple[int, str, str, float]], reader: TextReader
    ) -> "KnownValues":
        """Order statements: row of the item, attribute, value, confidence."""
        code_of: dict[str, int] = {}
        found = [
            (row, code_of.setdefault(f"{attribute}{_BETWEEN}{value}", len(code_of)), sure)
            for row, attribute, value, sure in rows
        ]
        found.sort(key=lambda one: (one[0], -one[2]))
        row, code, sure = zip(*found, strict=True) if found else ((), (), ())
        rows_of = np.array(row, dtype=np.int32), np.array(code, dtype=np.int32)
        return cls(*rows_of, np.array(sure, dtype=np.float32), list(code_of), reader)

    def at(self, row: int) -> dict[str, list[str]]:
        """The values of one row by attribute, the surest first."""
        # Of the column's type, or else all of it would be converted.
        start, end = np.searchsorted(self.row, np.array([row, row + 1], dtype=np.int32))
        end = start + np.count_nonzero(self.sure[start:end] >= np.float32(self.reader.least))
        values: dict[str, list[str]] = {}
        for code in self.code[start:end].tolist():
            attribute, value = self.meanings[code].split(_BETWEEN, 1)
            values.setdefault(attribute, []).append(value)
        return values

    def asked(self, attribute: str, value: str) -> str:
        """The name under which a filter's value is known: ``红色`` → ``red``."""
        return self.reader.lexicon.canonical(attribute, value)

    def statements(self) -> list[tuple[int, str, str, float]]:
        """Return all rows, as ``from_rows`` takes them."""
        meanings = [meaning.split(_BETWEEN, 1) for meaning in self.meanings]
        columns = zip(self.row.tolist(), self.code.tolist(), self.sure.tolist(), strict=True)
        return [(row, *meanings[code], sure) for row, code, sure in columns]

    def arrays(self, name: str) -> Arrays:
        """Return the arrays to store."""
        return {
            f"{name}.row": self.row,
            f"{name}.code": self.code,
            f"{name}.sure": self.sure,
            **Strings.of(self.meanings).arrays(name),
        }

    @classmethod
    def stored(cls, arrays: Arrays, name: str, reader: TextReader) -> "KnownValues":
        """Return what ``arrays`` stored."""
        row, code, sure = (arrays[f"{name}.{part}"] for part in ("row", "code", "sure"))
        return cls(row, code, sure, Strings.stored(arrays, name), reader)


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
"""Columns of every index, in order. All but ``id`` and ``popularity`` may be absent."""

TEXT_COLUMNS = ("title", "product_type", "brand", "color", "material", "size", "availability")

NEVER = np.iinfo(np.int64).min
"""``created_at`` of an item that does not say."""
_NOW = np.iinfo(np.int64).max
_DICTIONARY_IDS = 50_000
"""Up to this number, a dictionary of ids takes little memory, and is the quickest."""


@dataclass(frozen=True, eq=False)
class ItemTable:
    """``N`` items. Rows are positions in every column.

    An index's table is mapped: its columns decode a cell when it is read, its posting lists and the
    hashes of its ids are stored. A table of a few thousand items, such as a request's products or a
    delta, is built by ``from_columns`` or ``from_products``, and computes the same when it is first
    asked for. Tables do not change: ``dataclasses.replace`` forgets what was stored.
    """

    id: Sequence[str]
    title: Sequence[str | None]
    product_type: Sequence[str | None]
    brand: Sequence[str | None]
    color: Sequence[str | None]
    material: Sequence[str | None]
    size: Sequence[str | None]
    availability: Sequence[str | None]
    price: NDArray[np.float64]
    """NaN where absent."""
    created_at: IntArray
    """Epoch seconds; the least int64 where absent."""
    popularity: NDArray[np.float64]
    """Interactions with the item; 0 for a new one."""
    known: KnownValues = field(default_factory=KnownValues)
    extras: Mapping[str, Column] = field(default_factory=dict)

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Sequence[object]], known: KnownValues | None = None
    ) -> "ItemTable":
        """Build from ``INDEX_COLUMNS``, of which texts may be left out, and further ones."""
        count = len(columns["id"])
        texts = {
            name: [None if value is None else str(value) for value in columns[name]]
            if name in columns
            else [None] * count
            for name in TEXT_COLUMNS
        }
        created_at = [NEVER if value is None else value for value in columns["created_at"]]
        return cls(
            id=[str(value) for value in columns["id"]],
            price=np.array(columns["price"], dtype=np.float64),
            created_at=np.array(created_at, dtype=np.int64),
            popularity=np.nan_to_num(np.array(columns["popularity"], dtype=np.float64)),
            known=known or KnownValues(),
            extras={
                name: typed_column(cells)
                for name, cells in columns.items()
                if name not in INDEX_COLUMNS
            },
            **texts,
        )

    @classmethod
    def from_products(
        cls, products: Sequence[Product], reader: TextReader | None = None
    ) -> "ItemTable":
        """Products that a request brought along: in stock, created now, not yet popular."""
        columns: dict[str, Sequence[object]] = {
            name: [getattr(product, name) for product in products]
            for name in ("id", *TEXT_COLUMNS, "price")
            if name != "availability"
        }
        count = len(products)
        return cls.from_columns(
            {**columns, "created_at": [_NOW] * count, "popularity": [0.0] * count},
            (reader or TextReader()).read(products),
        )

    def __len__(self) -> int:
        return len(self.id)

    def column(self, name: str) -> Column | IntArray | Sequence[str | None]:
        """A column by its name, further ones too."""
        return getattr(self, name) if name in INDEX_COLUMNS else self.extras[name]

    def cells(self, name: str) -> list[object]:
        """Return the plain values of a column, with None where one, or the column, is absent."""
        if name not in INDEX_COLUMNS and name not in self.extras:
            return [None] * len(self)
        column = self.column(name)
        if not isinstance(column, np.ndarray):
            return list(column)
        gone = column == NEVER if column.dtype == np.int64 else np.isnan(column)
        return [None if none else value for value, none in zip(column.tolist(), gone, strict=True)]

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Row by id; of many items use ``rows``."""
        return {item: row for row, item in enumerate(self.id)}

    def rows(self, ids: Collection[str | None]) -> IntArray:
        """The row of each id, ``(len(ids),)``; -1 where the table has none."""
        if self._hashes is not None:
            return self._hashes.rows(ids)
        # A lookup in C for each id; a loop in Python takes several times as long.
        found = map(self.row_of.get, ids, repeat(-1))  # type: ignore[arg-type]
        return np.fromiter(found, dtype=np.int64, count=len(ids))

    @cached_property
    def popular_first(self) -> IntArray:
        """All rows, the most popular first; equals in the table's order."""
        return np.argsort(-self.popularity, kind="stable")

    def with_popularity(self, popularity: NDArray[np.float64]) -> "ItemTable":
        """Return the same items, of another popularity ``(N,)``."""
        table = replace(self, popularity=popularity)
        kept = vars(self).keys() - vars(table).keys() - {"popular_first", "interest"}
        vars(table).update({name: vars(self)[name] for name in kept})
        return table

    def arrays(self) -> Arrays:
        """Return the arrays to store, with what is looked up and not computed."""
        ids = Strings.of(self.id)
        arrays = {**ids.arrays("id"), **IdHashes.of(ids).arrays(), **self.known.arrays("known")}
        columns = {
            **{name: getattr(self, name) for name in TEXT_COLUMNS},
            **{f"extra.{at}": column for at, column in enumerate(self.extras.values())},
        }
        for name, column in columns.items():
            if isinstance(column, np.ndarray):
                arrays[name] = column
            else:
                arrays.update(TextColumn.of(column).arrays(name))
        for name, attribute in _POSTINGS.items():
            arrays.update(self.by(attribute).arrays(name))
        return arrays | {name: getattr(self, name) for name in (*_NUMBERS, *_ORDERS)}

    @classmethod
    def stored(cls, arrays: Arrays, extras: Sequence[str], reader: TextReader) -> "ItemTable":
        """Return what ``arrays`` stored."""
        texts: dict[str, Any] = {name: TextColumn.stored(arrays, name) for name in TEXT_COLUMNS}
        further: dict[str, Column] = {}
        for at, name in enumerate(extras):
            key = f"extra.{at}"
            further[name] = arrays[key] if key in arrays else TextColumn.stored(arrays, key)
        ids = Strings.stored(arrays, "id")
        numbers: dict[str, Any] = {name: arrays[name] for name in _NUMBERS}
        columns: list[Sized] = [*texts.values(), *further.values(), *numbers.values()]
        if any(len(column) != len(ids) for column in columns):
            raise ValueError("the items' columns differ in length")
        known = KnownValues.stored(arrays, "known", reader)
        table = cls(id=ids, known=known, extras=further, **texts, **numbers)
        for name, attribute in _POSTINGS.items():
            table._postings[attribute] = Postings.stored(arrays, name, reader.least)
        vars(table).update({name: arrays[name] for name in _ORDERS})
        if len(ids) > _DICTIONARY_IDS:
            vars(table)["_hashes"] = IdHashes(ids, arrays["id.hashes"], arrays["id.rows"])
        return table

    @cached_property
    def newest_first(self) -> IntArray:
        """Rows with a date, the newest first; equals in the table's order."""
        order = np.argsort(-self.created_at, kind="stable")
        return order[self.created_at[order] > NEVER]

    def by(self, attribute: str) -> Postings:
        """Rows by the keys that ``_KEYS`` has of what a column states, and of what is known."""
        if attribute not in self._postings:
            self._postings[attribute] = self._build_postings(attribute)
        return self._postings[attribute]

    @cached_property
    def _postings(self) -> dict[str, Postings]:
        return {}

    @cached_property
    def in_stock(self) -> NDArray[np.bool_]:
        """``(N,)``: all but what is out of stock."""
        mask = np.ones(len(self), dtype=np.bool_)
        gone = self.by("availability").get("out_of_stock")
        if gone is not None:
            mask[gone] = False
        return mask

    @cached_property
    def interest(self) -> float:
        """All interactions with all items; at least 1."""
        return max(float(self.popularity.sum()), 1.0)

    @cached_property
    def _hashes(self) -> IdHashes | None:
        return None

    def _build_postings(self, attribute: str) -> Postings:
        keys_of, known_keys_of = map(cache, _KEYS[attribute])
        cells = getattr(self, attribute) if attribute in TEXT_COLUMNS else ()
        stated = ((row, keys_of(cell), 1.0) for row, cell in enumerate(cells))
        known = [
            (row, known_keys_of(value), sure)
            for row, name, value, sure in self.known.statements()
            if name == attribute
        ]
        known.sort(key=lambda one: -one[2])
        return build_postings(chain(stated, known), self.known.reader.least)


_NUMBERS = ("price", "created_at", "popularity")
_ORDERS = ("popular_first", "newest_first")


def type_path(product_type: str) -> str:
    """``"Home >Beds"`` → ``"home > beds"``, so that two spellings of a path are equal."""
    return " > ".join(category_path(product_type))


def _paths(product_type: str | None) -> list[str]:
    levels = category_path(product_type)
    return [" > ".join(levels[: depth + 1]) for depth in range(len(levels))]


def _values(cell: str | None) -> set[str]:
    return {*split_values(cell), *_folded(cell)}


def _folded(value: str | None) -> tuple[str, ...]:
    return (value.strip().lower(),) if value else ()


def _none(_: str | None) -> tuple[str, ...]:
    return ()


_Keys = Callable[[str | None], Collection[str]]
_KEYS: Mapping[str, tuple[_Keys, _Keys]] = {
    "product_type": (_paths, _paths),
    "brand": (_folded, _folded),
    "color": (_values, _folded),
    "material": (_values, _folded),
    "style": (_none, _folded),
    "availability": (lambda value: (value or "in_stock",), _none),
}
"""By attribute: the keys of a cell, and of a value that is known beyond it. A product is found by
its type's path of each level and by each colour of its cell; what states no availability is in
stock."""
_POSTINGS = {f"by_{name.removeprefix('product_')}": name for name in _KEYS}
"""Name of the stored arrays → attribute."""


def allowed_mask(table: ItemTable, filters: Filters) -> Mask:
    """Return the items that pass every filter and, by default, are in stock: ``(N,)``, new."""
    if filters.availability is None:
        mask = table.in_stock.copy()
    else:
        mask = _any_of(table, table.by("availability"), filters.availability)
    for attribute in ("brand", "color", "material", "style"):
        wanted = getattr(filters, attribute)
        if wanted is not None:
            mask &= with_values(table, attribute, wanted)
    if filters.product_type is not None:
        mask &= in_categories(table, filters.product_type)
    if filters.price is not None:
        low = -np.inf if filters.price.min is None else filters.price.min
        high = np.inf if filters.price.max is None else filters.price.max
        # NaN compares false, so an item without a price is in no range.
        mask &= (table.price >= low) & (table.price <= high)
    if filters.created_after is not None:
        # JSON's numbers are unbounded; the column's are not.
        bounds = np.iinfo(np.int64)
        after = max(bounds.min, min(bounds.max - 1, filters.created_after))
        mask &= table.created_at > after
    return mask


def in_categories(table: ItemTable, product_types: Sequence[str]) -> Mask:
    """The items of any of these categories, or below them: ``(len(table),)`` bool."""
    return _any_of(table, table.by("product_type"), product_types, key=type_path)


def with_values(table: ItemTable, attribute: str, values: Sequence[str]) -> Mask:
    """The items with any of these values, as written or as it is known: ``(len(table),)`` bool."""
    asked = table.known.asked
    names = [(value.strip().lower(), asked(attribute, value).lower()) for value in values]
    return _any_of(table, table.by(attribute), [name for both in names for name in both])


def _any_of(
    table: ItemTable,
    postings: Postings,
    wanted: Sequence[str],
    key: Callable[[str], str] = str,
) -> Mask:
    mask = np.zeros(len(table), dtype=np.bool_)
    for value in wanted:
        rows = postings.get(key(value))
        if rows is not None:
            mask[rows] = True
    return mask
