"""Baselines that a model must beat: random, popularity, popularity in category, content."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import category_levels
from newshelf.evaluation.item_to_item import (
    MAX_ITEMS,
    Ease,
    ItemKnn,
    RecentEase,
    SmoothedKnn,
    incidence,
    recent_counts,
    unit_features,
)
from newshelf.evaluation.types import FloatArray, IntArray, Ranker, Split

RECENT_DAYS = 60.0


class Popularity:
    """Best sellers: score(i) = number of training sequences with i in the last days of training.

    All training data count if ``days`` is None, or without timestamps.
    """

    def __init__(self, split: Split, days: float | None = RECENT_DAYS) -> None:
        is_recent = days is not None and bool(split.train_timestamps)
        self.name = f"popularity of {days:g} days" if is_recent else "popularity"
        counts = recent_counts(split, np.inf if days is None else days)
        self._scores = counts.astype(np.float32)

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """Return (B, n_items) float32, every row the same."""
        return np.tile(self._scores, (len(histories), 1))


class Random:
    """Uniform scores, drawn from seed and history, so that they do not depend on the batch."""

    name = "random"

    def __init__(self, split: Split, seed: int = 0) -> None:
        self._n_items = split.n_items
        self._seed = seed

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """Return (B, n_items) float32 in 0..1."""
        rows = [
            np.random.default_rng([self._seed, *history]).random(self._n_items, dtype=np.float32)
            for history in histories
        ]
        return np.stack(rows)


_NO_AFFINITY = 1e-6


class CategoryPopularity:
    """Popularity, weighted by the share of the history in the item's category.

    ::

        score(i) = affinity(i) · (count(i) + mean count of i's leaf category)
        affinity(i) = Σ_level share of the history with i's category at that level

    ``count`` is that of :class:`Popularity`. Through the mean, a cold item inherits from its
    category. Items of other categories follow, by popularity.

    ``product_types`` (n_items,) are paths with `` > `` between levels; None where absent.
    """

    name = "popularity in category"

    def __init__(
        self, split: Split, product_types: Sequence[str | None], days: float = RECENT_DAYS
    ) -> None:
        if len(product_types) != split.n_items:
            raise ValueError(f"{len(product_types)} product types for {split.n_items} items")
        self._levels = _level_codes(product_types)
        counts = recent_counts(split, days)
        leaf = _codes([category_levels(kind) for kind in product_types])
        inherited = np.zeros(split.n_items)
        known = leaf >= 0
        sums = np.bincount(leaf[known], weights=counts[known])
        inherited[known] = (sums / np.maximum(np.bincount(leaf[known]), 1))[leaf[known]]
        self._counts: npt.NDArray[np.float64] = counts + inherited

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """Return (B, n_items) float32."""
        histories_matrix = incidence(histories, len(self._counts))
        affinity = np.full((len(histories), len(self._counts)), _NO_AFFINITY)
        for codes in self._levels:
            known = np.flatnonzero(codes >= 0)
            inside = histories_matrix[:, known] @ _one_hot(codes[known])
            lengths = np.maximum([len(history) for history in histories], 1)
            affinity[:, known] += (inside / lengths[:, None])[:, codes[known]]
        return (affinity * self._counts).astype(np.float32)


def _level_codes(product_types: Sequence[str | None]) -> list[IntArray]:
    """Return for each level (n_items,) codes of the paths down to it; -1 for shorter paths."""
    paths = [category_levels(kind) for kind in product_types]
    depth = max((len(path) for path in paths), default=0)
    return [
        _codes([path[:level] if len(path) >= level else () for path in paths])
        for level in range(1, depth + 1)
    ]


def _codes(paths: Sequence[tuple[str, ...]]) -> IntArray:
    """Return a number per distinct path; -1 for the empty one."""
    names = np.array([" > ".join(path) or None for path in paths], dtype=object)
    return np.asarray(pd.factorize(names)[0], dtype=np.int64)


def _one_hot(codes: IntArray) -> FloatArray:
    hot = np.zeros((len(codes), int(codes.max(initial=-1)) + 1), dtype=np.float32)
    hot[np.arange(len(codes)), codes] = 1
    return hot


Pooling = Literal["mean", "max", "kernel"]
_MAX_SIMILARITIES = 32_000_000
"""Similarities in memory at once: 128 MB of float32."""


class ContentNeighbours:
    """Cosine similarity of the items' features to those of the history.

    ::

        mean    score(i) = 1/|h| · Σ_{j in h} cos(i, j)
        max     score(i) = max_{j in h} cos(i, j)
        kernel  score(i) = Σ_{j in h} exp(cos(i, j) / temperature)

    ``features`` (n_items, D) float32 need not be normalised. Items without features have the
    similarity 0 to all others.
    """

    def __init__(
        self, split: Split, features: FloatArray, pooling: Pooling, temperature: float = 0.1
    ) -> None:
        self._features = unit_features(features, split)
        self._pooling: Pooling = pooling
        self._temperature = temperature

    @property
    def name(self) -> str:
        """Return ``content (mean)``, ``content (max)`` or ``content (kernel)``."""
        return f"content ({self._pooling})"

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """Return (B, n_items) float32; zeros for an empty history."""
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
            # Divided by the largest value: the ranking is the same, and sums stay small.
            similar = np.exp((similar - 1) / self._temperature)
        rows = [self._pool(similar[np.searchsorted(items, history)]) for history in histories]
        return np.stack(rows)

    def _pool(self, similar: FloatArray) -> FloatArray:
        if not len(similar):
            return np.zeros(similar.shape[1], dtype=np.float32)
        pooled: FloatArray = similar.sum(0) if self._pooling == "kernel" else similar.max(0)
        return pooled


def default_baselines(
    split: Split, catalog: Catalog, features: FloatArray | None = None, seed: int = 0
) -> list[Ranker]:
    """Return all baselines that the data allow, fitted on the split's training data.

    ``features`` (n_items, D) float32 are those of the frozen towers.
    """
    kinds = [kind if isinstance(kind, str) else None for kind in catalog.items["product_type"]]
    ordered = bool(split.train_timestamps)
    rankers: list[Ranker] = [Random(split, seed), Popularity(split, days=None)]
    if ordered:
        rankers.append(Popularity(split))
    if any(kinds):
        rankers.append(CategoryPopularity(split, kinds))
    if features is not None:
        rankers += [
            ContentNeighbours(split, features, "mean"),
            ContentNeighbours(split, features, "max"),
            ContentNeighbours(split, features, "kernel"),
        ]
    if split.n_items <= MAX_ITEMS:
        rankers.append(ItemKnn(split))
    if split.n_items <= MAX_ITEMS and features is not None:
        rankers.append(SmoothedKnn(split, features))
    if len(np.unique(np.concatenate(split.train))) <= MAX_ITEMS:
        ease = Ease(split)
        rankers.append(ease)
        if ordered:
            rankers.append(RecentEase(ease))
    return rankers
