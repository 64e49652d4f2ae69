"""What happened in a rollout, from its journal and the looks that were kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from newshelf.rollout.analysis import Analysis
from newshelf.rollout.look import Look, read_look
from newshelf.rollout.plan import Plan
from newshelf.rollout.state import RolloutState
from newshelf.rollout.store import EventStore, JournalEntry, RolloutRow

__all__ = ["History", "Moment", "Stretch", "read_history"]

_MOST_LOOKS = 600
"""As many as a picture can show."""


@dataclass(frozen=True)
class Stretch:
    """From one change to the next."""

    begins: datetime
    ends: datetime
    """Of the last one: the last look, or the moment of its beginning."""
    title: str
    """Phase, and step of a ramp."""
    note: str
    """Why it began."""
    control: float
    """Share of the units that are counted as control's, of 1."""
    challenger: float
    """Share of the units that it answers."""
    default: float
    """The others: answered by control's version, and not counted."""


@dataclass(frozen=True)
class Moment:
    """A look that analysed something."""

    at: datetime
    analysis: Analysis


@dataclass(frozen=True)
class History:
    """The whole rollout."""

    plan: Plan
    state: RolloutState
    stretches: Sequence[Stretch]
    moments: Sequence[Moment]
    shadow: Look | None
    """The last look at copies; None without a shadow phase."""


def read_history(store: EventStore, row: RolloutRow) -> History:
    """Read it.

    Args:
        store: holds journal and looks.
        row: of the rollout.
    """
    looks = [read_look(kept) for kept in store.looks(row.name, most=_MOST_LOOKS)]
    plan = Plan.model_validate_json(row.plan)
    journal = store.journal(row.name)
    last = max([row.updated_at, *(at for at, _ in looks)])
    return History(
        plan=plan,
        state=RolloutState.model_validate_json(row.state),
        stretches=_stretches(plan, journal, last),
        moments=[Moment(at, look.analysis) for at, look in looks if look.analysis is not None],
        shadow=next((look for _, look in reversed(looks) if look.shadow), None),
    )


def _stretches(plan: Plan, journal: Sequence[JournalEntry], last: datetime) -> list[Stretch]:
    ends = [after.at for _, after in pairwise(journal)] + [last]
    return [_stretch(plan, entry, end) for entry, end in zip(journal, ends, strict=True)]


def _stretch(plan: Plan, entry: JournalEntry, end: datetime) -> Stretch:
    state = RolloutState.model_validate_json(entry.state)
    inside = 0.0 if entry.split is None else entry.split.share * (1 - entry.split.holdout)
    control, challenger = inside, 1.0 if state.phase == "promoted" else inside
    return Stretch(
        begins=entry.at,
        ends=max(end, entry.at),
        title=_title(plan, state),
        note=entry.note,
        control=control,
        challenger=challenger,
        default=1 - control - challenger,
    )


def _title(plan: Plan, state: RolloutState) -> str:
    if state.phase == "ramp":
        return f"{plan.ramp[state.step].percent:g} %"
    return state.phase.replace("_", " ")
