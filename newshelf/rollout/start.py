"""Begins a rollout, or refuses it with nothing changed."""

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from newshelf.errors import RolloutError
from newshelf.rollout.assignment import new_salt
from newshelf.rollout.plan import Plan
from newshelf.rollout.state import OVER, RolloutState, draft
from newshelf.rollout.store import EventStore
from newshelf.rollout.versions import Versions, find_archive

__all__ = ["start_rollout"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""It is part of file names and of pages."""
_LEASE = "start of a rollout"
_LEASE_S = 30.0


def start_rollout(
    store: EventStore,
    versions: Versions,
    model_store: Path,
    plan: Plan,
    name: str,
    *,
    clock: Callable[[], datetime],
) -> RolloutState:
    """Write down a new rollout; a controller then loads the challenger, checks it and goes on.

    Args:
        store: keeps it.
        versions: the model server, which must serve the plan's control.
        model_store: must hold the challenger's archive.
        plan: what to do.
        name: another one than any before.
        clock: the time now, with its time zone.

    Raises:
        RolloutError: the name cannot be used, a version is not there, control is not what is
            served, or another rollout is under way.
        ServerError: the model server does not answer.
        SettingsError: there is a rollout of this name.
    """
    if not _NAME.fullmatch(name):
        raise RolloutError(
            f"{name!r} is no name for a rollout: give up to 64 letters, digits, dots, dashes and "
            "underscores"
        )
    for version in (plan.control, plan.challenger):
        find_archive(model_store, version)
    served = versions.default()
    if served != plan.control:
        raise RolloutError(
            f"the plan's control is {plan.control}, but {served} is served: a challenger is "
            f"compared with what shoppers see now. Write control: {served!r}"
        )
    # Two starts at once would each see no other.
    if not store.acquire_lease(_LEASE, name, _LEASE_S):
        raise RolloutError("another rollout is being started; try again")
    try:
        _refuse_second(store)
        state = draft(name, new_salt(), clock())
        store.create_rollout(name, plan.model_dump_json(), state.model_dump_json(), None)
    finally:
        store.release_lease(_LEASE, name)
    return state


def _refuse_second(store: EventStore) -> None:
    for row in store.rollouts():
        state = RolloutState.model_validate_json(row.state)
        if state.phase not in OVER:
            raise RolloutError(
                f"rollout {row.name} is under way ({state.phase}): its control must not change "
                "meanwhile; wait for it, or ./run rollout abort it"
            )
