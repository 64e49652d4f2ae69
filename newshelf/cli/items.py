"""``items``: products that change while they are served."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from newshelf.cli.console import (
    CatalogOption,
    WorkspaceOption,
    make_console,
    served_workspace,
    verb_group,
)
from newshelf.errors import BadPicture, CatalogError, NewshelfError, SettingsError, UnknownItem
from newshelf.files import read_model
from newshelf.server.program import ShelfPlan

if TYPE_CHECKING:
    from newshelf.store.items import ItemRepository, ItemWrite, StoredItem
    from newshelf.store.store import EventStore

items = verb_group("Products that change while they are served: import, list, show, delete.")

_BATCH = 100
_LOOK_S = 1.0
_MOST_PROBLEMS = 20

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The product's id.")]


@items.command("import")
def import_items(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE|DIR", help="A catalogue or a shop's export, with pictures."),
    ],
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Then follow the folder: import new and changed files."),
    ] = False,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Store the products of a file or folder; those with the same id are replaced.

    Reads what `./run catalog check` reads. Products are recommended some moments later.

    Example: `./run items import new-products.csv`
    """
    console = make_console()
    with _store(plan := _plan(catalog, workspace)) as store:
        if not watch:
            _import(store.items, source, plan, console)
            return
        console.print(f"following {source}; Ctrl-C ends it", markup=False)
        for path in _complete_files(source):
            console.print(f"{path.name}:", markup=False)
            try:
                _import(store.items, path, plan, console)
            except NewshelfError as error:
                console.print(f"error: {error.message}", markup=False)


@items.command("list")
def list_items(
    after: Annotated[str, typer.Option(metavar="ID", help="Start after this id.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Number of products.")] = 50,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """List products in the order of their ids.

    Example: `./run items list --after ring-7`
    """
    table = Table("id", "title", "price", "availability", "revision")
    with _store(_plan(catalog, workspace)) as store:
        for item in store.items.page(after, limit):
            columns = item.columns
            price = "" if columns.price is None else f"{columns.price:g}"
            table.add_row(item.id, columns.title, price, columns.availability, str(item.revision))
    make_console().print(table)


@items.command()
def show(
    item_id: IdArgument, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Show a product, and how far each model version is with its last change.

    Example: `./run items show ring-7`
    """
    console = make_console()
    with _store(_plan(catalog, workspace)) as store:
        item = store.items.get([item_id]).get(item_id)
        if item is None:
            raise UnknownItem(f"there is no product {item_id!r}")
        states = store.items.states(item_id)
    for line in _lines(item):
        console.print(line, markup=False, highlight=False)
    for state in states:
        stage = "visible" if state.visible else "encoded" if state.encoded else "stored"
        problem = f" ({state.problem})" if state.problem else ""
        console.print(f"  {state.version}: {stage}{problem}", markup=False, highlight=False)


@items.command()
def delete(
    item_id: IdArgument, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Delete a product: it is not recommended any more.

    Example: `./run items delete ring-7`
    """
    with _store(_plan(catalog, workspace)) as store:
        item = store.items.delete(item_id)
    typer.echo(f"{item.id} is deleted (revision {item.revision})")


def _plan(catalog: Path | None, workspace: Path | None) -> "ShelfPlan":
    path = served_workspace(catalog, workspace).shelf_plan
    if not path.exists():
        raise SettingsError(
            f"products cannot be changed here: {path} is missing. ./run serve starts the live "
            "shelf; --catalog or --workspace selects a server"
        )
    return read_model(path, ShelfPlan, "plan of a shelf")


def _store(plan: "ShelfPlan") -> "EventStore":
    from newshelf.store.store import EventStore

    return EventStore.open(plan.store_url)


def _import(
    repository: "ItemRepository", source: Path, plan: "ShelfPlan", console: "Console"
) -> None:
    from newshelf.catalog.catalog import read_catalog
    from newshelf.pipeline.merged_catalog import catalog_items

    catalog = read_catalog(source)
    console.print(catalog.report.summary(console.width), markup=False)
    before = repository.last_seq()
    refused: list[tuple[str, str]] = []
    stored, batch = 0, list["ItemWrite"]()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("storing", total=len(catalog.items))
        for one in progress.track(catalog_items(catalog), task_id=task):
            if isinstance(one, tuple):
                refused.append(one)
                continue
            batch.append(_with_bytes(one, plan.max_picture_bytes, refused))
            if len(batch) == _BATCH:
                stored += len(repository.put(batch))
                batch = []
        stored += len(repository.put(batch))
    changed = repository.last_seq() - before
    console.print(f"{stored:,} products stored, {changed:,} of them changed")
    for item_id, reason in refused[:_MOST_PROBLEMS]:
        console.print(f"  {item_id}: {reason}", markup=False)
    if len(refused) > _MOST_PROBLEMS:
        console.print(f"  … and {len(refused) - _MOST_PROBLEMS:,} more")


def _with_bytes(write: "ItemWrite", max_bytes: int, refused: list[tuple[str, str]]) -> "ItemWrite":
    """Return a product with its picture's bytes; the file may be gone tomorrow."""
    from dataclasses import replace

    from newshelf.store.items import read_picture_file

    if not isinstance(write.picture, Path):
        return write
    try:
        return replace(write, picture=read_picture_file(str(write.picture), max_bytes))
    except BadPicture as error:
        refused.append((write.columns.id, error.message))
    # Its text is stored; without one the picture is the product.
    return replace(write, picture=None) if write.columns.text() else write


def _complete_files(folder: Path) -> Iterator[Path]:
    """Yield each table file when it is new or changed, and has been left alone for a while."""
    from newshelf.catalog.schema import EXTENSIONS

    if not folder.is_dir():
        raise CatalogError(f"--watch needs a folder; {folder} is none")
    seen: dict[Path, tuple[int, int]] = {}
    done: dict[Path, tuple[int, int]] = {}
    while True:
        now: dict[Path, tuple[int, int]] = {}
        for path in sorted(folder.iterdir()):
            name = path.name.lower().removesuffix(".gz")
            others = name.startswith((".", "events.", "baskets."))
            if name.endswith(EXTENSIONS) and not others and path.is_file():
                status = path.stat()
                now[path] = status.st_size, status.st_mtime_ns
        for path, state in now.items():
            if seen.get(path) == state != done.get(path):
                done[path] = state
                yield path
        seen = now
        time.sleep(_LOOK_S)


def _lines(item: "StoredItem") -> Iterator[str]:
    state = ", deleted" if item.deleted else ""
    yield f"{item.id}: revision {item.revision}, change {item.seq}{state}"
    fields = item.columns.model_dump(exclude={"id", "attributes"}, exclude_none=True)
    for name, value in {**fields, **item.columns.attributes}.items():
        yield f"  {name}: {value}"
    if item.picture:
        yield f"  picture: {item.picture}"
