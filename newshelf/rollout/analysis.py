"""All figures that a decision stands on, in one place: the report shows the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from newshelf.rollout.guardrails import GuardrailResult, check_guardrails
from newshelf.rollout.plan import Plan, Signal
from newshelf.rollout.results import MetricResult, measure_all
from newshelf.rollout.sample_ratio import SampleRatio, sample_ratio
from newshelf.rollout.signals import shown
from newshelf.rollout.totals import Observation, UnitTotals, VariantHealth

__all__ = ["Analysis", "HeavyUnit", "SignalResult", "analyse"]

_HEAVY_SHARE = 0.01
"""Of a variant's answers."""
_HEAVY_TIMES = 10
"""As many answers as the average unit: of 200 shoppers, some have a hundredth without a fault."""
_MOST_NAMED = 10

_NOTHING = VariantHealth(
    requests=0, errors=0, fallbacks=0, empty=0, latencies_ms=np.empty(0), items={}, units=0
)


@dataclass(frozen=True)
class SignalResult:
    """Coverage or diversity of both variants, at equal size."""

    metric: str
    control: float
    """Products; nan while too few were shown."""
    challenger: float
    least_of_control: float
    raised: bool


@dataclass(frozen=True)
class HeavyUnit:
    """A unit with too many answers to be a shopper."""

    unit: str
    variant: str
    share: float
    """Of the variant's answers."""


@dataclass(frozen=True)
class Analysis:
    """One look at a running rollout."""

    metrics: Sequence[MetricResult]
    guardrails: Sequence[GuardrailResult]
    signals: Sequence[SignalResult]
    sample_ratio: SampleRatio
    double_exposed: int
    control_requests: int
    """Of the current step, as are the next three."""
    challenger_requests: int
    control_units: int
    challenger_units: int
    heavy_units: Sequence[HeavyUnit] = ()
    """Of the whole rollout, the heaviest first."""

    @property
    def requests(self) -> int:
        """Of the variant that had fewer."""
        return min(self.control_requests, self.challenger_requests)

    @property
    def units(self) -> int:
        """Of the variant that had fewer."""
        return min(self.control_units, self.challenger_units)


def analyse(plan: Plan, observation: Observation) -> Analysis:
    """Everything that the plan asks to be looked at.

    Args:
        plan: of the rollout.
        observation: of a step of the ramp, or of the promotion.
    """
    control = observation.health.get("control", _NOTHING)
    other = "interleaved" if plan.interleaving else "challenger"
    challenger = observation.health.get(other, _NOTHING)
    # First, so that nothing which was sent as feedback can come before them.
    guardrails = check_guardrails(plan, control, challenger)
    return Analysis(
        metrics=measure_all(plan, observation),
        guardrails=guardrails,
        signals=[_signal(one, control, challenger) for one in plan.signals],
        sample_ratio=sample_ratio(
            *(len(observation.totals.get(variant, ())) for variant in ("control", other))
        ),
        double_exposed=observation.double_exposed,
        control_requests=control.requests,
        challenger_requests=challenger.requests,
        control_units=control.units,
        challenger_units=challenger.units,
        heavy_units=_heavy_units(observation.totals),
    )


def _heavy_units(by_variant: Mapping[str, UnitTotals]) -> list[HeavyUnit]:
    found = []
    for variant, totals in by_variant.items():
        answers = totals.requests.sum()
        if not (totals.units and 0 < answers < math.inf):
            continue
        share = totals.requests / answers
        least = max(_HEAVY_SHARE, _HEAVY_TIMES / len(totals))
        found += [
            HeavyUnit(totals.units[place], variant, float(share[place]))
            for place in np.flatnonzero(share > least).tolist()
        ]
    return sorted(found, key=lambda one: -one.share)[:_MOST_NAMED]


def _signal(signal: Signal, control: VariantHealth, challenger: VariantHealth) -> SignalResult:
    size = min(sum(control.items.values()), sum(challenger.items.values()))
    least = signal.least_of_control
    if size < signal.min_shown:
        return SignalResult(signal.metric, math.nan, math.nan, least, raised=False)
    a, b = (
        float(getattr(shown(health.items, size), signal.metric)) for health in (control, challenger)
    )
    return SignalResult(signal.metric, a, b, least, raised=b < least * a)
