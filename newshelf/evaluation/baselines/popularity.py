"""The same best sellers for everyone."""

from collections.abc import Sequence

import numpy as np

from newshelf.evaluation.baselines._counts import recent_counts
from newshelf.evaluation.types import FloatArray, IntArray, Split

__all__ = ["RECENT_DAYS", "Popularity"]

RECENT_DAYS = 60.0


class Popularity:
    """score(i) = training sequences with i, all or those of the last days of the training.

    Args:
        split: whose training is counted.
        days: what is recent; None, or a training without timestamps, counts all of it.
    """

    def __init__(self, split: Split, days: float | None = RECENT_DAYS) -> None:
        is_recent = days is not None and bool(split.train_timestamps)
        self.name = f"popularity of {days:g} days" if is_recent else "popularity"
        counts = recent_counts(split, np.inf if days is None else days)
        self._scores = counts.astype(np.float32)

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """(B, n_items) float32, every row the same."""
        return np.tile(self._scores, (len(histories), 1))
