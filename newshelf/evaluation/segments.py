"""Results by segment of products and of shoppers, and each segment's share of the exposure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import category_levels
from newshelf.evaluation.metrics import hits
from newshelf.evaluation.significance import mean_intervals
from newshelf.evaluation.types import BoolArray, FloatArray, IntArray, Interval, Metrics, Split

_CATEGORIES = 8
_SHORT = 2
"""Products of a newcomer's history."""


@dataclass(frozen=True)
class SegmentResult:
    """The model's result for one segment, on one split."""

    split: str
    by: str
    """``category``, ``price`` or ``shopper``."""
    name: str
    cases: int
    """With a relevant product of the segment, or of its shoppers."""
    recall: float
    """Mean share of the relevant products of the segment that are in the list."""
    interval: Interval | None
    """95 %; None with too few groups of cases."""
    of_items: float | None = None
    """Share of the ranked products; None for shoppers, as is ``of_shown``."""
    of_shown: float | None = None
    """Share of the places of all lists."""


def segment_results(split: Split, metrics: Metrics, catalog: Catalog) -> Iterator[SegmentResult]:
    """Yield the results of every segment that has a case."""
    top, cases = metrics.top, split.cases
    found = hits(top, cases, split.n_items)
    listed = np.bincount(top[top >= 0], minlength=split.n_items)
    relevant = [case.relevant for case in cases]
    for by, segments in (("category", _categories(catalog)), ("price", _prices(catalog))):
        for name, members in segments.items():
            asked = np.array([members[items].sum() for items in relevant])
            hit = (found & members[top]).sum(axis=1)
            yield from _result(
                (split.name, by, name),
                hit[asked > 0] / asked[asked > 0],
                metrics.groups[asked > 0],
                (members & split.candidates).sum() / split.candidates.sum(),
                listed[members].sum() / max(listed.sum(), 1),
            )
    sizes = np.array([len(items) for items in relevant])
    newcomer = np.array([len(case.history) for case in cases]) <= _SHORT
    recall = found.sum(axis=1) / sizes
    for name, chosen in (("newcomers", newcomer), ("known", ~newcomer)):
        yield from _result((split.name, "shopper", name), recall[chosen], metrics.groups[chosen])


def _result(
    names: tuple[str, str, str],
    recall: FloatArray,
    groups: IntArray,
    of_items: float | None = None,
    of_shown: float | None = None,
) -> Iterator[SegmentResult]:
    if len(recall):
        _, numbers = np.unique(groups, return_inverse=True)
        intervals = mean_intervals(recall[None].astype(np.float64), numbers)
        shares = [None if share is None else float(share) for share in (of_items, of_shown)]
        interval = intervals[0] if intervals else None
        yield SegmentResult(*names, len(recall), float(recall.mean()), interval, *shares)


def _categories(catalog: Catalog) -> Mapping[str, BoolArray]:
    """Return masks (n_items,) of the largest categories, of the others, and of none."""
    kinds = [category_levels(cell) for cell in catalog.items["product_type"]]
    # If all share the first level, it tells nothing.
    level = 0 if len({levels[0] for levels in kinds if levels}) > 1 else -1
    labels = [levels[level] if levels else "none" for levels in kinds]
    largest = {name for name, _ in Counter(labels).most_common(_CATEGORIES)}
    named = np.array([label if label in largest else "others" for label in labels])
    return {str(name): named == name for name in np.unique(named)}


def _prices(catalog: Catalog) -> Mapping[str, BoolArray]:
    """Return masks (n_items,) of the thirds of the priced products, the cheapest first."""
    prices = catalog.items["price"].to_numpy(dtype=np.float64)
    if np.isnan(prices).all():
        return {}
    low, high = np.nanquantile(prices, [1 / 3, 2 / 3])
    return {
        f"up to {low:g}": prices <= low,
        f"up to {high:g}": (prices > low) & (prices <= high),
        f"above {high:g}": prices > high,
    }
