"""What a decision is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from newshelf.rollout.analysis import Analysis
from newshelf.rollout.state import Phase, RolloutState

__all__ = ["Decision", "Outcome", "go", "pause", "roll_back", "stay"]

Outcome = Literal["waiting", "success", "failure", "inconclusive", "no_data"]
"""``waiting``: too early to tell. ``inconclusive``: the time is over, and the data do not tell.
``no_data``: nothing came in, so something is broken that is not the challenger. The last two
pause: neither is a reason to go on, nor to go back."""


@dataclass(frozen=True)
class Decision:
    """Where the rollout goes, and why."""

    outcome: Outcome
    phase: Phase
    step: int
    reason: str
    """For people: figures included."""
    analysis: Analysis | None = None
    """What it stands on; None where nothing was to be analysed."""
    raised: tuple[str, ...] = ()
    """Signals that paused it, or metrics that were worse."""


def stay(state: RolloutState, reason: str, analysis: Analysis | None = None) -> Decision:
    """Nothing changes."""
    return Decision("waiting", state.phase, state.step, reason, analysis)


def go(phase: Phase, step: int, reason: str, analysis: Analysis | None = None) -> Decision:
    """What was looked at succeeded."""
    return Decision("success", phase, step, reason, analysis)


def roll_back(state: RolloutState, reason: str, analysis: Analysis | None = None) -> Decision:
    """The challenger failed, or the experiment is broken."""
    return Decision("failure", "rolling_back", state.step, reason, analysis)


def pause(
    outcome: Outcome,
    state: RolloutState,
    reason: str,
    analysis: Analysis | None = None,
    raised: Sequence[str] = (),
) -> Decision:
    """A person is needed."""
    return Decision(outcome, "paused", state.step, reason, analysis, tuple(raised))
