"""The links of one history, at chosen items: ``newshelf.nn.blend``'s sums, looked up.

``Blend`` states what the sums are, for many histories and all items. Here is what one
request needs: the links of the history's items are added up once, over the items that have
links at all (at most ``linked_items`` and what they lead to), and read at the candidates'
neighbours. The cost depends on history and candidates, not on the catalogue.

What each pair of items adds to the sums over a history, kept for small catalogues.

Scorer and content signal both sum a term of each history item and candidate::

    scorer     Σ_h exp(β (s_ch - 1)) s_ch  and  Σ_h exp(β (s_ch - 1))
    content    Σ_h exp((cos(h, c) - 1) / τ)

Neither ``β`` nor ``τ`` is the request's, so the terms of all pairs are made once, and a
request adds up the rows of its history: a hundredth of the arithmetic of computing them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from newshelf.nn.blend import LINKS, Blend
from newshelf.nn.numpy_scorer import SAFE_EXPONENT, Pooling

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
PlaceArray = npt.NDArray[np.int32]

_DENSE_NUMBERS = 8_000_000
"""Maximum size (32 MB) for which the sums over the history's neighbours are precomputed."""


@dataclass(frozen=True, eq=False)
class LinkSums:
    """The summed links of one history; ``M + 1`` places, the last one empty."""

    direct: FloatArray
    likewise: FloatArray


