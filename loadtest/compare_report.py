"""What a comparison of two runs found: tables, a plot and a page."""

from pathlib import Path

from rich.console import Console

from loadtest.compare import ALPHA, Comparison, Difference
from loadtest.plots import draw_percentile_curves
from loadtest.record import RunRecord
from loadtest.report import PLOTS, write_page
from loadtest.tables import milliseconds, print_table
from loadtest.timeline import Timeline
from newshelf.evaluation.page import Page, Picture, Section
from newshelf.evaluation.tables import Cell, Table

__all__ = ["print_comparison", "write_comparison"]

_PLOT = "percentiles.png"


def print_comparison(
    found: Comparison, first: RunRecord, second: RunRecord, console: Console
) -> None:
    """The verdict, and the differences of all requests and of each kind."""
    for table in _tables(found):
        print_table(table, console)
    for line in [*_facts(first, second), *found.notes]:
        console.print(line, style="dim", markup=False)
    console.print(f"{found.sentence()}.", markup=False)


def write_comparison(found: Comparison, first: RunRecord, second: RunRecord, folder: Path) -> Path:
    """Write ``report.html`` with the tables and both percentile curves.

    Returns:
        Its path.
    """
    plots = folder / PLOTS
    plots.mkdir(parents=True, exist_ok=True)
    totals = {name: Timeline.of(one).total() for name, one in (("A", first), ("B", second))}
    draw_percentile_curves(totals, plots / _PLOT)
    section = Section(
        "Verdict",
        text=" ".join(found.notes),
        verdict=f"{found.sentence()}.",
        tables=_tables(found),
        pictures=[Picture(_PLOT, "Latency by percentile, all requests together")],
    )
    page = Page("Load test: A and B compared", _facts(first, second), (), [section])
    return write_page(page, folder)


def _tables(found: Comparison) -> list[Table]:
    note = (
        f"Change: of a typical one of {found.blocks} blocks of {found.block_seconds} s, with its "
        f"{1 - ALPHA:.0%} interval. p is adjusted for the metrics beside it (Holm)."
    )
    tables = [_table("All requests", found.overall, note)]
    if len(found.kinds) > 1:
        tables += [_table(kind, rows, "") for kind, rows in found.kinds.items()]
    return tables


def _table(heading: str, differences: tuple[Difference, ...], note: str) -> Table:
    header = ("metric", "A", "B", "change", f"{1 - ALPHA:.0%} interval", "p", "B is")
    return Table(heading, header, [_row(one) for one in differences], note=note)


def _row(one: Difference) -> list[Cell]:
    change, interval = "–", "–"
    if one.change is not None and one.interval is not None:
        change = f"{one.change:+.2%}"
        interval = f"{one.interval[0]:+.2%} to {one.interval[1]:+.2%}"
    shown = [_figure(one, value) for value in (one.a, one.b)]
    name = f"{one.metric}, {one.unit}" if one.unit else one.metric
    p_value = f"{one.p_value:.3f}" if one.p_value >= 0.001 else "< 0.001"  # noqa: PLR2004
    return [Cell(text) for text in (name, *shown, change, interval, p_value, one.word)]


def _figure(one: Difference, value: float) -> str:
    if not one.unit:
        return f"{value:.2%}"
    return milliseconds(value) if one.unit == "ms" else f"{value:.1f}"


def _facts(first: RunRecord, second: RunRecord) -> list[str]:
    return [
        f"{name}: {one.started_at:%Y-%m-%d %H:%M:%S} UTC, {_models(one)}, {one.command}"
        for name, one in (("A", first), ("B", second))
    ]


def _models(record: RunRecord) -> str:
    return ", ".join(f"{name} {version}" for name, version in record.models.items()) or "no model"
