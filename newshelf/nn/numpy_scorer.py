"""The history scorer of ``newshelf.nn.scorer`` in NumPy, for one history.

It has three learned numbers and one matrix product. That is less work than handing the
product's arguments to a graph, padded to the longest history and candidates of a batch::

    s_ch = c · h                                     (C, H), both of unit length
    a_ch = softmax_h(sharpness · s_ch)
    score_c = (weight · Σ_h a_ch s_ch + (1 - weight) · mean_h s_ch) · scale
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

FloatArray = npt.NDArray[np.float32]
Finite = Annotated[float, Field(allow_inf_nan=False)]

SAFE_EXPONENT = 80.0
"""``exp(-80)`` is still a normal float32."""


class Pooling(BaseModel):
    """The learned numbers of a ``HistoryScorer``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sharpness: Annotated[Finite, Field(gt=0)]
    weight: Finite
    """0 … 1: weight of attention relative to the plain mean."""
    scale: Annotated[Finite, Field(gt=0)]

    def similarity(self, history: FloatArray, candidates: FloatArray) -> FloatArray:
        """``(H, P)`` and ``(C, P)`` of unit rows → ``(C, H)``."""
        product: FloatArray = candidates @ history.T
        return product

    def scores(self, similarity: FloatArray) -> FloatArray:
        """``(C, H)`` with H ≥ 1 → ``(C,)`` float32."""
        count = similarity.shape[1]
        raised = similarity * np.float32(self.sharpness)
        # Cosines are at most 1: with small exponents no row needs its maximum taken off.
        if 2 * self.sharpness > SAFE_EXPONENT:
            raised -= raised.max(axis=1, keepdims=True)
        np.exp(raised, out=raised)
        # A product with ones is a sum along the rows, and faster.
        ones = np.ones(count, dtype=np.float32)
        total = raised @ ones
        raised *= similarity
        mean = similarity @ (ones / np.float32(count))
        attended = ((raised @ ones) / total).astype(np.float32, copy=False)
        return self.pooled(attended, mean)

    def pooled(self, attended: FloatArray, mean: FloatArray) -> FloatArray:
        """The similarity by attention and on average, ``(C,)`` each → ``(C,)`` float32."""
        by_attention = np.float32(self.weight * self.scale)
        scores: FloatArray = by_attention * attended
        scores += np.float32((1 - self.weight) * self.scale) * mean
        return scores

    def counted_most(self, similarity: FloatArray) -> npt.NDArray[np.int64]:
        """``(C, H)`` → ``(C,)``: the history item with the most attention."""
        # The softmax keeps the order.
        most: npt.NDArray[np.int64] = similarity.argmax(axis=1)
        return most
