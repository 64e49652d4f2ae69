"""Random scores: what a ranker reaches that knows nothing."""

from collections.abc import Sequence

import numpy as np

from newshelf.evaluation.types import FloatArray, IntArray, Split

__all__ = ["Random"]


class Random:
    """Uniform scores, drawn from the seed and the history, so that batches do not matter."""

    name = "random"

    def __init__(self, split: Split, seed: int = 0) -> None:
        self._n_items = split.n_items
        self._seed = seed

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """(B, n_items) float32 in 0..1."""
        rows = [
            np.random.default_rng([self._seed, *history]).random(self._n_items, dtype=np.float32)
            for history in histories
        ]
        return np.stack(rows)
