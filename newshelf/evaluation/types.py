"""Types that splits, rankers and reports share. An item index is a row of ``catalog.items``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from newshelf.catalog.interactions import Sequences
from newshelf.files import StrictModel

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Interval = tuple[float, float]
"""Lower and upper end."""


@dataclass(frozen=True, eq=False)
class Case:
    """A history, and the items that a ranker should find for it."""

    history: IntArray
    """(H,) distinct item indices, oldest first; H ≥ 1. Never ranked."""
    relevant: IntArray
    """(R,) distinct item indices to be found; R ≥ 1, none of them in ``history``."""
    group: int | None = None
    """Cases of one group (a scene, a shopper) depend on each other, so intervals and tests
    resample them together; None is a separate group."""


@dataclass(frozen=True, eq=False)
class Split:
    """Training data and test cases."""

    name: str
    """Unique in a report: ``time``, ``cold``, …"""
    train: Sequences
    """Splits with the same training data share this object: a model is trained once for both."""
    cases: list[Case]
    candidates: BoolArray
    """(n_items,) True where an item is ranked."""
    description: str
    """The protocol in one or two sentences, for the report."""

    def __post_init__(self) -> None:
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
    """A model that scores all items for a history."""

    @property
    def name(self) -> str:
        """Return its name in the report."""
        ...

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """Return (B, n_items) float32 without NaN for B histories, oldest first; higher is better.

        The caller masks the history and items that are no candidates.
        """
        ...


@dataclass(frozen=True)
class Metrics:
    """Metrics of one ranker on one split.

    Coverage and Gini describe all lists together; the others are means over the cases.
    """

    ranker: str
    split: str
    cases: int
    values: Mapping[str, float]
    """By metric and cut-off: ``Recall@10``, ``NDCG@10``, ``HitRate@10``, ``Novelty@10`` in bits,
    ``ARP@10`` (average popularity, a share of the training sequences), ``Head@10``,
    ``Coverage@10``, ``Gini@10``; and ``MRR``."""
    intervals: Mapping[str, Interval]
    """95 %, as ``values``; absent with too few groups."""
    per_case: Mapping[str, FloatArray] = field(repr=False, compare=False)
    """(cases,) by metric, for paired comparisons."""
    groups: IntArray = field(repr=False, compare=False)
    """(cases,) group numbers."""
    top: IntArray = field(repr=False, compare=False)
    """(cases, K) listed items at the first cut-off, best first; -1 for an empty place."""


class Compared(StrictModel):
    """NDCG of both versions on the same cases."""

    name: str
    cases: int
    served: float
    candidate: float
    interval: Interval | None
    """95 % of candidate - served; None with too few cases."""
    p_value: float


class GateResult(StrictModel):
    """Decision of the gate and what it is based on."""

    passed: bool
    reason: str
    split: str
    compared: tuple[Compared, ...]
    """All cases, then those of new products, if there are any."""
