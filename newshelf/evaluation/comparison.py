"""The model beside the best baseline of one split."""

from dataclasses import dataclass

import numpy as np

from newshelf.evaluation.types import Metrics

__all__ = ["Comparison"]

_RESAMPLES = 1000


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

    def ratio_interval(self, seed: int = 0) -> tuple[float, float] | None:
        """95 % interval of :attr:`ratio`, by paired bootstrap over the cases.

        It tells how much the ratio owes to these cases, not to the seed of the training. The
        best baseline is not chosen anew in each resample.
        """
        if self.model is None or self.ratio is None:
            return None
        first = self.k[0]
        pair = np.stack(
            [self.model.ndcg_per_case[first], self.best_baseline.ndcg_per_case[first]]
        ).astype(np.float64)
        draws = np.random.default_rng(seed).multinomial(
            self.cases, np.full(self.cases, 1 / self.cases), size=_RESAMPLES
        )
        model, baseline = pair @ draws.T
        found = baseline > 0
        low, high = np.quantile(model[found] / baseline[found], [0.025, 0.975])
        return float(low), float(high)
