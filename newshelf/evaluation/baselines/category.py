"""The best sellers of the categories that the history is about."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from newshelf.catalog.schema import category_levels
from newshelf.evaluation.baselines._counts import incidence, recent_counts
from newshelf.evaluation.baselines.popularity import RECENT_DAYS
from newshelf.evaluation.types import FloatArray, IntArray, Split

__all__ = ["CategoryPopularity"]

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
