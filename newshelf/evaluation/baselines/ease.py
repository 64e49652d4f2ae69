"""EASE: a linear item-to-item model in closed form (Steck, WWW 2019, arXiv:1905.03375)."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from newshelf.errors import TrainingError
from newshelf.evaluation.baselines._counts import incidence, recency_weighted
from newshelf.evaluation.ease_weights import ease_weights
from newshelf.evaluation.types import FloatArray, IntArray, Split

__all__ = ["MAX_ITEMS", "Ease", "RecentEase"]

MAX_ITEMS = 20_000
"""Items with training interactions; the matrix has 8 bytes for each pair: 3.2 GB."""

HALF_LIFE = 40.0
"""Of 5 to 80, the best on the last weeks of a gift shop's training; histories are of dozens."""


class Ease:
    """Ridge regression of each item on all the others, itself forbidden.

    ::

        min_B ||X - X B||² + λ ||B||²  with diag(B) = 0
        P = (XᵀX + λI)⁻¹,  B_ij = -P_ij / P_jj (i ≠ j),  score = x_history B

    X is the (sequences, items) incidence of the training, in float64. Items without training
    interactions score 0, so EASE knows nothing of cold items.

    Args:
        split: whose training is X.
        ridge: λ.
        max_items: more items with interactions are refused.

    Raises:
        TrainingError: for too many items.
    """

    def __init__(self, split: Split, ridge: float = 250.0, max_items: int = MAX_ITEMS) -> None:
        self.name = f"EASE (λ={ridge:g})"
        self.n_items = split.n_items
        matrix = incidence(split.train, split.n_items).astype(np.float64)
        self._warm: IntArray = np.unique(matrix.indices).astype(np.int64)
        if len(self._warm) > max_items:
            raise TrainingError(
                f"EASE inverts a matrix of all pairs of the {len(self._warm)} items with "
                f"interactions, and at most {max_items} are allowed: leave this baseline out"
            )
        warm = matrix[:, self._warm]
        self._weights = ease_weights((warm.T @ warm).toarray(), ridge)

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """(B, n_items) float32."""
        return self.weighted(incidence(histories, self.n_items))

    def weighted(self, histories: sparse.csr_matrix) -> FloatArray:
        """(B, n_items) float32, for histories as weights (B, n_items) of their items."""
        scores = np.zeros((histories.shape[0], self.n_items), dtype=np.float32)
        scores[:, self._warm] = histories[:, self._warm] @ self._weights
        return scores


class RecentEase:
    """EASE asked with a history in which what is older counts less.

    ::

        score = w B,   w_i = 2^(-age(i) / half_life)

    The age of an item is how many other items of the history came after it. Histories must
    be in order of time.

    Args:
        ease: fitted; its matrix is shared.
        half_life: items after which another one counts half.
    """

    name = "EASE with recency"

    def __init__(self, ease: Ease, half_life: float = HALF_LIFE) -> None:
        self._ease = ease
        self._half_life = half_life

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """(B, n_items) float32."""
        weights = recency_weighted(histories, self._ease.n_items, self._half_life)
        return self._ease.weighted(weights)
