"""The history of a rollout: snapshots of single looks, and the whole course for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from pydantic import BaseModel, ConfigDict

from newshelf.rollout.analysis import Analysis
from newshelf.rollout.decide import Decision, DecisionOutcome
from newshelf.rollout.plan import Phase, Plan, RolloutState
from newshelf.store.records import Observation
from newshelf.store.rollouts import JournalEntry, RolloutRow, SnapshotRow
from newshelf.store.store import EventStore


class Snapshot(BaseModel):
    """Observation and decision of one look, stored for status and report."""

    # Unknown intervals are infinite, which plain JSON cannot express. Snapshots of earlier versions
    # have other fields and must stay readable.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")

    phase: Phase
    """At the look, before the decision."""
    step: int
    outcome: DecisionOutcome
    reason: str
    analysis: Analysis | None = None
    shadow: Mapping[str, float] = {}
    """See ``Observation.shadow``."""
    versions_ready: bool


def snapshot_of(state: RolloutState, observation: Observation, decision: Decision) -> Snapshot:
    """Return the snapshot of a look."""
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
    """Return time and content of a stored snapshot."""
    return row.at, Snapshot.model_validate_json(row.snapshot)


_MOST_SNAPSHOTS = 600
"""As many as a chart can show."""


@dataclass(frozen=True)
class Period:
    """The time from one change of the state to the next."""

    begins: datetime
    ends: datetime
    """Of the last period: the last snapshot, or its own start."""
    title: str
    """Phase, or share of a step of the ramp."""
    note: str
    control: float
    """Share of the units that count as control, of 1."""
    challenger: float
    default: float
    """Share of the other units: served control's version, not counted."""


@dataclass(frozen=True)
class AnalysisPoint:
    """The analysis of one look."""

    at: datetime
    analysis: Analysis


@dataclass(frozen=True)
class RolloutHistory:
    """The course of a rollout."""

    plan: Plan
    state: RolloutState
    periods: Sequence[Period]
    analyses: Sequence[AnalysisPoint]
    shadow: Snapshot | None
    """Last snapshot of the shadow phase; None without one."""


def read_history(store: EventStore, row: RolloutRow) -> RolloutHistory:
    """Read the history of a rollout from journal and snapshots."""
    snapshots = [
        read_snapshot(one) for one in store.rollouts.snapshots(row.name, most=_MOST_SNAPSHOTS)
    ]
    plan = Plan.model_validate_json(row.plan)
    journal = store.rollouts.journal(row.name)
    last = max([row.updated_at, *(at for at, _ in snapshots)])
    ends = [*(after.at for _, after in pairwise(journal)), last]
    return RolloutHistory(
        plan=plan,
        state=RolloutState.model_validate_json(row.state),
        periods=[_period(plan, *entry) for entry in zip(journal, ends, strict=True)],
        analyses=[
            AnalysisPoint(at, one.analysis) for at, one in snapshots if one.analysis is not None
        ],
        shadow=next((one for _, one in reversed(snapshots) if one.shadow), None),
    )


def _period(plan: Plan, entry: JournalEntry, end: datetime) -> Period:
    state = RolloutState.model_validate_json(entry.state)
    inside = 0.0 if entry.split is None else entry.split.share * (1 - entry.split.holdout)
    control, challenger = inside, 1.0 if state.phase == "promoted" else inside
    return Period(
        begins=entry.at,
        ends=max(end, entry.at),
        title=(
            plan.ramp[state.step].label if state.phase == "ramp" else state.phase.replace("_", " ")
        ),
        note=entry.note,
        control=control,
        challenger=challenger,
        default=1 - control - challenger,
    )
