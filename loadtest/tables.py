"""The tables of a run's report, shared by the page and the terminal."""

import math
from collections.abc import Sequence

from rich.console import Console

from loadtest.incidents import Incident
from loadtest.latencies import Latencies
from loadtest.record import RunRecord, decoded
from loadtest.slo import Verdict
from loadtest.timeline import Timeline, Totals
from newshelf.evaluation.tables import Cell, Table
from newshelf.terminal import print_figures

__all__ = [
    "errors_table",
    "generator_table",
    "incidents_table",
    "kinds_table",
    "limits_table",
    "milliseconds",
    "print_table",
    "settings_table",
    "signs_table",
]

_PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)
_FURTHER = ("p90", "p99.9", "mean", "p99 from sending", "late")
"""What the page tells, and a narrow terminal does not."""
_WHOLE_MS = 100.0


def milliseconds(value: float) -> str:
    """With as many digits as say something."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value >= _WHOLE_MS else f"{value:.3g}"


def kinds_table(timeline: Timeline) -> Table:
    """A row per kind of request, and one for all."""
    header = ["kind", "requests", "per second", *(f"p{percent:g}" for percent in _PERCENTS), "max",
              "mean", "p99 from sending", "failed", "late"]  # fmt: skip
    kinds = timeline.kinds
    rows = [_kind_row(kind, timeline.total(kind)) for kind in kinds] if len(kinds) > 1 else []
    rows.append(_kind_row("all", timeline.total()))
    return Table(
        "Requests and latencies (ms)",
        header,
        rows,
        model=len(rows) - 1,
        note="Latency is counted from the moment at which a request was meant to start, to the "
        "last byte read, of right answers; per second are right answers. From sending: what a "
        "test would have seen that waits for the server. Failed: errors and requests that were "
        "never sent. Late: sent late by the generator.",
    )


def limits_table(verdicts: Sequence[Verdict]) -> Table:
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
    return Table("Limits", header, rows)


def errors_table(timeline: Timeline) -> Table:
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
    return Table("Requests that failed", ["error", *kinds, "all"], rows)


def incidents_table(found: Sequence[Incident]) -> Table:
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
    return Table(
        "Incidents",
        ("when", "recovered after", "lost", "delayed"),
        rows,
        note="Recovered: the second from which p99 and errors were as usual again for some "
        "seconds; – when the run ended first. Lost: without the right answer. Delayed: answered "
        "rightly, but far later than usual.",
    )


def signs_table(found: Sequence[Incident]) -> Table:
    """A row for everything that was seen of an incident."""
    rows = [
        [Cell(f"{one.start_s} s to {one.end_s} s" if number == 0 else ""), Cell(sign)]
        for one in found
        for number, sign in enumerate(one.signs)
    ]
    return Table("What was seen of them", ("when", "what"), rows)


def generator_table(record: RunRecord, whole: Totals) -> Table:
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
    return Table("The generator's check of itself", ("", ""), rows)


def settings_table(record: RunRecord) -> Table:
    """What says how to repeat the run."""
    rows = [[Cell(name), Cell(str(value))] for name, value in record.settings.items()]
    return Table("Settings", ("setting", "value"), rows)


def print_table(table: Table, console: Console) -> None:
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
