"""What a person may do with a rollout, as pure steps from state to state."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from newshelf.errors import RolloutError
from newshelf.rollout.plan import Plan
from newshelf.rollout.state import Phase, RolloutState

__all__ = ["COMMANDS", "Command", "command"]

Command = Literal["start", "pause", "resume", "promote", "abort"]

_Change = dict[str, Any]
_ALLOWED: Mapping[Command, tuple[Phase, ...]] = {
    "start": ("draft",),
    "pause": ("shadow", "ramp", "promoting"),
    "resume": ("paused",),
    "promote": ("ramp", "paused"),
    "abort": ("draft", "shadow", "ramp", "paused", "promoting", "promoted"),
}
"""In which phases each can be given."""


def command(name: Command, plan: Plan, state: RolloutState, at: datetime) -> RolloutState:
    """The state after a command.

    Args:
        name: what a person wants.
        plan: of this rollout.
        state: where it stands.
        at: now, with its time zone.

    Raises:
        RolloutError: the command does not fit the phase.
    """
    allowed = _ALLOWED[name]
    from_shadow = name == "promote" and state.serving == "shadow"
    if state.phase not in allowed or from_shadow:
        hint = (
            "no shopper has seen the challenger yet; resume, and wait for the ramp"
            if from_shadow
            else f"{name} is for {', '.join(allowed)}"
        )
        raise RolloutError(f"cannot {name} {state.rollout}: it is {_doing(state)}; {hint}")
    change = COMMANDS[name](plan, state)
    quiet = {"resumes_to": None, "raised": ()}
    return state.model_copy(update=quiet | change | {"since": at, "revision": state.revision + 1})


def _doing(state: RolloutState) -> str:
    return f"paused in {state.resumes_to}" if state.phase == "paused" else state.phase


def _start(plan: Plan, _: RolloutState) -> _Change:
    return {"phase": "shadow" if plan.shadow else "ramp", "reason": "started"}


def _pause(_: Plan, state: RolloutState) -> _Change:
    return {"phase": "paused", "resumes_to": state.phase, "reason": "paused by hand"}


def _resume(_: Plan, state: RolloutState) -> _Change:
    accepted = _accepting(state, state.raised)
    return {"phase": state.resumes_to, "accepted": accepted, "reason": "resumed by hand"}


def _promote(plan: Plan, state: RolloutState) -> _Change:
    accepted = _accepting(state, [one.metric for one in plan.success])
    return {"phase": "promoting", "accepted": accepted, "reason": "promoted by hand"}


def _accepting(state: RolloutState, more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*state.accepted, *more]))


def _abort(_: Plan, state: RolloutState) -> _Change:
    # The default version has changed already, so it has to be changed back.
    phase = "rolling_back" if state.phase == "promoted" else "aborted"
    return {"phase": phase, "reason": "aborted by hand"}


COMMANDS: Mapping[Command, Callable[[Plan, RolloutState], _Change]] = {
    "start": _start,
    "pause": _pause,
    "resume": _resume,
    "promote": _promote,
    "abort": _abort,
}
"""What each changes."""
