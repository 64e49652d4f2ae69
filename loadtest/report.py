"""Tables and HTML report of a run, and its verdict."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from loadtest.incidents import Incident, incidents, worker_changes
from loadtest.plots import (
    draw_batches,
    draw_errors,
    draw_latency,
    draw_percentiles,
    draw_queue,
    draw_throughput,
    draw_workers,
)
from loadtest.record import RunRecord, decoded, write_record
from loadtest.slo import Limits, Verdict, judge
from loadtest.timeline import Latencies, Timeline, Totals
from newshelf.files import write_aside
from newshelf.report.page import Cell, Page, Picture, ReportTable, Section, to_html
from newshelf.report.tables import print_figures

_PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)
_FURTHER = ("p90", "p99.9", "mean", "p99 from sending", "late")
"""What the page tells, and a narrow terminal does not."""
_WHOLE_MS = 100.0
PLOTS = "plots"
_RECORD, _REPORT = "record.json", "report.html"


def milliseconds(value: float) -> str:
    """With as many digits as say something."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value >= _WHOLE_MS else f"{value:.3g}"


def kinds_table(timeline: Timeline) -> ReportTable:
    """A row per kind of request, and one for all."""
    header = ["kind", "requests", "per second", *(f"p{percent:g}" for percent in _PERCENTS), "max",
              "mean", "p99 from sending", "failed", "late"]  # fmt: skip
    kinds = timeline.kinds
    rows = [_kind_row(kind, timeline.total(kind)) for kind in kinds] if len(kinds) > 1 else []
    rows.append(_kind_row("all", timeline.total()))
    return ReportTable(
        "Requests and latencies (ms)",
        header,
        rows,
        model=len(rows) - 1,
        note="Latency is counted from the moment at which a request was meant to start, to the "
        "last byte read, of right answers; per second are right answers. From sending: what a "
        "test would have seen that waits for the server. Failed: errors and requests that were "
        "never sent. Late: sent late by the generator.",
    )


def limits_table(verdicts: Sequence[Verdict]) -> ReportTable:
    """A row per limit: kept or broken, by how much."""
    rows = [
        [
            Cell(one.scope),
            Cell(one.word),
            Cell(_in_unit(one.name, one.limit)),
            Cell("not sent" if one.measured is None else _in_unit(one.name, one.measured)),
            Cell(_margin(one)),
            Cell("not tested" if one.measured is None else "kept" if one.kept else "BROKEN"),
        ]
        for one in verdicts
    ]
    header = ("requests", "limit on", "limit", "measured", "beyond it", "verdict")
    return ReportTable("Limits", header, rows)


def errors_table(timeline: Timeline) -> ReportTable:
    """A row per kind of error, a column per kind of request."""
    kinds = timeline.kinds
    totals = [timeline.total(kind) for kind in kinds]
    whole = timeline.total()
    rows = [
        [Cell(name), *(Cell(str(one.errors.get(name, 0))) for one in totals), Cell(str(count))]
        for name, count in whole.errors.items()
    ]
    if whole.dropped:
        dropped = [Cell(str(one.dropped)) for one in totals]
        rows.append([Cell("never sent"), *dropped, Cell(str(whole.dropped))])
    return ReportTable("Requests that failed", ["error", *kinds, "all"], rows)


def incidents_table(found: Sequence[Incident]) -> ReportTable:
    """A row per incident: when, what was lost, how long until all was usual."""
    rows = [
        [
            Cell(f"{one.start_s} s to {one.end_s} s"),
            Cell("–" if one.recovery_s is None else f"{one.recovery_s} s"),
            Cell(str(one.lost), _errors(one)),
            Cell(str(one.delayed), f"the latest {milliseconds(one.worst_ms)} ms"
                 if one.delayed else ""),
        ]
        for one in found
    ]  # fmt: skip
    return ReportTable(
        "Incidents",
        ("when", "recovered after", "lost", "delayed"),
        rows,
        note="Recovered: the second from which p99 and errors were as usual again for some "
        "seconds; – when the run ended first. Lost: without the right answer. Delayed: answered "
        "rightly, but far later than usual.",
    )


def signs_table(found: Sequence[Incident]) -> ReportTable:
    """A row for everything that was seen of an incident."""
    rows = [
        [Cell(f"{one.start_s} s to {one.end_s} s" if number == 0 else ""), Cell(sign)]
        for one in found
        for number, sign in enumerate(one.signs)
    ]
    return ReportTable("What was seen of them", ("when", "what"), rows)


