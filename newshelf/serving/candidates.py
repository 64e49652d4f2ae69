"""Candidates and history of one request as vectors and columns.

``CandidateSet`` is what a ranker works on. A candidate is a *position* (``newshelf.serving.live``):
a row of the base index, of a segment, or a product that the request brought along. ``allowed`` says
which may be answered; ``positions`` turns them into embeddings, vectors and links, and a condition
of one table into a mask of all::

    positions = np.flatnonzero(candidate_set.allowed)
    candidate_set.positions.embeddings(positions)                       # (C, 512)
    cheap = candidate_set.positions.mask(lambda table: table.price < 50)  # (len(allowed),) bool
    table, row = candidate_set.positions.at(7)                          # columns of one position

What may not be answered is taken out of ``allowed`` or ``named`` before; see ``resolve``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from newshelf.catalog.schema import Product
from newshelf.serving.explanations import Facts
from newshelf.serving.item_table import ItemTable, TextReader
from newshelf.serving.live import LiveIndex, Positions
from newshelf.serving.rule_masks import ActiveRules

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
class EncodedHistory:
    """The most recent items that the encoder knows, oldest first: ``H``, perhaps none."""

    live: LiveIndex
    recent: IntArray
    """``(H,)``: positions."""
    inline: Mapping[int, InlineCandidate]
    """Places of ``recent`` with a product that the request brought along."""
    rows: IntArray
    """Positions of the whole history, older items too: distinct, in increasing order."""
    unseen: FloatArray
    """``(U, 512)``: embeddings of the history's products that the index does not know."""

    def __len__(self) -> int:
        return len(self.recent)

    @cached_property
    def facts(self) -> Sequence[Facts]:
        """The facts of each that an explanation may name."""
        reader = self.live.base.table.known.reader
        return [
            product_facts(self.inline[at].product, reader)
            if at in self.inline
            else row_facts(*self.live.positions.at(position))
            for at, position in enumerate(self.recent.tolist())
        ]

    @cached_property
    def embeddings(self) -> FloatArray:
        """``(H, 512)``."""
        rows = self.live.positions.embeddings(self.recent)
        for at, item in self.inline.items():
            rows[at] = item.embedding
        return rows

    @cached_property
    def vectors(self) -> FloatArray:
        """``(H, P)``; only with a scorer."""
        rows = self.live.positions.vectors(self.recent)
        for at, item in self.inline.items():
            rows[at] = item.vector
        return rows


@dataclass(frozen=True)
class CandidateSet:
    """The products that one request may be answered with."""

    live: LiveIndex
    """``P`` products."""
    positions: Positions
    """Of ``live``, and from ``P`` on of the products that the request brought along."""
    named: IntArray | None
    """What may be answered, in increasing order, where the request named its candidates."""
    unnamed: Mask | None
    """``(P,)``: what may be answered where it named none."""
    rules: ActiveRules | None = None
    """Those that apply to the request; what they hide may not be answered."""

    @property
    def is_archive(self) -> bool:
        """Return True where positions are the rows of the archive's index."""
        return self.live.is_archive and self.positions is self.live.positions

    @cached_property
    def allowed(self) -> Mask:
        """``(len(positions),)``: what may be answered, after candidates, filters and exclusions."""
        if self.named is None:
            return self.live.alive if self.unnamed is None else self.unnamed
        mask = np.zeros(len(self.positions), dtype=np.bool_)
        mask[self.named] = True
        return mask

    def in_stock(self, position: int) -> bool:
        """Return False for what is out of stock; what a request brought along is not."""
        return position >= len(self.live) or bool(self.live.in_stock[position])

    def id(self, position: int) -> str:
        """The item's id."""
        table, row = self.positions.at(position)
        return table.id[row]

    def facts(self, position: int) -> Facts:
        """Return the facts that an explanation may name."""
        return row_facts(*self.positions.at(position))


def row_facts(table: ItemTable, row: int) -> Facts:
    """Return the facts of a table's row that an explanation may name."""
    return Facts(
        table.id[row],
        table.title[row],
        table.product_type[row],
        table.brand[row],
        table.color[row],
        table.material[row],
        table.known.at(row),
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
        reader.read([product]).at(0),
    )
