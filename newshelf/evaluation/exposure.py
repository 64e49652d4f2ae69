"""What the lists show, whatever was right: novelty, popularity bias and how even they are.

All of it is counted over the first K of each list. ``popularity`` is that of the training::

    φ(i) = training sequences with i / training sequences
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from newshelf.evaluation.types import BoolArray, FloatArray, IntArray

__all__ = ["Popularity", "covered", "exposures", "gini"]

_HEAD = 0.1
"""The share of the items that is the head, by training sequences."""


class Popularity:
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
    """How unevenly items are shown: 0 when all alike, towards 1 when few have it all.

    ::

        Gini = Σ_j (2j - n - 1) · e_j / (n · Σ_j e_j),   e_1 ≤ … ≤ e_n

    Args:
        shown: (n,) how often each ranked item was listed, not all 0.
    """
    ordered = np.sort(shown)
    n = len(ordered)
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float(weights @ ordered / (n * ordered.sum()))
