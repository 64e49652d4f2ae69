"""The model beside the best baseline of one split."""

from dataclasses import dataclass

import numpy as np

from newshelf.evaluation.bootstrap import MIN_GROUPS, draws, group_sums
from newshelf.evaluation.paired import PairedTest, paired_test
from newshelf.evaluation.types import Interval, Metrics

__all__ = ["Comparison"]


@dataclass(frozen=True)
class Comparison:
    """All rankers on the same cases of one split.

    Raises:
        ValueError: without a baseline.
    """

    split: str
    description: str
    k: tuple[int, ...]
    items: int
    """Items that were ranked."""
    baselines: tuple[Metrics, ...]
    model: Metrics | None = None
    questions: str = ""
    """Equal in two reports that asked the same, so that their cases can be paired."""

    def __post_init__(self) -> None:
        if not self.baselines:
            raise ValueError(f"split {self.split}: a comparison needs a baseline")

    @property
    def rows(self) -> tuple[Metrics, ...]:
        """Baselines in their order, then the model."""
        return self.baselines if self.model is None else (*self.baselines, self.model)

    @property
    def cases(self) -> int:
        """Number of cases; the same for all rows."""
        return self.baselines[0].cases

    @property
    def best_baseline(self) -> Metrics:
        """The baseline with the highest NDCG at the first cut-off."""
        return max(self.baselines, key=lambda row: row.ndcg[self.k[0]])

    @property
    def ratio(self) -> float | None:
        """NDCG of the model / NDCG of the best baseline, at the first cut-off.

        None without a model, or when no baseline found anything.
        """
        best = self.best_baseline.ndcg[self.k[0]]
        if self.model is None or best == 0:
            return None
        return self.model.ndcg[self.k[0]] / best

    def ratio_interval(self, seed: int = 0) -> Interval | None:
        """95 % interval of :attr:`ratio`, by paired bootstrap over the groups of cases.

        It tells how much the ratio owes to these cases, not to the seed of the training. The
        best baseline is not chosen anew in each resample. None with too few groups.
        """
        groups = self.best_baseline.groups
        if self.model is None or self.ratio is None or groups.max() + 1 < MIN_GROUPS:
            return None
        name = f"NDCG@{self.k[0]}"
        pair = np.stack([self.model.per_case[name], self.best_baseline.per_case[name]])
        sums = group_sums(pair.astype(np.float64), groups)
        model, baseline = sums @ draws(sums.shape[1], seed=seed).T
        found = baseline > 0
        low, high = np.quantile(model[found] / baseline[found], [0.025, 0.975])
        return float(low), float(high)

    def test(self, metric: str | None = None) -> PairedTest | None:
        """The model against the best baseline; None without a model.

        Args:
            metric: such as ``Recall@10``; None is NDCG at the first cut-off.
        """
        if self.model is None:
            return None
        name = metric or f"NDCG@{self.k[0]}"
        return paired_test(
            self.model.per_case[name], self.best_baseline.per_case[name], self.model.groups
        )
