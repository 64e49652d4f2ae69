"""Verbs of the running server: serve, stop, status, recommend, encode; and ``keys``."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from newshelf.cli.console import (
    CatalogOption,
    LanguageOption,
    RuntimeOption,
    SettingsOption,
    StoreOption,
    StrictOption,
    WorkspaceOption,
    make_console,
    show_embedding,
    show_next_steps,
    show_recommendation,
    show_servers,
    verb_group,
)
from newshelf.cli.pipeline import make_jobs, open_for, settings_from
from newshelf.errors import SettingsError, SetupError
from newshelf.pipeline.workspace import only_server, open_workspace, servers
from newshelf.server.ports import Ports, free_port, free_ports
from newshelf.server.process import uninterrupted
from newshelf.server.state import ServerState

if TYPE_CHECKING:
    from newshelf.gateway.keys import KeyFile


def serve(
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    model_store: StoreOption = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="First of six ports; 0 takes any free ones.",
            show_default="8080 and so on, and 8000 for the gateway",
        ),
    ] = None,
    runtime: RuntimeOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when it serves; ./run stop stops it.")
    ] = False,
    strict: StrictOption = False,
    language: LanguageOption = None,
) -> None:
    """Serve recommendations until Ctrl-C, and make whatever that needs.

    Reuses up-to-date artifacts; rebuilds stale ones and says why.

    Example: `./run serve --catalog shop --port 9080 --detach`
    """
    from newshelf.pipeline.serve import first_key, stay
    from newshelf.pipeline.serve import serve as bring_up

    console = make_console()
    chosen = settings_from(settings, runtime, language)
    opened = open_for(chosen, catalog, workspace, model_store, language)
    ports, gateway_port = _ports(port)
    served = bring_up(
        opened,
        chosen,
        make_jobs(console, strict=strict),
        console,
        ports=ports,
        gateway_port=gateway_port,
        search=True,
    )
    keeps_running = False
    try:
        demo = served.demo
        names = ", ".join(demo.titles.get(identity, identity) for identity in demo.history)
        heading = f"For {demo.owner}, who has {names}:"
        show_recommendation(console, served.answer, demo.titles, heading)
        show_next_steps(console, served.state, demo, first_key(opened))
        if detach:
            console.print("\nIt keeps running; ./run stop stops it.")
            keeps_running = True
            return
        console.print("\nCtrl-C ends it.")
        stay(served.state, console)
    finally:
        if not keeps_running:
            with uninterrupted():
                console.print("stopping the gateway, TorchServe and its workers …")
                served.state.end()


def stop(catalog: CatalogOption = None, workspace: WorkspaceOption = None) -> None:
    """Stop the running servers: all of them, or that of a catalogue.

    Example: `./run stop`
    """
    console = make_console()
    found = servers(catalog, workspace)
    for state in found:
        state.end()
        console.print(f"stopped {state.inference_url} ({state.catalog})", markup=False)
    if not found:
        console.print("no server is running")


def status(catalog: CatalogOption = None, workspace: WorkspaceOption = None) -> None:
    """Show what is served, where, and its workers; exit code 1 if nothing is.

    Example: `./run status`
    """
    console = make_console()
    found = servers(catalog, workspace)
    show_servers(console, found)
    if not found:
        console.print("no server is running; ./run serve --detach starts one")
        raise typer.Exit(1)


def recommend(
    history: Annotated[
        list[str] | None,
        typer.Option("--history", metavar="ID", help="Product id, the oldest first; repeatable."),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("-k", help="Number of products.", show_default="10, or the placement's"),
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="The shopper's id.")] = None,
    batch: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ask for each of these units (text, CSV or Parquet)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of --batch.", show_default="BATCH-recommended.parquet"),
    ] = None,
    placement: Annotated[
        str | None, typer.Option(help="Placement of the requests of --batch.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Key of --batch.", show_default="the local key"),
    ] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Ask the running server for products that go with a history, or for those of many units.

    Example: `./run recommend --history ring-7 --history scarf-12 -k 5`

    Example: `./run recommend --batch units.csv --placement email`
    """
    state = only_server(catalog, workspace)
    if batch is not None:
        fields = {"k": k, "placement": placement}
        asked = {name: value for name, value in fields.items() if value is not None}
        _recommend_batch(batch, out, asked, state, key)
        return
    from newshelf.catalog.catalog import read_catalog
    from newshelf.pipeline.serve import pick_demo
    from newshelf.server.client import Client

    further = {} if user is None else {"user_id": user}
    with Client(state) as client:
        answer = client.recommend(history=history or [], k=10 if k is None else k, **further)
    titles = pick_demo(read_catalog(Path(state.catalog))).titles
    show_recommendation(make_console(), answer, titles, f"From {state.inference_url}:")


