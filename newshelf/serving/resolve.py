"""From references to vectors: what the index knows, what was encoded, what is ignored."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from newshelf.errors import UnknownItem
from newshelf.serving.asked import Asked
from newshelf.serving.filters import allowed_mask
from newshelf.serving.index import ItemIndex
from newshelf.serving.products import ProductInput
from newshelf.serving.schemas import RecommendRequest
from newshelf.serving.shelf import Extras, History, Inline, Shelf
from newshelf.serving.table import ItemTable

__all__ = ["Encoded", "Resolved", "resolve"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Encoded:
    """An inline product's embedding ``(512,)``, and its projection ``(P,)`` with a scorer."""

    embedding: FloatArray
    vector: FloatArray | None


@dataclass(frozen=True)
class Resolved:
    """A request with everything that ranking needs."""

    request: RecommendRequest
    history: History
    shelf: Shelf
    ignored: Sequence[str]
    """Ids of history or candidates that the index does not know."""


def resolve(
    asked: Asked, encoded: Mapping[str, Encoded], index: ItemIndex, max_history: int
) -> Resolved:
    """Look up every reference.

    An id that the index does not know is ignored and listed: a delisted product must not
    break a shopper's page.

    Args:
        asked: the parsed request.
        encoded: by path (``history[2]``), each of ``asked.inline``.
        index: where ids are looked up.
        max_history: how many of the most recent items count.

    Raises:
        UnknownItem: candidates were named, and not one of them is known.
    """
    plain = not asked.inline
    history = _Side.of(asked.history, index, plain)
    candidates = _Side.of(asked.candidates or (), index, plain)
    return Resolved(
        request=asked.request,
        history=_history(history, encoded, index, max_history),
        shelf=_shelf(asked, history, candidates, encoded, index),
        ignored=list(dict.fromkeys([*history.unknown(), *candidates.unknown()])),
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """History or candidates, looked up."""

    refs: Sequence[str | ProductInput]
    rows: Sequence[int | None]
    """For each, the row of its id; None for an id that the index does not know, or none."""
    plain: bool
    """Whether the request has ids only."""

    @classmethod
    def of(cls, refs: Sequence[str | ProductInput], index: ItemIndex, plain: bool) -> "_Side":
        # A lookup in C for each id; a loop in Python takes several times as long.
        ids = refs if plain else [_id(ref) for ref in refs]
        return cls(refs, list(map(index.table.row_of.get, ids)), plain)  # type: ignore[arg-type]

    def known(self) -> set[int]:
        """The distinct rows, of inline products too."""
        found = set(self.rows)
        found.discard(None)
        return found  # type: ignore[return-value]

    def unknown(self) -> Iterator[str]:
        """The ids that the index does not know; of those sent alone."""
        if None in self.rows:
            for ref, row in zip(self.refs, self.rows, strict=True):
                if row is None and isinstance(ref, str):
                    yield ref


def _history(
    side: _Side, encoded: Mapping[str, Encoded], index: ItemIndex, max_history: int
) -> History:
    items: list[int | Inline] = []
    unseen: list[FloatArray] = []
    if side.plain:
        items = [row for row in side.rows if row is not None]
    else:
        for ref, row in zip(side.refs, side.rows, strict=True):
            if isinstance(ref, ProductInput):
                found = encoded[ref.at]
                items.append(Inline(ref.product, found.embedding, found.vector))
                # With the id of an item, it has that item's links, whatever picture came along.
                if row is None:
                    unseen.append(found.embedding)
            elif row is not None:
                items.append(row)
    width = index.embeddings.shape[1]
    return History(
        index,
        items[-max_history:],
        _increasing(side.known()),
        np.array(unseen, dtype=np.float32).reshape(-1, width),
    )


def _shelf(
    asked: Asked,
    history: _Side,
    candidates: _Side,
    encoded: Mapping[str, Encoded],
    index: ItemIndex,
) -> Shelf:
    seen = history.known()
    for item in asked.request.exclude:
        if (row := index.table.row_of.get(item)) is not None:
            seen.add(row)
    filters = asked.request.filters
    if asked.candidates is None:
        mask = allowed_mask(index.table, filters)
        mask[list(seen)] = False
        return Shelf(index, _extras([], encoded, index), None, mask)
    named = candidates.known()
    brought: list[ProductInput] = []
    if not candidates.plain:
        named, brought = _first_of_each_id(candidates)
    if not named and not brought:
        raise UnknownItem("the index knows none of the candidates", field="candidates")
    rows = _increasing(named - seen)
    rows = rows[allowed_mask(index.table, filters, rows)]
    extras = _extras(brought, encoded, index)
    if brought:
        passed = allowed_mask(extras.table, filters)
        for ref in (*map(_id, asked.history), *asked.request.exclude):
            if ref is not None and (row := extras.table.row_of.get(ref)) is not None:
                passed[row] = False
        rows = np.concatenate([rows, len(index) + np.flatnonzero(passed)])
    return Shelf(index, extras, rows, None)


def _extras(
    brought: Sequence[ProductInput], encoded: Mapping[str, Encoded], index: ItemIndex
) -> Extras:
    width = None if index.vectors is None else index.vectors.shape[1]
    if not brought:
        return _no_extras(index.embeddings.shape[1], width)
    found = [encoded[ref.at] for ref in brought]
    vectors = [item.vector for item in found if item.vector is not None]
    return Extras(
        ItemTable.from_products([ref.product for ref in brought], index.table.known.reader),
        np.stack([item.embedding for item in found]),
        None if width is None else np.stack(vectors),
    )


@cache
def _no_extras(embedding: int, vector: int | None) -> Extras:
    return Extras(
        ItemTable.from_products([]),
        np.zeros((0, embedding), dtype=np.float32),
        None if vector is None else np.zeros((0, vector), dtype=np.float32),
    )


def _first_of_each_id(side: _Side) -> tuple[set[int], list[ProductInput]]:
    """Rows and inline products; of equal ids, whichever came first."""
    rows: set[int] = set()
    brought: list[ProductInput] = []
    seen: set[str | None] = set()
    for ref, row in zip(side.refs, side.rows, strict=True):
        if (item := _id(ref)) in seen:
            continue
        seen.add(item)
        if isinstance(ref, ProductInput):
            brought.append(ref)
        elif row is not None:
            rows.add(row)
    return rows, brought


def _increasing(rows: Iterable[int]) -> IntArray:
    return np.sort(np.fromiter(rows, dtype=np.int64))


def _id(ref: str | ProductInput) -> str | None:
    return ref if isinstance(ref, str) else ref.product.id
