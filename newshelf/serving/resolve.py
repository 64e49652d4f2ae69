"""Resolution of a request's references to candidates and history, as vectors and columns.

``CandidateSet`` is what a ranker works on. A candidate is a *position* (``newshelf.serving.live``):
a row of the base index, of a segment, or a product that the request brought along. ``allowed`` says
which may be answered; ``positions`` turns them into embeddings, vectors and links, and a condition
of one table into a mask of all::

    positions = np.flatnonzero(candidate_set.allowed)
    candidate_set.positions.embeddings(positions)                       # (C, 512)
    cheap = candidate_set.positions.mask(lambda table: table.price < 50)  # (len(allowed),) bool
    table, row = candidate_set.positions.at(7)                          # columns of one position

What may not be answered is taken out of ``allowed`` or ``named`` before.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from newshelf.catalog.schema import Product
from newshelf.errors import UnknownItem
from newshelf.nn.blend import nearest_shares
from newshelf.serving.item_table import ItemTable, TextReader, allowed_mask
from newshelf.serving.live import Block, LinkRows, LiveIndex, Positions
from newshelf.serving.products import ProductInput
from newshelf.serving.requests import ParsedRequest
from newshelf.serving.rule_masks import ActiveRules
from newshelf.serving.schemas import RecommendRequest
from newshelf.serving.search.base import FloatArray, IntArray, Mask


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


@dataclass(frozen=True, slots=True)
class Encoded:
    """An inline product's embedding ``(512,)``, and its projection ``(P,)`` with a scorer."""

    embedding: FloatArray
    vector: FloatArray | None


@dataclass(frozen=True)
class EncodedHistory:
    """The most recent items that the encoder knows, oldest first: ``H``, perhaps none."""

    live: LiveIndex
    recent: IntArray
    """``(H,)``: positions."""
    inline: Mapping[int, tuple[Product, Encoded]]
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
            product_facts(self.inline[at][0], reader)
            if at in self.inline
            else row_facts(*self.live.positions.at(position))
            for at, position in enumerate(self.recent.tolist())
        ]

    @cached_property
    def embeddings(self) -> FloatArray:
        """``(H, 512)``."""
        rows = self.live.positions.embeddings(self.recent)
        for at, (_, item) in self.inline.items():
            rows[at] = item.embedding
        return rows

    @cached_property
    def vectors(self) -> FloatArray:
        """``(H, P)``; only with a scorer."""
        rows = self.live.positions.vectors(self.recent)
        for at, (_, item) in self.inline.items():
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


_STATED = ("id", "title", "product_type", "brand", "color", "material")


def row_facts(table: ItemTable, row: int) -> Facts:
    """Return the facts of a table's row that an explanation may name."""
    stated = {name: getattr(table, name)[row] for name in _STATED}
    return Facts(**stated, known=table.known.at(row))


def product_facts(product: Product, reader: TextReader) -> Facts:
    """Return the facts of a product that an explanation may name."""
    stated = {name: getattr(product, name) for name in _STATED}
    return Facts(**stated, known=reader.read([product]).at(0))


@dataclass(frozen=True)
class Resolved:
    """A request with everything that ranking needs."""

    request: RecommendRequest
    history: EncodedHistory
    candidate_set: CandidateSet
    ignored: Sequence[str]
    """Ids of history or candidates that the index does not know."""


