"""Options and output that several verbs share, and groups of verbs with their exit codes."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from newshelf.errors import NewshelfError, ServerError, Unavailable
from newshelf.files import open_templates, read_model
from newshelf.pipeline.workspace import Workspace, only_server, open_workspace
from newshelf.server.process import interruptible, is_running, read_log
from newshelf.server.program import ShelfPlan
from newshelf.server.state import SEARCH, SHELF, ServerState, read_keys

if TYPE_CHECKING:
    from newshelf.pipeline.serve import Demo


CatalogOption = Annotated[
    Path | None,
    typer.Option(
        "--catalog",
        metavar="DIR|FILE",
        help="A catalogue or a shop's export; default: the drawn sample.",
        show_default=False,
    ),
]
SettingsOption = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        help="Settings (TOML).",
        show_default="configs/packaged.toml",
    ),
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        help="Folder of the artifacts.",
        show_default=".newshelf/NAME",
    ),
]
LanguageOption = Annotated[
    Literal["en", "zh"] | None,
    typer.Option(
        "--language",
        help="Language of the drawn sample's texts; zh has a workspace of its own.",
        show_default="that of the settings: en",
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--model-store", metavar="DIR", help="Folder of the archives.", show_default="model_store"
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Refuse a catalogue that has a bad row.")
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(help="auto, onnxruntime, openvino or torchscript; overrides the settings."),
]


def served_workspace(catalog: Path | None, workspace: Path | None) -> Workspace:
    """Return a workspace: that of the only running server, unless one is named."""
    if catalog is None and workspace is None:
        workspace = only_server(None, None).directory.parent
    return open_workspace(catalog, override=workspace)


class VerbGroup(TyperGroup):
    """Prints an expected error in one line and exits with 1; ``--debug`` raises it."""

    exit_code = 1

    def invoke(self, ctx: Any) -> Any:
        """See ``click.Command``."""
        try:
            return super().invoke(ctx)
        except NewshelfError as error:
            if ctx.find_root().params.get("debug"):
                raise
            typer.echo(f"error: {error.message}", err=True)
            raise typer.Exit(self.exit_code) from error


class RootGroup(VerbGroup):
    """Unwinds on SIGTERM and SIGHUP as on Ctrl-C, and then exits with 130."""

    def invoke(self, ctx: Any) -> Any:
        """See ``click.Command``."""
        try:
            with interruptible():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


class RefusingGroup(VerbGroup):
    """Exits with 2 after an expected error: nothing was done, so it is no verdict."""

    exit_code = 2


def verb_group(about: str, *, refuses: bool = False) -> typer.Typer:
    """Return a group of verbs; one that ``refuses`` exits with 2 after an expected error."""
    return typer.Typer(
        cls=RefusingGroup if refuses else VerbGroup,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        help=about,
    )


_SHOWN_NUMBERS = 6
_WIDTH = 160
"""Characters per line in a file or a pipe."""


def make_console() -> Console:
    """Return a console of standard output; wide and plain unless that is a terminal."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        # Rich would wrap tables at 80.
        console.width = _WIDTH
    return console


