"""A rollout as one HTML page that needs nothing else."""

import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from newshelf.evaluation.html import to_html
from newshelf.evaluation.page import Page, Picture, Section
from newshelf.evaluation.tables import Cell, Table
from newshelf.files import write_aside
from newshelf.rollout.analysis import Analysis
from newshelf.rollout.figures import (
    GUARDRAIL_HEADER,
    METRIC_HEADER,
    SIGNAL_HEADER,
    check_lines,
    guardrail_rows,
    metric_rows,
    signal_rows,
)
from newshelf.rollout.history import History, read_history
from newshelf.rollout.plan import Plan
from newshelf.rollout.report_figures import draw_metric, draw_shares
from newshelf.rollout.state import PHASES
from newshelf.rollout.store import EventStore, RolloutRow

__all__ = ["write_report"]

_NOT_YET = "The controller has not analysed anything yet."


def write_report(store: EventStore, row: RolloutRow, path: Path) -> None:
    """Write the page, aside and renamed.

    Args:
        store: holds journal and looks.
        row: of the rollout.
        path: of the page.
    """
    history = read_history(store, row)
    with tempfile.TemporaryDirectory(prefix="newshelf-report-") as folder:
        page = _page(row, history, Path(folder))
        text = to_html(page, Path(folder))
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _page(row: RolloutRow, history: History, folder: Path) -> Page:
    plan = history.plan
    last = history.moments[-1].analysis if history.moments else None
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
        f"to {_time(history.stretches[-1].ends)}",
    ]
    return Page(f"Rollout {row.name}", facts, [], sections)


def _decision(history: History) -> Section:
    state = history.state
    phase = state.phase.replace("_", " ")
    if state.resumes_to is not None:
        phase += f" in {state.resumes_to}"
    return Section(
        "Decision",
        text=PHASES[state.phase],
        verdict=f"{phase.capitalize()} since {_time(state.since)}: {state.reason}",
    )


def _timeline(history: History, folder: Path) -> Section:
    file = "shares.png"
    draw_shares(history.stretches, folder / file)
    caption = (
        "Share of the units of each variant. As many are control as see the challenger; the "
        "others are answered by control's version, and not counted."
    )
    rows = [
        [
            Cell(one.title),
            Cell(_time(one.begins)),
            Cell(_span(one.ends - one.begins)),
            Cell(f"{100 * one.challenger:.3g} %"),
            Cell(one.note),
        ]
        for one in history.stretches
    ]
    header = ("step", "began", "lasted", "challenger", "why it began")
    table = Table("Steps", header, rows, words=frozenset({4}))
    return Section("Timeline", tables=[table], pictures=[Picture(file, caption)])


def _metrics(history: History, last: Analysis | None, folder: Path) -> Section:
    pictures = []
    for place, success in enumerate(history.plan.success):
        file = f"metric-{place}.png"
        if draw_metric(success.metric, history.moments, history.stretches, folder / file):
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
    table = _table("At the last look", METRIC_HEADER, metric_rows(last))
    return Section(
        "Metrics",
        text=" ".join(f"{line[0].upper()}{line[1:]}." for line in check_lines(last)) + capped,
        tables=[table],
        pictures=pictures,
    )


def _guardrails(history: History, last: Analysis | None) -> Section:
    if last is None:
        return Section("Guardrails", text=_NOT_YET)
    broken = next(
        (one for one in history.moments if any(each.failed for each in one.analysis.guardrails)),
        None,
    )
    verdict = "" if broken is None else f"The first broke at {_time(broken.at)}."
    text = (
        "They count from the beginning of the current step. The challenger's true value is at "
        "least what the table says, at every look at once."
    )
    shown = last if broken is None else broken.analysis
    heading = "At the last look" if broken is None else "When it broke"
    table = _table(heading, GUARDRAIL_HEADER, guardrail_rows(shown))
    return Section("Guardrails", text=text, tables=[table], verdict=verdict)


def _copies(history: History) -> Section:
    seen = {} if history.shadow is None else history.shadow.shadow
    rows = [[Cell(name.replace("_", " ")), Cell(f"{value:.4g}")] for name, value in seen.items()]
    text = "What the challenger answered to copies, before any shopper saw it."
    return Section("Shadow", text=text, tables=[Table("At its end", ("", "value"), rows)])


def _signals(last: Analysis) -> Section:
    table = _table("At the last look", SIGNAL_HEADER, signal_rows(last))
    text = (
        "Products that both variants show, at equal size. A signal pauses, and rolls nothing back."
    )
    return Section("Signals", text=text, tables=[table])


def _plan(plan: Plan) -> Section:
    # Who tests is nobody's business.
    given = plan.model_dump(mode="json", exclude={"overrides"}, exclude_none=True)
    rows = [[Cell(name), Cell(text)] for name, text in _fields("", given)]
    table = Table("As it was given", ("field", "value"), rows, words=frozenset({1}))
    return Section("Plan", tables=[table])


def _fields(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Fields within fields, such as ``ramp[0].percent``, with their values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _fields(f"{name}.{key}".removeprefix("."), inner)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _fields(f"{name}[{place}]", inner)
    else:
        yield name, f"{value:g}" if isinstance(value, float) else str(value)


def _table(heading: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return Table(heading, header, [[Cell(text) for text in row] for row in rows])


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    days, seconds = divmod(seconds, 86400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
