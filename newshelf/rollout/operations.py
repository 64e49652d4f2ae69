"""Operations of people on rollouts: start, pause, resume, promote, abort, status and pruning.

An operation only changes the stored state; the controller acts on it at its next look.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

from newshelf.errors import RolloutError, SettingsError, SetupError
from newshelf.rollout.assignment import new_salt
from newshelf.rollout.plan import OVER, Phase, Plan, RolloutState, draft, served_by, split_of
from newshelf.rollout.versions import find_archive
from newshelf.store.rollouts import RolloutRow
from newshelf.store.store import EventStore, PruneCounts, clock_doubt, prune

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names are part of file names and pages."""
_LEASE = "start of a rollout"
_LEASE_S = 30.0
_now = partial(datetime.now, UTC)


def start_rollout(
    store: EventStore,
    served: Callable[[], str],
    model_store: Path,
    plan: Plan,
    name: str,
    *,
    clock: Callable[[], datetime] = _now,
) -> RolloutState:
    """Store a new rollout. The controller then loads and checks the challenger and proceeds.

    ``served`` returns the version that shoppers see now. Raises ``RolloutError`` if the name is
    invalid, a version is missing, control is not being served, or another rollout is in progress;
    ``SettingsError`` if there is one of this name.
    """
    if not _NAME.fullmatch(name):
        raise RolloutError(
            f"{name!r} is no name for a rollout: give up to 64 letters, digits, dots, dashes and "
            "underscores"
        )
    for version in (plan.control, plan.challenger):
        find_archive(model_store, version)
    if (now := served()) != plan.control:
        raise RolloutError(
            f"the plan's control is {plan.control}, but {now} is served: a challenger is "
            f"compared with what shoppers see now. Write control: {now!r}"
        )
    # Without the lease, two concurrent starts would not see each other.
    if not store.leases.acquire(_LEASE, name, _LEASE_S):
        raise RolloutError("another rollout is being started; try again")
    try:
        refuse_second(store)
        state = draft(name, new_salt(), clock())
        store.rollouts.create(name, plan.model_dump_json(), state.model_dump_json(), None)
    finally:
        store.leases.release(_LEASE, name)
    return state


def refuse_second(store: EventStore) -> None:
    """Raise ``RolloutError`` if a rollout is in progress."""
    for row in store.rollouts.all():
        state = RolloutState.model_validate_json(row.state)
        if state.phase not in OVER:
            raise RolloutError(
                f"rollout {row.name} is in progress ({state.phase}): its control must not change "
                "meanwhile; wait for it, or ./run rollout abort it"
            )


Command = Literal["start", "pause", "resume", "promote", "abort"]

ALLOWED: Mapping[Command, tuple[Phase, ...]] = {
    "start": ("draft",),
    "pause": ("shadow", "ramp", "promoting"),
    "resume": ("paused",),
    "promote": ("ramp", "paused"),
    "abort": ("draft", "shadow", "ramp", "paused", "promoting", "promoted"),
}
"""Phases in which each command is allowed."""


def command(
    name: Command, plan: Plan, state: RolloutState, at: datetime, by: str = "hand"
) -> RolloutState:
    """Return the state after a command at ``at``; ``RolloutError`` if the phase forbids it."""
    allowed = ALLOWED[name]
    from_shadow = name == "promote" and state.serving == "shadow"
    if state.phase not in allowed or from_shadow:
        hint = (
            "no shopper has seen the challenger yet; resume, and wait for the ramp"
            if from_shadow
            else f"{name} is for {', '.join(allowed)}"
        )
        raise RolloutError(f"cannot {name} {state.rollout}: it is {state.label}; {hint}")
    change = _changes(name, plan, state, by)
    quiet = {"resumes_to": None, "raised": ()}
    return state.model_copy(update=quiet | change | {"since": at, "revision": state.revision + 1})


