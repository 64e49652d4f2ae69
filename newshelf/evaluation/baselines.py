"""Baselines that a model must beat: random, popularity, popularity in category, content, item-kNN.

And EASE (Steck, WWW 2019, arXiv:1905.03375), like item-kNN from co-occurrence in training data.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from scipy.linalg import lapack
from sklearn.preprocessing import normalize

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import category_levels
from newshelf.errors import TrainingError
from newshelf.evaluation.types import FloatArray, IntArray, Ranker, Split
from newshelf.nn.blend import content_neighbours

_DAY_S = 86_400


def incidence(
    histories: Sequence[IntArray], n_items: int, half_life: float = np.inf
) -> sparse.csr_matrix:
    """Return (B, n_items) float32, 2^(-age / half_life) where the history contains the item.

    An item's age is the number of distinct items after its last occurrence.
    """
    rows = []
    for history in histories:
        items, from_end = np.unique(history[::-1], return_index=True)
        ages = np.argsort(np.argsort(from_end))
        rows.append((items, np.exp2(-ages / half_life).astype(np.float32)))
    pointers = np.concatenate([[0], np.cumsum([len(items) for items, _ in rows])])
    columns = np.concatenate([np.empty(0, dtype=np.int64), *[items for items, _ in rows]])
    values = np.concatenate([np.empty(0, dtype=np.float32), *[weights for _, weights in rows]])
    return sparse.csr_matrix((values, columns, pointers), shape=(len(histories), n_items))


def recent_counts(split: Split, days: float) -> npt.NDArray[np.float64]:
    """Return (n_items,) numbers of training sequences with the item in the last ``days``.

    Ties are broken by the count over all time, which alone counts without timestamps.
    """
    total = sequence_counts(split.train.sequences, split.n_items)
    stamps = split.train.timestamps
    if not stamps:
        return total
    start = max(int(times[-1]) for times in stamps) - days * _DAY_S
    recent = [row[times >= start] for row, times in zip(split.train.sequences, stamps, strict=True)]
    counts: npt.NDArray[np.float64] = sequence_counts(recent, split.n_items)
    return counts + total / float(total.max() + 1)


def sequence_counts(sequences: Sequence[IntArray], n_items: int) -> npt.NDArray[np.float64]:
    """Return (n_items,) numbers of sequences with the item."""
    counts = incidence(sequences, n_items).sum(axis=0)
    return np.asarray(counts, dtype=np.float64).ravel()


_ROWS = 1024
"""Rows of a similarity matrix that are dense at once: 160 MB for 20,000 items."""


class ItemKnn:
    """Cosine of the items' training sequences, of the nearest neighbours only.

    ::

        sim(i, j) = c_ij / (√(c_i c_j) + shrinkage)      0 unless j is a neighbour of i
        score(j)  = Σ_{i in h} sim(i, j)

    c_i and c_ij count the training sequences with i, and with both. The shrinkage reduces the
    weight of rare pairs (Sarwar et al. 2001; Deshpande & Karypis 2004).
    """

    name = "item-kNN"

    def __init__(self, split: Split, neighbours: int = 20, shrinkage: float = 1.0) -> None:
        self._similar = co_occurrence(split, neighbours, shrinkage)

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """Return (B, n_items) float32."""
        known = incidence(histories, self._similar.shape[0])
        scores: FloatArray = (known @ self._similar).toarray().astype(np.float32)
        return scores


def co_occurrence(split: Split, neighbours: int, shrinkage: float) -> sparse.csr_matrix:
    """Return (n_items, n_items) float32: row i has sim(i, j) of its nearest neighbours j ≠ i."""
    met = incidence(split.train.sequences, split.n_items)
    counts = np.asarray(met.sum(axis=0), dtype=np.float64).ravel()
    columns = met.T.tocsr()
    parts = []
    for start in range(0, split.n_items, _ROWS):
        together = (columns[start : start + _ROWS] @ met).toarray()
        own = counts[start : start + _ROWS, None]
        similar = together / np.maximum(np.sqrt(own * counts[None, :]) + shrinkage, 1e-12)
        rows = np.arange(len(similar))
        similar[rows, start + rows] = 0
        keep_strongest(similar, neighbours)
        parts.append(sparse.csr_matrix(similar, dtype=np.float32))
    return sparse.vstack(parts, format="csr")


def keep_strongest(matrix: npt.NDArray[Any], count: int) -> None:
    """Set all but the ``count`` entries with the largest absolute values of each row to 0."""
    for start in range(0, len(matrix) if count < matrix.shape[1] else 0, _ROWS):
        rows = matrix[start : start + _ROWS]
        weak = np.argpartition(-np.abs(rows), count, axis=1)[:, count:]
        np.put_along_axis(rows, weak, 0, axis=1)


class SmoothedKnn:
    """Item-kNN whose co-occurrence is shared between items of similar content.

    ::

        A     = (1 - mix) I + mix · W
        score = x_history A C Aᵀ,   C item-kNN's similarities

    W (n_items, n_items) gives each item's ``neighbours`` nearest in content their softmax
    weights, exp(cos / temperature) / Σ. A cold item has no row in C; through A it uses the
    rows of its neighbours, both in a history and as a candidate.

    ``features`` (n_items, D) float32 are zeros for items without features.
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
        spread = _content_weights(unit_features(features, split), neighbours, temperature)
        own = sparse.identity(split.n_items, dtype=np.float32, format="csr")
        self._smoothing = ((1 - mix) * own + mix * spread).tocsr()
        self._similar = co_occurrence(split, split.n_items, shrinkage)

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """Return (B, n_items) float32."""
        known = incidence(histories, self._similar.shape[0]) @ self._smoothing
        found = (known @ self._similar) @ self._smoothing.T
        scores: FloatArray = found.toarray().astype(np.float32)
        return scores


