"""Rollouts as a controller would have them."""

from datetime import UTC, datetime

from newshelf.rollout.plan import RolloutState, draft
from newshelf.store.records import TrafficSplit
from tests.gateways import Gateway
from tests.unit.rollout.conftest import plan as plan_with

PLAN = plan_with(control="1.0", challenger="1.1")
LOOK = {
    "phase": "ramp",
    "analysis": {
        "metrics": [
            {
                "metric": "ctr", "control": 0.1, "challenger": 0.12, "effect": 0.2, "low": -0.05,
                "high": "Infinity", "p": 0.2, "verdict": "unclear", "reason": "",
            },
            {
                "metric": "cvr", "control": "NaN", "challenger": "NaN", "effect": "NaN",
                "low": "-Infinity", "high": "Infinity", "p": 1.0, "verdict": "unknown",
                "reason": "too few",
            },
        ],
        "guardrails": [
            {
                "metric": "error_rate", "control": 0.0, "challenger": 0.3, "low": 0.1,
                "allowed": 0.02, "failed": True,
            },
        ],
    },
}  # fmt: skip


def begin(gateway: Gateway, phase: str = "ramp", name: str = "spring") -> None:
    """A rollout as the controller would have it."""
    state = draft(name, "salt", datetime.now(UTC)).model_copy(update={"phase": phase})
    split = TrafficSplit(rollout=name, salt="salt", control="1.0", challenger="1.1", share=0.1)
    gateway.store.rollouts.create(
        name, PLAN.model_dump_json(), state.model_dump_json(), split if phase == "ramp" else None
    )


def rollout_of(gateway: Gateway, name: str = "spring") -> RolloutState:
    return RolloutState.model_validate_json(gateway.store.rollouts.get(name).state)
