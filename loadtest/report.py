"""The report of a run: one HTML file that needs nothing else, and its plots beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from loadtest.incidents import Incident, incidents, worker_changes
from loadtest.plots import draw_errors, draw_latency, draw_percentiles, draw_throughput
from loadtest.record import RunRecord, write_record
from loadtest.server_plots import draw_batches, draw_queue, draw_workers
from loadtest.slo import Limits, Verdict, judge
from loadtest.tables import (
    errors_table,
    generator_table,
    incidents_table,
    kinds_table,
    limits_table,
    print_table,
    settings_table,
    signs_table,
)
from loadtest.timeline import Timeline
from newshelf.evaluation.html import to_html
from newshelf.evaluation.page import Page, Picture, Section
from newshelf.files import write_aside

__all__ = ["PLOTS", "Judged", "judged", "print_run", "run_facts", "run_sections", "write_page",
           "write_run"]  # fmt: skip

PLOTS = "plots"
_RECORD, _REPORT = "record.json", "report.html"


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
