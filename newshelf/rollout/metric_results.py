"""Verdicts on success metrics.

A metric is judged by its confidence sequence. With fewer than ``LEAST_ACTIVE_UNITS`` converting
units in a variant, units are counted instead: control is as large as the challenger, so if the
versions are equal, each converting unit is the challenger's with a probability of one half. That
is tested exactly at every look, and shows that a challenger without clicks is worse, although a
ratio to zero has no interval. The test assumes only that units are assigned independently.

The level is divided between the tests: ``COUNTS_SHARE`` of it for the counts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from newshelf.rollout.metrics import (
    LEAST_ACTIVE_UNITS,
    METRICS,
    Effect,
    compare,
    preference,
    relative,
)
from newshelf.rollout.plan import Plan, SuccessMetric
from newshelf.rollout.sequential import half_width, log_evidence_above, needed_information, p_value
from newshelf.store.records import Observation

Verdict = Literal["better", "worse", "undecided", "unknown"]
Silence = Literal["", "control", "challenger", "both"]

COUNTS_SHARE = 0.1
"""Of a metric's alpha. Evidence from counts doubles with each unit, so the small share costs three
units, and the sequence keeps nearly all its power."""


@dataclass(frozen=True)
class MetricResult:
    """Result of one success metric at one look."""

    metric: str
    direction: str
    verdict: Verdict
    """``better`` if the sequence lies above the margin (below it, for a decrease), ``worse`` if it
    or the counts lie on the other side; ``unknown`` if it cannot be computed."""
    planned_information: float
    """Information at which the minimum effect is found with the planned power."""
    control: float = math.nan
    """The metric in control, after capping and CUPED; NaN while unknown. ``preference``: 1/2."""
    challenger: float = math.nan
    effect: float = math.nan
    """challenger / control - 1; ``preference``: distance from 1/2. NaN while unknown."""
    low: float = -math.inf
    """Lower end of the effect's confidence sequence."""
    high: float = math.inf
    p: float = 1.0
    """Anytime-valid p-value of "no effect"; 1 while unknown."""
    information: float = 0.0
    """1 / variance, so far."""
    silence: Silence = ""
    """Variants without a converting unit."""
    reason: str = ""
    """Counts, or why nothing is known, in words; empty if there is an interval."""
    capped: int = 0
    """Units that are capped at the plan's ``cap_quantile``."""


@dataclass(frozen=True)
class _Counts:
    control: int
    control_units: int
    challenger: int
    challenger_units: int
    silence: Silence
    few: bool
    """Whether there are too few for an interval."""


def measure_all(plan: Plan, observation: Observation) -> list[MetricResult]:
    """Return the results of the plan's success metrics, in its order."""
    alpha = plan.alpha / len(plan.success)
    return [_measure(one, plan, observation, alpha) for one in plan.success]


def _measure(
    success: SuccessMetric, plan: Plan, observation: Observation, alpha: float
) -> MetricResult:
    scale = _POINTS if success.metric == "preference" else _LOGARITHM
    sign = -1 if success.direction == "decrease" else 1
    wanted = abs(scale.inward(sign * success.minimum_effect))
    margin = abs(scale.inward(-success.margin))
    for_counts, alpha = COUNTS_SHARE * alpha, (1 - COUNTS_SHARE) * alpha
    planned = needed_information(wanted + margin, alpha=alpha, power=plan.power)
    counts = scale.counts(success, observation)
    unknown = MetricResult(
        success.metric, success.direction, "unknown", planned, silence=counts.silence
    )
    if counts.few:
        return _by_counts(success, counts, for_counts, unknown)
    try:
        estimate = scale.estimate(success, observation, plan.cap_quantile)
        if estimate is None:
            raise ValueError("the units are all alike, or their sums are too large")
        if estimate.effective_units < LEAST_ACTIVE_UNITS:
            reason = "a few units have most of it, so there is no interval yet"
            return replace(unknown, verdict="undecided", reason=reason)
        value, variance = estimate.value, estimate.variance
        information = 1 / variance
        width = half_width(variance, information, tuned_at=planned, alpha=alpha)
        p = p_value(value, variance, information, tuned_at=planned, alpha=alpha)
        if not (math.isfinite(width) and math.isfinite(information)):
            raise ValueError("the units are nearly all alike")
    # No feedback may prevent the guardrails from being checked.
    except (ArithmeticError, ValueError) as error:
        return replace(unknown, reason=f"it cannot be computed: {error}")
    low, high = value - width, value + width
    worst, best = sorted((sign * low, sign * high))
    return replace(
        unknown,
        verdict="better" if worst > -margin else "worse" if best < -margin else "undecided",
        control=estimate.control,
        challenger=estimate.challenger,
        effect=scale.outward(value),
        low=scale.outward(low),
        high=scale.outward(high),
        p=float(p),
        information=information,
        silence="",
        capped=estimate.capped,
    )


