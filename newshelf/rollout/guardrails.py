"""Guardrails: limits on the challenger's service quality. A broken one rolls back.

They are checked at every look, so each is a sequential test: a challenger within all limits is
ever rolled back by one with a probability of at most the plan's ``guardrail_alpha``, if requests
are independent. The level is divided equally among guardrails and stages (Bonferroni), because
each stage is counted from its own start.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from newshelf.rollout.plan import Guardrail, Plan
from newshelf.rollout.sequential import (
    level_when_halved,
    log_evidence_above,
    lower_bound,
    lower_quantile,
    upper_bound,
    upper_quantile,
)
from newshelf.store.records import Floats, VariantHealth, halvings

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
