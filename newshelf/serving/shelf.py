"""What one request may be answered with: the index and the candidates it brought along."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newshelf.catalog.schema import Product
from newshelf.knowledge.lexicon import ATTRIBUTES
from newshelf.serving.index import ItemIndex
from newshelf.serving.known import KnownValues, TextReader
from newshelf.serving.reasons import Facts
from newshelf.serving.table import ItemTable

__all__ = ["Extras", "History", "Shelf"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Extras:
    """Candidates that the request brought along, encoded: ``E`` of them, perhaps none."""

    table: ItemTable
    embeddings: FloatArray
    """``(E, 512)``."""
    vectors: FloatArray | None
    """``(E, P)``; None without a scorer."""


@dataclass(frozen=True)
class History:
    """The most recent items that the encoder knows, oldest first: ``H``, perhaps none."""

    facts: Sequence[Facts]
    embeddings: FloatArray
    """``(H, 512)``."""
    vectors: FloatArray | None
    """``(H, P)``; None without a scorer."""
    rows: IntArray
    """The index's rows of the whole history, older items too."""
    unseen: FloatArray
    """``(U, 512)``: embeddings of the history's products that the index does not know."""

    def __len__(self) -> int:
        return len(self.facts)


@dataclass(frozen=True)
class Shelf:
    """Positions ``0 … N - 1`` are the index's rows, ``N … N + E - 1`` the extras'."""

    index: ItemIndex
    extras: Extras
    allowed: Mask
    """``(N + E,)``: what may be answered, after candidates, filters and exclusions."""
    listed: bool
    """Whether the request named its candidates."""

    def id(self, position: int) -> str:
        """The item's id."""
        table, row = self._at(position)
        return table.id[row]

    def facts(self, position: int) -> Facts:
        """What a reason may name."""
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
        popularity = self.index.table.popularity
        known = self.index.table.popular_first
        order = np.concatenate([known, np.arange(len(self.index), len(among))])
        positions = order[among[order]][:limit]
        padded = np.concatenate([popularity, self.extras.table.popularity])
        return positions, padded[positions] / max(popularity.sum(), 1.0)

    def _at(self, position: int) -> tuple[ItemTable, int]:
        count = len(self.index)
        if position < count:
            return self.index.table, position
        return self.extras.table, position - count


def row_facts(table: ItemTable, row: int) -> Facts:
    """What a reason may name of a table's row."""
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
    """What a reason may name of a product."""
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
        return indexed[positions]
    rows = np.empty((len(positions), indexed.shape[1]), dtype=np.float32)
    known = positions < count
    rows[known] = indexed[positions[known]]
    rows[~known] = extra[positions[~known] - count]
    return rows