def show_recommendation(
    console: Console, answer: Mapping[str, Any], titles: Mapping[str, str], heading: str
) -> None:
    """Print a table of rank, product, score and source."""
    table = Table(title=escape(heading), title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("product")
    table.add_column("score", justify="right")
    table.add_column("source")
    for rank, item in enumerate(answer["items"], start=1):
        identity = str(item["id"])
        title = titles.get(identity)
        product = f"{title} ({identity})" if title else identity
        table.add_row(str(rank), escape(product), f"{item['score']:.4f}", escape(item["source"]))
    console.print(table)
    console.print(
        f"model {answer.get('model_version', '?')}, index {answer.get('index_version', '?')}"
    )


def show_embedding(console: Console, answer: Mapping[str, Any]) -> None:
    """Print the labels and the first numbers of each embedding."""
    for product in answer.get("predictions", [answer]):
        if "embedding" not in product:
            console.print_json(json.dumps(product))
            continue
        numbers = product["embedding"]
        shown = ", ".join(f"{number:.4f}" for number in numbers[:_SHOWN_NUMBERS])
        console.print(f"embedding ({len(numbers)} numbers): {shown}, …")
        console.print_json(json.dumps({"labels": product.get("labels")}))
    console.print(f"model {answer.get('model_version', '?')}")


def show_next_steps(console: Console, state: ServerState, demo: "Demo", key: Path) -> None:
    """Print commands to paste; ``key`` is the file of the gateway's local key."""
    environment = open_templates("newshelf.cli")
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    environment.filters["body"] = lambda value: shlex.quote(json.dumps(value, ensure_ascii=False))
    kind = demo.picture and guess_type(demo.picture, strict=False)[0]
    lines = environment.get_template("next_steps.txt").render(
        state=state, demo=demo, key=key, picture_type=kind or "image/jpeg"
    )
    console.print("\n[bold]Try next:[/]\n")
    console.print(lines, markup=False)


def show_servers(console: Console, states: Sequence[ServerState]) -> None:
    """Print addresses, processes, restarts and workers of running servers."""
    for state in states:
        console.print(f"[bold]{escape(state.catalog)}[/]")
        if state.gateway is not None:
            console.print(f"  gateway     {state.gateway.url}")
        console.print(f"  inference   {state.inference_url}  (token in {state.key_file})")
        console.print(f"  management  {state.management_url}")
        console.print(f"  metrics     {state.metrics_url}")
        console.print(f"  logs        {state.directory}")
        for name in sorted({*state.services, *state.processes}):
            console.print(f"  {name:<11} {_process_line(state, name)}", markup=False)
        if SHELF in state.services:
            _show_shelf(console, state)
        try:
            _show_workers(console, state)
        except ServerError as error:
            console.print(
                f"  no models   {error.message}; the gateway answers without", markup=False
            )


def _process_line(state: ServerState, name: str) -> str:
    """Return whether a process runs, how often it was restarted, and why the last time."""
    ref = state.processes.get(name)
    runs = ref is not None and is_running(ref)
    if name == SEARCH:
        said = read_log(state.directory / f"{SEARCH}.log").splitlines()[-1:] or ["it starts"]
        over = runs or said[0].startswith("error: ") or " is served instead of " in said[0]
        return said[0] if over else "was interrupted; the next ./run serve searches again"
    line = f"process {ref.pid}" if ref and runs else "is down"
    restarts = [one for one in state.restarts if one.name == name]
    if restarts:
        at = datetime.fromisoformat(restarts[-1].time).astimezone()
        line += f", restarts: {len(restarts)}, last {at:%m-%d %H:%M:%S}: it {restarts[-1].reason}"
    return line


def _show_shelf(console: Console, state: ServerState) -> None:
    """Print how far the workers of each host are with the store's changes."""
    from newshelf.store.store import EventStore

    plan = read_model(state.directory.parent / "shelf.json", ShelfPlan, "plan of a shelf")
    try:
        with EventStore.connect(plan.store_url) as store:
            last, hosts = store.items.last_seq(), store.items.hosts()
            waiting = [store.items.count_after(host.seq) for host in hosts]
    except Unavailable as error:
        console.print(f"  products    {error.message}", markup=False)
        return
    for host, count in zip(hosts, waiting, strict=True):
        console.print(
            f"  products    {host.version} on {host.host}: change {host.seq:,} of {last:,}"
            f" published, {count:,} products waiting",
            markup=False,
        )


def _show_workers(console: Console, state: ServerState) -> None:
    from newshelf.server.client import Client

    expires = read_keys(state.key_file).inference.expires
    if expires is not None:
        console.print(f"  token       until {expires.astimezone():%Y-%m-%d %H:%M:%S}")
    with Client(state) as client:
        for model in state.models:
            # A rollout loads a second version.
            for version in client.describe(model, "all"):
                console.print(f"  {model:<11} {version['modelUrl']}: {_workers(version)}")


def _workers(version: Mapping[str, Any]) -> str:
    workers = version.get("workers", [])
    ready = sum(worker.get("status") == "READY" for worker in workers)
    return f"{ready} of {len(workers)} workers ready, batches of up to {version['batchSize']}"
