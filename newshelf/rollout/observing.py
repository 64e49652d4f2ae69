"""Gathers what a decision looks at."""

import math
from datetime import datetime

from newshelf.rollout.guardrails import level_of, lowest_p99
from newshelf.rollout.plan import Plan
from newshelf.rollout.state import RolloutState
from newshelf.rollout.store import EventStore
from newshelf.rollout.totals import Observation

__all__ = ["observe_rollout"]


def observe_rollout(
    store: EventStore,
    plan: Plan,
    state: RolloutState,
    *,
    now: datetime,
    before_window_s: float,
    versions_ready: bool,
) -> Observation:
    """What came of a rollout so far.

    Args:
        store: holds the records.
        plan: of the rollout.
        state: where it stands; what is counted by step is counted from its ``since`` on.
        now: with its time zone.
        before_window_s: of the covariates, see ``EventStore.observe``.
        versions_ready: whether both versions answer.
    """
    name = state.rollout
    seen = store.observe(name, step_since=state.since, before_window_s=before_window_s)
    return Observation(
        seconds_in_step=(now - state.since).total_seconds(),
        totals=seen.totals,
        health=seen.health,
        double_exposed=seen.double_exposed,
        shadow=_shadow(store, plan, state) if state.serving == "shadow" else {},
        versions_ready=versions_ready,
        credits=store.credits(name) if plan.interleaving else {},
    )


def _shadow(store: EventStore, plan: Plan, state: RolloutState) -> dict[str, float]:
    seen, latencies_ms = store.shadow(state.rollout, since=state.since)
    if seen:
        low_ms = lowest_p99(latencies_ms, round(seen["requests"]), level_of(plan))
        if math.isfinite(low_ms):
            seen["p99_low_ms"] = low_ms
    return seen