def generator_table(record: RunRecord, whole: Totals) -> ReportTable:
    """The generator's own lateness and work."""
    lateness = Latencies.of(decoded(record.generator.lateness))
    figures = [
        ("processes", str(record.generator.processes)),
        ("processor, % of a core, busiest process", f"{record.generator.cpu_percent:.0f}"),
        ("requests that were meant to be sent", f"{whole.intended:,}"),
        ("sent late", f"{whole.late:,}"),
        ("never sent, since too many were under way", f"{whole.dropped:,}"),
        ("lateness of sending, p50 (ms)", milliseconds(lateness.percentile_ms(50))),
        ("lateness of sending, p99 (ms)", milliseconds(lateness.percentile_ms(99))),
        ("lateness of sending, max (ms)", milliseconds(lateness.max_ms)),
    ]
    rows = [[Cell(name), Cell(value)] for name, value in figures]
    return ReportTable("The generator's check of itself", ("", ""), rows)


def settings_table(record: RunRecord) -> ReportTable:
    """What says how to repeat the run."""
    rows = [[Cell(name), Cell(str(value))] for name, value in record.settings.items()]
    return ReportTable("Settings", ("setting", "value"), rows)


def print_table(table: ReportTable, console: Console) -> None:
    """The table in a terminal; small print follows its figure in brackets."""
    rows = [[_inline(cell) for cell in row] for row in table.rows]
    further = [at for at, name in enumerate(table.header) if name in _FURTHER]
    print_figures(console, table.header, rows, heading=table.heading, further=further)


def _inline(cell: Cell) -> str:
    return f"{cell.text} ({cell.interval})" if cell.interval else cell.text


def _kind_row(name: str, total: Totals) -> list[Cell]:
    latency = total.latency
    return [
        Cell(name),
        Cell(f"{total.intended:,}"),
        Cell(f"{total.throughput:.1f}"),
        *(Cell(milliseconds(value)) for value in latency.percentiles_ms(_PERCENTS)),
        Cell(milliseconds(latency.max_ms)),
        Cell(milliseconds(latency.mean_ms)),
        Cell(milliseconds(total.service.percentile_ms(99))),
        Cell(f"{total.failed:,}", f"{total.error_rate:.2%}" if total.failed else ""),
        Cell(f"{total.late:,}"),
    ]


def _errors(one: Incident) -> str:
    parts = [f"{count} × {name}" for name, count in one.errors.items()]
    if one.dropped:
        parts.append(f"{one.dropped} never sent")
    return ", ".join(parts)


def _margin(one: Verdict) -> str:
    if one.measured is None or one.kept:
        return ""
    share = f" ({one.excess_share:.0%})" if math.isfinite(one.excess_share) else ""
    return f"{_in_unit(one.name, one.excess)}{share}"


def _in_unit(name: str, value: float) -> str:
    if name.endswith("_ms"):
        return f"{milliseconds(value)} ms"
    return f"{value:.2%}" if name == "error_rate" else f"{value:.1f}/s"


@dataclass(frozen=True)
class Judged:
    """A run, held against its limits."""

    timeline: Timeline
    verdicts: Sequence[Verdict]
    """Empty without limits."""
    incidents: Sequence[Incident]

    @property
    def record(self) -> RunRecord:
        """The run itself."""
        return self.timeline.record

    @property
    def kept(self) -> bool:
        """Whether every limit was kept."""
        return all(one.kept for one in self.verdicts)

    def sentence(self) -> str:
        """What came of it, and whether it can be believed."""
        broken = [one for one in self.verdicts if not one.kept]
        if broken:
            which = ", ".join(
                f"{one.scope} {one.name.removesuffix('_ms').replace('_', ' ')}" for one in broken
            )
            said = f"{len(broken)} of {len(self.verdicts)} limits are broken: {which}."
        elif self.verdicts:
            said = "All limits are kept."
        else:
            said = "No limits were given."
        limited = self.record.generator.limited
        if limited:
            # Told first: the rest is not the server's doing.
            said = f"{limited[:1].upper()}{limited[1:]}. {said}"
        return said


def judged(record: RunRecord, limits: Limits | None) -> Judged:
    """Read a record and hold it against ``limits``."""
    timeline = Timeline.of(record)
    verdicts = [] if limits is None else judge(limits, timeline)
    return Judged(timeline, verdicts, incidents(timeline))


def write_run(run: Judged, folder: Path) -> Path:
    """Write ``record.json``, ``report.html`` and the plots into ``folder``.

    Returns:
        The path of the report.
    """
    write_record(run.record, folder / _RECORD)
    title = f"Load test: {run.record.scenario}"
    page = Page(title, run_facts(run.record), (), run_sections(run, folder / PLOTS))
    return write_page(page, folder)


