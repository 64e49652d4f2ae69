"""One success metric at one look: the confidence sequence, and what it says."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from newshelf.rollout.metrics import METRICS, compare
from newshelf.rollout.metrics.preference import preference
from newshelf.rollout.plan import Plan, SuccessMetric
from newshelf.rollout.power import needed_information
from newshelf.rollout.sequential import half_width, p_value
from newshelf.rollout.totals import Observation

__all__ = ["MetricResult", "Verdict", "measure_all"]

Verdict = Literal["better", "worse", "undecided", "unknown"]


@dataclass(frozen=True)
class MetricResult:
    """A metric in both variants."""

    metric: str
    direction: str
    control: float
    """The metric there, after CUPED; nan while unknown. Of ``preference``, 1/2."""
    challenger: float
    effect: float
    """challenger / control - 1; of ``preference``, its distance from 1/2."""
    low: float
    """Lower end of the confidence sequence of the effect."""
    high: float
    p: float
    """Anytime-valid, of "no effect"; 1 while unknown."""
    verdict: Verdict
    """``better`` when the sequence lies above the margin (below it, for a decrease), ``worse``
    when it lies on the other side, ``unknown`` while there are too few units that did it."""
    silent: bool
    """Whether nobody did it in either variant."""
    information: float
    """1 / variance, so far."""
    planned_information: float
    """At which the minimum effect is found with the planned power."""


def measure_all(plan: Plan, observation: Observation) -> list[MetricResult]:
    """Every success metric of the plan, in its order."""
    alpha = plan.alpha / len(plan.success)
    return [_measure(one, plan, observation, alpha) for one in plan.success]


def _measure(
    success: SuccessMetric, plan: Plan, observation: Observation, alpha: float
) -> MetricResult:
    scale = _POINTS if success.metric == "preference" else _LOGARITHM
    sign = -1 if success.direction == "decrease" else 1
    wanted = abs(scale.inward(sign * success.minimum_effect))
    margin = abs(scale.inward(-success.margin))
    planned = needed_information(wanted + margin, alpha=alpha, power=plan.power)
    estimate = scale.estimate(success, observation)
    silent = scale.silent(success, observation)
    if estimate is None:
        return _unknown(success, silent, planned)
    information = 1 / estimate.variance
    width = half_width(estimate.variance, information, tuned_at=planned, alpha=alpha)
    low, high = estimate.value - width, estimate.value + width
    worst, best = sorted((sign * low, sign * high))
    return MetricResult(
        success.metric,
        success.direction,
        estimate.control,
        estimate.challenger,
        effect=scale.outward(estimate.value),
        low=scale.outward(low),
        high=scale.outward(high),
        p=p_value(estimate.value, estimate.variance, information, tuned_at=planned, alpha=alpha),
        verdict="better" if worst > -margin else "worse" if best < -margin else "undecided",
        silent=silent,
        information=information,
        planned_information=planned,
    )


def _unknown(success: SuccessMetric, silent: bool, planned: float) -> MetricResult:
    return MetricResult(
        success.metric,
        success.direction,
        control=math.nan,
        challenger=math.nan,
        effect=math.nan,
        low=-math.inf,
        high=math.inf,
        p=1.0,
        verdict="unknown",
        silent=silent,
        information=0.0,
        planned_information=planned,
    )


@dataclass(frozen=True)
class _Estimate:
    """``value`` is on the scale on which it is nearly normal, and 0 means no effect."""

    control: float
    challenger: float
    value: float
    variance: float


@dataclass(frozen=True)
class _Scale:
    """How effects are told, how they are computed with, and from what."""

    inward: Callable[[float], float]
    outward: Callable[[float], float]
    estimate: Callable[[SuccessMetric, Observation], _Estimate | None]
    silent: Callable[[SuccessMetric, Observation], bool]


def _lift(success: SuccessMetric, seen: Observation) -> _Estimate | None:
    if not {"control", "challenger"} <= seen.totals.keys():
        return None
    lift = compare(METRICS[success.metric], seen.totals["control"], seen.totals["challenger"])
    if lift is None:
        return None
    return _Estimate(lift.control, lift.challenger, lift.log, lift.variance)


def _no_action(success: SuccessMetric, seen: Observation) -> bool:
    metric = METRICS[success.metric]
    return not any(metric.columns(totals)[0].any() for totals in seen.totals.values())


def _credits(_: SuccessMetric, seen: Observation) -> _Estimate | None:
    found = preference(seen.credits)
    return None if found is None else _Estimate(0.5, found[0], found[0] - 0.5, found[1])


def _no_credit(_: SuccessMetric, seen: Observation) -> bool:
    return not any(one.any() for one in seen.credits.values())


_LOGARITHM = _Scale(math.log1p, math.expm1, _lift, _no_action)
_POINTS = _Scale(float, float, _credits, _no_credit)
