"""Item-kNN with what similar items taught: co-occurrence smoothed by content."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from newshelf.evaluation.baselines._counts import incidence
from newshelf.evaluation.baselines.item_knn import co_occurrence
from newshelf.evaluation.types import FloatArray, IntArray, Split

__all__ = ["SmoothedKnn"]

_ROWS = 1024


class SmoothedKnn:
    """Co-occurrence passed on between items that look and read alike.

    ::

        A     = (1 - mix) I + mix · W
        score = x_history A C Aᵀ,   C item-kNN's similarities

    W (n_items, n_items) gives each item's ``neighbours`` nearest in content their softmax
    weights, exp(cos / temperature) / Σ. An item that was never met has no row in C; through A
    it takes part with the rows of its neighbours, as history and as candidate.

    Args:
        split: whose training is counted.
        features: (n_items, D) float32; items without features pass nothing on.
        mix: how much of an item is its neighbours', in 0..1.
        neighbours: in content.
        temperature: of the softmax.
        shrinkage: of the co-occurrence, in sequences.

    Raises:
        ValueError: when there is not one row of finite features per item.
    """

    name = "item-kNN, smoothed by content"

    def __init__(
        self,
        split: Split,
        features: FloatArray,
        mix: float = 0.5,
        neighbours: int = 20,
        temperature: float = 0.1,
        shrinkage: float = 1.0,
    ) -> None:
        if features.ndim != 2 or len(features) != split.n_items:  # noqa: PLR2004
            raise ValueError(f"features {features.shape} for {split.n_items} items")
        if not np.isfinite(features).all():
            raise ValueError("features have NaN or infinite values")
        spread = _content_weights(features, neighbours, temperature)
        own = sparse.identity(split.n_items, dtype=np.float32, format="csr")
        self._pass_on = ((1 - mix) * own + mix * spread).tocsr()
        self._similar = co_occurrence(split, split.n_items, shrinkage)

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """(B, n_items) float32."""
        asked = incidence(histories, self._similar.shape[0]) @ self._pass_on
        found = (asked @ self._similar) @ self._pass_on.T
        scores: FloatArray = found.toarray().astype(np.float32)
        return scores


def _content_weights(
    features: FloatArray, neighbours: int, temperature: float
) -> sparse.csr_matrix:
    """(n_items, n_items) rows of softmax weights over the nearest others; 0 without features."""
    norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    unit = (features / np.maximum(norms, 1e-12)).astype(np.float32)
    empty = norms.ravel() == 0
    count = min(neighbours, len(unit) - 1)
    parts = []
    for start in range(0, len(unit), _ROWS):
        cosine = unit[start : start + _ROWS] @ unit.T
        rows = np.arange(len(cosine))[:, None]
        cosine[rows[:, 0], start + rows[:, 0]] = -np.inf
        cosine[:, empty] = -np.inf
        near = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        close = np.take_along_axis(cosine, near, axis=1)
        weights = np.exp((close - close.max(axis=1, keepdims=True)) / temperature)
        weights /= weights.sum(axis=1, keepdims=True)
        weights[empty[start : start + _ROWS]] = 0
        dense = np.zeros_like(cosine)
        np.put_along_axis(dense, near, weights, axis=1)
        parts.append(sparse.csr_matrix(dense))
    return sparse.vstack(parts, format="csr")
