"""One look at a rollout, as it is kept for status and report."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from newshelf.rollout.analysis import Analysis
from newshelf.rollout.outcomes import Decision, Outcome
from newshelf.rollout.state import Phase, RolloutState
from newshelf.rollout.store import KeptLook
from newshelf.rollout.totals import Observation

__all__ = ["Look", "look_of", "read_look"]


class Look(BaseModel):
    """What was seen, and what was decided."""

    # Intervals that know nothing yet are infinite, which plain JSON cannot say. Looks of earlier
    # versions have other fields, and are still shown.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")

    phase: Phase
    """As it was when it was looked at."""
    step: int
    outcome: Outcome
    reason: str
    analysis: Analysis | None = None
    shadow: Mapping[str, float] = {}
    """See ``Observation.shadow``."""
    versions_ready: bool


def look_of(state: RolloutState, observation: Observation, decision: Decision) -> Look:
    """What is kept of one decision."""
    return Look(
        phase=state.phase,
        step=state.step,
        outcome=decision.outcome,
        reason=decision.reason,
        analysis=decision.analysis,
        shadow=observation.shadow,
        versions_ready=observation.versions_ready,
    )


def read_look(kept: KeptLook) -> tuple[datetime, Look]:
    """When it was, and what was seen."""
    return kept.at, Look.model_validate_json(kept.look)