def _by_counts(
    success: SuccessMetric, counts: _Counts, alpha: float, unknown: MetricResult
) -> MetricResult:
    """Compare converting units, each of which is the challenger's with probability one half."""
    did = counts.control + counts.challenger
    margin = success.margin
    if success.metric == "preference":
        most_control, most_challenger = 0.5 + margin, 0.5
    else:
        most_control, most_challenger = 1 / (2 - margin), (1 + margin) / (2 + margin)
    fewer = float(log_evidence_above(counts.control, did, most_control))
    more = float(log_evidence_above(counts.challenger, did, most_challenger))
    falling = success.direction == "decrease"
    harm = more if falling else fewer
    threshold = math.log(2 / alpha)
    reason = (
        f"units that {_DID[success.metric]}: {counts.challenger} of {counts.challenger_units} for "
        f"the challenger, {counts.control} of {counts.control_units} for control"
    )
    verdict: Verdict = "undecided"
    # Silence is harm only in the challenger alone, and only if more is better.
    if counts.silence == "control" or (counts.silence and falling):
        if max(fewer, more) >= threshold:
            verdict = "unknown"
            reason += f": {counts.silence} is silent; is its feedback sent?"
    elif harm >= threshold:
        verdict = "worse"
    p = min(1.0, 2 * math.exp(-max(fewer, more, 0.0)))
    return replace(unknown, verdict=verdict, reason=reason, p=p)


_DID = {
    "ctr": "clicked",
    "cvr": "bought",
    "revenue_per_unit": "brought revenue",
    "ndcg": "clicked",
    "preference": "clicked more of it",
}


@dataclass(frozen=True)
class _Scale:
    """Conversion between reported effects and the scale of the test; estimate and counts."""

    inward: Callable[[float], float]
    outward: Callable[[float], float]
    estimate: Callable[[SuccessMetric, Observation, float], Effect | None]
    counts: Callable[[SuccessMetric, Observation], _Counts]


def _lift(success: SuccessMetric, seen: Observation, cap_quantile: float) -> Effect | None:
    if not {"control", "challenger"} <= seen.totals.keys():
        return None
    control, challenger = seen.totals["control"], seen.totals["challenger"]
    return compare(METRICS[success.metric], control, challenger, cap_quantile=cap_quantile)


def _active(success: SuccessMetric, seen: Observation) -> _Counts:
    metric = METRICS[success.metric]
    did, units = [0, 0], [0, 0]
    for place, variant in enumerate(("control", "challenger")):
        if totals := seen.totals.get(variant):
            did[place] = int((metric.columns(totals)[0] != 0).sum())
            units[place] = len(totals)
    silence = _silence(did[0] > 0, did[1] > 0)
    return _Counts(did[0], units[0], did[1], units[1], silence, min(did) < LEAST_ACTIVE_UNITS)


def _silence(control: bool, challenger: bool) -> Silence:
    if control:
        return "" if challenger else "challenger"
    return "control" if challenger else "both"


def _credits(_: SuccessMetric, seen: Observation, cap_quantile: float) -> Effect | None:
    return preference(seen.credits, cap_quantile=cap_quantile)


def _preferring(_: SuccessMetric, seen: Observation) -> _Counts:
    """Count shoppers with more clicks for one team: equal rankings win half of them each."""
    if not seen.credits:
        return _Counts(0, 0, 0, 0, "both", few=True)
    won, lost = seen.credits["challenger"], seen.credits["control"]
    silence = _silence(bool(lost.any()), bool(won.any()))
    clicked = int(((won > 0) | (lost > 0)).sum())
    return _Counts(
        control=int((lost > won).sum()),
        control_units=len(lost),
        challenger=int((won > lost).sum()),
        challenger_units=len(won),
        silence=silence,
        few=clicked < LEAST_ACTIVE_UNITS or silence != "",
    )


_LOGARITHM = _Scale(math.log1p, relative, _lift, _active)
_POINTS = _Scale(float, float, _credits, _preferring)
