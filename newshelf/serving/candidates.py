"""Candidates and history of one request as vectors and columns, and masks of the filters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from newshelf.attributes.lexicon import ATTRIBUTES
from newshelf.catalog.schema import Product
from newshelf.serving.explanations import Facts
from newshelf.serving.index import ItemIndex
from newshelf.serving.item_table import ItemTable, KnownValues, Postings, TextReader, type_path
from newshelf.serving.schemas import Filters

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class InlineCandidate:
    """A product that the request brought along, encoded."""

    product: Product
    embedding: FloatArray
    """``(512,)``."""
    vector: FloatArray | None
    """``(P,)``; None without a scorer."""


@dataclass(frozen=True)
class InlineCandidates:
    """Candidates that the request brought along, encoded: ``E`` of them, perhaps none."""

    table: ItemTable
    embeddings: FloatArray
    """``(E, 512)``."""
    vectors: FloatArray | None
    """``(E, P)``; None without a scorer."""


@dataclass(frozen=True)
class EncodedHistory:
    """The most recent items that the encoder knows, oldest first: ``H``, perhaps none."""

    index: ItemIndex
    recent: IntArray
    """``(H,)``: rows of the index."""
    inline: Mapping[int, InlineCandidate]
    """Places of ``recent`` with a product that the request brought along."""
    rows: IntArray
    """The index's rows of the whole history, older items too: distinct, in increasing order."""
    unseen: FloatArray
    """``(U, 512)``: embeddings of the history's products that the index does not know."""

    def __len__(self) -> int:
        return len(self.recent)

    @cached_property
    def facts(self) -> Sequence[Facts]:
        """The facts of each that an explanation may name."""
        table = self.index.table
        return [
            product_facts(self.inline[at].product, table.known.reader)
            if at in self.inline
            else row_facts(table, row)
            for at, row in enumerate(self.recent.tolist())
        ]

    @cached_property
    def embeddings(self) -> FloatArray:
        """``(H, 512)``."""
        rows = self.index.embeddings.take(self.recent, axis=0)
        for at, item in self.inline.items():
            rows[at] = item.embedding
        return rows

    @cached_property
    def vectors(self) -> FloatArray | None:
        """``(H, P)``; None without a scorer."""
        if self.index.vectors is None:
            return None
        rows = self.index.vectors.take(self.recent, axis=0)
        for at, item in self.inline.items():
            rows[at] = item.vector
        return rows


@dataclass(frozen=True)
class CandidateSet:
    """Positions ``0 … N - 1`` are the index's rows, ``N … N + E - 1`` the extras'."""

    index: ItemIndex
    extras: InlineCandidates
    named: IntArray | None
    """What may be answered, in increasing order, where the request named its candidates."""
    unnamed: Mask | None
    """``(N,)``: what may be answered where it named none."""

    @property
    def listed(self) -> bool:
        """Return True when the request named its candidates."""
        return self.named is not None

    @cached_property
    def allowed(self) -> Mask:
        """``(N + E,)``: what may be answered, after candidates, filters and exclusions."""
        if self.named is None:
            return np.ones(len(self.index), np.bool_) if self.unnamed is None else self.unnamed
        mask = np.zeros(len(self.index) + len(self.extras.table), dtype=np.bool_)
        mask[self.named] = True
        return mask

    def id(self, position: int) -> str:
        """The item's id."""
        table, row = self._at(position)
        return table.id[row]

    def facts(self, position: int) -> Facts:
        """Return the facts that an explanation may name."""
        table, row = self._at(position)
        return row_facts(table, row)

    def embeddings(self, positions: IntArray) -> FloatArray:
        """``(len(positions), 512)``."""
        return _gather(self.index.embeddings, self.extras.embeddings, positions)

    def vectors(self, positions: IntArray) -> FloatArray:
        """``(len(positions), P)``; only with a scorer."""
        if self.index.vectors is None or self.extras.vectors is None:
            raise ValueError("an index without a scorer has no projected vectors")
        return _gather(self.index.vectors, self.extras.vectors, positions)

    def popular(self, among: Mask, limit: int) -> tuple[IntArray, NDArray[np.float64]]:
        """The most popular of ``among`` ``(N + E,)``: positions, and shares of all interest."""
        popularity, order = self.index.table.popularity, self.index.table.popular_first
        if len(self.extras.table):
            order = np.concatenate([order, np.arange(len(self.index), len(among))])
            popularity = np.concatenate([popularity, self.extras.table.popularity])
        positions = order[among[order]][:limit]
        return positions, popularity[positions] / self.index.table.interest

    def _at(self, position: int) -> tuple[ItemTable, int]:
        count = len(self.index)
        if position < count:
            return self.index.table, position
        return self.extras.table, position - count


