"""Link signals of one history, looked up in a ``Blend``'s matrices.

``newshelf.nn.blend`` defines the sums. The links of the history's items are summed once over the
items that have links (at most ``linked_items`` and their targets), and read at the candidates'
neighbours. The cost depends on history and candidates, not on the catalogue.

So does that of finding the best candidates in a large catalogue (``best``). They are looked for
among the linked items with the largest sums of their own, the items with the largest prior, and
those that have a place with large sums among their neighbours; for that, an index lists the items
of each place. Only these are scored. A filter that few items pass leaves so few that all are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from newshelf.nn.blend import LINKS, Arrays, Blend
from newshelf.nn.rows import distinct, first_allowed, ragged

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
PlaceArray = npt.NDArray[np.int32]

_DENSE_NUMBERS = 8_000_000
"""Maximum size (32 MB) for which the sums over the history's neighbours are precomputed."""
_FEW = 8_192
"""Up to this number, all that may be answered are scored."""
_LOOKED_AT = 16_384
"""Entries of lists that are read, of the places with the largest sums first."""
_MOST_OFTEN = 8
"""Under a filter, at most this many times as many."""
_SCORED = 4
"""Factor of the items asked for that are scored, from the lists and from the linked items each."""


@dataclass(frozen=True, eq=False)
class LinkSums:
    """The summed links of one history at ``M + 1`` places, of which the last is empty."""

    direct: FloatArray
    likewise: FloatArray


@dataclass(frozen=True, eq=False)
class Newcomers:
    """``E`` products outside the index."""

    shares: sparse.csr_array
    """``(E, M + 1)``: in the places of their nearest items."""
    prior: FloatArray
    """``(E,)``: the mean of these items', by shares."""