def resolve(
    asked: ParsedRequest, encoded: Mapping[str, Encoded], live: LiveIndex, max_history: int
) -> Resolved:
    """Look up every reference, with ``encoded`` by path (``history[2]``).

    An id that the index does not know is ignored and listed: a delisted product must not break a
    shopper's page. Raises ``UnknownItem`` if candidates were named, and not one of them is known.
    """
    plain = not asked.inline
    history = _Side.of(asked.history, live, plain)
    candidates = _Side.of(asked.candidates or (), live, plain)
    return Resolved(
        request=asked.request,
        history=_history(history, encoded, live, max_history),
        candidate_set=_candidate_set(asked, history, candidates, encoded, live),
        ignored=list(dict.fromkeys([*history.unknown(), *candidates.unknown()])),
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """History or candidates, looked up."""

    refs: Sequence[str | ProductInput]
    rows: IntArray
    """For each, the position of its id; -1 for an id that the index does not know, or none."""
    plain: bool
    """Whether the request has ids only."""

    @classmethod
    def of(cls, refs: Sequence[str | ProductInput], live: LiveIndex, plain: bool) -> "_Side":
        ids = refs if plain else [_id(ref) for ref in refs]
        return cls(refs, live.rows(ids), plain)  # type: ignore[arg-type]

    def known(self) -> IntArray:
        """The positions, of inline products too: distinct, in increasing order."""
        # np.unique takes ten times as long for so few.
        ordered = np.sort(self.rows)
        first = ordered >= 0
        first[1:] &= ordered[1:] != ordered[:-1]
        return ordered[first]

    def unknown(self) -> list[str]:
        """The ids that the index does not know; of those sent alone."""
        refs = [self.refs[at] for at in np.flatnonzero(self.rows < 0).tolist()]
        return [ref for ref in refs if isinstance(ref, str)]


def _history(
    side: _Side, encoded: Mapping[str, Encoded], live: LiveIndex, max_history: int
) -> EncodedHistory:
    rows, inline = side.rows[side.rows >= 0], {}
    unseen: list[FloatArray] = []
    if not side.plain:
        items = [
            (row, (ref.product, encoded[ref.at]) if isinstance(ref, ProductInput) else None)
            for ref, row in zip(side.refs, side.rows.tolist(), strict=True)
            if row >= 0 or isinstance(ref, ProductInput)
        ]
        # With the id of an item, it has that item's links, whatever picture came along.
        unseen = [item[1].embedding for row, item in items if item is not None and row < 0]
        rows = np.array([row for row, _ in items], dtype=np.int64)
        recent = enumerate(items[-max_history:])
        inline = {at: item for at, (_, item) in recent if item is not None}
    return EncodedHistory(
        live,
        rows[-max_history:],
        inline,
        side.known(),
        np.array(unseen, dtype=np.float32).reshape(-1, live.archive.embeddings.shape[1]),
    )


def _candidate_set(
    asked: ParsedRequest,
    history: _Side,
    candidates: _Side,
    encoded: Mapping[str, Encoded],
    live: LiveIndex,
) -> CandidateSet:
    seen = history.rows
    if asked.request.exclude:
        seen = np.concatenate([seen, live.rows(asked.request.exclude)])
    filters = asked.request.filters
    mask = live.in_stock.copy()
    if filters.model_fields_set:
        mask = live.mask(lambda table: allowed_mask(table, filters))
    mask[seen[seen >= 0]] = False
    placement = asked.request.placement
    rules = None if live.rules is None else live.rules.active(placement, time.time())
    if rules is not None:
        mask[rules.hidden] = False
    if asked.candidates is None:
        return CandidateSet(live, live.positions, None, mask, rules)
    brought: list[ProductInput] = []
    if candidates.plain:
        rows = candidates.known()
    else:
        rows, brought = _first_of_each_id(candidates)
    if not len(rows) and not brought:
        raise UnknownItem("the index knows none of the candidates", field="candidates")
    rows = rows[mask[rows]]
    if not brought:
        return CandidateSet(live, live.positions, rows, None, rules)
    table = ItemTable.from_products([ref.product for ref in brought], live.base.table.known.reader)
    passed = allowed_mask(table, filters)
    for ref in (*map(_id, asked.history), *asked.request.exclude):
        if ref is not None and (row := table.row_of.get(ref)) is not None:
            passed[row] = False
    if rules is not None:
        rules = rules.with_inline(table)
        passed &= ~rules.hides(len(live) + np.arange(len(table)))
    return CandidateSet(
        live,
        _with_inline(live, table, [encoded[ref.at] for ref in brought]),
        np.concatenate([rows, len(live) + np.flatnonzero(passed)]),
        None,
        rules,
    )


def _with_inline(live: LiveIndex, table: ItemTable, encoded: Sequence[Encoded]) -> Positions:
    vectors = [item.vector for item in encoded if item.vector is not None]
    embeddings = np.stack([item.embedding for item in encoded])
    archive = live.archive.embeddings
    return live.positions.plus(
        Block(
            table,
            embeddings,
            np.stack(vectors) if vectors else None,
            lambda: LinkRows.of_new(*nearest_shares(embeddings, archive)),
        )
    )


def _first_of_each_id(side: _Side) -> tuple[IntArray, list[ProductInput]]:
    """Rows in increasing order, and inline products; of equal ids, whichever came first."""
    rows: list[int] = []
    brought: list[ProductInput] = []
    seen: set[str | None] = set()
    for ref, row in zip(side.refs, side.rows.tolist(), strict=True):
        if (item := _id(ref)) in seen:
            continue
        seen.add(item)
        if isinstance(ref, ProductInput):
            brought.append(ref)
        elif row >= 0:
            rows.append(row)
    return np.sort(np.array(rows, dtype=np.int64)), brought


def _id(ref: str | ProductInput) -> str | None:
    return ref if isinstance(ref, str) else ref.product.id