def row_facts(table: ItemTable, row: int) -> Facts:
    """Return the facts of a table's row that an explanation may name."""
    return Facts(
        table.id[row],
        table.title[row],
        table.product_type[row],
        table.brand[row],
        table.color[row],
        table.material[row],
        _known(table.known, row),
    )


def product_facts(product: Product, reader: TextReader) -> Facts:
    """Return the facts of a product that an explanation may name."""
    return Facts(
        product.id,
        product.title,
        product.product_type,
        product.brand,
        product.color,
        product.material,
        _known(reader.read([product]), 0),
    )


def _known(values: KnownValues, row: int) -> dict[str, Sequence[str]]:
    return {attribute: found for attribute in ATTRIBUTES if (found := values.of(attribute, row))}


def _gather(indexed: FloatArray, extra: FloatArray, positions: IntArray) -> FloatArray:
    count = len(indexed)
    if len(extra) == 0:
        return indexed.take(positions, axis=0)
    rows = np.empty((len(positions), indexed.shape[1]), dtype=np.float32)
    known = positions < count
    rows[known] = indexed[positions[known]]
    rows[~known] = extra[positions[~known] - count]
    return rows


def allowed_mask(table: ItemTable, filters: Filters, rows: IntArray | None = None) -> Mask:
    """The items that pass every filter.

    Without a filter on ``availability``, items that are out of stock do not pass.

    Args:
        table: the items.
        filters: all have to be passed.
        rows: ask of these only; of all by default.

    Returns:
        ``(len(table),)`` or ``(len(rows),)`` bool, the caller's own.
    """
    mask = _mask(table, filters) if filters.model_fields_set else table.in_stock
    return mask.copy() if rows is None else mask[rows]


def _mask(table: ItemTable, filters: Filters) -> Mask:
    if filters.availability is None:
        mask = table.in_stock.copy()
    else:
        mask = _any_of(table, table.by_availability, filters.availability)
    for attribute, wanted, postings in (
        ("brand", filters.brand, table.by_brand),
        ("color", filters.color, table.by_color),
        ("material", filters.material, table.by_material),
        ("style", filters.style, table.by_style),
    ):
        if wanted is not None:
            names = [name for value in wanted for name in _names(table, attribute, value)]
            mask &= _any_of(table, postings, names)
    if filters.product_type is not None:
        mask &= in_categories(table, filters.product_type)
    if filters.price is not None:
        low = -np.inf if filters.price.min is None else filters.price.min
        high = np.inf if filters.price.max is None else filters.price.max
        # NaN compares false, so an item without a price is in no range.
        mask &= (table.price >= low) & (table.price <= high)
    if filters.created_after is not None:
        mask &= table.created_at > _clipped(filters.created_after)
    return mask


def in_categories(table: ItemTable, product_types: Sequence[str]) -> Mask:
    """The items of any of these categories, or below them: ``(len(table),)`` bool."""
    return _any_of(table, table.by_type, product_types, key=type_path)


def _names(table: ItemTable, attribute: str, value: str) -> tuple[str, str]:
    """A filter's value as it was written, and under the name that it is known by."""
    return value.strip().lower(), table.known.asked(attribute, value).lower()


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


def _clipped(seconds: int) -> int:
    # JSON's numbers are unbounded; the column's are not.
    bounds = np.iinfo(np.int64)
    return max(bounds.min, min(bounds.max - 1, seconds))
