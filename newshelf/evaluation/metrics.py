"""Metrics of rankings, for a batch of cases at once, and by segment; few-shot probes of features.

Accuracy (recall, NDCG, hit rate, MRR) is computed from the ranking of every candidate, without
sampling. Items of equal score are ranked in one random order that is fixed for all rankers and
cases; the order of the catalogue would leak information (new items last, best sellers first).

Novelty, popularity bias, coverage and Gini describe the first K of each list, right or not.
Popularity is counted in the training data::

    φ(i) = training sequences with i / training sequences
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.preprocessing import normalize

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import category_levels
from newshelf.evaluation.baselines import sequence_counts
from newshelf.evaluation.significance import mean_intervals
from newshelf.evaluation.types import (
    BoolArray,
    Case,
    FloatArray,
    IntArray,
    Interval,
    Metrics,
    Split,
)

_TIE_SEED = 20_240_229


def tie_order(n_items: int) -> IntArray:
    """Return (n_items,) the fixed order of items of equal score."""
    return np.random.default_rng(_TIE_SEED).permutation(n_items).astype(np.int64)


def mask_scores(scores: FloatArray, cases: Sequence[Case], candidates: BoolArray) -> FloatArray:
    """Return a copy with -inf where an item is no candidate, or in the case's history.

    Infinite scores become the largest finite values, so that -inf only means "not ranked".
    ``scores`` are (B, n_items) float32, ``candidates`` (n_items,).
    """
    expected = (len(cases), len(candidates))
    if scores.shape != expected:
        raise ValueError(f"scores have the shape {scores.shape}, expected {expected}")
    if np.isnan(scores).any():
        raise ValueError("scores contain NaN")
    masked = np.nan_to_num(scores.astype(np.float32))
    masked[:, ~candidates] = -np.inf
    rows = np.repeat(np.arange(len(cases)), [len(case.history) for case in cases])
    masked[rows, np.concatenate([case.history for case in cases])] = -np.inf
    return masked


def top_items(masked: FloatArray, k: int, order: IntArray) -> IntArray:
    """Return (B, min(K, n_items)) item indices, best first; -1 where fewer items are ranked.

    ``masked`` (B, n_items) is from :func:`mask_scores`, ``order`` from :func:`tie_order`.
    """
    k = min(k, masked.shape[1])
    ordered = masked[:, order]
    # argpartition would pick any of the items that tie at the cut-off.
    border = np.partition(ordered, -k, axis=1)[:, -k, None]
    above = ordered > border
    level = ordered == border
    room = k - above.sum(axis=1, keepdims=True)
    chosen = above | (level & (np.cumsum(level, axis=1) <= room))
    places = np.nonzero(chosen)[1].reshape(len(masked), k)
    values = np.take_along_axis(ordered, places, axis=1)
    sorting = np.argsort(-values, axis=1, kind="stable")
    places = np.take_along_axis(places, sorting, axis=1)
    ranked = np.take_along_axis(values, sorting, axis=1) > -np.inf
    return np.where(ranked, order[places], -1)


def best_rank(masked: FloatArray, cases: Sequence[Case], order: IntArray) -> IntArray:
    """Return (B,) the 1-based rank of the best placed relevant item; MRR is its mean reciprocal."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    best = np.array(
        [case.relevant[_first(row, case, place)] for row, case in zip(masked, cases, strict=True)]
    )
    value = masked[np.arange(len(cases)), best][:, None]
    earlier = place[None, :] < place[best][:, None]
    ahead = (masked > value) | ((masked == value) & earlier)
    rank: IntArray = 1 + ahead.sum(axis=1, dtype=np.int64)
    return rank


def _first(row: FloatArray, case: Case, place: IntArray) -> int:
    """Return the place of the first relevant item, by score, then by the order of ties."""
    return int(np.lexsort((place[case.relevant], -row[case.relevant]))[0])


def hits(top: IntArray, cases: Sequence[Case], n_items: int) -> BoolArray:
    """Return (B, K) True where the item at that rank is relevant."""
    rows = np.repeat(np.arange(len(cases)), [len(case.relevant) for case in cases])
    truth = rows * n_items + np.concatenate([case.relevant for case in cases])
    listed = np.arange(len(cases))[:, None] * n_items + top
    return np.isin(listed, truth) & (top >= 0)


