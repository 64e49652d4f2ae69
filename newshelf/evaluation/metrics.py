"""Recall, NDCG, hit rate and MRR by full ranking, for a batch of cases at once.

All are computed from the ranking of every candidate; nothing is sampled. Items of equal
score are ranked in one fixed random order of the items, the same for every ranker and
case: the order of the catalogue may tell something (new items last, best sellers first),
this order cannot.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from newshelf.evaluation.types import BoolArray, Case, FloatArray, IntArray

__all__ = [
    "best_rank",
    "hit_rate",
    "hits",
    "mask_scores",
    "ndcg",
    "recall",
    "tie_order",
    "top_items",
]

_TIE_SEED = 20_240_229


def tie_order(n_items: int) -> IntArray:
    """(n_items,) the fixed order in which items of equal score are ranked."""
    return np.random.default_rng(_TIE_SEED).permutation(n_items).astype(np.int64)


def mask_scores(scores: FloatArray, cases: Sequence[Case], candidates: BoolArray) -> FloatArray:
    """A copy with -inf where an item is no candidate, or in the case's history.

    A ranker's own infinities become the largest finite values, so that -inf says only
    "not ranked".

    Args:
        scores: (B, n_items) float32, higher is better.
        cases: B cases.
        candidates: (n_items,) True where an item is ranked.

    Raises:
        ValueError: for NaN, or when the shape is not (B, n_items).
    """
    expected = (len(cases), len(candidates))
    if scores.shape != expected:
        raise ValueError(f"scores have the shape {scores.shape}, expected {expected}")
    if np.isnan(scores).any():
        raise ValueError("scores contain NaN, which has no place in a ranking")
    masked = np.nan_to_num(scores.astype(np.float32))
    masked[:, ~candidates] = -np.inf
    rows = np.repeat(np.arange(len(cases)), [len(case.history) for case in cases])
    masked[rows, np.concatenate([case.history for case in cases])] = -np.inf
    return masked


def top_items(masked: FloatArray, k: int, order: IntArray) -> IntArray:
    """The first K of each ranking.

    Args:
        masked: (B, n_items) from :func:`mask_scores`.
        k: the cut-off; at most n_items are returned.
        order: from :func:`tie_order`.

    Returns:
        (B, min(K, n_items)) item indices, best first; -1 where fewer items are ranked.
    """
    k = min(k, masked.shape[1])
    ordered = masked[:, order]
    # argpartition alone would pick any of the items that tie at the border.
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
    best: IntArray = np.where(ranked, order[places], -1)
    return best


def best_rank(masked: FloatArray, cases: Sequence[Case], order: IntArray) -> IntArray:
    """(B,) 1-based rank, among all candidates, of the best placed relevant item.

    The mean of its reciprocal is MRR, over the whole ranking::

        MRR = 1/|cases| · Σ_case 1 / min { rank(i) : i relevant }
    """
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
    """Which of the relevant items comes first: by score, then by the order of ties."""
    return int(np.lexsort((place[case.relevant], -row[case.relevant]))[0])


def hits(top: IntArray, cases: Sequence[Case], n_items: int) -> BoolArray:
    """(B, K) True where the item at that rank is relevant."""
    rows = np.repeat(np.arange(len(cases)), [len(case.relevant) for case in cases])
    truth = rows * n_items + np.concatenate([case.relevant for case in cases])
    asked = np.arange(len(cases))[:, None] * n_items + top
    found: BoolArray = np.isin(asked, truth) & (top >= 0)
    return found


def recall(hit: BoolArray, cases: Sequence[Case], k: int) -> npt.NDArray[np.float64]:
    """(B,) the share of the relevant items that is among the first K.

    ::

        Recall@K = |top K ∩ relevant| / |relevant|
    """
    found: npt.NDArray[np.float64] = hit[:, :k].sum(axis=1) / _relevant(cases)
    return found


def hit_rate(hit: BoolArray, k: int) -> npt.NDArray[np.float64]:
    """(B,) 1 where any relevant item is among the first K, else 0.

    ::

        HitRate@K = [|top K ∩ relevant| > 0]
    """
    found: npt.NDArray[np.float64] = (hit[:, :k].sum(axis=1) > 0).astype(np.float64)
    return found


def ndcg(hit: BoolArray, cases: Sequence[Case], k: int) -> npt.NDArray[np.float64]:
    """(B,) normalised discounted cumulative gain, each relevant item having the gain 1.

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