def unit_features(features: FloatArray, split: Split) -> FloatArray:
    """Return (n_items, D) float32 of unit length; zeros stay zeros."""
    if features.ndim != 2 or len(features) != split.n_items:  # noqa: PLR2004
        raise ValueError(f"features {features.shape} for {split.n_items} items")
    if not np.isfinite(features).all():
        raise ValueError("features have NaN or infinite values")
    unit: FloatArray = normalize(features.astype(np.float64)).astype(np.float32)
    return unit


def _content_weights(unit: FloatArray, neighbours: int, temperature: float) -> sparse.csr_matrix:
    """Return (n_items, n_items) softmax weights of each item's nearest others with features."""
    known = np.flatnonzero(unit.any(axis=1))
    near = content_neighbours(unit[known], neighbours, temperature).tocoo()
    places = known[near.row], known[near.col]
    return sparse.csr_matrix((near.data, places), shape=(len(unit), len(unit)))


def ease_weights(gram: npt.NDArray[np.float64], ridge: float) -> FloatArray:
    """Return B (items, items) float32 of :class:`Ease`; XᵀX (items, items) is overwritten."""
    gram[np.diag_indices_from(gram)] += ridge
    # LAPACK overwrites in place only matrices in Fortran order, such as a transpose.
    factor, info = lapack.dpotrf(gram.T, lower=1, overwrite_a=1)
    if info == 0:
        inverse, info = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if info != 0:
        raise TrainingError(f"XᵀX + λI is not positive definite (LAPACK {info}): use a larger λ")
    lower = np.tril(inverse)
    inverse = lower + np.tril(lower, -1).T
    weights: FloatArray = (-inverse / np.diag(inverse)[None, :]).astype(np.float32)
    np.fill_diagonal(weights, 0)
    return weights


MAX_ITEMS = 20_000
"""With training interactions. A matrix of all pairs in float64 then has 3.2 GB."""

