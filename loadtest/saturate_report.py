"""What a search for the greatest rate found: a table, a plot, a page and a JSON file."""

from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from loadtest.plots import log_ms, quiet_axes
from loadtest.record import RunRecord, write_record
from loadtest.report import PLOTS, judged, run_facts, run_sections, write_page
from loadtest.saturate import Goal, Saturation, Trial
from loadtest.slo import Limits, Objective
from loadtest.tables import milliseconds, print_table
from newshelf.evaluation.figures.canvas import COLOURS, new_figure, save
from newshelf.evaluation.page import Page, Picture, Section
from newshelf.evaluation.tables import Cell, Table
from newshelf.files import write_json

__all__ = ["draw_rates", "print_saturation", "sentence", "trial_words", "write_saturation"]

_RESULT, _RECORD, _PLOT = "saturation.json", "record.json", "rates.png"


def trial_words(trial: Trial, goal: Goal) -> str:
    """One run in a line."""
    mark = "✓" if trial.kept else "·"
    errors = f", {trial.error_rate:.2%} failed" if trial.error_rate else ""
    generator = f" ({trial.generator})" if trial.generator else ""
    latency = milliseconds(trial.latency_ms)
    return (
        f"{mark} {trial.rate:.1f}/s: p{goal.latency.percent:g} {latency} ms{errors}, "
        f"{trial.purpose}{generator}"
    )


def sentence(found: Saturation) -> str:
    """What was found, and what it was limited by."""
    limit = f"p{found.goal.latency.percent:g} ≤ {found.goal.latency.most_ms:g} ms"
    if found.rate is None:
        return f"No rate that was tried keeps {limit}: {found.reason}."
    said = (
        f"{found.rate:.1f} requests/s is the greatest Poisson rate that keeps {limit}, confirmed "
        f"by {sum(one.kept for one in found.confirmed)} of {len(found.confirmed)} runs."
    )
    whose = {
        "server": "The server was the limit",
        "generator": "The generator, not the server, was the limit",
        "search": "No limit was found",
    }
    return f"{said} {whose[found.limited_by]}: {found.reason}."


def print_saturation(found: Saturation, console: Console) -> None:
    """The figure, and how it was found."""
    print_table(_table(found), console)
    console.print(sentence(found), markup=False)


def write_saturation(found: Saturation, last: RunRecord, folder: Path) -> Path:
    """Write ``saturation.json``, ``report.html`` and plots; the last run's record beside them.

    Returns:
        The path of the report.
    """
    write_json(folder / _RESULT, {"format": 1, **asdict(found)})
    write_record(last, folder / _RECORD)
    plots = folder / PLOTS
    plots.mkdir(parents=True, exist_ok=True)
    draw_rates(found, plots / _PLOT)
    goal = found.goal
    section = Section(
        "The greatest rate",
        verdict=sentence(found),
        tables=[_table(found)],
        pictures=[Picture(_PLOT, "Every run: throughput and latency")],
    )
    limits = Limits(Objective((goal.latency,), goal.error_rate))
    last_run = [
        Section(f"Last run: {one.title}", one.text, one.tables, one.verdict, one.pictures)
        for one in run_sections(judged(last, limits), plots)
    ]
    page = Page("Load test: saturate", run_facts(last), (), [section, *last_run])
    return write_page(page, folder)


def draw_rates(found: Saturation, path: Path) -> None:
    """Write a PNG: throughput against latency, a point per run, and the limit."""
    figure = new_figure(9.6, 4.2)
    axes = figure.add_subplot()
    limit = found.goal.latency
    groups = (
        ("kept", [one for one in found.trials if one.kept], COLOURS[2], "o"),
        ("not kept", [one for one in found.trials if not one.kept], COLOURS[1], "x"),
    )
    for name, trials, colour, mark in groups:
        seen = [one for one in trials if one.latency_ms < float("inf")]
        if seen:
            axes.scatter(
                [one.throughput for one in seen], [one.latency_ms for one in seen],
                color=colour, marker=mark, s=36, label=name, zorder=3,
            )  # fmt: skip
    axes.axhline(limit.most_ms, color=COLOURS[0], linestyle="--", linewidth=1.2,
                 label=f"limit: {limit}")  # fmt: skip
    if found.rate is not None:
        axes.axvline(found.rate, color="#222222", linewidth=1.0, label=f"{found.rate:.1f}/s")
    axes.set_xlabel("right answers per second")
    axes.set_ylabel(f"p{limit.percent:g}, ms")
    axes.set_xlim(left=0)
    log_ms(axes)
    quiet_axes(axes)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def _table(found: Saturation) -> Table:
    percent = f"p{found.goal.latency.percent:g} ms"
    rows = [
        [
            Cell(one.purpose),
            Cell(f"{one.rate:.1f}"),
            Cell(f"{one.throughput:.1f}"),
            Cell(milliseconds(one.latency_ms)),
            Cell(f"{one.error_rate:.2%}"),
            Cell("kept" if one.kept else "not kept", one.generator),
        ]
        for one in found.trials
    ]
    header = ("step", "asked for, /s", "right answers, /s", percent, "failed", "goal")
    return Table("Runs, in their order", header, rows)
