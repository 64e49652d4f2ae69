"""The analysis of a rollout: every figure that decisions use and reports show.

Coverage and diversity are compared at equal size (rarefaction), because more answers show more
products.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from newshelf.rollout.guardrails import GuardrailResult, check_guardrails
from newshelf.rollout.metric_results import MetricResult, measure_all
from newshelf.rollout.plan import Plan, Signal
from newshelf.rollout.sequential import SampleRatio, sample_ratio
from newshelf.store.records import Observation, UnitTotals, VariantHealth


def rarefied_items(counts: NDArray[np.float64], size: int) -> float:
    """Return the expected number of distinct products in a sample without replacement.

    Hurlbert (1971), with N = Σ counts::

        Σ_i 1 - C(N - n_i, size) / C(N, size)
    """
    total = counts.sum()
    left = total - counts
    possible = left >= size
    log_missed = (
        gammaln(left[possible] + 1)
        - gammaln(left[possible] - size + 1)
        - gammaln(total + 1)
        + gammaln(total - size + 1)
    )
    return float(len(counts) - np.exp(log_missed).sum())


def effective_items(counts: NDArray[np.float64]) -> float:
    """Return exp(-Σ p·ln p), p = counts / Σ counts: Hill number of order 1.

    The number of equally shown products with the same entropy (Hill 1973; Jost 2006).
    """
    p = counts / counts.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


_HEAVY_SHARE = 0.01
"""Of a variant's answers."""
_HEAVY_TIMES = 10
"""Multiple of the average unit: with 200 shoppers, some have 1 % of the answers by chance."""
_MOST_NAMED = 10

_NOTHING = VariantHealth(
    requests=0, errors=0, fallbacks=0, empty=0, latencies_ms=np.empty(0), items={}, units=0
)


@dataclass(frozen=True)
class SignalResult:
    """Coverage or diversity of both variants, at equal size."""

    metric: str
    control: float
    """Products; NaN while too few were shown."""
    challenger: float
    least_of_control: float
    raised: bool


@dataclass(frozen=True)
class HeavyUnit:
    """A unit with too many answers for a shopper."""

    unit: str
    variant: str
    share: float
    """Of the variant's answers."""


@dataclass(frozen=True)
class Analysis:
    """Results of one look at a running rollout."""

    metrics: Sequence[MetricResult]
    guardrails: Sequence[GuardrailResult]
    signals: Sequence[SignalResult]
    sample_ratio: SampleRatio
    double_exposed: int
    control_requests: int
    """In the current step, like the next three."""
    challenger_requests: int
    control_units: int
    challenger_units: int
    heavy_units: Sequence[HeavyUnit] = ()
    """In the whole rollout, heaviest first."""

    @property
    def requests(self) -> int:
        """Requests of the smaller variant."""
        return min(self.control_requests, self.challenger_requests)

    @property
    def units(self) -> int:
        """Units of the smaller variant."""
        return min(self.control_units, self.challenger_units)


def analyse(plan: Plan, observation: Observation) -> Analysis:
    """Evaluate everything in the plan of a rollout in a step of the ramp or in the promotion."""
    control = observation.health.get("control", _NOTHING)
    other = "interleaved" if plan.interleaving else "challenger"
    challenger = observation.health.get(other, _NOTHING)
    # First, so that no feedback can prevent them from being checked.
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
    a, b = (catalog_exposure(signal.metric, health.items, size) for health in (control, challenger))
    return SignalResult(signal.metric, a, b, least, raised=b < least * a)


def catalog_exposure(metric: str, items: Mapping[str, int], size: int) -> float:
    """Return distinct products in a sample of ``size``, or the effective number of products."""
    counts = np.fromiter((count for count in items.values() if count), dtype=np.float64)
    return rarefied_items(counts, size) if metric == "coverage" else effective_items(counts)
