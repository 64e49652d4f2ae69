"""The history of a rollout: snapshots of single looks, the whole course, and their tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.markup import escape

from newshelf.report.page import ReportTable, print_table
from newshelf.rollout.analysis import Analysis
from newshelf.rollout.decide import (
    UNKNOWN,
    Decision,
    DecisionOutcome,
    format_number,
    guardrail_value,
    percent,
)
from newshelf.rollout.metric_results import MetricResult
from newshelf.rollout.plan import PHASES, Phase, Plan, RolloutState
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


_LEAST_P = 0.0001


def metric_table(heading: str, analysis: Analysis) -> ReportTable:
    """Return a row per success metric: variants, effect with confidence sequence, verdict."""
    header = ("metric", "control", "challenger", "effect", "interval", "p", "information", "")
    return _table(heading, header, [_metric(one) for one in analysis.metrics])


def guardrail_table(heading: str, analysis: Analysis) -> ReportTable:
    """Return a row per guardrail: variants, lower bound of the challenger's value, limit."""
    rows = [
        (
            f"{one.metric} ({one.kind.replace('_', ' ')})",
            *(
                guardrail_value(one.metric, value)
                for value in (one.control, one.challenger, one.low, one.allowed)
            ),
            "broken" if one.failed else "kept",
        )
        for one in analysis.guardrails
    ]
    header = ("guardrail", "control", "challenger", "at least", "allowed", "")
    return _table(heading, header, rows)


def signal_table(heading: str, analysis: Analysis) -> ReportTable:
    """Return a row per signal: products shown by the variants."""
    rows = [
        (
            one.metric,
            format_number(one.control, ".0f"),
            format_number(one.challenger, ".0f"),
            f"{one.least_of_control:.0%} of control",
            "raised" if one.raised else "quiet",
        )
        for one in analysis.signals
    ]
    return _table(heading, ("signal", "control", "challenger", "allowed", ""), rows)


def check_lines(analysis: Analysis) -> Sequence[str]:
    """Return the checks of the experiment itself, in words."""
    ratio = analysis.sample_ratio
    believed = "a mismatch" if ratio.mismatch else "as it should be"
    return (
        f"units since the rollout began: {ratio.control} control, {ratio.challenger} challenger "
        f"(sample ratio {believed}, p = {ratio.sequential_p:.3g})",
        f"units in this step: {analysis.control_units} control, {analysis.challenger_units} "
        "challenger",
        f"requests in this step: {analysis.control_requests} control, "
        f"{analysis.challenger_requests} challenger",
        f"units that saw both: {analysis.double_exposed}",
        *(
            f"unit {one.unit} has {one.share:.0%} of the answers of {one.variant}: if it is no "
            "shopper, name it in the next plan's overrides, and it is not counted"
            for one in analysis.heavy_units
        ),
    )


def _metric(one: MetricResult) -> Sequence[str]:
    effect, low, high = (_effect(one, value) for value in (one.effect, one.low, one.high))
    interval = one.reason or (UNKNOWN if math.isnan(one.effect) else f"{low} … {high}")
    return (
        one.metric,
        format_number(one.control, ".4g"),
        format_number(one.challenger, ".4g"),
        effect,
        interval,
        f"{one.p:.4f}" if one.p >= _LEAST_P else f"< {_LEAST_P}",
        f"{one.information / one.planned_information:.0%} of planned",
        f"{one.verdict}, {one.capped} units capped" if one.capped else one.verdict,
    )


def _effect(one: MetricResult, value: float) -> str:
    if math.isnan(value):
        return UNKNOWN
    return f"{value:+.3f}" if one.metric == "preference" else f"{percent(value)}%"


def show_rollout(console: Console, row: RolloutRow, last: tuple[datetime, Snapshot] | None) -> None:
    """Print the status of a rollout and its last snapshot with its time."""
    plan = Plan.model_validate_json(row.plan)
    state = RolloutState.model_validate_json(row.state)
    console.print(f"[bold]{escape(row.name)}[/]: {state.label}")
    console.print(f"  {PHASES[state.phase]}")
    console.print(f"  control {plan.control}, challenger {plan.challenger}", markup=False)
    console.print(f"  since {state.since.astimezone():%Y-%m-%d %H:%M:%S}: ", end="")
    console.print(state.reason, markup=False)
    console.print(f"  {_share(row, plan, state)}")
    if last is None:
        console.print("  the controller has not looked at it yet")
        return
    at, seen = last
    console.print(f"  seen at {at.astimezone():%H:%M:%S}: {seen.outcome}, ", end="")
    console.print(seen.reason, markup=False)
    if not seen.versions_ready:
        console.print("  a version did not answer: the controller's log says which")
    if seen.shadow:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in seen.shadow.items())
        console.print(f"  copies: {shown}")
    if seen.analysis is not None:
        for make in (metric_table, guardrail_table, signal_table):
            table = make("", seen.analysis)
            if table.rows:
                print_table(table, console)
        for line in check_lines(seen.analysis):
            console.print(f"  {line}", markup=False)


def _share(row: RolloutRow, plan: Plan, state: RolloutState) -> str:
    if row.split is None:
        return "no unit is split"
    if row.split.shadow:
        return "every request is copied to the challenger, and none is answered by it"
    step = f"step {state.step + 1} of {len(plan.ramp)}"
    return (
        f"{step}: {100 * row.split.share:g} % of the units see the challenger, as many are control"
    )


def _table(heading: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> ReportTable:
    return ReportTable(heading, header, rows, text_columns=[len(header) - 1])