class BlendLookup:
    """A blend's matrices as padded rows, for lookups.

    ``stored`` is what ``lists`` returned for it; without, all are scored for the best. ``K B`` is
    kept dense up to ``dense_numbers`` in size.
    """

    def __init__(
        self, blend: Blend, stored: Arrays | None = None, dense_numbers: int = _DENSE_NUMBERS
    ) -> None:
        self.stored = stored
        self._floor = blend.spec.floor
        weights = [blend.spec.weights[name] for name in LINKS]
        self._link_weights = np.array(weights, dtype=np.float32)
        self._prior = blend.prior
        self._known = ~blend.unlinked
        sources = np.diff(blend.links.indptr) > 0
        linked = np.flatnonzero(sources | self._known)
        self._size = len(linked)
        self._linked = linked
        self._place = np.full(len(blend), self._size, dtype=np.int32)
        self._place[linked] = np.arange(self._size, dtype=np.int32)
        among = sparse.csr_array(blend.links[linked][:, linked])
        # One additional row, without links, for items without a place.
        self._targets, self._weights = _padded(among, rows=self._size + 1)
        self._links = _unpadded(self._targets, self._weights, self._size + 1)
        columns, self._shares = _padded(blend.neighbours, rows=len(blend))
        # A padded neighbour has share 0, whatever its column.
        self._columns = self._place[columns] if stored is None else stored["places"]
        dense = len(blend) * self._size <= dense_numbers
        self._likewise = (blend.neighbours @ blend.links[:, linked]).toarray() if dense else None

    def __len__(self) -> int:
        return len(self._prior)

    def sums(self, rows: IntArray, unseen: Sequence[tuple[IntArray, FloatArray]] = ()) -> LinkSums:
        """Add up the links of a history of distinct items.

        ``unseen`` are nearest items and shares (``nearest_shares``) of its products that are not in
        the index. An item of ``rows`` counts 1, whatever shares it has.
        """
        weights = np.ones(len(rows), dtype=np.float32)
        if unseen:
            rows, weights = _joined(rows, unseen)
        if self._likewise is None:
            shares = self._shares[rows] * weights[:, None]
            alike = self._summed(self._columns[rows], shares)
            reached = np.flatnonzero(alike[:-1])
            likewise = self._links[reached].T @ alike[reached]
        else:
            likewise = np.zeros(self._size + 1, dtype=np.float32)
            np.dot(weights, self._likewise.take(rows, axis=0), out=likewise[:-1])
        return LinkSums(self._followed(self._place[rows], weights), likewise)

    def signals(self, sums: LinkSums, rows: IntArray) -> FloatArray:
        """Return the signals of the links of items of the index, ``(links, rows)`` float32."""
        # Indices of this width need no conversion for each lookup.
        columns = self._columns.take(rows, axis=0).astype(np.intp)
        shares = self._shares.take(rows, axis=0)
        similar, likewise = _shared(sums, columns, shares)
        own = sums.direct.take(self._place.take(rows))
        direct = np.where(self._known.take(rows), own, similar)
        return self._signals(direct, similar, likewise)

    def unpersonal(self, sums: LinkSums, rows: IntArray) -> FloatArray:
        """Return prior plus weighted links of items of the index, ``(len(rows),)`` float32."""
        return self._weighed(self._prior.take(rows), self.signals(sums, rows))

    def everywhere(self, sums: LinkSums) -> FloatArray:
        """Return the same for all items, ``(N,)`` float32."""
        # Separately, because scipy takes longer for both columns at once.
        similar, likewise = self._neighbours @ sums.direct, self._neighbours @ sums.likewise
        direct = np.where(self._known, sums.direct[self._place], similar)
        return self._weighed(self._prior, self._signals(direct, similar, likewise))

    def lists(self) -> Arrays:
        """Return what ``best`` reads: the items of each place, the best first."""
        direct, similar, likewise = self._link_weights
        weight = similar + likewise + np.where(self._known, 0, direct)
        rows, columns = np.nonzero((self._columns < self._size) & (self._shares > 0))
        gain = np.maximum(weight, 0)[rows] * np.log(self._shares[rows, columns])
        places, worth = self._columns[rows, columns], self._prior[rows] + gain
        order = np.lexsort((-worth, places))
        return {
            "places": self._columns,
            "starts": np.searchsorted(places[order], np.arange(self._size + 1)),
            "items": rows[order].astype(np.int32),
            "worth": worth[order].astype(np.float32),
            "by_prior": np.argsort(-self._prior, kind="stable").astype(np.int32),
        }

    def best(
        self, sums: LinkSums, allowed: npt.NDArray[np.bool_], limit: int
    ) -> tuple[IntArray, FloatArray]:
        """Return the allowed items with the largest prior plus links, and these; it may miss some.

        ``allowed`` is ``(N,)``. Returns rows in increasing order, and what ``unpersonal`` gives for
        them.
        """
        count = int(np.count_nonzero(allowed))
        rows = np.flatnonzero(allowed) if count <= _FEW else self._promising(sums, allowed, limit)
        scores = self.unpersonal(sums, rows)
        if len(rows) > limit:
            kept = np.sort(np.argpartition(-scores, limit)[:limit])
            rows, scores = rows[kept], scores[kept]
        return rows, scores

    def _promising(self, sums: LinkSums, allowed: npt.NDArray[np.bool_], limit: int) -> IntArray:
        """Return the allowed rows that are scored, in increasing order."""
        if self.stored is None:
            raise ValueError("these links have no lists")
        direct, similar, likewise = self._link_weights
        own, alike = (
            np.log1p(np.maximum(one[:-1], 0) / np.float32(self._floor))
            for one in (sums.direct, sums.likewise)
        )
        linked = self._linked[allowed[self._linked]]
        worth = direct * own[self._place[linked]] + self._prior[linked]
        at, worth_listed = self._listed((direct + similar) * own + likewise * alike, allowed)
        return distinct(
            np.concatenate(
                [
                    _largest(linked, worth, _SCORED * limit),
                    _largest(at, worth_listed, _SCORED * limit),
                    first_allowed(self.stored["by_prior"], allowed, limit),
                ]
            )
        ).astype(np.int64)

    def _listed(
        self, value: FloatArray, allowed: npt.NDArray[np.bool_]
    ) -> tuple[PlaceArray, FloatArray]:
        """Return allowed items of the places of most value ``(M,)``, and what they are worth."""
        stored: Arrays = self.stored or {}
        places = np.flatnonzero(value > 0)
        places = places[np.argsort(-value[places])]
        starts = stored["starts"][places]
        lengths = stored["starts"][places + 1] - starts
        often = min(len(allowed) / np.count_nonzero(allowed), _MOST_OFTEN)
        before = np.cumsum(lengths) - lengths
        kept = before < often * _LOOKED_AT
        which, at = ragged(starts[kept], lengths[kept])
        items, worth = stored["items"][at], stored["worth"][at] + value[places[which]]
        passed = allowed[items]
        return items[passed], worth[passed]

    def newcomers(self, nearest: IntArray, shares: FloatArray) -> "Newcomers":
        """Return what ``outside`` reads, of products with ``(E, m)`` nearest items and shares."""
        places = _unpadded(self._place[nearest], shares, self._size + 1)
        return Newcomers(places, (self._prior[nearest] * shares).sum(axis=1))

    def outside(self, sums: LinkSums, products: "Newcomers") -> FloatArray:
        """Return prior plus weighted links of products outside the index, ``(E,)`` float32."""
        similar, likewise = products.shares @ sums.direct, products.shares @ sums.likewise
        return self._weighed(products.prior, self._signals(similar, similar, likewise))

    @cached_property
    def _neighbours(self) -> sparse.csr_array:
        return _unpadded(self._columns, self._shares, self._size + 1)

    def _followed(self, places: PlaceArray, weights: FloatArray) -> FloatArray:
        """Follow the links of weighted places: ``weights · B[places]``."""
        values = self._weights.take(places, axis=0)
        values *= weights[:, None]
        return self._summed(self._targets.take(places, axis=0), values)

    def _summed(self, places: PlaceArray, values: FloatArray) -> FloatArray:
        summed = np.bincount(places.ravel(), values.ravel(), minlength=self._size + 1)
        summed[self._size] = 0
        return summed.astype(np.float32)

    def _signals(self, direct: FloatArray, similar: FloatArray, likewise: FloatArray) -> FloatArray:
        # In one array, so that each step is one call.
        signals = np.empty((len(LINKS), len(direct)), dtype=np.float32)
        signals[:] = direct, similar, likewise
        np.maximum(signals, 0, out=signals)
        signals += np.float32(self._floor)
        return np.log(signals, out=signals)

    def _weighed(self, prior: FloatArray, signals: FloatArray) -> FloatArray:
        total: FloatArray = self._link_weights @ signals
        total += prior
        return total


