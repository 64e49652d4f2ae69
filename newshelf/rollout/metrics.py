"""What is compared between variants: one metric per file, each from the totals of units.

A metric: the sum of one thing over the sum of another, or per unit.

Click-through rate: clicked products of the shown ones.

Conversion rate: purchases for each answer.

Not for each click, as it is often defined: a version that earns more clicks would lower that
share with every shopper whom it wins, and be called worse for it.

Online NDCG: how far up in the answers the clicks are.

Answers without a click say nothing about order, and are left out. A version that earns clicks
where there were none changes which answers count; read it beside the click-through rate.

Revenue for each unit, those that bought nothing included.

The delta method: variances of ratios, from the moments of what they are made of.

All functions take any shape, one element per variant, rollout or look.

CUPED: what is known of a unit from before the rollout takes its noise out.

Deng, Xu, Kohavi & Walker (2013), "Improving the sensitivity of online controlled experiments by
utilizing pre-experiment data". A ratio is first made linear, one number per unit (Deng et al.
2018; Budylin et al. 2018)::

    R = Σ t / Σ b,   ℓ_i = (t_i - R·b_i) / mean(b),   Var(R) = Var(ℓ)/n

Then, with the covariates x and θ of the least squares of ℓ on x within the variants::

    R' = R - θ·(mean_variant(x) - mean_both(x)),   Var(R') = Var(ℓ - θ·x)/n

x was measured before anybody was assigned, so it differs between variants by chance alone, and
R' is as unbiased as R. Without covariates R' is R.

Where little is known, the shift may be as large as R itself. Effects are judged as a ratio, and
of a mean near zero there is none, so R is left as it is where R' is below half of it, or above
twice.

Caps what one unit counts for, so that no single one decides a metric.

A monitor that asks all day, everybody who is not logged in under one id, or one order in cents
instead of euros has more weight than thousands of shoppers, and a variance that hides every
effect. So each unit counts for at most as much as a quantile of the units has, pooled over both
variants: a winsorised mean (Dixon 1960; Tukey 1962), as experimentation platforms cap by
percentile. Both variants have the same cap, so equal variants stay equal.

One metric in both variants: the relative lift, and how well it is known.

Which ranking shoppers click in when both are interleaved: the challenger's share of clicks.

Radlinski, Kurup & Joachims (2008) credit a click to the team that drafted the product. Clicks
of one shopper resemble each other, so shoppers, not answers, are what is counted::

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
from newshelf.store.records import UnitTotals

Floats = NDArray[np.float64]
Count = Literal["requests", "shown", "clicks", "purchases", "revenue", "ndcg", "ndcg_requests"]
"""A column of ``UnitTotals``."""


@dataclass(frozen=True)
class Metric:
    """Σ numerator / Σ denominator over the units of a variant."""

    name: str
    numerator: Count
    denominator: Count | None
    """None divides by the number of units: a mean."""

    def columns(self, totals: UnitTotals) -> tuple[Floats, Floats]:
        """Numerator and denominator, ``(units,)`` each."""
        top: Floats = getattr(totals, self.numerator)
        bottom = (
            np.ones(len(totals)) if self.denominator is None else getattr(totals, self.denominator)
        )
        return top, bottom

    def covariates(self, totals: UnitTotals) -> Floats:
        """``(units, covariates)``: the same counts before the rollout, and whether the unit was
        known then, since a zero of a new shopper is another zero.
        """
        names = [name for name in (self.numerator, self.denominator) if name is not None]
        before = [totals.before[name] for name in names if name in totals.before]
        if "requests" in totals.before:
            before.append((totals.before["requests"] > 0).astype(np.float64))
        return np.column_stack(before) if before else np.empty((len(totals), 0))


CTR = Metric("ctr", numerator="clicks", denominator="shown")
"""Σ clicks / Σ shown products."""


CVR = Metric("cvr", numerator="purchases", denominator="requests")
"""Σ purchases / Σ answers that showed something."""


NDCG = Metric("ndcg", numerator="ndcg", denominator="ndcg_requests")
"""Σ NDCG of the clicked positions / Σ answers with a click."""


REVENUE_PER_UNIT = Metric("revenue_per_unit", numerator="revenue", denominator=None)
"""Σ revenue / units, in the shop's currency."""


Number = TypeVar("Number", float, NDArray[np.float64])


