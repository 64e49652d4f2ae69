"""From references to vectors: what the index knows, what was encoded, what is ignored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newshelf.errors import UnknownItem
from newshelf.serving.asked import Asked
from newshelf.serving.filters import allowed_mask
from newshelf.serving.index import ItemIndex
from newshelf.serving.products import ProductInput
from newshelf.serving.reasons import Facts
from newshelf.serving.schemas import RecommendRequest
from newshelf.serving.shelf import Extras, History, Shelf, product_facts, row_facts
from newshelf.serving.table import ItemTable

__all__ = ["Encoded", "Resolved", "resolve"]

FloatArray = NDArray[np.float32]


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
        encoded: by path (``history[2]``), each of ``asked.inline()``.
        index: where ids are looked up.
        max_history: how many of the most recent items count.

    Raises:
        UnknownItem: candidates were named, and not one of them is known.
    """
    row_of = index.table.row_of
    ids = [ref for ref in (*asked.history, *(asked.candidates or ())) if isinstance(ref, str)]
    ignored = [ref for ref in dict.fromkeys(ids) if ref not in row_of]
    return Resolved(
        request=asked.request,
        history=_history(asked, encoded, index, max_history),
        shelf=_shelf(asked, encoded, index),
        ignored=ignored,
    )


def _history(
    asked: Asked, encoded: Mapping[str, Encoded], index: ItemIndex, max_history: int
) -> History:
    table = index.table
    known: list[tuple[Facts, Encoded]] = []
    rows: list[int] = []
    unseen: list[FloatArray] = []
    for ref in asked.history:
        if isinstance(ref, ProductInput):
            facts = product_facts(ref.product, table.known.reader)
            known.append((facts, encoded[ref.at]))
            # With the id of an item, it has that item's links, whatever picture came along.
            row = None if ref.product.id is None else table.row_of.get(ref.product.id)
            if row is None:
                unseen.append(encoded[ref.at].embedding)
            else:
                rows.append(row)
        elif (row := table.row_of.get(ref)) is not None:
            vector = None if index.vectors is None else index.vectors[row]
            known.append((row_facts(table, row), Encoded(index.embeddings[row], vector)))
            rows.append(row)
    recent = known[-max_history:]
    embeddings, vectors = _stack([item for _, item in recent], index)
    return History(
        [facts for facts, _ in recent],
        embeddings,
        vectors,
        np.array(rows, dtype=np.int64),
        np.array(unseen, dtype=np.float32).reshape(-1, index.embeddings.shape[1]),
    )


def _shelf(asked: Asked, encoded: Mapping[str, Encoded], index: ItemIndex) -> Shelf:
    request = asked.request
    named = list(_first_of_each_id(asked.candidates or ()))
    brought = [ref for ref in named if isinstance(ref, ProductInput)]
    embeddings, vectors = _stack([encoded[ref.at] for ref in brought], index)
    products = [ref.product for ref in brought]
    table = ItemTable.from_products(products, index.table.known.reader)
    extras = Extras(table, embeddings, vectors)
    among_index = allowed_mask(index.table, request.filters)
    if asked.candidates is not None:
        rows = [index.table.row_of.get(ref) for ref in named if isinstance(ref, str)]
        known = [row for row in rows if row is not None]
        if not known and not brought:
            raise UnknownItem("the index knows none of the candidates", field="candidates")
        listed = np.zeros_like(among_index)
        listed[known] = True
        among_index &= listed
    allowed = np.concatenate([among_index, allowed_mask(extras.table, request.filters)])
    _exclude(allowed, asked, index.table, extras.table)
    return Shelf(index, extras, allowed, listed=asked.candidates is not None)


def _exclude(
    allowed: NDArray[np.bool_], asked: Asked, indexed: ItemTable, extra: ItemTable
) -> None:
    seen = {_id(ref) for ref in asked.history} | set(asked.request.exclude)
    for item in seen:
        if item is not None and (row := indexed.row_of.get(item)) is not None:
            allowed[row] = False
        if item is not None and (row := extra.row_of.get(item)) is not None:
            allowed[len(indexed) + row] = False


def _first_of_each_id(refs: Sequence[str | ProductInput]) -> Iterator[str | ProductInput]:
    seen: set[str | None] = set()
    for ref in refs:
        if (item := _id(ref)) not in seen:
            seen.add(item)
            yield ref


def _id(ref: str | ProductInput) -> str | None:
    return ref if isinstance(ref, str) else ref.product.id


def _stack(items: Sequence[Encoded], index: ItemIndex) -> tuple[FloatArray, FloatArray | None]:
    embeddings = np.zeros((len(items), index.embeddings.shape[1]), dtype=np.float32)
    for row, item in enumerate(items):
        embeddings[row] = item.embedding
    if index.vectors is None:
        return embeddings, None
    vectors = np.zeros((len(items), index.vectors.shape[1]), dtype=np.float32)
    for row, item in enumerate(items):
        vectors[row] = item.vector
    return embeddings, vectors
