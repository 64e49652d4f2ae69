"""Metrics of a rollout and the estimate of their effect.

A metric is a ratio of sums over units. Three corrections are applied to a pair of variants:

*Capping.* Each unit counts for at most a quantile of the units of both variants: a winsorised
mean (Dixon 1960; Tukey 1962). A monitor that sends requests all day, anonymous visitors under
one id, or an order in cents instead of euros would otherwise have more weight than thousands of
shoppers. Both variants have the same cap, so equal variants stay equal.

*Delta method.* The variance of a ratio of sums, since denominators vary too.

*CUPED* (Deng, Xu, Kohavi & Walker 2013, "Improving the sensitivity of online controlled
experiments by utilizing pre-experiment data"). A ratio is first made linear, one number per unit
(Deng et al. 2018; Budylin et al. 2018)::

    R = Σ t / Σ b,   ℓ_i = (t_i - R·b_i) / mean(b),   Var(R) = Var(ℓ)/n

Then, with the covariates x and θ of the least squares of ℓ on x within the variants::

    R' = R - θ·(mean_variant(x) - mean_both(x)),   Var(R') = Var(ℓ - θ·x)/n

x is measured before assignment, so it differs between variants by chance alone, and R' is as
unbiased as R. Without covariates R' is R. With little data the shift may be as large as R itself;
effects are ratios, and a mean near zero has none, so R is not adjusted if R' is below half of R
or above twice R.

*Preference* is the metric of interleaved answers: the challenger's share of clicks. A click is
credited to the team that drafted the product (Radlinski, Kurup & Joachims 2008). Clicks of one
shopper are correlated, so shoppers are counted::

    preference = Σ c_challenger / Σ (c_challenger + c_control),   1/2 for equal rankings

with the variance of a ratio (delta method).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from newshelf.rollout.off_policy import effective_sample_size
from newshelf.store.records import Floats, UnitTotals

Count = Literal["requests", "shown", "clicks", "purchases", "revenue", "ndcg", "ndcg_requests"]
"""A column of ``UnitTotals``."""


@dataclass(frozen=True)
class Metric:
    """Σ numerator / Σ denominator over the units of a variant."""

    name: str
    numerator: Count
    denominator: Count | None
    """None: the number of units."""

    def columns(self, totals: UnitTotals) -> tuple[Floats, Floats]:
        """Return numerator and denominator, ``(units,)`` each."""
        top: Floats = getattr(totals, self.numerator)
        bottom = (
            np.ones(len(totals)) if self.denominator is None else getattr(totals, self.denominator)
        )
        return top, bottom

    def covariates(self, totals: UnitTotals) -> Floats:
        """Return ``(units, covariates)``: the counts before the rollout, and whether the unit was
        known then, since a new shopper's zero is different.
        """
        names = [name for name in (self.numerator, self.denominator) if name is not None]
        before = [totals.before[name] for name in names if name in totals.before]
        if "requests" in totals.before:
            before.append((totals.before["requests"] > 0).astype(np.float64))
        return np.column_stack(before) if before else np.empty((len(totals), 0))


CTR = Metric("ctr", numerator="clicks", denominator="shown")
"""Click-through rate: Σ clicks / Σ shown products."""
CVR = Metric("cvr", numerator="purchases", denominator="requests")
"""Conversion rate: Σ purchases / Σ answers with a product.

Not per click, as it is often defined: a version that earns more clicks would appear worse."""
NDCG = Metric("ndcg", numerator="ndcg", denominator="ndcg_requests")
"""Σ NDCG of the clicked positions / Σ answers with a click.

Answers without a click say nothing about order. A version that earns additional clicks changes
which answers count; read it together with the click-through rate."""
REVENUE_PER_UNIT = Metric("revenue_per_unit", numerator="revenue", denominator=None)
"""Σ revenue / units, in the shop's currency, including units without a purchase."""
Number = TypeVar("Number", float, NDArray[np.float64])


def ratio_variance(
    top: Number, bottom: Number, top_var: Number, bottom_var: Number, covariance: Number
) -> Number:
    """Return the variance of one unit's part in Σ top / Σ bottom; divide it by the units.

    Units are independent, but the products shown to one unit are not, so the denominator varies
    too (delta method; Deng, Knoblich & Lu 2018, arXiv:1803.06336, eq. 4). With the means and
    variances over the units of numerator t and denominator b, and their covariance σ_tb, of any
    shape::

        σ_t²/μ_b² - 2·μ_t·σ_tb/μ_b³ + μ_t²·σ_b²/μ_b⁴
    """
    return top_var / bottom**2 - 2 * top * covariance / bottom**3 + top**2 * bottom_var / bottom**4


