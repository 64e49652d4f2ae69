"""``tune``: the settings that serve most on this machine and keep an objective.

``profile``: where a request's time goes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from newshelf.cli.options import CatalogOption, SettingsOption, StoreOption, WorkspaceOption

if TYPE_CHECKING:
    from rich.console import Console

    from newshelf.pipeline.workspace import Workspace
    from newshelf.server.state import ServerState
    from newshelf.tuning.points import Space
    from newshelf.tuning.profile import Profile


def tune(
    slo: Annotated[
        str,
        typer.Option(
            metavar="p99=50ms", help="What must be kept: also p50=20ms,p99.9=1s,errors=0.1%."
        ),
    ],
    model: Annotated[
        Literal["encoder", "recommender"], typer.Option(help="Which model is tuned.")
    ] = "encoder",
    seconds: Annotated[float, typer.Option(min=1, help="Of load on each finalist.")] = 10.0,
    clients: Annotated[int, typer.Option(min=1, help="How many send at a time.")] = 32,
    workers: Annotated[
        str | None,
        typer.Option(metavar="N,…", help="Processes to try.", show_default="1, 2, 4 … cores + 1"),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N,…", help="Threads of each.", show_default="cores / workers"),
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
            help="The settings (TOML); plot and results go beside it.",
            show_default="tuning/MODEL.toml in the workspace",
        ),
    ] = None,
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Find the settings with the most throughput that keep a latency, by live load.

    Serves one set of settings after the other by a TorchServe of its own. Exit code 1 when
    none keeps the objective; then no settings are written.

    Example: `./run tune --slo p99=50ms --model encoder --clients 8`
    """
    from newshelf.cli.console import make_console
    from newshelf.cli.jobs import make_jobs, make_tools
    from newshelf.cli.pipeline import settings_from
    from newshelf.pipeline.stages import bring_up_to_date, plan_stages
    from newshelf.pipeline.workspace import open_workspace
    from newshelf.tuning.points import with_point
    from newshelf.tuning.report import frontier_table, write_report
    from newshelf.tuning.slo import parse_slo
    from newshelf.tuning.tune import PointLoad
    from newshelf.tuning.tune import tune as run

    objective = parse_slo(slo)
    console = make_console()
    place = open_workspace(catalog, override=workspace)
    chosen = settings_from(settings)
    with place.locked(console):
        bring_up_to_date(plan_stages(place, chosen, make_jobs(console)).up_to("export"), console)
        space = _space(place, workers, threads, batch, delay, runtime, precision)
        load = PointLoad(model, clients, seconds)
        tools = make_tools(place)
        found = run(place, chosen, space, load, objective, tools, console)
    console.print(f"{len(found.runs)} of {found.total} points were run")
    console.print(frontier_table(found, objective))
    config = tools.model_config(with_point(chosen, model, found.best.point), model)
    path = out or place.root / "tuning" / f"{model}.toml"
    written = write_report(found, chosen, load, objective, config, path)
    console.print(f"plot: {written.plot}\nresults: {written.results}", markup=False)
    if written.settings is None:
        console.print(_advice(found.best.per_second, clients))
        raise typer.Exit(1)
    console.print(
        f"settings: {written.settings}\n  ./run serve --settings {written.settings}\n"
        f"model-config.yaml of its archive: {written.model_config}",
        markup=False,
    )


def _space(
    place: "Workspace",
    workers: str | None,
    threads: str | None,
    batch: str,
    delay: str,
    runtime: str | None,
    precision: str | None,
) -> "Space":
    import os

    from newshelf.tuning.points import Computing, Space, candidates, chosen, layouts

    precisions = chosen(candidates(place.export), _words(runtime), _words(precision))
    pairs = layouts(
        len(os.sched_getaffinity(0)), _numbers("workers", workers), _numbers("threads", threads)
    )
    return Space(
        tuple(Computing(w, t, arithmetic) for arithmetic in precisions for w, t in pairs),
        tuple(_numbers("batch", batch) or ()),
        tuple(_numbers("delay", delay) or ()),
    )


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",")]


def _numbers(name: str, text: str | None) -> Sequence[int] | None:
    """Increasing, each once."""
    from newshelf.errors import SettingsError

    words = _words(text)
    if words is None:
        return None
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise SettingsError(f"--{name} {text}: write whole numbers above 0, such as 1,2,4")
    return sorted({int(word) for word in words})


def _advice(per_second: float, clients: int) -> str:
    return (
        f"No point keeps the objective, so no settings are written. {clients} clients that "
        f"each wait for their answer take {clients / per_second * 1e3:.0f} ms of "
        f"{per_second:.0f} requests/s on average, whatever the batches are: fewer --clients "
        "for this machine, a longer latency, or more cores."
    )


def profile(
    model: Annotated[
        Literal["encoder", "recommender"], typer.Option(help="Which model is asked.")
    ] = "encoder",
    requests: Annotated[int, typer.Option(min=1, help="How many are measured.")] = 200,
    clients: Annotated[int, typer.Option(min=1, help="How many send at a time.")] = 8,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The trace, for https://ui.perfetto.dev.",
            show_default="profile/MODEL.trace.json in the workspace",
        ),
    ] = None,
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    model_store: StoreOption = None,
) -> None:
    """Show where a request's time goes, as a table and as a trace for Perfetto.

    Asks the running server; without one, starts it as `serve` does, and ends it after.

    Example: `./run profile --model encoder --requests 500 --clients 32`
    """
    from newshelf.catalog.catalog import read_catalog
    from newshelf.cli.console import make_console
    from newshelf.cli.jobs import make_jobs
    from newshelf.cli.pipeline import settings_from
    from newshelf.pipeline.serve import serve
    from newshelf.pipeline.workspace import only_server, open_workspace, servers
    from newshelf.server.ports import free_port, free_ports
    from newshelf.tuning.profile import profile as measure

    console = make_console()

    def run(state: "ServerState") -> None:
        taken = measure(
            state, read_catalog(Path(state.catalog)), model, requests=requests, clients=clients
        )
        path = out or state.directory.parent / "profile" / f"{model}.trace.json"
        _show(taken, path, console)

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


def _show(taken: "Profile", path: Path, console: "Console") -> None:
    import json

    from newshelf.files import write_aside
    from newshelf.tuning.profile import break_down, breakdown_table, trace_document

    load = taken.load
    title = f"{len(taken.journeys)} requests to the {taken.model}, {taken.clients} at a time"
    console.print(breakdown_table(break_down(taken.journeys, taken.queue_ms), title))
    console.print(
        f"{load.per_second:.0f} requests/s in batches of {taken.batch_size:.1f}; the clients "
        f"themselves took {load.client_cpu_s / load.measured_s:.0%} of a core"
    )
    with write_aside(path) as aside:
        aside.write_text(json.dumps(trace_document(taken.journeys, taken.model)))
    console.print(f"trace: {path} (open it at https://ui.perfetto.dev)", markup=False)
