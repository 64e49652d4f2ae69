"""Tables and HTML report of a run, and its check against limits."""

import math
from collections.abc import Sequence
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
from loadtest.record import Acknowledged, RunRecord, decoded, write_record
from loadtest.slo import ALL, SloSet, SloVerdict, judge
from loadtest.timeline import Latencies, Timeline, Totals
from newshelf.report.page import Cell, Page, Picture, ReportTable, Section, print_table, save_page

PLOTS = "plots"
"""Folder of the plots, in the folder of the report."""
_RECORD, _REPORT = "record.json", "report.html"
_PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)
_OPTIONAL_COLUMNS = ("p90", "p99.9", "mean", "p99 from sending", "late")
"""Left out in a narrow terminal."""
_WHOLE_MS = 100.0
_NAMED = 5


@dataclass(frozen=True)
class CheckedRun:
    """A run and the verdicts of its limits."""

    timeline: Timeline
    verdicts: Sequence[SloVerdict]
    """Empty without limits."""
    incidents: Sequence[Incident]

    @property
    def record(self) -> RunRecord:
        """The record of the run."""
        return self.timeline.record

    @property
    def kept(self) -> bool:
        """Return True when every limit is met, and nothing acknowledged is lost."""
        return all(one.kept for one in self.verdicts) and not self.lost

    @property
    def lost(self) -> Sequence[str]:
        """Ids of acknowledged answers and events that the store does not have."""
        return self.record.acknowledged.lost if self.record.acknowledged else ()

    def sentence(self) -> str:
        """Return the result, preceded by the reason if it is not the server's."""
        broken = [one for one in self.verdicts if not one.kept]
        if broken:
            which = ", ".join(f"{one.scope} {one.metric}" for one in broken)
            result = f"{len(broken)} of {len(self.verdicts)} limits are broken: {which}."
        elif self.verdicts:
            result = "All limits are met."
        else:
            result = "No limits were given."
        if self.record.acknowledged is not None:
            result = f"{result} {store_sentence(self.record.acknowledged)}"
        limited = self.record.generator.limited
        return f"{limited[:1].upper()}{limited[1:]}. {result}" if limited else result


def check_run(record: RunRecord, limits: SloSet | None) -> CheckedRun:
    """Check a record against ``limits``."""
    timeline = Timeline.of(record)
    verdicts = [] if limits is None else judge(limits, timeline)
    return CheckedRun(timeline, verdicts, incidents(timeline))


def write_run(run: CheckedRun, folder: Path) -> Path:
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
    save_page(page, path, folder / PLOTS)
    return path


def print_run(run: CheckedRun, console: Console) -> None:
    """Print the main tables, the broken limits and the result."""
    tables = [_kinds_table(run.timeline)]
    if run.timeline.total().failed:
        tables.append(_errors_table(run.timeline))
    if run.incidents:
        tables += [_incidents_table(run.incidents), _signs_table(run.incidents)]
    if run.verdicts:
        tables.append(_limits_table(run.verdicts))
    for table in tables:
        print_table(table, console)
    for one in run.verdicts:
        if not one.kept:
            console.print(f"✗ {one}", markup=False)
    console.print(run.sentence(), markup=False)


def run_facts(record: RunRecord) -> list[str]:
    """Return date, server, models, loop and command of a run."""
    models = [f"{name} {version}" for name, version in record.models.items()]
    return [
        f"{record.started_at:%Y-%m-%d %H:%M:%S} UTC",
        record.url,
        *models,
        f"{record.loop} loop",
        f"{record.seconds:g} s measured",
        record.command,
    ]


def run_sections(run: CheckedRun, plots: Path) -> list[Section]:
    """Return the sections of a run's page; their pictures are drawn into ``plots``."""
    plots.mkdir(parents=True, exist_ok=True)
    limits = [_limits_table(run.verdicts)] if run.verdicts else []
    sections = [
        Section("Verdict", verdict=run.sentence(), tables=limits),
        _latency(run, plots),
        _incidents(run),
        _throughput(run, plots),
    ]
    if run.record.server:
        sections.append(_server(run, plots))
    if run.record.acknowledged is not None:
        rows: list[list[Cell | str]] = [[one] for one in run.lost]
        tables = [ReportTable("Lost", ["request or event id"], rows)] if rows else []
        verdict = store_sentence(run.record.acknowledged)
        sections.append(Section("Event store", verdict=verdict, tables=tables))
    return [*sections, _generator(run)]


