"""What each pair of items adds to the sums over a history, kept for small catalogues.

Scorer and content signal both sum a term of each history item and candidate::

    scorer     Σ_h exp(β (s_ch - 1)) s_ch  and  Σ_h exp(β (s_ch - 1))
    content    Σ_h exp((cos(h, c) - 1) / τ)

Neither ``β`` nor ``τ`` is the request's, so the terms of all pairs are made once, and a
request adds up the rows of its history: a hundredth of the arithmetic of making them anew.
"""

from typing import Self

import numpy as np
import numpy.typing as npt

from newshelf.nn.pooling import SAFE_EXPONENT, Pooling

__all__ = ["PairSums"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_MOST_ITEMS = 2_000
"""48 MB of terms, which each worker has for itself."""
_FEW = 20
"""For a smaller part of the catalogue than one in so many, making the terms costs less."""


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
        # Attention and what it is paid to lie beside each other: one row has both.
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
        """Whether so many candidates are enough to add up the rows of all items."""
        return candidates * _FEW >= len(self._near)

    def scores(self, history: IntArray, candidates: IntArray) -> FloatArray:
        """What :meth:`Pooling.scores` gives, ``(C,)`` float32.

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
        """What :func:`newshelf.nn.blend.content_signal` gives, ``(C,)`` float32.

        Args:
            history: ``(H,)`` distinct rows with H ≥ 1.
            candidates: ``(C,)`` rows.
        """
        ones = np.ones(len(history), dtype=np.float32)
        signal: FloatArray = np.log((ones @ self._near.take(history, axis=0)).take(candidates))
        return signal
