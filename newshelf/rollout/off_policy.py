"""Off-policy estimate: the reward of a new version from exposures of another one.

Each row is one shown product with its reward r, its propensity p (probability of this product at
this position) and its probability π under the new version. With w = π / p, the self-normalised
estimate (SNIPS, Swaminathan & Joachims 2015) is Σ w·r / Σ w.

A deterministic ranker has only propensities 0 and 1, and its rows carry no information about other
choices. Exposures of a rollout (two versions by chance) or of interleaving do. Rows are weighted
by item and position, as in Li et al. 2018 (arXiv:1804.10488): other positions are assumed to have
no influence.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from newshelf.errors import EvidenceError
from newshelf.store.records import Exposure, Floats

_ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class LoggedRows:
    """Shown products, ``(rows,)`` each."""

    reward: Floats
    propensity: Floats
    """In (0, 1]."""
    target: Floats
    """π: probability of the same product at the same position under the new version, in [0, 1]."""
    unit: NDArray[np.int64]
    """Index of the shopper: rows of one shopper are not independent."""


def drawn_answers(exposures: Iterable[Exposure]) -> list[Exposure]:
    """Return the answers that a draft of two versions put together, or raise ``EvidenceError``.

    Others carry no information: their order was certain once the unit was assigned.
    """
    drawn = [
        one
        for one in exposures
        if one.variant == "interleaved" and not one.fallback and one.kind is None and one.items
    ]
    if not drawn:
        raise EvidenceError(
            "no recorded answer had its products drawn by chance, and only these tell what another "
            "version would have earned: start a rollout with `interleaving: true`"
        )
    return drawn


def shown_products(
    answers: Iterable[tuple[Exposure, Sequence[str]]], rewarded: Set[tuple[str, str]]
) -> LoggedRows:
    """Return the products of drawn answers, for a version that ranks without chance.

    Each answer has the ids that the version would have shown, best first; ``rewarded`` are request
    id and item id of each product that earned the reward.
    """
    units: dict[str, int] = {}
    rows = [
        (
            (answer.request_id, item.item_id) in rewarded,
            item.propensity,
            item.item_id in ranking[item.position - 1 : item.position],
            units.setdefault(answer.unit, len(units)),
        )
        for answer, ranking in answers
        for item in answer.items
    ]
    reward, propensity, target, unit = map(np.array, zip(*rows, strict=True))
    return LoggedRows(reward.astype(np.float64), propensity, target.astype(np.float64), unit)


@dataclass(frozen=True)
class OffPolicyEstimate:
    """Mean reward of a shown product under the new version."""

    value: float
    low: float
    """Lower end of a confidence interval for one look, clustered by shopper."""
    high: float
    effective_rows: float
    """Kish's effective sample size of the weights."""


def effective_sample_size(weights: Floats) -> float:
    """Return (Σ w)² / Σ w², the effective sample size (Kish 1965, sec. 11.7)."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def estimate(rows: LoggedRows, *, least_effective_rows: float = 100.0) -> OffPolicyEstimate:
    """Estimate the mean reward of a shown product under the new version.

    Raises ``EvidenceError`` if the versions differ too much for an estimate.
    """
    weights = rows.target / rows.propensity
    effective = effective_sample_size(weights)
    if effective < least_effective_rows:
        raise EvidenceError(
            f"{len(rows.reward)} rows count as {effective:.0f} for this version, fewer than "
            f"{least_effective_rows:g}: it seldom chooses what was shown. Collect more exposures, "
            "or with larger shares for both versions"
        )
    value = float((weights * rows.reward).sum() / weights.sum())
    # The influence of each row on the value, with mean 0.
    influence = weights * (rows.reward - value) / weights.mean()
    half = ndtri(1 - _ALPHA / 2) * _clustered_error(influence, rows.unit)
    return OffPolicyEstimate(value, value - half, value + half, effective)


def _clustered_error(influence: Floats, unit: NDArray[np.int64]) -> float:
    """Return the standard error of the mean, clustered by shopper.

    ::

        √( G/(G-1) · Σ_g (Σ_{i in g} ψ_i)² ) / n        (Liang & Zeger 1986)
    """
    _, groups = np.unique(unit, return_inverse=True)
    sums = np.bincount(groups, weights=influence)
    n_groups = len(sums)
    if n_groups < 2:  # noqa: PLR2004 - no spread between fewer
        return float("inf")
    return float(np.sqrt(n_groups / (n_groups - 1) * (sums**2).sum()) / len(influence))
