"""One metric in both variants: the relative lift, and how well it is known."""

import math
from dataclasses import dataclass

import numpy as np

from newshelf.rollout.metrics.capping import capped
from newshelf.rollout.metrics.cuped import Sample, adjusted_ratios
from newshelf.rollout.metrics.delta import log_lift
from newshelf.rollout.metrics.metric import Metric
from newshelf.rollout.off_policy import effective_sample_size
from newshelf.rollout.totals import UnitTotals

__all__ = ["LEAST_ACTIVE_UNITS", "Lift", "compare"]

LEAST_ACTIVE_UNITS = 30
"""Of each variant, whose numerator is not 0. A sum of fewer is not yet near a normal, on which
all intervals here rest; fewer are compared by their number (``results``)."""


@dataclass(frozen=True)
class Lift:
    """How much more the challenger has, and the variance of that."""

    control: float
    """The metric there, after capping and CUPED."""
    challenger: float
    log: float
    """ln(challenger / control)."""
    variance: float
    """Squared standard error of ``log``."""
    effective_units: float
    """Of the variant with fewer: equal units that would say as much (Kish). A ratio that is one
    unit's has hardly any spread: it looks certain, and is not."""
    capped: int = 0
    """Units that count for less than they have."""

    @property
    def relative(self) -> float:
        """Challenger / control - 1; inf where that is more than a float holds."""
        return relative(self.log)


def relative(log: float) -> float:
    """A lift from its logarithm; inf where it is more than a float holds."""
    try:
        return math.expm1(log)
    except OverflowError:
        return math.inf


def compare(
    metric: Metric, control: UnitTotals, challenger: UnitTotals, *, cap_quantile: float = 1.0
) -> Lift | None:
    """The lift of ``challenger`` over ``control``; None while too little is known.

    Args:
        metric: what is compared.
        control: its units.
        challenger: its units.
        cap_quantile: see ``capping.cap_of``.

    Returns:
        None with fewer than ``LEAST_ACTIVE_UNITS`` active units, without variance, or with sums
        that are too large.

    Raises:
        ValueError: a count is not a number.
    """
    samples = [_sample(metric, totals) for totals in (control, challenger)]
    if any((sample.top != 0).sum() < LEAST_ACTIVE_UNITS for sample in samples):
        return None
    with np.errstate(all="ignore"):
        samples, number = capped(samples, cap_quantile)
        (a, a_var), (b, b_var) = adjusted_ratios(*samples)
        if not (0 < a < math.inf and 0 < b < math.inf):
            return None
        log, variance = log_lift(a, a_var, b, b_var)
        if not 0 < variance < math.inf:
            return None
        weights = [column for sample in samples for column in (sample.top, sample.bottom)]
        effective = min(map(effective_sample_size, weights))
    return Lift(a, b, float(log), float(variance), effective, number)


def _sample(metric: Metric, totals: UnitTotals) -> Sample:
    top, bottom = metric.columns(totals)
    return Sample(top, bottom, metric.covariates(totals))
