"""The nearest items, by what they look like and what is written about them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from newshelf.evaluation.types import FloatArray, IntArray, Split

__all__ = ["ContentNeighbours", "Pooling"]

Pooling = Literal["mean", "max", "kernel"]
_MAX_SIMILARITIES = 32_000_000
"""Similarities held at once: 128 MB of float32."""


class ContentNeighbours:
    """Cosine similarity of an item's features to those of the history.

    ::

        mean    score(i) = 1/|h| · Σ_{j in h} cos(i, j)
        max     score(i) = max_{j in h} cos(i, j)
        kernel  score(i) = Σ_{j in h} exp(cos(i, j) / temperature)

    The kernel lies between the two. Which is the strongest depends on the catalogue, so all
    three are rows of the report. Items without features have the similarity 0 to all.

    Args:
        split: whose items are ranked; nothing of its training is used.
        features: (n_items, D) float32; normalised here.
        pooling: how the similarities to a history become one score.
        temperature: of the kernel.

    Raises:
        ValueError: when there is not one row of finite features per item.
    """

    def __init__(
        self, split: Split, features: FloatArray, pooling: Pooling, temperature: float = 0.1
    ) -> None:
        if features.ndim != 2 or len(features) != split.n_items:  # noqa: PLR2004
            raise ValueError(f"features {features.shape} for {split.n_items} items")
        if not np.isfinite(features).all():
            raise ValueError("features have NaN or infinite values")
        norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
        self._features = (features / np.maximum(norms, 1e-12)).astype(np.float32)
        self._pooling: Pooling = pooling
        self._temperature = temperature

    @property
    def name(self) -> str:
        """``content (mean)`` and so on."""
        return f"content ({self._pooling})"

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """(B, n_items) float32; zeros for an empty history."""
        if self._pooling == "mean":
            means = [self._features[history].sum(0) / max(len(history), 1) for history in histories]
            return np.asarray(np.stack(means) @ self._features.T, dtype=np.float32)
        items = np.unique(np.concatenate(histories)).astype(np.int64)
        if len(items) * len(self._features) > _MAX_SIMILARITIES and len(histories) > 1:
            middle = len(histories) // 2
            return np.concatenate(
                [self.scores(histories[:middle]), self.scores(histories[middle:])]
            )
        similar = self._features[items] @ self._features.T
        if self._pooling == "kernel":
            # Divided by its largest value, which changes no ranking and keeps sums small.
            similar = np.exp((similar - 1) / self._temperature)
        rows = [self._pool(similar[np.searchsorted(items, history)]) for history in histories]
        return np.stack(rows)

    def _pool(self, similar: FloatArray) -> FloatArray:
        """(H, n_items) → (n_items,)."""
        if not len(similar):
            return np.zeros(similar.shape[1], dtype=np.float32)
        pooled: FloatArray = similar.sum(0) if self._pooling == "kernel" else similar.max(0)
        return pooled
