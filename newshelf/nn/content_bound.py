"""Bounds of the content signal from a few directions, to compute it in full for fewer items.

Rotate the embeddings onto the directions in which they differ most, and split each into a
head of ``R`` numbers and a tail. For unit vectors (Cauchy-Schwarz)::

    |cos(i, c) - head_i · head_c| ≤ ‖tail_i‖ ‖tail_c‖

and a log-sum-exp moves by no more than the largest of its terms does, so the content signal of
the heads is right within ``max_i ‖tail_i‖ ‖tail_c‖ / τ``. An item whose upper bound is below
the k-th largest lower bound is not among the first k.
"""

from typing import Self

import numpy as np
import numpy.typing as npt

from newshelf.nn.blend import content_signal

__all__ = ["ContentBound"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_WIDTH = 64
_SAMPLE = 4096
_MOST_TAIL = 0.1
"""Mean squared length of a tail; with longer ones the bounds tell nothing apart."""
_MOST_NUMBERS = 16_000_000
"""64 MB of heads, which each worker has for itself."""
_ROUNDING = 1e-6


class ContentBound:
    """Heads and lengths of tails of ``N`` embeddings.

    Args:
        embeddings: ``(N, D)`` float32 of unit length.
        width: R, the numbers of a head.
    """

    def __init__(self, embeddings: FloatArray, width: int = _WIDTH) -> None:
        sample = embeddings[:: max(1, len(embeddings) // _SAMPLE)]
        # In increasing order of what they explain.
        _, directions = np.linalg.eigh(sample.T.astype(np.float64) @ sample)
        self._head: FloatArray = embeddings @ directions[:, -width:].astype(np.float32)
        left = 1 - np.einsum("nr,nr->n", self._head, self._head)
        self._tail: FloatArray = np.sqrt(np.maximum(left, 0) + np.float32(_ROUNDING))

    @classmethod
    def of(cls, embeddings: FloatArray) -> Self | None:
        """None where it would save nothing, or take too much memory."""
        width = min(_WIDTH, embeddings.shape[1] // 4)
        if width == 0 or len(embeddings) * width > _MOST_NUMBERS:
            return None
        found = cls(embeddings, width)
        return found if float((found._tail**2).mean()) <= _MOST_TAIL else None

    def content(
        self, history: IntArray, candidates: IntArray, temperature: float
    ) -> tuple[FloatArray, FloatArray]:
        """The signal of the heads and how far it may be off, ``(C,)`` float32 each.

        Args:
            history: rows, at least one.
            candidates: ``(C,)`` rows.
            temperature: τ.
        """
        heads = self._head.take(history, axis=0)
        cosines = self._head.take(candidates, axis=0) @ heads.T
        reach = self._tail.take(history).max() / np.float32(temperature)
        off = self._tail.take(candidates) * reach + np.float32(_ROUNDING / temperature)
        return content_signal(cosines.T, temperature), off
