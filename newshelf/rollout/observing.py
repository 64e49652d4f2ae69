"""Gathers what a decision looks at."""

from datetime import datetime

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
    shadowed = state.serving == "shadow"
    return Observation(
        seconds_in_step=(now - state.since).total_seconds(),
        totals=seen.totals,
        health=seen.health,
        double_exposed=seen.double_exposed,
        shadow=store.shadow(name, since=state.since) if shadowed else {},
        versions_ready=versions_ready,
        credits=store.credits(name) if plan.interleaving else {},
    )