def log_lift(
    control: Number, control_var: Number, challenger: Number, challenger_var: Number
) -> tuple[Number, Number]:
    """Return the logarithm of challenger / control and its variance.

    With control a and challenger b above 0, and their squared standard errors, of any shape::

        ln(b/a),   Var(a)/a² + Var(b)/b²

    GrowthBook's interval of the relative lift b/a - 1 has the variance Var(b)/a² +
    Var(a)·b²/a⁴, which is (b/a)² times this one, so a challenger that is low by chance seems to be
    known better than one that is high. With frequent looks and few, skewed purchases that called
    8 % of equal challengers worse, and 30 % when it began with a handful of buyers. The logarithm
    is symmetric (Katz et al. 1978), and a lift of less than -100 % is impossible.
    """
    variance = control_var / control**2 + challenger_var / challenger**2
    return np.log(challenger / control), variance


_LEAST_KEPT = 0.5
"""Of the unadjusted ratio."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Numerator, denominator ``(units,)`` and covariates ``(units, c)`` of one variant."""

    top: Floats
    bottom: Floats
    before: Floats


def adjusted_ratios(control: Sample, challenger: Sample) -> list[tuple[float, float]]:
    """Return adjusted ratio and variance (squared standard error) of control and challenger.

    Both have the same covariates, at least two units, and denominators with a sum other than 0.
    """
    samples = (control, challenger)
    ratios = [float(sample.top.sum() / sample.bottom.sum()) for sample in samples]
    linear = [
        (sample.top - ratio * sample.bottom) / sample.bottom.mean()
        for sample, ratio in zip(samples, ratios, strict=True)
    ]
    theta = _theta([sample.before for sample in samples], linear)
    found = _shifted(samples, ratios, linear, theta)
    kept = [value / ratio for (value, _), ratio in zip(found, ratios, strict=True)]
    if all(_LEAST_KEPT < share < 1 / _LEAST_KEPT for share in kept):
        return found
    return _shifted(samples, ratios, linear, np.zeros_like(theta))


def _shifted(
    samples: Sequence[Sample], ratios: Sequence[float], linear: Sequence[Floats], theta: Floats
) -> list[tuple[float, float]]:
    grand = np.concatenate([sample.before for sample in samples]).mean(axis=0)
    found = []
    for sample, ratio, parts in zip(samples, ratios, linear, strict=True):
        adjusted = parts - sample.before @ theta
        shift = float((sample.before.mean(axis=0) - grand) @ theta)
        found.append((ratio - shift, float(adjusted.var(ddof=1)) / len(adjusted)))
    return found


def _theta(covariates: list[Floats], linear: list[Floats]) -> Floats:
    """Return ``(c,)`` least squares within the variants; 0 for constant covariates."""
    x = np.concatenate([one - one.mean(axis=0) for one in covariates])
    y = np.concatenate([one - one.mean() for one in linear])
    if x.shape[1] == 0:
        return np.zeros(0)
    scale = x.std(axis=0)
    varies = scale > 0
    theta = np.zeros(x.shape[1])
    # Counts and revenue differ by orders of magnitude, so columns are scaled first.
    solved, *_ = np.linalg.lstsq(x[:, varies] / scale[varies], y, rcond=None)
    theta[varies] = solved / scale[varies]
    return theta


_MOST_OF_ACTIVE = 0.05
"""Of the active units. If hardly anybody buys, the 99.9 % quantile of all units is an ordinary
purchase, or none at all."""


def cap_of(values: Floats, quantile: float) -> float:
    """Return a value with a share of ``1 - quantile`` above it; infinite for a quantile of 1.

    ``values`` ``(units,)`` are those of all variants together, not negative. At least one unit is
    above, but no more than a twentieth of the active units. Raises ``ValueError`` for NaN.
    """
    if np.isnan(values).any():
        raise ValueError("a unit's count is not a number")
    active = int((values > 0).sum())
    above = min(int((1 - quantile) * len(values) + 1e-9), int(_MOST_OF_ACTIVE * active))
    above = max(above, 1)
    if quantile >= 1 or active <= above:
        return np.inf
    place = len(values) - above - 1
    return float(np.partition(values, place)[place])


