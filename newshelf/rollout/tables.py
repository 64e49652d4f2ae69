"""Tables of an analysis, for terminal and report, and the status of a rollout in a terminal."""

import math
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.markup import escape

from newshelf.report.page import ReportTable, print_table
from newshelf.rollout.analysis import Analysis
from newshelf.rollout.decide import UNKNOWN, format_number, guardrail_value, percent
from newshelf.rollout.history import Snapshot
from newshelf.rollout.metric_results import MetricResult
from newshelf.rollout.plan import PHASES, Plan, RolloutState
from newshelf.store.rollouts import RolloutRow

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