def write_page(page: Page, folder: Path) -> Path:
    """Write ``report.html`` of a page whose pictures are in the folder ``plots``.

    Returns:
        Its path.
    """
    path = folder / _REPORT
    with write_aside(path) as aside:
        aside.write_text(to_html(page, folder / PLOTS), encoding="utf-8")
    return path


def print_run(run: Judged, console: Console) -> None:
    """The tables that a terminal has room for, and what came of the run."""
    print_table(kinds_table(run.timeline), console)
    if run.timeline.total().failed:
        print_table(errors_table(run.timeline), console)
    if run.incidents:
        print_table(incidents_table(run.incidents), console)
        print_table(signs_table(run.incidents), console)
    if run.verdicts:
        print_table(limits_table(run.verdicts), console)
    for one in run.verdicts:
        if not one.kept:
            console.print(f"✗ {one}", markup=False)
    console.print(run.sentence(), markup=False)


def run_facts(record: RunRecord) -> list[str]:
    """When, where, what and how."""
    models = [f"{name} {version}" for name, version in record.models.items()]
    return [
        f"{record.started_at:%Y-%m-%d %H:%M:%S} UTC",
        record.url,
        *models,
        f"{record.loop} loop",
        f"{record.seconds:g} s measured",
        record.command,
    ]


def run_sections(run: Judged, plots: Path) -> list[Section]:
    """All that is to be said of a run; its pictures are drawn into ``plots``."""
    plots.mkdir(parents=True, exist_ok=True)
    sections = [_verdict(run), _latency(run, plots), _incidents(run), _throughput(run, plots)]
    if run.record.server:
        sections.append(_server(run, plots))
    return [*sections, _generator(run)]


def _verdict(run: Judged) -> Section:
    tables = [limits_table(run.verdicts)] if run.verdicts else []
    return Section("Verdict", verdict=run.sentence(), tables=tables)


def _latency(run: Judged, plots: Path) -> Section:
    draw_latency(run.timeline, run.incidents, plots / "latency.png")
    draw_percentiles(run.timeline, plots / "percentiles.png")
    return Section(
        "Latency",
        tables=[kinds_table(run.timeline)],
        pictures=[
            Picture("latency.png", "Latency of the requests that were meant to start in each "
                    "second; shaded: incidents"),
            Picture("percentiles.png", "Latency by percentile; each step to the right is ten "
                    "times as rare"),
        ],
    )  # fmt: skip


def _incidents(run: Judged) -> Section:
    if not run.incidents:
        return Section("Incidents", text="None: every second was like the others.")
    tables = [incidents_table(run.incidents), signs_table(run.incidents)]
    return Section("Incidents", tables=tables)


def _throughput(run: Judged, plots: Path) -> Section:
    draw_throughput(run.timeline, run.incidents, plots / "throughput.png")
    pictures = [
        Picture("throughput.png", "Requests by the second in which they were meant to start")
    ]
    tables = []
    if run.timeline.total().failed:
        draw_errors(run.timeline, run.incidents, plots / "errors.png")
        pictures.append(Picture("errors.png", "Requests that failed, by kind of error"))
        tables.append(errors_table(run.timeline))
    return Section("Throughput and errors", tables=tables, pictures=pictures)


def _server(run: Judged, plots: Path) -> Section:
    record = run.record
    pictures = []
    drawn: Sequence[tuple[bool, str, Callable[[Path], None], str]] = (
        (
            any(one.queue_ms is not None for one in record.server),
            "queue.png",
            lambda path: draw_queue(record, run.incidents, path),
            "Mean time in TorchServe's queue of the requests of each second, waiting for a full "
            "batch included",
        ),
        (
            any(one.batch_sizes for one in record.server),
            "batches.png",
            lambda path: draw_batches(record, path),
            "Batches by size, and their mean size over time",
        ),
        (
            any(one.workers for one in record.server),
            "workers.png",
            lambda path: draw_workers(record, run.incidents, path),
            "Memory (resident) and processor time of each worker's process",
        ),
    )
    for is_known, name, draw, caption in drawn:
        if is_known:
            draw(plots / name)
            pictures.append(Picture(name, caption))
    changes = [f"{change.at_s:.1f} s: {change}." for change in worker_changes(record)]
    away = sum(not one.reachable for one in record.server)
    if away:
        changes.append(f"It could not be reached in {away} of {len(record.server)} looks.")
    return Section("Server", text=" ".join(changes), pictures=pictures)


def _generator(run: Judged) -> Section:
    limited = run.record.generator.limited
    said = limited or "The server, not the generator, set what was measured."
    tables = [generator_table(run.record, run.timeline.total()), settings_table(run.record)]
    return Section("Generator and settings", verdict=said, tables=tables)
