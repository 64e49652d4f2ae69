"""The history scorer of ``newshelf.nn.scorer`` in NumPy, for one history.

It has three learned numbers and one matrix product, which costs less than passing the product's
arguments to a graph, padded to the longest history and candidates of a batch::

    s_ch = c · h                                     (C, H), both of unit length
    a_ch = softmax_h(sharpness · s_ch)
    score_c = (weight · Σ_h a_ch s_ch + (1 - weight) · mean_h s_ch) · scale

Scorer and content signal both sum a term of each history item and candidate::

    scorer     Σ_h exp(β (s_ch - 1)) s_ch  and  Σ_h exp(β (s_ch - 1))
    content    Σ_h exp((cos(h, c) - 1) / τ)

``β`` and ``τ`` are constants of the model, so ``PairSums`` computes the terms of all pairs of a
small catalogue once. A request then adds up the rows of its history, with a hundredth of the
arithmetic.
"""

from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from newshelf.files import StrictModel

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

SAFE_EXPONENT = 80.0
"""``exp(-80)`` is still a normal float32."""
_MAX_PAIR_ITEMS = 2_000
"""48 MB of terms per worker."""
_MIN_PAIR_CANDIDATES = 20
"""With fewer candidates than one in this number of items, computing the terms costs less."""


class Pooling(StrictModel):
    """The learned numbers of a ``HistoryScorer``."""

    sharpness: Annotated[float, Field(gt=0)]
    weight: float
    """0 … 1: weight of attention relative to the plain mean."""
    scale: Annotated[float, Field(gt=0)]

    def similarity(self, history: FloatArray, candidates: FloatArray) -> FloatArray:
        """``(H, P)`` and ``(C, P)`` of unit rows → ``(C, H)``."""
        return candidates @ history.T

    def scores(self, similarity: FloatArray) -> FloatArray:
        """``(C, H)`` with H ≥ 1 → ``(C,)`` float32."""
        count = similarity.shape[1]
        raised = similarity * np.float32(self.sharpness)
        # Cosines are at most 1: small exponents need no maximum subtracted.
        if 2 * self.sharpness > SAFE_EXPONENT:
            raised -= raised.max(axis=1, keepdims=True)
        np.exp(raised, out=raised)
        # A product with ones sums the rows faster.
        ones = np.ones(count, dtype=np.float32)
        total = raised @ ones
        raised *= similarity
        mean = similarity @ (ones / np.float32(count))
        attended = ((raised @ ones) / total).astype(np.float32, copy=False)
        return self.pooled(attended, mean)

    def pooled(self, attended: FloatArray, mean: FloatArray) -> FloatArray:
        """Return scores ``(C,)`` float32 from attended and mean similarity, ``(C,)`` each."""
        by_attention = np.float32(self.weight * self.scale)
        scores: FloatArray = by_attention * attended
        scores += np.float32((1 - self.weight) * self.scale) * mean
        return scores

    def counted_most(self, similarity: FloatArray) -> npt.NDArray[np.int64]:
        """``(C, H)`` → ``(C,)``: the history item with the most attention."""
        # The softmax keeps the order.
        most: npt.NDArray[np.int64] = similarity.argmax(axis=1)
        return most


class PairSums:
    """Terms of scorer and content signal for all pairs of ``N`` items.

    ``embeddings`` ``(N, D)`` and ``vectors`` ``(N, P)``, projected, are float32 of unit length.
    """

    def __init__(
        self, embeddings: FloatArray, vectors: FloatArray, pooling: Pooling, temperature: float
    ) -> None:
        count = len(embeddings)
        self._pooling, self._vectors, self._temperature = pooling, vectors, temperature
        self._near = np.exp((embeddings @ embeddings.T - 1) / np.float32(temperature))
        # Attention and its values in one row.
        self._attended = np.empty((count, 2, count), dtype=np.float32)
        similarity = pooling.similarity(vectors, vectors)
        attention, weighted = self._attended[:, 0], self._attended[:, 1]
        np.exp((similarity - 1) * np.float32(pooling.sharpness), out=attention)
        np.multiply(attention, similarity, out=weighted)

    @classmethod
    def of(
        cls,
        embeddings: FloatArray,
        vectors: FloatArray | None,
        pooling: Pooling | None,
        temperature: float,
    ) -> Self | None:
        """Return None for many items, without ``pooling``, or if float32 cannot hold the terms."""
        if vectors is None or pooling is None or len(embeddings) > _MAX_PAIR_ITEMS:
            return None
        if 2 * max(pooling.sharpness, 1 / temperature) > SAFE_EXPONENT:
            return None
        return cls(embeddings, vectors, pooling, temperature)

    def worthwhile(self, candidates: int) -> bool:
        """Return whether summing rows of all items is faster for this number of candidates."""
        return candidates * _MIN_PAIR_CANDIDATES >= len(self._near)

    def scores(self, history: IntArray, candidates: IntArray) -> FloatArray:
        """Return what :meth:`Pooling.scores` gives, ``(C,)`` float32, for one row or more."""
        ones = np.ones(len(history), dtype=np.float32)
        summed = ones @ self._attended.take(history, axis=0).reshape(len(history), -1)
        attention, weighted = summed.reshape(2, -1).take(candidates, axis=1)
        middle = self._vectors.take(history, axis=0).mean(axis=0)
        mean = self._vectors.take(candidates, axis=0) @ middle
        return self._pooling.pooled(weighted / attention, mean)

    def content(self, history: IntArray, candidates: IntArray) -> FloatArray:
        """Return what :func:`newshelf.nn.blend.content_signal` gives, for distinct rows."""
        ones = np.ones(len(history), dtype=np.float32)
        signal: FloatArray = np.log((ones @ self._near.take(history, axis=0)).take(candidates))
        return signal
