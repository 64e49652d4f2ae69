"""``tune``: highest-throughput settings that meet an SLO; ``profile``: time of a request."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from newshelf.cli.console import (
    CatalogOption,
    SettingsOption,
    StoreOption,
    WorkspaceOption,
    make_console,
)
from newshelf.cli.pipeline import make_jobs, settings_from
from newshelf.config import Settings
from newshelf.errors import SettingsError
from newshelf.files import write_aside
from newshelf.pipeline.workspace import Workspace, only_server, open_workspace, servers
from newshelf.server.ports import free_port, free_ports

if TYPE_CHECKING:
    from rich.console import Console

    from loadtest.tuning.load import ModelName
    from loadtest.tuning.points import SearchSpace
    from loadtest.tuning.profile import Profile
    from loadtest.tuning.server import ExportTools
    from newshelf.server.state import ServerState

_ModelOption = Annotated[Literal["encoder", "recommender"], typer.Option(help="Model under load.")]
_ConcurrencyOption = Annotated[
    int,
    typer.Option("--clients", min=1, help="Concurrent clients, each of which awaits its answer."),
]


def tune(
    slo: Annotated[
        str,
        typer.Option(metavar="p99=50ms", help="The SLO; also p50=20ms,p99.9=1s,errors=0.1%."),
    ],
    model: _ModelOption = "encoder",
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of load per finalist.")] = 10.0,
    clients: _ConcurrencyOption = 32,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N,…", help="Worker processes to try.", show_default="1, 2, 4 … cores + 1"
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N,…", help="Threads per worker.", show_default="cores / workers"),
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,…", help="Batch sizes.")] = "1,4,8,16",
    delay: Annotated[str, typer.Option(metavar="MS,…", help="Batch delays.")] = "1,3,10",
    runtime: Annotated[
        str | None,
        typer.Option(metavar="NAME,…", help="Runtimes.", show_default="all that are installed"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="NAME,…", help="Precisions.", show_default="all that were exported"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="File of the settings (TOML); plot and results go next to it.",
            show_default="tuning/MODEL.toml in the workspace",
        ),
    ] = None,
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Find the highest-throughput settings that meet a latency SLO.

    Serves one set of settings after the other with its own TorchServe, under load. Exit code 1
    if none meets the SLO; then no settings are written.

    Example: `./run tune --slo p99=50ms --model encoder --clients 8`
    """
    from loadtest.slo import parse_slo
    from loadtest.tuning.points import with_point
    from loadtest.tuning.report import frontier_table, write_report
    from loadtest.tuning.tune import PointLoad
    from loadtest.tuning.tune import tune as run
    from newshelf.pipeline.stages import bring_up_to_date, plan_stages
    from newshelf.report.page import print_table

    limits = parse_slo(slo)
    console = make_console()
    base = settings_from(settings)
    opened = open_workspace(catalog, override=workspace, language=base.sample.language)
    with opened.locked(console):
        bring_up_to_date(plan_stages(opened, base, make_jobs(console)).up_to("export"), console)
        space = _search_space(opened, workers, threads, batch, delay, runtime, precision)
        load = PointLoad(model, clients, seconds)
        tools = make_tools(opened)
        found = run(opened, base, space, load, limits, tools, console)
    console.print(f"{len(found.runs)} of {found.total} points were run")
    print_table(frontier_table(found, limits), console)
    config = tools.model_config(with_point(base, model, found.best.point), model)
    path = out or opened.root / "tuning" / f"{model}.toml"
    written = write_report(found, base, load, limits, config, path)
    console.print(f"plot: {written.plot}\nresults: {written.results}", markup=False)
    if written.settings is None:
        console.print(_advice(found.best.per_second, clients))
        raise typer.Exit(1)
    console.print(
        f"settings: {written.settings}\n  ./run serve --settings {written.settings}\n"
        f"model-config.yaml of its archive: {written.model_config}",
        markup=False,
    )


