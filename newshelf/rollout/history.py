"""What happened in a rollout, from its journal and the looks that were kept.

One look at a rollout, as it is kept for status and report.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from pydantic import BaseModel, ConfigDict

from newshelf.rollout.analysis import Analysis
from newshelf.rollout.decide import Decision, DecisionOutcome
from newshelf.rollout.plan import Plan
from newshelf.rollout.state import Phase, RolloutState
from newshelf.store.records import Observation
from newshelf.store.rollouts import JournalEntry, RolloutRow, SnapshotRow
from newshelf.store.store import EventStore


class Snapshot(BaseModel):
    """What was seen, and what was decided."""

    # Intervals that know nothing yet are infinite, which plain JSON cannot say. Looks of earlier
    # versions have other fields, and are still shown.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")

    phase: Phase
    """As it was when it was looked at."""
    step: int
    outcome: DecisionOutcome
    reason: str
    analysis: Analysis | None = None
    shadow: Mapping[str, float] = {}
    """See ``Observation.shadow``."""
    versions_ready: bool


def snapshot_of(state: RolloutState, observation: Observation, decision: Decision) -> Snapshot:
    """What is kept of one decision."""
    return Snapshot(
        phase=state.phase,
        step=state.step,
        outcome=decision.outcome,
        reason=decision.reason,
        analysis=decision.analysis,
        shadow=observation.shadow,
        versions_ready=observation.versions_ready,
    )


def read_snapshot(row: SnapshotRow) -> tuple[datetime, Snapshot]:
    """When it was, and what was seen."""
    return row.at, Snapshot.model_validate_json(row.snapshot)


_MOST_SNAPSHOTS = 600
"""As many as a chart can show."""


@dataclass(frozen=True)
class Period:
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
class AnalysisPoint:
    """A look that analysed something."""

    at: datetime
    analysis: Analysis


@dataclass(frozen=True)
class RolloutHistory:
    """The whole rollout."""

    plan: Plan
    state: RolloutState
    periods: Sequence[Period]
    analyses: Sequence[AnalysisPoint]
    shadow: Snapshot | None
    """The last look at copies; None without a shadow phase."""


def read_history(store: EventStore, row: RolloutRow) -> RolloutHistory:
    """Read it.

    Args:
        store: holds journal and looks.
        row: of the rollout.
    """
    snapshots = [
        read_snapshot(one) for one in store.rollouts.snapshots(row.name, most=_MOST_SNAPSHOTS)
    ]
    plan = Plan.model_validate_json(row.plan)
    journal = store.rollouts.journal(row.name)
    last = max([row.updated_at, *(at for at, _ in snapshots)])
    return RolloutHistory(
        plan=plan,
        state=RolloutState.model_validate_json(row.state),
        periods=_periods(plan, journal, last),
        analyses=[
            AnalysisPoint(at, one.analysis) for at, one in snapshots if one.analysis is not None
        ],
        shadow=next((one for _, one in reversed(snapshots) if one.shadow), None),
    )


def _periods(plan: Plan, journal: Sequence[JournalEntry], last: datetime) -> list[Period]:
    ends = [after.at for _, after in pairwise(journal)] + [last]
    return [_period(plan, entry, end) for entry, end in zip(journal, ends, strict=True)]


def _period(plan: Plan, entry: JournalEntry, end: datetime) -> Period:
    state = RolloutState.model_validate_json(entry.state)
    inside = 0.0 if entry.split is None else entry.split.share * (1 - entry.split.holdout)
    control, challenger = inside, 1.0 if state.phase == "promoted" else inside
    return Period(
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