def recall(hit: BoolArray, cases: Sequence[Case], k: int) -> npt.NDArray[np.float64]:
    """Return (B,) Recall@K = |top K ∩ relevant| / |relevant|."""
    found: npt.NDArray[np.float64] = hit[:, :k].sum(axis=1) / _relevant(cases)
    return found


def hit_rate(hit: BoolArray, k: int) -> npt.NDArray[np.float64]:
    """Return (B,) 1 where any relevant item is among the first K, else 0."""
    found: npt.NDArray[np.float64] = (hit[:, :k].sum(axis=1) > 0).astype(np.float64)
    return found


def ndcg(hit: BoolArray, cases: Sequence[Case], k: int) -> npt.NDArray[np.float64]:
    """Return (B,) normalised discounted cumulative gain, with gain 1 per relevant item.

    ::

        DCG@K  = Σ_{r=1..K} [item at rank r is relevant] / log2(r + 1)
        NDCG@K = DCG@K / Σ_{r=1..min(K, |relevant|)} 1 / log2(r + 1)
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    width = min(k, hit.shape[1])
    gained = hit[:, :width] @ discount[:width]
    ideal = np.cumsum(discount)[np.minimum(_relevant(cases), k) - 1]
    normalised: npt.NDArray[np.float64] = gained / ideal
    return normalised


def _relevant(cases: Sequence[Case]) -> IntArray:
    return np.array([len(case.relevant) for case in cases], dtype=np.int64)


_HEAD = 0.1
"""Share of the items in the head."""


class ItemPopularity:
    """Popularity φ of every item, and metrics of lists that derive from it."""

    def __init__(self, train: Sequence[IntArray], n_items: int) -> None:
        counts = sequence_counts(train, n_items)
        self.share: FloatArray = (counts / max(len(train), 1)).astype(np.float32)
        """(n_items,) φ, in 0..1."""
        # Counts are one higher, so that a cold item has finite self-information.
        self.bits: FloatArray = -np.log2((counts + 1) / (len(train) + 1)).astype(np.float32)
        """(n_items,) self-information, -log2 φ(i)."""
        head = np.argsort(-counts, kind="stable")[: max(round(_HEAD * n_items), 1)]
        self.head: BoolArray = np.isin(np.arange(n_items), head)
        """(n_items,) True for the most popular tenth of the items."""

    def novelty(self, top: IntArray) -> npt.NDArray[np.float64]:
        """Return (B,) mean self-information of the listed items, 1/K · Σ -log2 φ(i), in bits.

        Zhou et al. 2010 (arXiv:0808.2670); Castells et al. 2011.
        """
        return _listed_mean(self.bits, top)

    def average(self, top: IntArray) -> npt.NDArray[np.float64]:
        """Return (B,) average recommendation popularity, ARP@K = 1/K · Σ_{i in top K} φ(i).

        Abdollahpouri et al. 2019 (arXiv:1901.07555), with shares in place of counts.
        """
        return _listed_mean(self.share, top)

    def head_share(self, top: IntArray) -> npt.NDArray[np.float64]:
        """Return (B,) the share of listed items in the head; 1 - APLT of the same paper."""
        return _listed_mean(self.head.astype(np.float32), top)


def _listed_mean(values: FloatArray, top: IntArray) -> npt.NDArray[np.float64]:
    """Return (B,) the mean of ``values`` (n_items,) over each list (B, K); 0 for an empty list."""
    listed = top >= 0
    sums = np.where(listed, values[top], 0).sum(axis=1, dtype=np.float64)
    means: npt.NDArray[np.float64] = sums / np.maximum(listed.sum(axis=1), 1)
    return means


def exposures(top: IntArray, n_items: int) -> npt.NDArray[np.float64]:
    """Return (n_items,) how often each item is listed in ``top`` (B, K)."""
    return np.bincount(top[top >= 0], minlength=n_items).astype(np.float64)


def coverage(exposure: npt.NDArray[np.float64]) -> float:
    """Return the share of the ranked items (n,) that is in any list."""
    return float((exposure > 0).mean())


def gini(exposure: npt.NDArray[np.float64]) -> float:
    """Return the Gini index of exposure: 0 if all items are shown equally, near 1 if few are.

    ::

        Gini = Σ_j (2j - n - 1) · e_j / (n · Σ_j e_j),   e_1 ≤ … ≤ e_n

    ``exposure`` (n,) is how often each ranked item is listed, not all 0.
    """
    ordered = np.sort(exposure)
    n = len(ordered)
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float(weights @ ordered / (n * ordered.sum()))


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


SHOTS = (1, 2, 5, 10, 20)
_MIN_PER_CLASS = 6
_MAX_TEST = 50
_INVERSE_PENALTY = 30.0
"""Large, as unit vectors need large weights."""


@dataclass(frozen=True, eq=False)
class FewShot:
    """Accuracy of linear probes on several features of the same items."""

    shots: tuple[int, ...]
    classes: tuple[str, ...]
    tested: int
    accuracy: Mapping[str, FloatArray]
    """Name of the features → (shots, repeats), as in ``macro_f1``."""
    macro_f1: Mapping[str, FloatArray]
    confusion: Mapping[str, IntArray]
    """(C, C) counts with the most shots, in the first repeat; rows are the true classes."""


def few_shot(
    features: Mapping[str, FloatArray],
    labels: Sequence[str | None],
    *,
    shots: Sequence[int] = SHOTS,
    repeats: int = 3,
    seed: int = 0,
) -> FewShot | None:
    """Fit logistic regressions on a few labelled items per class, and test them on others.

    Half of each class, at most 50 items, is the test set. The shots are drawn from the other half
    in each repeat, the same for all features. Items without a label and classes of under 6 items
    are left out; None if fewer than two classes are left.

    ``features`` are (N, D) float32 by name, ``labels`` (N,).
    """
    kept = {
        name: rows
        for name in sorted({label for label in labels if label})
        if len(rows := np.flatnonzero([label == name for label in labels])) >= _MIN_PER_CLASS
    }
    if len(kept) < 2:  # noqa: PLR2004  (something to tell apart)
        return None
    generator = np.random.default_rng(seed)
    pools, test, truth = [], [], []
    for number, rows in enumerate(kept.values()):
        mixed = generator.permutation(rows)
        held = min(len(rows) // 2, _MAX_TEST)
        test.append(mixed[:held])
        truth.append(np.full(held, number))
        pools.append(mixed[held:])
    tested, true = np.concatenate(test), np.concatenate(truth)
    largest = max(len(pool) for pool in pools)
    counts = tuple(count for count in shots if count <= largest) or (largest,)
    unit = {name: normalize(rows) for name, rows in features.items()}
    shape = (len(counts), repeats)
    accuracy = {name: np.zeros(shape, dtype=np.float32) for name in unit}
    macro_f1 = {name: np.zeros(shape, dtype=np.float32) for name in unit}
    confusion: dict[str, IntArray] = {}
    for repeat in range(repeats):
        order = [generator.permutation(pool) for pool in pools]
        for place, count in enumerate(counts):
            rows = np.concatenate([pool[:count] for pool in order])
            known = np.concatenate([np.full(len(p[:count]), n) for n, p in enumerate(order)])
            for name, vectors in unit.items():
                found = _probe(vectors, rows, known, tested)
                accuracy[name][place, repeat] = accuracy_score(true, found)
                macro_f1[name][place, repeat] = f1_score(true, found, average="macro")
                if repeat == 0:
                    confusion[name] = confusion_matrix(true, found).astype(np.int64)
    return FewShot(counts, tuple(kept), len(tested), accuracy, macro_f1, confusion)


def _probe(vectors: FloatArray, rows: IntArray, known: IntArray, tested: IntArray) -> IntArray:
    probe = LogisticRegression(C=_INVERSE_PENALTY, max_iter=500)
    with warnings.catch_warnings():
        # One label per class is intended here; sklearn suspects a regression.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        probe.fit(vectors[rows], known)
    found: IntArray = probe.predict(vectors[tested]).astype(np.int64)
    return found