def ratio_variance(
    top: Number, bottom: Number, top_var: Number, bottom_var: Number, covariance: Number
) -> Number:
    """Variance of one unit's part in Σ top / Σ bottom; divide it by the units.

    Units are independent, but the products shown to one of them are not, so the denominator
    varies too (Deng, Knoblich & Lu 2018, arXiv:1803.06336, eq. 4)::

        σ_t²/μ_b² - 2·μ_t·σ_tb/μ_b³ + μ_t²·σ_b²/μ_b⁴

    Args:
        top: mean of the numerator over the units, μ_t.
        bottom: mean of the denominator, μ_b, not 0.
        top_var: variance of the numerator, σ_t².
        bottom_var: variance of the denominator, σ_b².
        covariance: of both, σ_tb.
    """
    return top_var / bottom**2 - 2 * top * covariance / bottom**3 + top**2 * bottom_var / bottom**4


def log_lift(
    control: Number, control_var: Number, challenger: Number, challenger_var: Number
) -> tuple[Number, Number]:
    """Logarithm of challenger / control, and its variance.

    ::

        ln(b/a),   Var(a)/a² + Var(b)/b²

    GrowthBook's interval of the relative lift b/a - 1 has the variance Var(b)/a² +
    Var(a)·b²/a⁴, which is (b/a)² times this one: a challenger that is low by chance seems to be
    known better than one that is high. Looked at often, with few and skewed purchases, that
    called 8 % of equal challengers worse, and 30 % where it was begun with a handful of buyers.
    The logarithm treats both alike (Katz et al. 1978), and its limits make a lift of less than
    -100 % impossible.

    Args:
        control: a, the metric in control, above 0.
        control_var: squared standard error of a.
        challenger: b, above 0.
        challenger_var: squared standard error of b.
    """
    variance = control_var / control**2 + challenger_var / challenger**2
    return np.log(challenger / control), variance


_LEAST_KEPT = 0.5
"""Of the unadjusted ratio."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One variant: numerator, denominator ``(units,)`` and covariates ``(units, c)``."""

    top: Floats
    bottom: Floats
    before: Floats


def adjusted_ratios(control: Sample, challenger: Sample) -> list[tuple[float, float]]:
    """Adjusted ratio and its variance (squared standard error): of control, then challenger.

    Args:
        control: at least two units, whose denominators do not sum up to 0.
        challenger: likewise, with the same covariates.
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
    """(c,) least squares within the variants; 0 for covariates that do not vary."""
    x = np.concatenate([one - one.mean(axis=0) for one in covariates])
    y = np.concatenate([one - one.mean() for one in linear])
    if x.shape[1] == 0:
        return np.zeros(0)
    scale = x.std(axis=0)
    varies = scale > 0
    theta = np.zeros(x.shape[1])
    # Counts and revenue differ by magnitudes, so columns are scaled before they are solved for.
    solved, *_ = np.linalg.lstsq(x[:, varies] / scale[varies], y, rcond=None)
    theta[varies] = solved / scale[varies]
    return theta


_MOST_OF_ACTIVE = 0.05
"""Of the units that have any. Where hardly anybody buys, the 99.9 % quantile of all units is the
purchase of an ordinary buyer, or none at all."""


def cap_of(values: Floats, quantile: float) -> float:
    """The most that a unit counts for.

    Args:
        values: ``(units,)`` of all variants together, not negative.
        quantile: share of the units that keep what they have; 1 caps none.

    Returns:
        A value such that the share above it is ``1 - quantile``, and at least one unit, but no
        more than a twentieth of those that have any.

    Raises:
        ValueError: a value is not a number.
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
    """Cap both variants' units alike.

    A unit whose denominator is above the cap keeps its ratio: its numerator shrinks along. Then
    numerators and covariates are capped.

    Args:
        samples: of all variants.
        quantile: see :func:`cap_of`.

    Returns:
        The samples, and how many units were capped.

    Raises:
        ValueError: a value is not a number.
    """
    most_bottom = cap_of(np.concatenate([one.bottom for one in samples]), quantile)
    # A mean's denominators are all 1, and are never above their cap.
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


METRICS = {metric.name: metric for metric in (CTR, CVR, REVENUE_PER_UNIT, NDCG)}
"""By the name that a plan gives them."""


def preference(
    by_team: Mapping[str, NDArray[np.float64]], *, cap_quantile: float = 1.0
) -> tuple[float, float] | None:
    """The challenger's share of the credits, and its variance.

    Args:
        by_team: ``(units,)`` clicked products that it had drafted.
        cap_quantile: see ``capping.cap_of``; of the clicks of one shopper.

    Returns:
        None with fewer than ``LEAST_ACTIVE_UNITS`` shoppers who clicked, without variance, or
        with numbers that are too large.

    Raises:
        ValueError: a number of clicks is not a number.
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
        # The share of one's clicks stays: capping the challenger's alone would favour control.
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
    return (share, variance) if 0 < variance < math.inf and 0 <= share <= 1 else None