HALF_LIFE = 40.0
"""Items. The best of 5 to 80 on the last weeks of a gift shop's training data."""


class Ease:
    """EASE: ridge regression of each item on all others.

    ::

        min_B ||X - X B||² + λ ||B||²  with diag(B) = 0
        P = (XᵀX + λI)⁻¹,  B_ij = -P_ij / P_jj (i ≠ j),  score = x_history B

    X is the (sequences, items) incidence of the training data, in float64. Cold items score 0.
    """

    def __init__(self, split: Split, ridge: float = 250.0, max_items: int = MAX_ITEMS) -> None:
        self.name = f"EASE (λ={ridge:g})"
        self.n_items = split.n_items
        matrix = incidence(split.train.sequences, split.n_items).astype(np.float64)
        self._warm: IntArray = np.unique(matrix.indices).astype(np.int64)
        if len(self._warm) > max_items:
            raise TrainingError(
                f"EASE inverts a matrix of all pairs of the {len(self._warm)} items with "
                f"interactions, and at most {max_items} are allowed: leave this baseline out"
            )
        warm = matrix[:, self._warm]
        self._weights = ease_weights((warm.T @ warm).toarray(), ridge)

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """Return (B, n_items) float32."""
        return self.weighted(incidence(histories, self.n_items))

    def weighted(self, histories: sparse.csr_matrix) -> FloatArray:
        """Return (B, n_items) float32 for histories given as weights (B, n_items) of items."""
        scores = np.zeros((histories.shape[0], self.n_items), dtype=np.float32)
        scores[:, self._warm] = histories[:, self._warm] @ self._weights
        return scores


class RecentEase:
    """EASE in which older items of a history count less: score = w B, w_i = 2^(-age / half_life).

    An item's age is the number of other items after it.
    """

    name = "EASE with recency"

    def __init__(self, ease: Ease, half_life: float = HALF_LIFE) -> None:
        self._ease = ease
        self._half_life = half_life

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """Return (B, n_items) float32."""
        weights = incidence(histories, self._ease.n_items, self._half_life)
        return self._ease.weighted(weights)


RECENT_DAYS = 60.0


class Popularity:
    """Best sellers: score(i) = number of training sequences with i in the last days of training.

    All training data count if ``days`` is None, or without timestamps.
    """

    def __init__(self, split: Split, days: float | None = RECENT_DAYS) -> None:
        is_recent = days is not None and bool(split.train.timestamps)
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
        paths = [category_levels(kind) for kind in product_types]
        pairs = [
            (row, " > ".join(path[: level + 1]))
            for row, path in enumerate(paths)
            for level in range(len(path))
        ]
        rows = np.array([row for row, _ in pairs], dtype=np.int64)
        categories = pd.factorize(np.array([name for _, name in pairs], dtype=object))[0]
        ones = np.ones(len(pairs), dtype=np.float32)
        shape = split.n_items, int(categories.max(initial=-1)) + 1
        self._inside = sparse.csr_matrix((ones, (rows, categories)), shape=shape)
        counts = pd.Series(recent_counts(split, days))
        leaf = pd.Series([" > ".join(path) or None for path in paths], dtype=object)
        inherited = counts.groupby(leaf).transform("mean").fillna(0)
        self._counts: npt.NDArray[np.float64] = (counts + inherited).to_numpy()

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """Return (B, n_items) float32."""
        met = incidence(histories, len(self._counts)) @ self._inside
        lengths = np.maximum([len(history) for history in histories], 1)
        affinity = _NO_AFFINITY + (self._inside @ met.toarray().T).T / lengths[:, None]
        scores: FloatArray = (affinity * self._counts).astype(np.float32)
        return scores


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
    ordered = bool(split.train.timestamps)
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
    if len(np.unique(split.train.items)) <= MAX_ITEMS:
        ease = Ease(split)
        rankers.append(ease)
        if ordered:
            rankers.append(RecentEase(ease))
    return rankers
