"""The same best sellers for everyone."""

from collections.abc import Sequence

import numpy as np

from newshelf.evaluation.baselines._counts import recent_counts
from newshelf.evaluation.types import FloatArray, IntArray, Split

__all__ = ["RECENT_DAYS", "Popularity"]

RECENT_DAYS = 60.0


class Popularity:
    """score(i) = training sequences with i in the last days before the training's end.

    Args:
        split: whose training is counted.
        days: what is recent; without timestamps all of the training is.
    """

    name = "popularity"

    def __init__(self, split: Split, days: float = RECENT_DAYS) -> None:
        self._scores = recent_counts(split, days).astype(np.float32)

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """(B, n_items) float32, every row the same."""
        return np.tile(self._scores, (len(histories), 1))
