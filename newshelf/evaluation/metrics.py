"""Recall, NDCG, hit rate and MRR by full ranking, for a batch of cases at once.

All are computed from the ranking of every candidate; nothing is sampled. Items of equal
score are ranked in one fixed random order of the items, the same for every ranker and
case: the order of the catalogue may tell something (new items last, best sellers first),
this order cannot.

What the lists show, whatever was right: novelty, popularity bias and how even they are.

All of it is counted over the first K of each list. ``popularity`` is that of the training::

    φ(i) = training sequences with i / training sequences
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from newshelf.evaluation.types import BoolArray, Case, FloatArray, IntArray

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
    """Return the first relevant item: by score, then by the order of ties."""
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


_HEAD = 0.1
"""The share of the items that is the head, by training sequences."""


class ItemPopularity:
    """φ of every item, and what a list of items says by it.

    Args:
        train: sequences of item indices.
        n_items: of the catalogue.
    """

    def __init__(self, train: Sequence[IntArray], n_items: int) -> None:
        counts = _sequences_with(train, n_items)
        self.share: FloatArray = (counts / max(len(train), 1)).astype(np.float32)
        """(n_items,) φ, in 0..1."""
        # One more sequence, that has them all: an item that nobody met has finite surprise.
        self.bits: FloatArray = -np.log2((counts + 1) / (len(train) + 1)).astype(np.float32)
        """(n_items,) self-information of the item, -log2 φ(i), each count one higher."""
        head = np.argsort(-counts, kind="stable")[: max(round(_HEAD * n_items), 1)]
        self.head: BoolArray = np.isin(np.arange(n_items), head)
        """(n_items,) True for the tenth of the items with the most training sequences."""

    def novelty(self, top: IntArray) -> npt.NDArray[np.float64]:
        """(B,) mean self-information of the listed items, in bits.

        ::

            Novelty@K = 1/K · Σ_{i in top K} -log2 φ(i)

        Zhou et al. 2010 (arXiv:0808.2670); Castells et al. 2011.
        """
        return _listed_mean(self.bits, top)

    def average(self, top: IntArray) -> npt.NDArray[np.float64]:
        """(B,) average recommendation popularity, ARP@K = 1/K · Σ_{i in top K} φ(i).

        Abdollahpouri et al. 2019 (arXiv:1901.07555), with shares in place of counts.
        """
        return _listed_mean(self.share, top)

    def head_share(self, top: IntArray) -> npt.NDArray[np.float64]:
        """(B,) share of the list that is of the head; 1 - APLT of the same paper."""
        return _listed_mean(self.head.astype(np.float32), top)


def _sequences_with(train: Sequence[IntArray], n_items: int) -> npt.NDArray[np.float64]:
    """(n_items,) training sequences with the item, however often each has it."""
    counts = np.zeros(n_items)
    for sequence in train:
        counts[np.unique(sequence)] += 1
    return counts


def _listed_mean(values: FloatArray, top: IntArray) -> npt.NDArray[np.float64]:
    """(B,) mean of ``values`` over each list.

    Args:
        values: (n_items,).
        top: (B, K) item indices, -1 for an empty place; a list without items has the mean 0.
    """
    listed = top >= 0
    sums = np.where(listed, values[top], 0).sum(axis=1, dtype=np.float64)
    means: npt.NDArray[np.float64] = sums / np.maximum(listed.sum(axis=1), 1)
    return means


def exposures(top: IntArray, n_items: int) -> npt.NDArray[np.float64]:
    """(n_items,) how often each item is listed in ``top`` (B, K)."""
    return np.bincount(top[top >= 0], minlength=n_items).astype(np.float64)


def covered(shown: npt.NDArray[np.float64]) -> float:
    """Coverage: the share of the ranked items (n,) that is in any list."""
    return float((shown > 0).mean())


def gini(shown: npt.NDArray[np.float64]) -> float:
    """Return the Gini index of exposure: 0 if all items are shown equally, near 1 if few are.

    ::

        Gini = Σ_j (2j - n - 1) · e_j / (n · Σ_j e_j),   e_1 ≤ … ≤ e_n

    Args:
        shown: (n,) how often each ranked item was listed, not all 0.
    """
    ordered = np.sort(shown)
    n = len(ordered)
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float(weights @ ordered / (n * ordered.sum()))
