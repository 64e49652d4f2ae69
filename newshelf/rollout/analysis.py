"""The analysis of a rollout: every figure that decisions use and reports show.

Coverage and diversity are compared at equal size (rarefaction), because more answers show more
products.

Guardrails are limits on the challenger's service quality; a broken one rolls back. They are checked
at every look, so each is a sequential test: a challenger within all limits is ever rolled back by
one with a probability of at most the plan's ``guardrail_alpha``, if requests are independent. The
level is divided equally among guardrails and stages (Bonferroni), because each stage is counted
from its own start.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from newshelf.rollout.metric_results import MetricResult, measure_all
from newshelf.rollout.plan import Guardrail, Plan, Signal
from newshelf.rollout.sequential import (
    SampleRatio,
    level_when_halved,
    log_evidence_above,
    lower_bound,
    lower_quantile,
    sample_ratio,
    upper_bound,
    upper_quantile,
)
from newshelf.store.records import Floats, Observation, UnitTotals, VariantHealth, halvings

_P99 = 0.99


@dataclass(frozen=True)
class GuardrailResult:
    """One limit and its test. Shares are between 0 and 1, latencies in ms."""

    metric: str
    kind: str
    """``most``, ``above_control`` or ``times_control``."""
    limit: float
    control: float
    """As measured; NaN without a request."""
    challenger: float
    low: float
    """Lower bound of the challenger's value at every look; -inf or 0 while little is known."""
    allowed: float
    """Largest value within the limit; of a relative limit, by the upper bound of control's."""
    failed: bool


def level_of(plan: Plan) -> float:
    """Return the level of each test; the shadow phase has two."""
    shadowed = plan.shadow is not None
    tests = max(len(plan.guardrails), 2 * shadowed)
    return plan.guardrail_alpha / ((len(plan.ramp) + 1 + shadowed) * tests)


def check_guardrails(
    plan: Plan, control: VariantHealth, challenger: VariantHealth
) -> Sequence[GuardrailResult]:
    """Test every guardrail of the plan, in its order."""
    alpha = level_of(plan)
    results = []
    for one in plan.guardrails:
        if one.metric == "p99_ms":
            ours, theirs = _p99(control), _p99(challenger)
            low, allowed = _latency(one, control, challenger, alpha)
            failed = low > allowed
        else:
            of_control, of_challenger = _count(one, control), _count(one, challenger)
            ours, theirs = _rate(*of_control), _rate(*of_challenger)
            low, allowed, failed = _share(one, of_control, of_challenger, alpha)
        results.append(
            GuardrailResult(one.metric, one.kind, one.limit, ours, theirs, low, allowed, failed)
        )
    return results


def share_exceeds(k: int, n: int, most: float, alpha: float) -> bool:
    """Return whether k of n refute, at every look, that the share is at most ``most``."""
    return k > most * n and float(log_evidence_above(k, n, most)) >= math.log(1 / alpha)


def lowest_p99(latencies_ms: Floats, requests: int, alpha: float) -> float:
    """Return a lower bound of the true p99 at every look, at the level ``alpha``; -inf at first.

    ``latencies_ms`` is ``(requests,)``, or a sample of them, halved ``halvings(requests)`` times.
    """
    return lower_quantile(latencies_ms, _P99, level_when_halved(alpha, halvings(requests)))


def _share(
    guardrail: Guardrail, control: tuple[int, int], challenger: tuple[int, int], alpha: float
) -> tuple[float, float, bool]:
    """Return lower bound, allowed share, and whether that is exceeded, of failed of all."""
    if guardrail.kind == "most":
        failed = share_exceeds(*challenger, guardrail.limit, alpha)
        return lower_bound(*challenger, alpha), guardrail.limit, failed
    allowed = upper_bound(*control, alpha / 2) + guardrail.limit
    low = lower_bound(*challenger, alpha / 2)
    return low, allowed, low > allowed


def _rate(bad: int, of: int) -> float:
    return bad / of if of else math.nan


def _count(guardrail: Guardrail, health: VariantHealth) -> tuple[int, int]:
    bad = {
        "error_rate": health.errors,
        "empty_share": health.empty,
        "fallback_share": health.fallbacks,
    }
    return bad[guardrail.metric], health.requests


def _latency(
    guardrail: Guardrail, control: VariantHealth, challenger: VariantHealth, alpha: float
) -> tuple[float, float]:
    """Return the lower bound of the challenger's p99, and the allowed value."""
    latencies, requests = _latencies(challenger), challenger.requests
    if guardrail.kind == "most":
        return lowest_p99(latencies, requests, alpha), guardrail.limit
    of_control = level_when_halved(alpha / 2, halvings(control.requests))
    allowed = guardrail.limit * upper_quantile(_latencies(control), _P99, of_control)
    return lowest_p99(latencies, requests, alpha / 2), allowed


def _latencies(health: VariantHealth) -> Floats:
    """Return latencies in ms; NaN counts as an answer that never came."""
    return np.nan_to_num(health.latencies_ms, nan=math.inf, posinf=math.inf)


def _p99(health: VariantHealth) -> float:
    if not len(health.latencies_ms):
        return math.nan
    return float(np.quantile(_latencies(health), _P99, method="inverted_cdf"))


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
