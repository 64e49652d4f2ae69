"""Results of a tuning run: a table, a plot of the Pareto frontier, and settings to serve with."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest.plots import log_y
from loadtest.slo import Slo
from loadtest.tuning.points import with_point
from loadtest.tuning.search import PointMeasurement, SearchResult, frontier
from loadtest.tuning.tune import PointLoad
from newshelf.config import Settings
from newshelf.files import write_aside, write_json
from newshelf.report.page import ReportTable
from newshelf.report.plots import COLOURS, MUTED, legend_right, new_figure, save, style_axes

_BLUE, _ORANGE, _GREEN = COLOURS[:3]
_ROOM = 1.08
"""Factor between the fastest point and the right edge."""


def draw_frontier(
    runs: Sequence[PointMeasurement], best: PointMeasurement, slo: Slo, path: Path, title: str
) -> None:
    """Plot throughput against latency of every point's longest run as a PNG; mark the best."""
    figure = new_figure(9.0, 5.5)
    axes = figure.add_subplot()
    answered = [run for run in runs if run.per_second > 0]
    full = max(run.seconds for run in answered)
    short = [run for run in answered if run.seconds < full]
    axes.scatter(*_places(short), color=MUTED, s=22, label="short run only", zorder=2)
    finalists = [run for run in answered if run.seconds >= full]
    axes.scatter(*_places(finalists), color=_BLUE, s=36, label=f"run of {full:g} s", zorder=3)
    axes.plot(*_places(frontier(answered)), color=_BLUE, alpha=0.4, label="Pareto frontier")
    limit = slo.strictest
    axes.axhline(limit.most_ms, color=_ORANGE, linestyle="--", label=f"SLO: {limit}")
    word = "chosen" if best.meets else "nearest; none meets the SLO"
    label = f"{word}:\n{best.point}".replace(", batch", ",\nbatch")
    axes.scatter(*_places([best]), color=_GREEN, marker="*", s=260, label=label, zorder=4)
    axes.set_xlabel("requests per second")
    axes.set_ylabel(f"p{limit.percent:g} in milliseconds")
    axes.set_xlim(0, max(run.per_second for run in answered) * _ROOM)
    axes.set_title(title, loc="left")
    log_y(axes)
    style_axes(axes)
    legend_right(axes)
    save(figure, path)


def _places(runs: Sequence[PointMeasurement]) -> tuple[list[float], list[float]]:
    return [run.per_second for run in runs], [run.latency_ms for run in runs]


@dataclass(frozen=True)
class WrittenFiles:
    """Files of a tuning run."""

    results: Path
    """Every run, as JSON."""
    plot: Path
    settings: Path | None = None
    """Settings (TOML) with the best point; None if it does not meet the SLO."""
    model_config: Path | None = None
    """The ``model-config.yaml`` of these settings; None likewise."""


def frontier_table(found: SearchResult, slo: Slo) -> ReportTable:
    """Return a table of the Pareto frontier and the best point."""
    percent = f"p{slo.strictest.percent:g} ms"
    header = ("workers × threads", "batch", "delay ms", "requests/s", percent, "run s", "")
    runs = {run.point: run for run in [*frontier(found.runs), found.best]}
    rows = [
        [*_cells(run), _verdict(run, found.best)]
        for run in sorted(runs.values(), key=PointMeasurement.rank)
    ]
    last = len(header) - 1
    return ReportTable(f"Pareto frontier for {slo}", header, rows, text_columns=[last])


def settings_text(settings: Settings, found: SearchResult, load: PointLoad, slo: Slo) -> str:
    """Return ``settings`` with the best point, as TOML for ``--settings``."""
    best = found.best
    tuned = with_point(settings, load.model, best.point)
    head = (
        f"# Written by `./run tune` for the {load.model}: {best.per_second:.0f} requests/s and "
        f"p{slo.strictest.percent:g} {best.latency_ms:.1f} ms\n"
        f"# with {load.clients} clients on the machine that it ran on, for {slo}.\n"
        "# Tune again on another machine. Other settings are unchanged.\n"
    )
    return head + _toml(tuned.model_dump(mode="json", exclude_unset=True))


def write_report(
    found: SearchResult,
    settings: Settings,
    load: PointLoad,
    slo: Slo,
    model_config: str,
    settings_path: Path,
) -> WrittenFiles:
    """Write the settings, and next to them the YAML, the plot and the results."""
    plot, results = settings_path.with_suffix(".png"), settings_path.with_suffix(".json")
    title = f"{load.model}, {load.clients} clients"
    with write_aside(plot) as aside:
        draw_frontier(found.runs, found.best, slo, aside, title)
    write_json(results, _results(found, load, slo))
    if not found.best.meets:
        return WrittenFiles(results, plot)
    config = settings_path.with_suffix(".model-config.yaml")
    for path, text in (
        (settings_path, settings_text(settings, found, load, slo)),
        (config, model_config),
    ):
        with write_aside(path) as aside:
            aside.write_text(text, encoding="utf-8")
    return WrittenFiles(results, plot, settings_path, config)


def _cells(run: PointMeasurement) -> list[str]:
    return [
        str(run.point.computing),
        str(run.point.batch_size),
        str(run.point.delay_ms),
        f"{run.per_second:.0f}",
        f"{run.latency_ms:.1f}",
        f"{run.seconds:g}",
    ]


def _verdict(run: PointMeasurement, best: PointMeasurement) -> str:
    if run.meets:
        return "chosen" if run.point == best.point else "meets it"
    nearest = "nearest: " if run.point == best.point else ""
    return nearest + "; ".join(run.missed)


def _results(found: SearchResult, load: PointLoad, slo: Slo) -> dict[str, Any]:
    return {
        "load": asdict(load),
        "slo": str(slo),
        "points": found.total,
        "runs": [
            {
                **asdict(run.point.computing.arithmetic),
                "workers": run.point.computing.workers,
                "threads": run.point.computing.threads,
                "batch_size": run.point.batch_size,
                "delay_ms": run.point.delay_ms,
                "seconds": run.seconds,
                "requests_per_second": run.per_second,
                f"p{slo.strictest.percent:g}_ms": run.latency_ms if run.per_second else None,
                "missed": list(run.missed),
                "client_share_of_a_core": run.client_share,
                "best": run.point == found.best.point,
            }
            for run in found.runs
        ],
    }


def _toml(table: Mapping[str, Any], name: str = "") -> str:
    """Return nested tables as TOML; JSON strings, numbers, booleans and lists are TOML too."""
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"\n[{name}]"] if name and values else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    text = "".join(f"{line}\n" for line in lines)
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    return text + "".join(
        _toml(value, f"{name}.{key}" if name else key) for key, value in inner.items()
    )
