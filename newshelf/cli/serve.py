"""The verbs around a running server: serve, stop, status, recommend, encode.

``keys``: who may call the gateway.
"""

from pathlib import Path
from typing import Annotated

import typer

from newshelf.catalog.catalog import read_catalog
from newshelf.cli.console import (
    make_console,
    show_embedding,
    show_recommendation,
    show_servers,
    show_what_next,
)
from newshelf.cli.jobs import make_jobs
from newshelf.cli.options import CatalogOption, WorkspaceOption, refusing_group
from newshelf.cli.pipeline import settings_from
from newshelf.errors import SetupError
from newshelf.interrupts import uninterrupted
from newshelf.pipeline.demo import Demo, pick_demo
from newshelf.pipeline.serve import first_key, stay
from newshelf.pipeline.serve import serve as bring_up
from newshelf.pipeline.workspace import only_server, open_workspace, servers
from newshelf.server.client import Client
from newshelf.server.ports import Ports, free_port, free_ports


def serve(
    catalog: Path | None,
    settings: Path | None,
    workspace: Path | None,
    model_store: Path | None,
    *,
    port: int | None,
    runtime: str | None,
    detach: bool,
    strict: bool,
) -> None:
    """Serve until interrupted; with ``detach``, return when it is ready."""
    console = make_console()
    opened = open_workspace(catalog, override=workspace, model_store=model_store)
    ports, gateway_port = _ports(port)
    served = bring_up(
        opened,
        settings_from(settings, runtime),
        make_jobs(console, strict=strict),
        console,
        ports=ports,
        gateway_port=gateway_port,
    )
    stays = False
    try:
        show_recommendation(console, served.answer, served.demo.titles, _heading(served.demo))
        show_what_next(console, served.state, served.demo, first_key(opened))
        if detach:
            console.print("\nIt goes on; ./run stop ends it.")
            stays = True
            return
        console.print("\nCtrl-C ends it.")
        stay(served.state)
    finally:
        if not stays:
            with uninterrupted():
                console.print("stopping the gateway, TorchServe and its workers …")
                served.state.end()


def stop(catalog: Path | None, workspace: Path | None) -> None:
    """End what runs."""
    console = make_console()
    found = servers(catalog, workspace)
    for state in found:
        state.end()
        console.print(f"stopped {state.inference_url} ({state.catalog})", markup=False)
    if not found:
        console.print("no server is running")


def status(catalog: Path | None, workspace: Path | None) -> None:
    """Tell what runs."""
    console = make_console()
    found = servers(catalog, workspace)
    show_servers(console, found)
    if not found:
        console.print("no server is running; ./run serve --detach starts one")
        raise typer.Exit(1)


def recommend(
    history: list[str], k: int, user: str | None, catalog: Path | None, workspace: Path | None
) -> None:
    """Ask for products and print them with their titles."""
    state = only_server(catalog, workspace)
    further = {} if user is None else {"user_id": user}
    with Client(state) as client:
        answer = client.recommend(history=history, k=k, **further)
    titles = pick_demo(read_catalog(Path(state.catalog))).titles
    show_recommendation(make_console(), answer, titles, f"From {state.inference_url}:")


def encode(
    title: str | None, image: Path | None, catalog: Path | None, workspace: Path | None
) -> None:
    """Ask for an embedding and print its beginning."""
    if title is None and image is None:
        raise SetupError("give --title, --image, or both")
    try:
        picture = None if image is None else image.read_bytes()
    except OSError as error:
        raise SetupError(f"cannot read {image}: {error.strerror}") from error
    with Client(only_server(catalog, workspace)) as client:
        answer = client.encode({} if title is None else {"title": title}, picture)
    show_embedding(make_console(), answer)


def _ports(first: int | None) -> tuple[Ports | None, int | None]:
    """TorchServe's ports and the gateway's; None takes those of the settings."""
    if first is None:
        return None, None
    if first == 0:
        return free_ports(), free_port()
    return Ports.starting_at(first), first + 5


def _heading(demo: Demo) -> str:
    names = ", ".join(demo.titles.get(identity, identity) for identity in demo.history)
    return f"For {demo.whose}, who has {names}:"


keys = refusing_group("The keys by which shops call the gateway.")

_NAME = typer.Argument(metavar="NAME", help="Letters, digits, dots, dashes, underscores.")


@keys.command()
def add(
    name: Annotated[str, _NAME],
    rate: Annotated[
        float, typer.Option(help="Requests each second that it may send to each process.")
    ] = 100.0,
    days: Annotated[
        float | None,
        typer.Option(help="Until it expires.", show_default="never"),
    ] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Make a key and print it. It is shown only now: the file keeps its hash.

    Example: `./run keys add shop-frontend --rate 200 --days 365`
    """
    from datetime import UTC, datetime, timedelta

    from newshelf.errors import SettingsError
    from newshelf.gateway.keys import KeyFile
    from newshelf.pipeline.workspace import open_workspace

    now = datetime.now(UTC)
    try:
        expires = None if days is None else now + timedelta(days=days)
    except (OverflowError, ValueError) as error:
        raise SettingsError(f"--days {days} is no number of days") from error
    file = KeyFile(open_workspace(catalog, override=workspace).api_keys)
    typer.echo(file.add(name, now=now, expires=expires, rate_per_s=rate))


@keys.command("list")
def list_keys(catalog: CatalogOption = None, workspace: WorkspaceOption = None) -> None:
    """Show the keys: names, rates, and until when.

    Example: `./run keys list`
    """
    from datetime import UTC, datetime

    from rich.table import Table

    from newshelf.cli.console import make_console
    from newshelf.gateway.keys import KeyFile
    from newshelf.pipeline.workspace import open_workspace

    file = KeyFile(open_workspace(catalog, override=workspace).api_keys)
    now = datetime.now(UTC)
    table = Table()
    for column in ("name", "created", "expires", "requests/s"):
        table.add_column(column)
    for key in file.read():
        expires = "never" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M}"
        ended = " (expired)" if key.expired(now) else ""
        table.add_row(
            key.name, f"{key.created:%Y-%m-%d %H:%M}", expires + ended, f"{key.rate_per_s:g}"
        )
    make_console().print(table)


@keys.command()
def revoke(
    name: Annotated[str, _NAME],
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Forget a key; a running gateway refuses it within two seconds.

    Example: `./run keys revoke shop-frontend`
    """
    from newshelf.gateway.keys import KeyFile
    from newshelf.pipeline.workspace import open_workspace

    KeyFile(open_workspace(catalog, override=workspace).api_keys).revoke(name)
    typer.echo(f"{name} is revoked")