def store_sentence(found: Acknowledged) -> str:
    """Return what the event store has of what was acknowledged."""
    count = f"{found.answers:,} answers and {found.events:,} events were acknowledged"
    if not found.lost:
        return f"{count}; the event store has all of them."
    some = ", ".join(found.lost[:_NAMED])
    return f"{count}; {len(found.lost):,} ARE LOST, such as {some}."


def milliseconds(value: float) -> str:
    """Return milliseconds with three significant digits, or whole ones; "–" if infinite."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value >= _WHOLE_MS else f"{value:.3g}"


def _latency(run: CheckedRun, plots: Path) -> Section:
    draw_latency(run.timeline, run.incidents, plots / "latency.png")
    draw_percentiles(run.timeline, plots / "percentiles.png")
    return Section(
        "Latency",
        tables=[_kinds_table(run.timeline)],
        pictures=[
            Picture("latency.png", "Latency by second of the intended start; shaded: incidents"),
            Picture("percentiles.png", "Latency by percentile; each step to the right is ten "
                    "times as rare"),
        ],
    )  # fmt: skip


def _incidents(run: CheckedRun) -> Section:
    if not run.incidents:
        return Section("Incidents", text="None: no second differs from the others.")
    tables = [_incidents_table(run.incidents), _signs_table(run.incidents)]
    return Section("Incidents", tables=tables)


def _throughput(run: CheckedRun, plots: Path) -> Section:
    draw_throughput(run.timeline, run.incidents, plots / "throughput.png")
    pictures = [Picture("throughput.png", "Requests by second of the intended start")]
    tables = []
    if run.timeline.total().failed:
        draw_errors(run.timeline, run.incidents, plots / "errors.png")
        pictures.append(Picture("errors.png", "Failed requests by kind of error"))
        tables.append(_errors_table(run.timeline))
    return Section("Throughput and errors", tables=tables, pictures=pictures)


def _server(run: CheckedRun, plots: Path) -> Section:
    record = run.record
    pictures = []
    if any(one.queue_ms is not None for one in record.server):
        draw_queue(record, run.incidents, plots / "queue.png")
        caption = "Mean time in TorchServe's queue, including the wait for a full batch"
        pictures.append(Picture("queue.png", caption))
    if any(one.batch_sizes for one in record.server):
        draw_batches(record, plots / "batches.png")
        caption = "Batches by size, and their mean size over time"
        pictures.append(Picture("batches.png", caption))
    if any(one.workers for one in record.server):
        draw_workers(record, run.incidents, plots / "workers.png")
        caption = "Memory (resident) and CPU time of each worker process"
        pictures.append(Picture("workers.png", caption))
    notes = [f"{change.at_s:.1f} s: {change}." for change in worker_changes(record)]
    away = sum(not one.reachable for one in record.server)
    if away:
        notes.append(f"Unreachable in {away} of {len(record.server)} samples.")
    return Section("Server", text=" ".join(notes), pictures=pictures)


def _generator(run: CheckedRun) -> Section:
    record, total = run.record, run.timeline.total()
    lateness = Latencies.of(decoded(record.generator.lateness))
    figures = {
        "processes": str(record.generator.processes),
        "CPU, % of a core, busiest process": f"{record.generator.cpu_percent:.0f}",
        "intended requests": f"{total.intended:,}",
        "sent late": f"{total.late:,}",
        "never sent: too many in flight": f"{total.dropped:,}",
        "lateness of sending, p50 (ms)": milliseconds(lateness.percentile_ms(50)),
        "lateness of sending, p99 (ms)": milliseconds(lateness.percentile_ms(99)),
        "lateness of sending, max (ms)": milliseconds(lateness.max_ms),
    }
    settings = {name: str(value) for name, value in record.settings.items()}
    tables = [
        ReportTable(heading, header, list(rows.items()))
        for heading, header, rows in (
            ("Self-check of the generator", ("", ""), figures),
            ("Settings", ("setting", "value"), settings),
        )
    ]
    verdict = record.generator.limited or "The server, not the generator, was the limit."
    return Section("Generator and settings", verdict=verdict, tables=tables)


def _kinds_table(timeline: Timeline) -> ReportTable:
    header = ["kind", "requests", "per second", *(f"p{percent:g}" for percent in _PERCENTS), "max",
              "mean", "p99 from sending", "failed", "late"]  # fmt: skip
    kinds = timeline.kinds
    totals = {kind: timeline.total(kind) for kind in kinds} if len(kinds) > 1 else {}
    totals[ALL] = timeline.total()
    rows = [_kind_row(kind, total) for kind, total in totals.items()]
    if timeline.record.acknowledged is not None:
        header.append("fallback")
        for row, total in zip(rows, totals.values(), strict=True):
            row.append(f"{total.fallback_rate:.2%}")
    return ReportTable(
        "Requests and latencies (ms)",
        header,
        rows,
        main_row=len(rows) - 1,
        optional_columns=[at for at, name in enumerate(header) if name in _OPTIONAL_COLUMNS],
        note="Latency of right responses, from the intended start of a request to the last byte; "
        "per second: right responses. From sending: what a closed-loop test would report. "
        "Failed: errors, and requests never sent. Late: sent late by the generator. Fallback: "
        "share of right responses without a model.",
    )


def _kind_row(name: str, total: Totals) -> list[Cell | str]:
    latency = total.latency
    return [
        name,
        f"{total.intended:,}",
        f"{total.throughput:.1f}",
        *(milliseconds(value) for value in latency.percentiles_ms(_PERCENTS)),
        milliseconds(latency.max_ms),
        milliseconds(latency.mean_ms),
        milliseconds(total.service.percentile_ms(99)),
        Cell(f"{total.failed:,}", f"{total.error_rate:.2%}" if total.failed else ""),
        f"{total.late:,}",
    ]


def _limits_table(verdicts: Sequence[SloVerdict]) -> ReportTable:
    rows = [
        [
            one.scope,
            one.metric,
            _in_unit(one.name, one.limit),
            "not sent" if one.measured is None else _in_unit(one.name, one.measured),
            _excess(one),
            "not tested" if one.measured is None else "met" if one.kept else "BROKEN",
        ]
        for one in verdicts
    ]
    header = ("requests", "metric", "limit", "measured", "excess", "verdict")
    return ReportTable("Limits", header, rows, text_columns=[1])


def _errors_table(timeline: Timeline) -> ReportTable:
    kinds = timeline.kinds
    totals = [timeline.total(kind) for kind in kinds]
    whole = timeline.total()
    rows = [
        [name, *(str(one.errors.get(name, 0)) for one in totals), str(count)]
        for name, count in whole.errors.items()
    ]
    if whole.dropped:
        dropped = [str(one.dropped) for one in totals]
        rows.append(["never sent", *dropped, str(whole.dropped)])
    return ReportTable("Failed requests", ["error", *kinds, ALL], rows)


def _incidents_table(found: Sequence[Incident]) -> ReportTable:
    rows: list[list[Cell | str]] = [
        [
            _period(one),
            "–" if one.recovery_s is None else f"{one.recovery_s} s",
            Cell(str(one.lost), _errors(one)),
            Cell(str(one.delayed), f"at most {milliseconds(one.worst_ms)} ms"
                 if one.delayed else ""),
        ]
        for one in found
    ]  # fmt: skip
    return ReportTable(
        "Incidents",
        ("when", "recovered after", "lost", "delayed"),
        rows,
        note="Recovered: when p99 and errors were back to normal for some seconds; – if the run "
        "ended first. Lost: without the right response. Delayed: answered right, but far later "
        "than normal.",
    )


def _signs_table(found: Sequence[Incident]) -> ReportTable:
    rows = [
        [_period(one) if number == 0 else "", sign]
        for one in found
        for number, sign in enumerate(one.signs)
    ]
    return ReportTable("Signs of incidents", ("when", "what"), rows, text_columns=[1])


def _period(one: Incident) -> str:
    return f"{one.start_s} s to {one.end_s} s"


def _errors(one: Incident) -> str:
    parts = [f"{count} × {name}" for name, count in one.errors.items()]
    if one.dropped:
        parts.append(f"{one.dropped} never sent")
    return ", ".join(parts)


def _excess(one: SloVerdict) -> str:
    if one.measured is None or one.kept:
        return ""
    share = f" ({one.excess_share:.0%})" if math.isfinite(one.excess_share) else ""
    return f"{_in_unit(one.name, one.excess)}{share}"


def _in_unit(name: str, value: float) -> str:
    if name.endswith("_ms"):
        return f"{milliseconds(value)} ms"
    return f"{value:.2%}" if name.endswith("_rate") else f"{value:.1f}/s"
