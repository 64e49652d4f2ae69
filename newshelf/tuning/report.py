"""What a tuning found: a table, and the files that serve by it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from newshelf.config import Settings
from newshelf.files import write_aside, write_json
from newshelf.tuning.measured import Measured, frontier
from newshelf.tuning.plot import draw_frontier
from newshelf.tuning.points import with_point
from newshelf.tuning.search import Found
from newshelf.tuning.slo import Slo
from newshelf.tuning.tune import Load

__all__ = ["Written", "frontier_table", "settings_text", "write_report"]


@dataclass(frozen=True)
class Written:
    """The files of a tuning."""

    results: Path
    """Every run, as JSON."""
    plot: Path
    settings: Path | None = None
    """Settings (TOML) with the best point; None when it does not keep the objective."""
    model_config: Path | None = None
    """The ``model-config.yaml`` that they make; likewise."""


def frontier_table(found: Found, slo: Slo) -> Table:
    """Points that no other beats in both throughput and latency, and the best of them."""
    percent = f"p{slo.strictest.percent:g} ms"
    table = Table(title=f"The frontier, and what keeps {slo}", title_justify="left")
    table.add_column("workers × threads")
    for heading in ("batch", "delay ms", "requests/s", percent, "run s"):
        table.add_column(heading, justify="right")
    table.add_column("")
    shown = {run.point: run for run in [*frontier(found.runs), found.best]}
    for run in sorted(shown.values(), key=Measured.rank):
        table.add_row(*_cells(run), _verdict(run, found.best))
    return table


def settings_text(settings: Settings, found: Found, load: Load, slo: Slo) -> str:
    """``settings`` with the best point, as TOML for ``--settings``."""
    best = found.best
    tuned = with_point(settings, load.model, best.point)
    head = (
        f"# Written by `./run tune` for the {load.model}: {best.per_second:.0f} requests/s and "
        f"p{slo.strictest.percent:g} {best.latency_ms:.1f} ms\n"
        f"# with {load.clients} clients on the machine that it ran on, for {slo}.\n"
        "# Elsewhere, tune again. All else is as in the settings that were tuned.\n"
    )
    return head + _toml(tuned.model_dump(mode="json", exclude_unset=True))


def write_report(
    found: Found, settings: Settings, load: Load, slo: Slo, model_config: str, settings_path: Path
) -> Written:
    """Write the settings, and beside them the YAML, the plot and the results.

    Args:
        found: by the search.
        settings: those that were tuned.
        load: that each point was put under.
        slo: what was to be kept.
        model_config: the text of the best point's ``model-config.yaml``.
        settings_path: where the settings go; the others have its name and other endings.
    """
    plot, results = settings_path.with_suffix(".png"), settings_path.with_suffix(".json")
    title = f"{load.model}, {load.clients} clients"
    with write_aside(plot) as aside:
        draw_frontier(found.runs, found.best, slo, aside, title)
    write_json(results, _results(found, load, slo))
    if not found.best.meets:
        return Written(results, plot)
    config = settings_path.with_suffix(".model-config.yaml")
    for path, text in (
        (settings_path, settings_text(settings, found, load, slo)),
        (config, model_config),
    ):
        with write_aside(path) as aside:
            aside.write_text(text, encoding="utf-8")
    return Written(results, plot, settings_path, config)


def _cells(run: Measured) -> list[str]:
    return [
        str(run.point.computing),
        str(run.point.batch_size),
        str(run.point.delay_ms),
        f"{run.per_second:.0f}",
        f"{run.latency_ms:.1f}",
        f"{run.seconds:g}",
    ]


def _verdict(run: Measured, best: Measured) -> str:
    if run.meets:
        return "chosen" if run.point == best.point else "kept"
    nearest = "nearest: " if run.point == best.point else ""
    return nearest + "; ".join(run.missed)


def _results(found: Found, load: Load, slo: Slo) -> dict[str, Any]:
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
    """Nested tables of plain values; a JSON string, number, boolean or list is TOML too."""
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"\n[{name}]"] if name and values else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    text = "".join(f"{line}\n" for line in lines)
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    return text + "".join(
        _toml(value, f"{name}.{key}" if name else key) for key, value in inner.items()
    )