class BlendLookup:
    """A blend's matrices, turned to be looked up in.

    Args:
        blend: links and prior of ``N`` items.
        dense_numbers: size up to which ``K B`` is kept as a dense matrix.
    """

    def __init__(self, blend: Blend, dense_numbers: int = _DENSE_NUMBERS) -> None:
        self._floor = blend.spec.floor
        weights = [blend.spec.weights[name] for name in LINKS]
        self._link_weights = np.array(weights, dtype=np.float32)
        self._prior = blend.prior
        self._known = ~blend.unlinked
        sources = np.diff(blend.links.indptr) > 0
        linked = np.flatnonzero(sources | self._known)
        self._size = len(linked)
        self._place = np.full(len(blend), self._size, dtype=np.int32)
        self._place[linked] = np.arange(self._size, dtype=np.int32)
        among = sparse.csr_array(blend.links[linked][:, linked])
        # One row more than there are places: what is nowhere has no links.
        self._targets, self._weights = _padded(among, rows=self._size + 1)
        self._links = _unpadded(self._targets, self._weights, self._size + 1)
        columns, self._shares = _padded(blend.neighbours, rows=len(blend))
        # A neighbour that is padded has no share, whatever item it names.
        self._columns = self._place[columns]
        dense = len(blend) * self._size <= dense_numbers
        self._likewise = (blend.neighbours @ blend.links[:, linked]).toarray() if dense else None

    def __len__(self) -> int:
        return len(self._prior)

    def sums(self, rows: IntArray, unseen: Sequence[tuple[IntArray, FloatArray]] = ()) -> LinkSums:
        """Add up the links of a history.

        Args:
            rows: its items, distinct.
            unseen: its products from outside, each by its nearest items and shares in them
                (``nearest_shares``). An item of ``rows`` counts 1, whatever has a share in it.
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

    def unpersonal(self, sums: LinkSums, rows: IntArray) -> FloatArray:
        """Prior and weighed links of items of the index, ``(len(rows),)`` float32."""
        # Indices of this width are not converted for each array that is read with them.
        columns = self._columns.take(rows, axis=0).astype(np.intp)
        shares = self._shares.take(rows, axis=0)
        similar, likewise = _shared(sums, columns, shares)
        own = sums.direct.take(self._place.take(rows))
        direct = np.where(self._known.take(rows), own, similar)
        return self._weighed(self._prior.take(rows), direct, similar, likewise)

    def everywhere(self, sums: LinkSums) -> FloatArray:
        """The same for all items, ``(N,)`` float32."""
        # One by one: scipy takes longer for both columns at once.
        similar, likewise = self._neighbours @ sums.direct, self._neighbours @ sums.likewise
        direct = np.where(self._known, sums.direct[self._place], similar)
        return self._weighed(self._prior, direct, similar, likewise)

    def outside(self, sums: LinkSums, nearest: IntArray, shares: FloatArray) -> FloatArray:
        """The same for products from outside, by their nearest items, ``(E, m)`` each."""
        similar, likewise = _shared(sums, self._place[nearest], shares)
        prior = (self._prior[nearest] * shares).sum(axis=1)
        return self._weighed(prior, similar, similar, likewise)

    @cached_property
    def _neighbours(self) -> sparse.csr_array:
        return _unpadded(self._columns, self._shares, self._size + 1)

    def _followed(self, places: PlaceArray, weights: FloatArray) -> FloatArray:
        """From weighed places along their links: ``weights · B[places]``."""
        values = self._weights.take(places, axis=0)
        values *= weights[:, None]
        return self._summed(self._targets.take(places, axis=0), values)

    def _summed(self, places: PlaceArray, values: FloatArray) -> FloatArray:
        """The values at each place, ``(M + 1,)``; nothing at the last, which is nowhere."""
        summed = np.bincount(places.ravel(), values.ravel(), minlength=self._size + 1)
        summed[self._size] = 0
        return summed.astype(np.float32)

    def _weighed(
        self, prior: FloatArray, direct: FloatArray, similar: FloatArray, likewise: FloatArray
    ) -> FloatArray:
        # All three in one array: each step is then one call.
        signals = np.empty((len(LINKS), len(prior)), dtype=np.float32)
        signals[:] = direct, similar, likewise
        np.maximum(signals, 0, out=signals)
        signals += np.float32(self._floor)
        np.log(signals, out=signals)
        total: FloatArray = self._link_weights @ signals
        total += prior
        return total


def _shared(
    sums: LinkSums, columns: PlaceArray | IntArray, shares: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """``(C, m)`` places and shares → what ``similar`` and ``likewise`` are, ``(C,)`` each."""
    similar = np.einsum("cm,cm->c", shares, sums.direct.take(columns))
    likewise = np.einsum("cm,cm->c", shares, sums.likewise.take(columns))
    return similar, likewise


def _joined(
    rows: IntArray, unseen: Sequence[tuple[IntArray, FloatArray]]
) -> tuple[IntArray, FloatArray]:
    """Items and what stands for others, each item once with its whole weight."""
    nearest = np.concatenate([items.ravel() for items, _ in unseen])
    shares = np.concatenate([part.ravel() for _, part in unseen])
    joined, at = np.unique(np.concatenate([rows, nearest]), return_inverse=True)
    weights = np.bincount(at[len(rows) :], shares, minlength=len(joined)).astype(np.float32)
    weights[at[: len(rows)]] = 1
    return joined, weights


def _unpadded(columns: PlaceArray, values: FloatArray, width: int) -> sparse.csr_array:
    """The same as compressed rows of equal length, over the same memory."""
    pointers = np.arange(0, columns.size + 1, columns.shape[1], dtype=np.int32)
    parts = (values.ravel(), columns.ravel(), pointers)
    return sparse.csr_array(parts, shape=(len(columns), width), copy=False)


def _padded(matrix: sparse.csr_array, rows: int) -> tuple[PlaceArray, FloatArray]:
    """Compressed rows → columns and values ``(rows, widest)``, 0 of column 0 where is none."""
    lengths = np.zeros(rows, dtype=np.int64)
    lengths[: matrix.shape[0]] = np.diff(matrix.indptr)
    width = max(1, int(lengths.max(initial=0)))
    filled = np.arange(width) < lengths[:, None]
    columns = np.zeros(filled.shape, dtype=np.int32)
    values = np.zeros(filled.shape, dtype=np.float32)
    columns[filled], values[filled] = matrix.indices, matrix.data
    return columns, values


_MOST_ITEMS = 2_000
"""48 MB of terms, which each worker has for itself."""
_FEW = 20
"""Below one candidate in this number of items, computing the terms costs less."""


class PairSums:
    """The terms of all pairs of ``N`` items.

    Args:
        embeddings: ``(N, D)`` float32 of unit length.
        vectors: ``(N, P)`` float32 of unit length, the projected embeddings.
        pooling: the scorer's numbers.
        temperature: τ of the content signal.
    """

    def __init__(
        self, embeddings: FloatArray, vectors: FloatArray, pooling: Pooling, temperature: float
    ) -> None:
        count = len(embeddings)
        self._pooling, self._vectors, self._temperature = pooling, vectors, temperature
        self._near = np.exp((embeddings @ embeddings.T - 1) / np.float32(temperature))
        # Attention and its values lie next to each other: one row has both.
        self._attended = np.empty((count, 2, count), dtype=np.float32)
        similarity = pooling.similarity(vectors, vectors)
        raised, weighed = self._attended[:, 0], self._attended[:, 1]
        np.exp((similarity - 1) * np.float32(pooling.sharpness), out=raised)
        np.multiply(raised, similarity, out=weighed)

    @classmethod
    def of(
        cls,
        embeddings: FloatArray,
        vectors: FloatArray | None,
        pooling: Pooling | None,
        temperature: float,
    ) -> Self | None:
        """None for many items, without the scorer's numbers, or where float32 is too narrow."""
        if vectors is None or pooling is None or len(embeddings) > _MOST_ITEMS:
            return None
        if 2 * max(pooling.sharpness, 1 / temperature) > SAFE_EXPONENT:
            return None
        return cls(embeddings, vectors, pooling, temperature)

    def worthwhile(self, candidates: int) -> bool:
        """Return whether adding up the rows of all items pays off for this number of candidates."""
        return candidates * _FEW >= len(self._near)

    def scores(self, history: IntArray, candidates: IntArray) -> FloatArray:
        """Return what :meth:`Pooling.scores` gives, ``(C,)`` float32.

        Args:
            history: ``(H,)`` rows with H ≥ 1, each as often as it counts.
            candidates: ``(C,)`` rows.
        """
        ones = np.ones(len(history), dtype=np.float32)
        summed = ones @ self._attended.take(history, axis=0).reshape(len(history), -1)
        attention, weighed = summed.reshape(2, -1).take(candidates, axis=1)
        middle = self._vectors.take(history, axis=0).mean(axis=0)
        mean = self._vectors.take(candidates, axis=0) @ middle
        return self._pooling.pooled(weighed / attention, mean)

    def content(self, history: IntArray, candidates: IntArray) -> FloatArray:
        """Return what :func:`newshelf.nn.blend.content_signal` gives, ``(C,)`` float32.

        Args:
            history: ``(H,)`` distinct rows with H ≥ 1.
            candidates: ``(C,)`` rows.
        """
        ones = np.ones(len(history), dtype=np.float32)
        signal: FloatArray = np.log((ones @ self._near.take(history, axis=0)).take(candidates))
        return signal
