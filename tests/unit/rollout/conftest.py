"""Plans, totals and observations, made by hand."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from newshelf.rollout.decide import Decision
from newshelf.rollout.plan import Plan, RolloutState
from newshelf.store.records import Observation, UnitTotals, VariantHealth

AT = datetime(2024, 5, 1, tzinfo=UTC)
COUNTS = ("requests", "shown", "clicks", "purchases", "revenue", "ndcg", "ndcg_requests")


def plan(**changes: Any) -> Plan:
    """A plan of two steps with one guardrail of each kind."""
    table = {
        "control": "1.0",
        "challenger": "1.1",
        "shadow": {
            "min_seconds": 60,
            "max_seconds": 600,
            "min_requests": 100,
            "most_error_share": 0.02,
            "most_p99_ms": 200,
            "least_overlap": 0.3,
            "most_score_drift": 2.0,
        },
        "ramp": [
            {"percent": 10, "min_seconds": 60, "max_seconds": 600, "min_units": 100},
            {"percent": 50, "min_seconds": 120, "max_seconds": 1200, "min_units": 200},
        ],
        "success": [{"metric": "ctr", "minimum_effect": 0.1}],
        "guardrails": [
            {"metric": "error_rate", "most": 0.02},
            {"metric": "p99_ms", "most": 250},
            {"metric": "empty_share", "above_control": 0.02},
            {"metric": "fallback_share", "above_control": 0.05},
        ],
        "signals": [{"metric": "coverage", "least_of_control": 0.7, "min_shown": 100}],
    }
    return Plan.model_validate(table | changes)


def state(phase: str, **changes: Any) -> RolloutState:
    return RolloutState(
        **{
            "rollout": "rings",
            "salt": "pepper",
            "phase": phase,
            "since": AT,
            "reason": "because",
        }
        | changes
    )


def totals(
    units: int = 2000, ctr: float = 0.1, *, seed: int = 0, before: bool = False, **columns: Any
) -> UnitTotals:
    """Units that see one or more answers of ten products and click by chance."""
    random = np.random.default_rng(seed)
    requests = 1.0 + random.poisson(1.0, units)
    taste = random.gamma(4.0, 0.25, units)
    clicks = random.binomial((10 * requests).astype(int), np.minimum(taste * ctr, 1.0))
    clicked = np.minimum(clicks, requests)
    values = {
        "requests": requests,
        "shown": 10 * requests,
        "clicks": clicks.astype(float),
        "purchases": random.binomial(clicks, 0.2).astype(float),
        "revenue": random.binomial(clicks, 0.2) * random.lognormal(3.0, 0.5, units),
        "ndcg": clicked * random.uniform(0.4, 0.8, units),
        "ndcg_requests": clicked.astype(float),
    } | columns
    past: Mapping[str, Any] = dict.fromkeys(COUNTS, np.zeros(units))
    if before:
        clicks_then = random.binomial(30, np.minimum(taste * 0.1, 1.0)).astype(float)
        past |= {"requests": np.full(units, 3.0), "shown": np.full(units, 30.0)}
        past |= {"clicks": clicks_then}
    return UnitTotals(**values, before=past)


def health(requests: int = 2000, **changes: Any) -> VariantHealth:
    values = {
        "requests": requests,
        "errors": 0,
        "fallbacks": 0,
        "empty": 0,
        "latencies_ms": np.linspace(10, 100, requests),
        "items": {f"item-{number}": 1 + requests // 50 for number in range(50)},
        "units": requests // 2,
    }
    return VariantHealth(**values | changes)


def observation(**changes: Any) -> Observation:
    """A step that is long over, with a challenger that is much better and healthy."""
    values = {
        "seconds_in_step": 500.0,
        "totals": {"control": totals(seed=1), "challenger": totals(ctr=0.13, seed=2)},
        "health": {"control": health(), "challenger": health()},
        "double_exposed": 0,
        "shadow": {},
        "versions_ready": True,
    }
    return Observation(**values | changes)


def challenger(**changes: Any) -> dict[str, VariantHealth]:
    """Health, with something about the challenger."""
    return {"control": health(), "challenger": health(**changes)}


SHADOW = {"requests": 500.0, "errors": 0.0, "overlap": 0.6, "score_drift": 0.4, "p99_ms": 120.0}


def shadowed(**changes: float) -> Observation:
    return observation(totals={}, health={}, shadow=SHADOW | changes)


PLAN = plan()
LAST = state("ramp", step=1)
EQUAL = {"control": totals(seed=1), "challenger": totals(seed=2)}
WORSE = {"control": totals(seed=1), "challenger": totals(ctr=0.07, seed=2)}
NO_TRAFFIC = {
    side: health(0, latencies_ms=np.empty(0), items={}, units=0)
    for side in ("control", "challenger")
}


def goes(decision: Decision) -> tuple[str, str, int]:
    """Outcome, phase and step."""
    return decision.outcome, decision.phase, decision.step