def _changes(name: Command, plan: Plan, state: RolloutState, by: str) -> dict[str, Any]:
    match name:
        case "start":
            return {"phase": "shadow" if plan.shadow else "ramp", "reason": "started"}
        case "pause":
            return {"phase": "paused", "resumes_to": state.phase, "reason": f"paused by {by}"}
        case "resume":
            accepted = tuple(dict.fromkeys([*state.accepted, *state.raised]))
            return {"phase": state.resumes_to, "accepted": accepted, "reason": f"resumed by {by}"}
        case "promote":
            metrics = (one.metric for one in plan.success)
            accepted = tuple(dict.fromkeys([*state.accepted, *metrics]))
            return {"phase": "promoting", "accepted": accepted, "reason": f"promoted by {by}"}
        case "abort":
            # The default version has changed already and must be changed back.
            phase = "rolling_back" if state.phase == "promoted" else "aborted"
            return {"phase": phase, "reason": f"aborted by {by}"}


_ATTEMPTS = 5


def change_rollout(
    store: EventStore,
    name: str,
    wanted: Command,
    *,
    by: str = "hand",
    clock: Callable[[], datetime] = _now,
) -> RolloutState:
    """Apply a command and return the new state; the controller acts on it at its next look.

    ``by`` becomes part of the reason, and so of the journal.

    Raises ``RolloutError`` if it is not allowed, a later rollout depends on this one, or the
    rollout keeps changing; ``SettingsError`` if there is no such rollout.
    """
    for _ in range(_ATTEMPTS):
        row = store.rollouts.get(name)
        plan = Plan.model_validate_json(row.plan)
        state = RolloutState.model_validate_json(row.state)
        changed = command(wanted, plan, state, clock(), by)
        if state.phase == "promoted":
            _refuse_with_dependants(store, name, plan.challenger)
        if store.rollouts.replace_state(
            name,
            row.revision,
            changed.model_dump_json(),
            split_of(plan, changed),
            changed.reason,
            serve=served_by(plan, changed),
        ):
            return changed
    raise RolloutError(f"rollout {name} keeps changing; try again")


def _refuse_with_dependants(store: EventStore, name: str, promoted: str) -> None:
    """Refuse a rollback that would remove the control of later rollouts."""
    rows = store.rollouts.all()
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


def find_rollout(store: EventStore, name: str | None) -> RolloutRow:
    """Return a rollout, by default the last one, or raise ``SettingsError``."""
    if name is not None:
        return store.rollouts.get(name)
    rows = store.rollouts.all()
    if not rows:
        raise SettingsError("there was no rollout yet; ./run rollout start PLAN.yaml")
    return rows[-1]


def prune_events(
    store: EventStore,
    before: datetime,
    *,
    covariate_days: float,
    force: bool = False,
    on_removed: Callable[[int], None],
) -> PruneCounts:
    """Remove answers and events before a moment; rollouts, journals and snapshots stay.

    A rollout in progress needs its own rows and those of ``covariate_days`` before it. ``force``
    removes also if the clock may be wrong. ``on_removed`` is called with the number of rows that
    each transaction removed. Raises ``RolloutError`` if a rollout in progress needs some of the
    rows, and ``SetupError`` if the clock may have jumped ahead; then nothing was removed.
    """
    doubt = None if force else clock_doubt(store.database, before, datetime.now(UTC))
    if doubt is not None:
        raise SetupError(
            f"nothing is removed before {before:%Y-%m-%d %H:%M} UTC: {doubt}. If this machine's "
            "clock is right, give --force"
        )
    for row in store.rollouts.all():
        needed = row.created_at - timedelta(days=covariate_days)
        if RolloutState.model_validate_json(row.state).phase not in OVER and before > needed:
            raise RolloutError(
                f"rollout {row.name} is judged by what happened since {needed:%Y-%m-%d %H:%M} UTC: "
                "keep it until the rollout is over"
            )
    return prune(store.database, before, on_removed)
