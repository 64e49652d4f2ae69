"""One metric in both variants: the relative lift, and how well it is known."""

import math
from dataclasses import dataclass

from newshelf.rollout.metrics.cuped import Sample, adjusted_ratios
from newshelf.rollout.metrics.delta import log_lift
from newshelf.rollout.metrics.metric import Metric
from newshelf.rollout.totals import UnitTotals

__all__ = ["LEAST_ACTIVE_UNITS", "Lift", "compare"]

LEAST_ACTIVE_UNITS = 30
"""Of each variant, whose numerator is not 0. A sum of fewer is not yet near a normal, on which
all intervals here rest."""


@dataclass(frozen=True)
class Lift:
    """How much more the challenger has, and the variance of that."""

    control: float
    """The metric there, after CUPED."""
    challenger: float
    log: float
    """ln(challenger / control)."""
    variance: float
    """Squared standard error of ``log``."""

    @property
    def relative(self) -> float:
        """Challenger / control - 1."""
        return math.expm1(self.log)


def compare(metric: Metric, control: UnitTotals, challenger: UnitTotals) -> Lift | None:
    """The lift of ``challenger`` over ``control``; None while too little is known."""
    samples = [_sample(metric, totals) for totals in (control, challenger)]
    if any((sample.top != 0).sum() < LEAST_ACTIVE_UNITS for sample in samples):
        return None
    (a, a_var), (b, b_var) = adjusted_ratios(*samples)
    if min(a, b) <= 0 or not a_var + b_var > 0:
        return None
    log, variance = log_lift(a, a_var, b, b_var)
    return Lift(a, b, float(log), variance)


def _sample(metric: Metric, totals: UnitTotals) -> Sample:
    top, bottom = metric.columns(totals)
    return Sample(top, bottom, metric.covariates(totals))