def capped(samples: Sequence[Sample], quantile: float) -> tuple[list[Sample], int]:
    """Cap the units of all variants at the same values; return them and how many are capped.

    A unit whose denominator is above the cap keeps its ratio: its numerator shrinks too. Then
    numerators and covariates are capped.
    """
    most_bottom = cap_of(np.concatenate([one.bottom for one in samples]), quantile)
    # A mean's denominators are all 1, never above their cap.
    heavy = [one.bottom > most_bottom for one in samples]
    tops = [
        np.where(over, one.top / np.maximum(one.bottom, 1e-300) * most_bottom, one.top)
        if over.any()
        else one.top
        for one, over in zip(samples, heavy, strict=True)
    ]
    most_top = cap_of(np.concatenate(tops), quantile)
    before = np.concatenate([one.before for one in samples])
    most_before = [cap_of(column, quantile) for column in before.T]
    found = [
        Sample(
            np.minimum(top, most_top),
            np.minimum(one.bottom, most_bottom),
            np.minimum(one.before, most_before) if most_before else one.before,
        )
        for one, top in zip(samples, tops, strict=True)
    ]
    number = sum(
        int((over | (top > most_top)).sum()) for over, top in zip(heavy, tops, strict=True)
    )
    return found, number


LEAST_ACTIVE_UNITS = 30
"""In each variant, with a numerator other than 0. A sum of fewer is not near a normal, which all
intervals here assume; fewer are compared by their number (``metric_results``)."""


@dataclass(frozen=True)
class Effect:
    """The challenger's effect; ``value`` is nearly normal, and 0 without an effect."""

    control: float
    """The metric in control, after capping and CUPED; ``preference``: 1/2."""
    challenger: float
    value: float
    """ln(challenger / control); ``preference``: challenger - control."""
    variance: float
    """Squared standard error of ``value``."""
    effective_units: float
    """Effective sample size of the smaller variant (Kish). A ratio dominated by one unit has
    hardly any spread, and only looks certain."""
    capped: int = 0


def relative(log: float) -> float:
    """Return a lift from its logarithm; inf beyond the range of a float."""
    try:
        return math.expm1(log)
    except OverflowError:
        return math.inf


def compare(
    metric: Metric, control: UnitTotals, challenger: UnitTotals, *, cap_quantile: float = 1.0
) -> Effect | None:
    """Return the lift of ``challenger`` over ``control``; ``ValueError`` if a count is NaN.

    None with fewer than ``LEAST_ACTIVE_UNITS`` active units, without variance, or with sums that
    are too large.
    """
    samples = [
        Sample(*metric.columns(totals), metric.covariates(totals))
        for totals in (control, challenger)
    ]
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
    return Effect(a, b, float(log), float(variance), effective, number)


METRICS = {metric.name: metric for metric in (CTR, CVR, REVENUE_PER_UNIT, NDCG)}
"""By the name in a plan."""


def preference(
    by_team: Mapping[str, NDArray[np.float64]], *, cap_quantile: float = 1.0
) -> Effect | None:
    """Return the effect on the challenger's share of the credits.

    ``by_team`` are ``(units,)`` clicked products that each team drafted; the clicks of one shopper
    are capped. None and ``ValueError`` as of ``compare``.
    """
    if not by_team:
        return None
    won = by_team["challenger"]
    with np.errstate(all="ignore"):
        clicked = won + by_team["control"]
    if (clicked > 0).sum() < LEAST_ACTIVE_UNITS:
        return None
    with np.errstate(all="ignore"):
        most = cap_of(clicked, cap_quantile)
        heavy = clicked > most
        # Each shopper's share stays: capping the challenger's clicks alone would favour control.
        won = np.where(heavy, won / np.maximum(clicked, 1) * most, won)
        clicked = np.minimum(clicked, most)
        moments = np.cov(won, clicked)
        variance = ratio_variance(
            float(won.mean()),
            float(clicked.mean()),
            float(moments[0, 0]),
            float(moments[1, 1]),
            float(moments[0, 1]),
        ) / len(won)
        share = float(won.sum() / clicked.sum())
        effective = effective_sample_size(clicked)
    if not (0 < variance < math.inf and 0 <= share <= 1):
        return None
    return Effect(0.5, share, share - 0.5, variance, effective)
