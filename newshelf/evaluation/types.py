"""The values that splits, rankers and reports share.

An item index is a row of ``catalog.items``. This module imports nothing of Newshelf.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Interval = tuple[float, float]
"""Lower and upper end."""


@dataclass(frozen=True, eq=False)
class Case:
    """One question put to a ranker, and its right answers."""

    history: IntArray
    """(H,) distinct item indices, oldest first; H ≥ 1. Never ranked."""
    relevant: IntArray
    """(R,) distinct item indices to be found; R ≥ 1, none of them in ``history``."""
    group: int | None = None
    """Cases of one group (a scene, a shopper) depend on each other, so intervals and tests
    take them together; None is a group of its own."""


@dataclass(frozen=True, eq=False)
class Split:
    """The training data of a split, and its cases.

    Raises:
        ValueError: when a case has no history or no relevant item, when a relevant item
            is in its history or may not be ranked, or when the lists do not fit together.
    """

    name: str
    """Short and unique among the splits of one report: ``time``, ``cold``, …"""
    train: list[IntArray]
    """One sequence (oldest first) or basket each; training interactions only. Splits that
    share their training share this very list, so that a model is trained once for both."""
    cases: list[Case]
    candidates: BoolArray
    """(n_items,) True where an item is ranked."""
    description: str
    """How it was made, in one or two sentences for the report."""
    train_timestamps: list[IntArray] | None = None
    """Epoch seconds, parallel to ``train``; None when the data have no time."""

    def __post_init__(self) -> None:
        if self.train_timestamps is not None and [len(row) for row in self.train] != [
            len(row) for row in self.train_timestamps
        ]:
            raise ValueError(f"split {self.name}: train and train_timestamps differ in length")
        for number, case in enumerate(self.cases):
            if len(case.history) == 0 or len(case.relevant) == 0:
                raise ValueError(f"split {self.name}: case {number} lacks history or truth")
            if not self.candidates[case.relevant].all():
                raise ValueError(f"split {self.name}: case {number} has truth that is not ranked")
            if np.isin(case.relevant, case.history).any():
                raise ValueError(f"split {self.name}: case {number} has its truth in its history")

    @property
    def n_items(self) -> int:
        """Number of items of the catalogue, ranked or not."""
        return len(self.candidates)


class Ranker(Protocol):
    """Anything that scores the whole catalogue for a history."""

    @property
    def name(self) -> str:
        """Return its name in the report."""
        ...

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """Score every item for each history, higher is better.

        Args:
            histories: B arrays of item indices, oldest first.

        Returns:
            (B, n_items) float32 without NaN. Items of the history and items that may not
            be ranked are taken out by the caller.
        """
        ...


@dataclass(frozen=True)
class Metrics:
    """The metrics of one ranker on one split.

    Recall, NDCG, hit rate, MRR, novelty, popularity and head share are means over the
    cases; coverage and Gini belong to all the lists together. By cut-off K, except MRR.
    """

    ranker: str
    split: str
    cases: int
    recall: Mapping[int, float]
    ndcg: Mapping[int, float]
    mrr: float
    coverage: Mapping[int, float]
    hit_rate: Mapping[int, float] = field(default_factory=dict)
    novelty: Mapping[int, float] = field(default_factory=dict)
    """Bits."""
    popularity: Mapping[int, float] = field(default_factory=dict)
    """Average recommendation popularity, a share of the training sequences."""
    head_share: Mapping[int, float] = field(default_factory=dict)
    gini: Mapping[int, float] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """95 %, by metric (``NDCG@10``); those of too few groups are left out."""
    per_case: Mapping[str, FloatArray] = field(repr=False, compare=False, default_factory=dict)
    """(cases,) by metric, for paired comparisons."""
    groups: IntArray = field(
        repr=False, compare=False, default_factory=lambda: np.empty(0, dtype=np.int64)
    )
    """(cases,) which of them depend on each other."""
