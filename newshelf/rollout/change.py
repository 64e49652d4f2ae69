"""A person's command on a rollout, written down if it fits."""

from collections.abc import Callable
from datetime import datetime

from newshelf.errors import RolloutError
from newshelf.rollout.commands import Command, command
from newshelf.rollout.plan import Plan
from newshelf.rollout.state import RolloutState, split_of
from newshelf.rollout.store import EventStore

__all__ = ["change_rollout"]

_ATTEMPTS = 5


def change_rollout(
    store: EventStore, name: str, wanted: Command, *, clock: Callable[[], datetime]
) -> RolloutState:
    """Give a command; the controller acts on it at its next look.

    Args:
        store: keeps the rollout.
        name: of the rollout.
        wanted: what a person wants.
        clock: the time now, with its time zone.

    Returns:
        The new state.

    Raises:
        RolloutError: the command does not fit, another rollout stands on this one, or the
            rollout keeps changing.
        SettingsError: there is no such rollout.
    """
    for _ in range(_ATTEMPTS):
        row = store.rollout(name)
        plan = Plan.model_validate_json(row.plan)
        state = RolloutState.model_validate_json(row.state)
        changed = command(wanted, plan, state, clock())
        if state.phase == "promoted":
            _refuse_below(store, name, plan.challenger)
        split = split_of(plan, changed)
        if store.replace_state(
            name, row.revision, changed.model_dump_json(), split, changed.reason
        ):
            return changed
    raise RolloutError(f"rollout {name} keeps changing; try again")


def _refuse_below(store: EventStore, name: str, promoted: str) -> None:
    """Going back takes away the control of those that were begun afterwards."""
    rows = store.rollouts()
    later = rows[[row.name for row in rows].index(name) + 1 :]
    for row in later:
        phase = RolloutState.model_validate_json(row.state).phase
        if phase in {"rolled_back", "aborted"}:
            continue
        first = "roll it back" if phase == "promoted" else "abort it"
        raise RolloutError(
            f"rollout {row.name} ({phase}) began with {promoted}, which {name} promoted: {first} "
            "first"
        )
