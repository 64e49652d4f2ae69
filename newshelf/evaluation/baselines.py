"""Baselines that a model must beat, each fitted by its constructor.

Histories as sparse matrices, and how often items were met.

The same best sellers for everyone.

Random scores: what a ranker reaches that knows nothing.

The best sellers of the categories that the history is about.

The nearest items, by what they look like and what is written about them.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from newshelf.catalog.interactions import CatalogTables
from newshelf.catalog.schema import category_levels
from newshelf.evaluation.item_to_item import (
    MAX_ITEMS,
    Ease,
    ItemKnn,
    RecentEase,
    SmoothedKnn,
    incidence,
    recent_counts,
)
from newshelf.evaluation.types import FloatArray, IntArray, Ranker, Split

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


_NO_AFFINITY = 1e-6


class CategoryPopularity:
    """Popularity, weighted by how much of the history is in the item's category.

    ::

        score(i) = affinity(i) · (count(i) + mean count of i's leaf category)
        affinity(i) = Σ_level share of the history with i's category at that level

    ``count`` is that of :class:`Popularity`. The mean lets an item that nobody has met yet
    inherit from its category; without it this baseline would say nothing of cold items.
    Items of other categories follow after, by popularity.

    Args:
        split: whose training is counted.
        product_types: (n_items,) paths with `` > `` between levels; None where absent.
        days: what is recent.

    Raises:
        ValueError: when there is not one product type per item.
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
        """(B, n_items) float32."""
        histories_matrix = incidence(histories, len(self._counts))
        affinity = np.full((len(histories), len(self._counts)), _NO_AFFINITY)
        for codes in self._levels:
            known = np.flatnonzero(codes >= 0)
            inside = histories_matrix[:, known] @ _one_hot(codes[known])
            lengths = np.maximum([len(history) for history in histories], 1)
            affinity[:, known] += (inside / lengths[:, None])[:, codes[known]]
        return (affinity * self._counts).astype(np.float32)


def _level_codes(product_types: Sequence[str | None]) -> list[IntArray]:
    """Per level, (n_items,) numbers of the path down to it; -1 where a path ends before."""
    paths = [category_levels(kind) for kind in product_types]
    depth = max((len(path) for path in paths), default=0)
    return [
        _codes([path[:level] if len(path) >= level else () for path in paths])
        for level in range(1, depth + 1)
    ]


def _codes(paths: Sequence[tuple[str, ...]]) -> IntArray:
    """Number equal paths alike; -1 for the empty one."""
    numbers: dict[tuple[str, ...], int] = {}
    return np.array(
        [numbers.setdefault(path, len(numbers)) if path else -1 for path in paths], dtype=np.int64
    )


def _one_hot(codes: IntArray) -> FloatArray:
    hot = np.zeros((len(codes), int(codes.max(initial=-1)) + 1), dtype=np.float32)
    hot[np.arange(len(codes)), codes] = 1
    return hot


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


def default_baselines(
    split: Split, catalog: CatalogTables, features: FloatArray | None = None, seed: int = 0
) -> list[Ranker]:
    """All baselines that the data allow, fitted on the split's training.

    Popularity in category needs a product type, what goes by recency needs timestamps,
    content features, and EASE at most ``MAX_ITEMS`` items with training interactions; what
    lacks its data is left out.

    Args:
        split: its training.
        catalog: for ``items.product_type``.
        features: (n_items, D) float32, the frozen features of the items; None for none.
        seed: of the random baseline.
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