def make_tools(workspace: Workspace) -> "ExportTools":
    """Return what the tuner needs of ``export``, applied to the export of ``workspace``."""
    from export.archive import archive as run
    from export.mar import model_config as text
    from loadtest.tuning.server import ExportTools

    def archive(settings: Settings, store: Path) -> list[Path]:
        return run(workspace.export, settings, store)

    def model_config(settings: Settings, model: "ModelName") -> str:
        return text(settings.archive, getattr(settings.archive, model))

    return ExportTools(archive, model_config)


def _search_space(
    workspace: Workspace,
    workers: str | None,
    threads: str | None,
    batch: str,
    delay: str,
    runtime: str | None,
    precision: str | None,
) -> "SearchSpace":
    from loadtest.tuning.points import Computing, SearchSpace, candidates, layouts, select

    precisions = select(candidates(workspace.export), _names(runtime), _names(precision))
    pairs = layouts(
        len(os.sched_getaffinity(0)), _numbers("workers", workers), _numbers("threads", threads)
    )
    return SearchSpace(
        tuple(Computing(w, t, arithmetic) for arithmetic in precisions for w, t in pairs),
        tuple(_numbers("batch", batch) or ()),
        tuple(_numbers("delay", delay) or ()),
    )


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",")]


def _numbers(option: str, text: str | None) -> Sequence[int] | None:
    words = _names(text)
    if words is None:
        return None
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise SettingsError(f"--{option} {text}: write whole numbers above 0, such as 1,2,4")
    return sorted({int(word) for word in words})


def _advice(per_second: float, clients: int) -> str:
    return (
        f"No point meets the SLO, so no settings are written. {clients} clients that each await "
        f"their answer take {clients / per_second * 1e3:.0f} ms at {per_second:.0f} requests/s "
        "on average, whatever the batch size: try fewer --clients, a longer latency, or more "
        "cores."
    )


def profile(
    model: _ModelOption = "encoder",
    requests: Annotated[int, typer.Option(min=1, help="Number of measured requests.")] = 200,
    clients: _ConcurrencyOption = 8,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="File of the trace, for https://ui.perfetto.dev.",
            show_default="profile/MODEL.trace.json in the workspace",
        ),
    ] = None,
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    model_store: StoreOption = None,
) -> None:
    """Show where a request spends its time, as a table and as a trace for Perfetto.

    Profiles the running server; if none runs, starts one as `serve` does and stops it afterwards.

    Example: `./run profile --model encoder --requests 500 --clients 32`
    """
    from loadtest.tuning.profile import profile as measure
    from newshelf.catalog.catalog import read_catalog
    from newshelf.pipeline.serve import serve

    console = make_console()

    def run(state: "ServerState") -> None:
        catalog = read_catalog(Path(state.catalog))
        measured = measure(state, catalog, model, requests=requests, clients=clients)
        path = out or state.directory.parent / "profile" / f"{model}.trace.json"
        _show(measured, path, console)

    if servers(catalog, workspace):
        run(only_server(catalog, workspace))
        return
    served = serve(
        open_workspace(catalog, override=workspace, model_store=model_store),
        settings_from(settings),
        make_jobs(console),
        console,
        ports=free_ports(),
        gateway_port=free_port(),
    )
    try:
        run(served.state)
    finally:
        served.state.end()


def _show(profile: "Profile", path: Path, console: "Console") -> None:
    from loadtest.tuning.profile import breakdown_table, trace_document
    from newshelf.report.page import print_table

    load = profile.load
    title = f"{len(profile.requests)} requests to the {profile.model}, {profile.clients} at a time"
    print_table(breakdown_table(profile.requests, profile.queue_ms, title), console)
    console.print(
        f"{load.per_second:.0f} requests/s in batches of {profile.batch_size:.1f}; the clients "
        f"themselves took {load.client_cpu_s / load.measured_s:.0%} of a core"
    )
    with write_aside(path) as aside:
        aside.write_text(json.dumps(trace_document(profile.requests, profile.model)))
    console.print(f"trace: {path} (open it at https://ui.perfetto.dev)", markup=False)
