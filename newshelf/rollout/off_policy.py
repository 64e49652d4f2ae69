"""What a version would have earned, from the record of another one: off-policy estimates.

Each row is one shown product: what it earned (r), the probability with which it was put there
(p, the record's propensity), and the probability with which the new version would have put it
there (π). With w = π / p, over n rows::

    IPS    1/n · Σ w·r                               Horvitz & Thompson 1952
    SNIPS  Σ w·r / Σ w                               Swaminathan & Joachims 2015
    DR     1/n · Σ q(π) + w·(r - q)                  Dudík, Langford & Li 2011 (arXiv:1103.4601)

q is a model's guess of what the shown product earns, q(π) of what the new version's choice
would. DR is unbiased if either p or q is right; here p is known, so q only makes it steadier.

A deterministic ranker has no propensities but 0 and 1, and then no row says anything about
another choice. Exposures of a rollout (a coin between two versions) or of interleaving do.
Rows are weighted item by item at their positions, as in Li et al. 2018 (arXiv:1804.10488): what
the other positions show is taken to have no influence.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from newshelf.errors import EvidenceError

Floats = NDArray[np.float64]
Estimator = Literal["ips", "snips", "doubly_robust"]


@dataclass(frozen=True, eq=False)
class LoggedRows:
    """Shown products of the record, ``(rows,)`` each."""

    reward: Floats
    propensity: Floats
    """In (0, 1]."""
    target: Floats
    """π: the new version's probability of the same product at the same position, in [0, 1]."""
    unit: NDArray[np.int64]
    """Number of the shopper: rows of one shopper are not independent."""

    def __post_init__(self) -> None:
        lengths = {len(self.reward), len(self.propensity), len(self.target), len(self.unit)}
        if len(lengths) > 1:
            raise ValueError(f"columns of {sorted(lengths)} rows do not fit together")
        if not ((self.propensity > 0) & (self.propensity <= 1)).all():
            raise ValueError("a propensity is above 0 and at most 1")
        if not ((self.target >= 0) & (self.target <= 1)).all():
            raise ValueError("a target probability is between 0 and 1")


@dataclass(frozen=True, eq=False)
class RewardModel:
    """What a model expects, fitted on *other* rows, ``(rows,)`` each."""

    shown: Floats
    """q: of the product that was shown."""
    target: Floats
    """q(π): of what the new version would show there, averaged over its choices."""


@dataclass(frozen=True)
class OffPolicyEstimate:
    """The mean reward of a shown product, had the new version chosen."""

    estimator: Estimator
    value: float
    low: float
    """End of a confidence interval for one look, by shopper."""
    high: float
    effective_rows: float
    """Kish's effective sample size of the weights."""
    mean_weight: float
    """Near 1 when the record covers what the new version would show; below 1, it shows products
    that the old one never did, of which nothing is known."""


def effective_sample_size(weights: Floats) -> float:
    """(Σ w)² / Σ w²: as many equal weights would say as much (Kish 1965, sec. 11.7)."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def estimate(
    rows: LoggedRows,
    estimator: Estimator,
    *,
    model: RewardModel | None = None,
    alpha: float = 0.05,
    least_effective_rows: float = 100.0,
) -> OffPolicyEstimate:
    """Estimate what the new version would earn for each shown product.

    Args:
        rows: of the record.
        estimator: ``snips`` when in doubt; ``doubly_robust`` needs a model.
        model: of the reward.
        alpha: of the interval, which is for one look.
        least_effective_rows: with fewer, nothing is said.

    Raises:
        EvidenceError: the versions differ so much that the record says little of the new one.
        ValueError: ``doubly_robust`` without a model, or columns that do not fit.
    """
    weights = rows.target / rows.propensity
    effective = effective_sample_size(weights)
    if effective < least_effective_rows:
        raise EvidenceError(
            f"{len(rows.reward)} rows count as {effective:.0f} for this version, fewer than "
            f"{least_effective_rows:g}: it seldom chooses what was shown. Collect more exposures, "
            "or with larger shares for both versions"
        )
    value, influence = _evaluate(rows, weights, estimator, model)
    half = norm.ppf(1 - alpha / 2) * _clustered_error(influence, rows.unit)
    return OffPolicyEstimate(
        estimator,
        value,
        value - half,
        value + half,
        effective_rows=effective,
        mean_weight=float(weights.mean()),
    )


def _evaluate(
    rows: LoggedRows, weights: Floats, estimator: Estimator, model: RewardModel | None
) -> tuple[float, Floats]:
    """The value, and each row's influence on it, whose mean is 0: ``(rows,)``."""
    if estimator == "ips":
        parts = weights * rows.reward
    elif estimator == "snips":
        value = float((weights * rows.reward).sum() / weights.sum())
        return value, weights * (rows.reward - value) / weights.mean()
    elif model is None:
        raise ValueError("doubly_robust needs a model of the reward")
    else:
        if {len(model.shown), len(model.target)} != {len(rows.reward)}:
            raise ValueError(f"the model's guesses are not for {len(rows.reward)} rows")
        parts = model.target + weights * (rows.reward - model.shown)
    return float(parts.mean()), parts - parts.mean()


def _clustered_error(influence: Floats, unit: NDArray[np.int64]) -> float:
    """Standard error of the mean, when rows of one shopper move together.

    ::

        √( G/(G-1) · Σ_g (Σ_{i in g} ψ_i)² ) / n        (Liang & Zeger 1986)
    """
    _, groups = np.unique(unit, return_inverse=True)
    sums = np.bincount(groups, weights=influence)
    n_groups = len(sums)
    if n_groups < 2:  # noqa: PLR2004 - no spread between fewer
        return float("inf")
    return float(np.sqrt(n_groups / (n_groups - 1) * (sums**2).sum()) / len(influence))
