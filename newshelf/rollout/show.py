"""Where a rollout stands, in a terminal."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.markup import escape

from newshelf.rollout.figures import (
    GUARDRAIL_HEADER,
    METRIC_HEADER,
    SIGNAL_HEADER,
    check_lines,
    guardrail_rows,
    metric_rows,
    signal_rows,
)
from newshelf.rollout.look import Look
from newshelf.rollout.plan import Plan
from newshelf.rollout.state import PHASES, RolloutState
from newshelf.rollout.store import RolloutRow
from newshelf.terminal import print_figures

__all__ = ["show_rollout"]


def show_rollout(console: Console, row: RolloutRow, look: tuple[datetime, Look] | None) -> None:
    """Print it.

    Args:
        console: where to.
        row: of the store.
        look: the controller's last one.
    """
    plan = Plan.model_validate_json(row.plan)
    state = RolloutState.model_validate_json(row.state)
    console.print(f"[bold]{escape(row.name)}[/]: {_phase(state)}")
    console.print(f"  {PHASES[state.phase]}")
    console.print(f"  control {plan.control}, challenger {plan.challenger}", markup=False)
    console.print(f"  since {state.since.astimezone():%Y-%m-%d %H:%M:%S}: ", end="")
    console.print(state.reason, markup=False)
    console.print(f"  {_share(row, plan, state)}")
    if look is None:
        console.print("  the controller has not looked at it yet")
        return
    at, seen = look
    console.print(f"  seen at {at.astimezone():%H:%M:%S}: {seen.outcome}, ", end="")
    console.print(seen.reason, markup=False)
    if not seen.versions_ready:
        console.print("  a version did not answer: the controller's log says which")
    if seen.shadow:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in seen.shadow.items())
        console.print(f"  copies: {shown}")
    if seen.analysis is not None:
        _table(console, METRIC_HEADER, metric_rows(seen.analysis))
        _table(console, GUARDRAIL_HEADER, guardrail_rows(seen.analysis))
        _table(console, SIGNAL_HEADER, signal_rows(seen.analysis))
        for line in check_lines(seen.analysis):
            console.print(f"  {line}", markup=False)


def _phase(state: RolloutState) -> str:
    return f"paused in {state.resumes_to}" if state.phase == "paused" else state.phase


def _share(row: RolloutRow, plan: Plan, state: RolloutState) -> str:
    if row.split is None:
        return "no unit is split"
    if row.split.shadow:
        return "every request is copied to the challenger, and none is answered by it"
    step = f"step {state.step + 1} of {len(plan.ramp)}"
    return (
        f"{step}: {100 * row.split.share:g} % of the units see the challenger, as many are control"
    )


def _table(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        print_figures(console, header, rows, left=(0, len(header) - 1))
