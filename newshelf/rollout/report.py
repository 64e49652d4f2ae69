"""The report of a rollout: one self-contained HTML page with charts."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from matplotlib.axes import Axes

from newshelf.report.page import Page, Picture, ReportTable, Section, save_page
from newshelf.report.plots import COLOURS, MUTED, legend_right, new_figure, save, style_axes
from newshelf.rollout.analysis import Analysis
from newshelf.rollout.decide import MAX_EFFECT
from newshelf.rollout.history import (
    AnalysisPoint,
    Period,
    RolloutHistory,
    check_lines,
    guardrail_table,
    metric_table,
    read_history,
    signal_table,
)
from newshelf.rollout.metric_results import MetricResult
from newshelf.rollout.plan import PHASES, Plan
from newshelf.store.rollouts import RolloutRow
from newshelf.store.store import EventStore

_CONTROL, _CHALLENGER = COLOURS[0], COLOURS[1]
_WIDTH_IN = 9.5
_ROOM = 1.25
"""Height of the chart, relative to the last known interval."""
_TITLES = 12
"""Maximum number of titles next to each other."""
_UNITS = ((2 * 86400.0, 86400.0, "days"), (2 * 3600.0, 3600.0, "hours"), (120.0, 60.0, "minutes"))
"""Least span in seconds, seconds per unit, and name of the unit."""


def draw_shares(periods: Sequence[Period], path: Path) -> None:
    """Write a PNG of the share of each variant over a whole rollout."""
    start = periods[0].begins
    scale_s, unit = _time_unit((periods[-1].ends - start).total_seconds())
    times = [(one.begins - start).total_seconds() / scale_s for one in periods]
    times.append((periods[-1].ends - start).total_seconds() / scale_s)
    figure = new_figure(_WIDTH_IN, 3.4)
    axes = figure.add_subplot()
    # The last period is drawn to its end.
    control, challenger, default = (
        [getattr(one, name) for one in (*periods, periods[-1])]
        for name in ("control", "challenger", "default")
    )
    axes.stackplot(
        times,
        challenger,
        default,
        control,
        step="post",
        labels=["challenger", "not counted", "control"],
        colors=[_CHALLENGER, MUTED, _CONTROL],
        alpha=0.85,
    )
    for time, one in zip(times, periods, strict=False):
        axes.axvline(time, color="white", linewidth=0.8)
        _title(axes, one, time, times[-1] * scale_s)
    axes.set_xlim(0, max(times[-1], 1e-9))
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"{unit} since the start")
    axes.set_ylabel("share of the units")
    axes.spines[["top", "right"]].set_visible(False)
    legend_right(axes)
    save(figure, path)


def draw_metric(
    name: str, analyses: Sequence[AnalysisPoint], periods: Sequence[Period], path: Path
) -> bool:
    """Write a PNG of the effect with its confidence sequence over time.

    Starts of periods are marked. If no analysis has an estimate, False is returned and nothing
    written.
    """
    if not analyses:
        return False
    # From the start of the split; before it there is no data.
    start = next((one.begins for one in periods if one.control), periods[0].begins)
    end_s = (analyses[-1].at - start).total_seconds()
    scale_s, unit = _time_unit(end_s)
    known = [
        (_since(start, point.at, scale_s), result)
        for point in analyses
        for result in point.analysis.metrics
        if result.metric == name and math.isfinite(result.effect)
    ]
    if not known:
        return False
    figure = new_figure(_WIDTH_IN, 3.4)
    axes = figure.add_subplot()
    times = [time for time, _ in known]
    results = [result for _, result in known]
    alone = len(times) == 1
    axes.fill_between(
        times,
        [one.low for one in results],
        [min(one.high, 2 * MAX_EFFECT) for one in results],
        color=_CHALLENGER,
        alpha=0.18,
        linewidth=4 if alone else 0,
        label="confidence sequence",
    )
    effects = [one.effect for one in results]
    axes.plot(times, effects, marker="o" if alone else "", color=_CHALLENGER, label="effect")
    axes.axhline(0, color="#444b57", linewidth=1)
    axes.set_xlim(0, max(end_s / scale_s, 1e-9))
    for one in periods:
        time = _since(start, one.begins, scale_s)
        if 0 <= time < end_s / scale_s:
            axes.axvline(time, color="#9aa1ad", linewidth=0.9, linestyle=":")
            _title(axes, one, time, end_s)
    _focus(axes, results)
    points = name == "preference"
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+.2f}" if points else f"{value:+.0%}")
    axes.set_xlabel(f"{unit} since the first shopper saw the challenger")
    axes.set_ylabel("distance from one half" if points else "challenger over control")
    style_axes(axes)
    legend_right(axes)
    save(figure, path)
    return True


def _title(axes: Axes, period: Period, time: float, span_s: float) -> None:
    """Write a period's title above its start if it fits into a chart of ``span_s``."""
    if (period.ends - period.begins).total_seconds() > span_s / _TITLES:
        axes.text(
            time, 1.02, f" {period.title}", fontsize=9, va="bottom",
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _focus(axes: Axes, results: Sequence[MetricResult]) -> None:
    """Scale the axis by the later half of the results: the first intervals are very wide."""
    middle = results[len(results) // 2 :]
    bounds = [value for one in middle for value in (one.low, one.high) if math.isfinite(value)]
    bounds += [one.effect for one in results] + [0.0]
    low, high = min(bounds), min(max(bounds), MAX_EFFECT)
    centre, half = (low + high) / 2, max((high - low) / 2, 1e-6) * _ROOM
    axes.set_ylim(centre - half, centre + half)


def _time_unit(span_s: float) -> tuple[float, str]:
    for least_s, scale_s, name in _UNITS:
        if span_s >= least_s:
            return scale_s, name
    return 1.0, "seconds"


def _since(start: datetime, at: datetime, scale_s: float) -> float:
    return (at - start).total_seconds() / scale_s


_NOT_YET = "The controller has not analysed anything yet."


def write_report(store: EventStore, row: RolloutRow, path: Path) -> None:
    """Write the page of a rollout, atomically."""
    history = read_history(store, row)
    with tempfile.TemporaryDirectory(prefix="newshelf-report-") as folder:
        page = _page(row, history, Path(folder))
        save_page(page, path, Path(folder))


def _page(row: RolloutRow, history: RolloutHistory, folder: Path) -> Page:
    plan = history.plan
    last = history.analyses[-1].analysis if history.analyses else None
    sections = [
        _decision(history),
        _timeline(history, folder),
        _metrics(history, last, folder),
        _guardrails(history, last),
        *([_copies(history)] if history.shadow else []),
        *([_signals(last)] if last and last.signals else []),
        _plan(plan),
    ]
    facts = [
        f"control {plan.control}",
        f"challenger {plan.challenger}",
        f"from {_time(row.created_at)}",
        f"to {_time(history.periods[-1].ends)}",
    ]
    return Page(f"Rollout {row.name}", facts, [], sections)


def _decision(history: RolloutHistory) -> Section:
    state = history.state
    phase = state.label.replace("_", " ")
    return Section(
        "Decision",
        text=PHASES[state.phase],
        verdict=f"{phase.capitalize()} since {_time(state.since)}: {state.reason}",
    )


def _timeline(history: RolloutHistory, folder: Path) -> Section:
    file = "shares.png"
    draw_shares(history.periods, folder / file)
    caption = (
        "Share of the units of each variant. As many are control as see the challenger; the "
        "others are answered by control's version, and not counted."
    )
    rows = [
        [
            one.title,
            _time(one.begins),
            str(one.ends - one.begins).partition(".")[0],
            f"{100 * one.challenger:.3g} %",
            one.note,
        ]
        for one in history.periods
    ]
    header = ("step", "began", "lasted", "challenger", "why it began")
    table = ReportTable("Steps", header, rows, text_columns=[4])
    return Section("Timeline", tables=[table], pictures=[Picture(file, caption)])


def _metrics(history: RolloutHistory, last: Analysis | None, folder: Path) -> Section:
    pictures = []
    for place, success in enumerate(history.plan.success):
        file = f"metric-{place}.png"
        if draw_metric(success.metric, history.analyses, history.periods, folder / file):
            caption = (
                f"{success.metric}: the challenger's effect, and the sequence that holds the "
                f"truth at every look at once with a probability of {1 - history.plan.alpha:.0%}. "
                "Dotted: where a step began."
            )
            pictures.append(Picture(file, caption))
    if last is None:
        return Section("Metrics", text=_NOT_YET)
    share = history.plan.cap_quantile
    capped = f" A unit counts for at most what {100 * share:g} % of all units have."
    capped = "" if share == 1 else capped
    table = metric_table("At the last look", last)
    return Section(
        "Metrics",
        text=" ".join(f"{line[0].upper()}{line[1:]}." for line in check_lines(last)) + capped,
        tables=[table],
        pictures=pictures,
    )


def _guardrails(history: RolloutHistory, last: Analysis | None) -> Section:
    if last is None:
        return Section("Guardrails", text=_NOT_YET)
    broken = next(
        (one for one in history.analyses if any(each.failed for each in one.analysis.guardrails)),
        None,
    )
    verdict = "" if broken is None else f"The first broke at {_time(broken.at)}."
    text = (
        "They count from the beginning of the current step. The challenger's true value is at "
        "least what the table says, at every look at once."
    )
    shown = last if broken is None else broken.analysis
    heading = "At the last look" if broken is None else "When it broke"
    table = guardrail_table(heading, shown)
    return Section("Guardrails", text=text, tables=[table], verdict=verdict)


def _copies(history: RolloutHistory) -> Section:
    seen = {} if history.shadow is None else history.shadow.shadow
    rows = [[name.replace("_", " "), f"{value:.4g}"] for name, value in seen.items()]
    text = "What the challenger answered to copies, before any shopper saw it."
    return Section("Shadow", text=text, tables=[ReportTable("At its end", ("", "value"), rows)])


def _signals(last: Analysis) -> Section:
    table = signal_table("At the last look", last)
    text = (
        "Products that both variants show, at equal size. A signal pauses, and rolls nothing back."
    )
    return Section("Signals", text=text, tables=[table])


def _plan(plan: Plan) -> Section:
    # Testers' ids are private.
    given = plan.model_dump(mode="json", exclude={"overrides"}, exclude_none=True)
    rows = [[name, text] for name, text in _fields("", given)]
    table = ReportTable("As it was given", ("field", "value"), rows, text_columns=[1])
    return Section("Plan", tables=[table])


def _fields(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield paths such as ``ramp[0].percent`` with their values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _fields(f"{name}.{key}".removeprefix("."), inner)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _fields(f"{name}[{place}]", inner)
    else:
        yield name, f"{value:g}" if isinstance(value, float) else str(value)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
