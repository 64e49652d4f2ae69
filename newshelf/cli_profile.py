"""``profile``: where a request's time goes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from newshelf.cli_options import CatalogOption, SettingsOption, StoreOption, WorkspaceOption

if TYPE_CHECKING:
    from rich.console import Console

    from newshelf.profiling.profile import Profile
    from newshelf.server.state import ServerState

__all__ = ["profile"]


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
    from newshelf.catalog import read_catalog
    from newshelf.cli_jobs import make_jobs
    from newshelf.cli_pipeline import settings_from
    from newshelf.console import make_console
    from newshelf.pipeline.find import only_server, servers
    from newshelf.pipeline.serve import serve
    from newshelf.pipeline.workspace import open_workspace
    from newshelf.profiling.profile import profile as measure
    from newshelf.server.ports import free_port, free_ports

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
    from newshelf.profiling.breakdown import break_down, breakdown_table
    from newshelf.profiling.trace_file import trace_document

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
