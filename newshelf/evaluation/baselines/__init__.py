"""What a model must beat: one baseline per file, each fitted by its constructor."""

import numpy as np

from newshelf.evaluation.baselines.category import CategoryPopularity
from newshelf.evaluation.baselines.content import ContentNeighbours
from newshelf.evaluation.baselines.ease import MAX_ITEMS, Ease, RecentEase
from newshelf.evaluation.baselines.item_knn import ItemKnn
from newshelf.evaluation.baselines.popularity import Popularity
from newshelf.evaluation.baselines.random import Random
from newshelf.evaluation.baselines.smoothed_knn import SmoothedKnn
from newshelf.evaluation.interactions import CatalogTables
from newshelf.evaluation.types import FloatArray, Ranker, Split

__all__ = [
    "CategoryPopularity",
    "ContentNeighbours",
    "Ease",
    "ItemKnn",
    "Popularity",
    "Random",
    "RecentEase",
    "SmoothedKnn",
    "default_baselines",
]


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