def _largest(rows: npt.NDArray[Any], worth: FloatArray, limit: int) -> npt.NDArray[Any]:
    return rows if len(rows) <= limit else rows[np.argpartition(-worth, limit)[:limit]]


def _shared(
    sums: LinkSums, columns: PlaceArray | IntArray, shares: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return ``similar`` and ``likewise``, ``(C,)`` each, from ``(C, m)`` places and shares."""
    similar = np.einsum("cm,cm->c", shares, sums.direct.take(columns))
    likewise = np.einsum("cm,cm->c", shares, sums.likewise.take(columns))
    return similar, likewise


def _joined(
    rows: IntArray, unseen: Sequence[tuple[IntArray, FloatArray]]
) -> tuple[IntArray, FloatArray]:
    """Return distinct items and weights of a history with products that are not in the index."""
    nearest = np.concatenate([items.ravel() for items, _ in unseen])
    shares = np.concatenate([part.ravel() for _, part in unseen])
    joined, at = np.unique(np.concatenate([rows, nearest]), return_inverse=True)
    weights = np.bincount(at[len(rows) :], shares, minlength=len(joined)).astype(np.float32)
    weights[at[: len(rows)]] = 1
    return joined, weights


def _unpadded(columns: PlaceArray, values: FloatArray, width: int) -> sparse.csr_array:
    """Return padded rows as a sparse matrix over the same memory."""
    pointers = np.arange(0, columns.size + 1, columns.shape[1], dtype=np.int32)
    parts = (values.ravel(), columns.ravel(), pointers)
    return sparse.csr_array(parts, shape=(len(columns), width), copy=False)


def _padded(matrix: sparse.csr_array, rows: int) -> tuple[PlaceArray, FloatArray]:
    """Return columns and values ``(rows, widest)``, padded with value 0 at column 0."""
    lengths = np.zeros(rows, dtype=np.int64)
    lengths[: matrix.shape[0]] = np.diff(matrix.indptr)
    width = max(1, int(lengths.max(initial=0)))
    if len(lengths) and lengths.min() == width:
        return matrix.indices.reshape(rows, width), matrix.data.reshape(rows, width)
    filled = np.arange(width) < lengths[:, None]
    columns = np.zeros(filled.shape, dtype=np.int32)
    values = np.zeros(filled.shape, dtype=np.float32)
    columns[filled], values[filled] = matrix.indices, matrix.data
    return columns, values