def _recommend_batch(
    batch: Path,
    out: Path | None,
    fields: Mapping[str, object],
    state: "ServerState",
    key: Path | None,
) -> None:
    from newshelf.cli.batch import read_units, recommend_all

    if state.gateway is None:
        raise SetupError("a batch is asked of the gateway, which does not run (gateway.enabled)")
    key = key or state.directory.parent / "gateway" / "local.key"
    try:
        secret = key.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise SetupError(f"the key {key} cannot be read: {error}; give --key FILE") from error
    console, units = make_console(), read_units(batch)
    out = out or batch.with_name(f"{batch.stem}-recommended.parquet")
    failed = recommend_all(units, fields, out, url=state.gateway.url, key=secret, console=console)
    console.print(f"{len(units) - len(failed)} of {len(units)} units are in {out}", markup=False)
    if failed:
        console.print(f"{out}.failed.csv has the reasons of the others", markup=False)
        raise typer.Exit(1)


def encode(
    title: Annotated[str | None, typer.Option(help="The product's title.")] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its picture: JPEG, PNG or WebP.")
    ] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Ask the running server for a product's embedding and labels.

    Example: `./run encode --title "jade bracelet" --image bracelet.jpg`
    """
    from newshelf.server.client import Client

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
    """Return the ports of TorchServe and of the gateway; None is what the settings say."""
    if first is None:
        return None, None
    if first == 0:
        return free_ports(), free_port()
    return Ports.starting_at(first), first + 5


keys = verb_group(
    "Keys of the gateway's clients. Exit code 2: refused; nothing was changed.", refuses=True
)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Letters, digits, dots, dashes, underscores.")
]


@keys.command()
def add(
    name: NameArgument,
    rate: Annotated[
        float, typer.Option(help="Requests per second that each gateway process accepts.")
    ] = 100.0,
    days: Annotated[
        float | None, typer.Option(help="Days until it expires.", show_default="never")
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="read, feedback, items or admin; repeatable.", show_default="read and feedback"
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="For browsers: it sends clicks on answers, no more.")
    ] = False,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Create a key and print it; the file keeps only its hash.

    Example: `./run keys add stock-system --scope items --days 365`
    """
    now = datetime.now(UTC)
    try:
        expires = None if days is None else now + timedelta(days=days)
    except (OverflowError, ValueError) as error:
        raise SettingsError(f"--days {days} is no number of days") from error
    from newshelf.gateway.keys import DEFAULT_SCOPES, PUBLIC_SCOPES

    file = _key_file(catalog, workspace)
    scopes = scope or (PUBLIC_SCOPES if public else DEFAULT_SCOPES)
    typer.echo(
        file.add(name, now=now, expires=expires, rate_per_s=rate, scopes=scopes, public=public)
    )


@keys.command("list")
def list_keys(catalog: CatalogOption = None, workspace: WorkspaceOption = None) -> None:
    """List the keys with their rates, scopes and expiry dates.

    Example: `./run keys list`
    """
    now = datetime.now(UTC)
    table = Table("name", "created", "expires", "requests/s", "scopes")
    for key in _key_file(catalog, workspace).read():
        expires = "never" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M}"
        ended = " (expired)" if key.expired(now) else ""
        table.add_row(
            key.name,
            f"{key.created:%Y-%m-%d %H:%M}",
            expires + ended,
            f"{key.rate_per_s:g}",
            ", ".join(key.scopes) + (" (public)" if key.public else ""),
        )
    make_console().print(table)


@keys.command()
def revoke(
    name: NameArgument,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Delete a key; a running gateway refuses it within two seconds.

    Example: `./run keys revoke shop-frontend`
    """
    _key_file(catalog, workspace).revoke(name)
    typer.echo(f"{name} is revoked")


def _key_file(catalog: Path | None, workspace: Path | None) -> "KeyFile":
    from newshelf.gateway.keys import KeyFile

    return KeyFile(open_workspace(catalog, override=workspace).api_keys)
