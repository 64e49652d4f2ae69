"""The state of a rollout: everything that is stored between two decisions."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from newshelf.files import StrictModel
from newshelf.rollout.plan import Plan
from newshelf.store.records import TrafficSplit

Phase = Literal[
    "draft",
    "shadow",
    "ramp",
    "paused",
    "promoting",
    "promoted",
    "rolling_back",
    "rolled_back",
    "aborted",
]

PHASES: Mapping[Phase, str] = {
    "draft": "Planned; nothing is sent to the challenger.",
    "shadow": "The challenger is sent copies; shoppers are answered by control.",
    "ramp": "A share of the units sees the challenger, and as large a share is control.",
    "paused": "The split stays as it was, until a person resumes, promotes or aborts.",
    "promoting": "The challenger is made ready to answer everybody; the split stays as it was.",
    "promoted": "The challenger answers everybody.",
    "rolling_back": "Control answers everybody again; the challenger finishes what it has begun.",
    "rolled_back": "Control answers everybody again; the reason says why.",
    "aborted": "Control answers everybody; a person ended the rollout.",
}
"""Meaning of each phase."""

RUNNING: tuple[Phase, ...] = ("shadow", "ramp", "paused", "promoting")
"""Phases in which requests are copied or split."""

OVER: tuple[Phase, ...] = ("promoted", "rolled_back", "aborted")
"""Final phases, which only a command ends."""

Resumable = Literal["shadow", "ramp", "promoting"]


class RolloutState(StrictModel):
    """The state of one rollout."""

    rollout: str
    salt: str
    phase: Phase
    step: Annotated[int, Field(ge=0)] = 0
    """Of the plan's ramp, from 0."""
    since: AwareDatetime
    """When phase or step began, or was resumed."""
    reason: str
    revision: Annotated[int, Field(ge=0)] = 0
    """Increased by each change. A change is written with the revision it was made from, so that
    two controllers cannot both act."""
    resumes_to: Resumable | None = None
    raised: tuple[str, ...] = ()
    """Signals that paused a rollout, or metrics that were worse."""
    accepted: tuple[str, ...] = ()
    """Signals and metrics that a person has acknowledged; they do not pause again."""

    @property
    def serving(self) -> Phase:
        """The phase that shoppers see: the interrupted one of a paused rollout."""
        return self.resumes_to or self.phase

    @property
    def label(self) -> str:
        """The phase for people, with the interrupted one."""
        return self.phase if self.resumes_to is None else f"{self.phase} in {self.resumes_to}"


def draft(rollout: str, salt: str, at: datetime) -> RolloutState:
    """Return the state of a new rollout, with a salt of ``assignment.new_salt``."""
    return RolloutState(rollout=rollout, salt=salt, phase="draft", since=at, reason="planned")


def split_of(plan: Plan, state: RolloutState) -> TrafficSplit | None:
    """Return the traffic split in a state; None if one version answers everybody."""
    if state.phase not in RUNNING:
        return None
    shadow = state.serving == "shadow"
    return TrafficSplit(
        rollout=state.rollout,
        salt=state.salt,
        control=plan.control,
        challenger=plan.challenger,
        share=0.0 if shadow else plan.ramp[state.step].percent / 100,
        holdout=plan.holdout,
        shadow=shadow,
        interleave=plan.interleaving and not shadow,
        overrides=plan.overrides,
    )
