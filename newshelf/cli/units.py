"""``units``: what is kept about a shopper or visitor, merges, and erasure."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newshelf.cli.console import CatalogOption, WorkspaceOption, served_workspace, verb_group
from newshelf.errors import SettingsError

if TYPE_CHECKING:
    from newshelf.store.units import UnitRepository

units = verb_group(
    "What is kept about a shopper or visitor. Exit code 2: refused; nothing was changed.",
    refuses=True,
)

UnitArgument = Annotated[
    str, typer.Argument(metavar="UNIT", help="The shopper's id, as the front end sends it.")
]


@units.command()
def show(
    unit: UnitArgument, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Print everything that is kept about a unit, as JSON.

    Example: `./run units show visitor-1`
    """
    import orjson

    with _units(catalog, workspace, unit) as (store, (stored,)):
        record = orjson.dumps(store.show(stored), default=lambda one: one.model_dump())
    typer.echo(record)


@units.command()
def merge(
    visitor: Annotated[
        str, typer.Argument(metavar="VISITOR", help="Id of the visitor who has logged in.")
    ],
    unit: UnitArgument,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Let what a visitor did belong to a unit's history.

    Example: `./run units merge visitor-1 account-77`
    """
    with _units(catalog, workspace, visitor, unit) as (store, (stored_visitor, stored)):
        store.merge(stored_visitor, stored)
    typer.echo(f"{visitor} is merged into {unit}")


@units.command()
def erase(
    unit: UnitArgument, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Erase everything about a unit and its visitors, and refuse their later events.

    Example: `./run units erase account-77`
    """
    with _units(catalog, workspace, unit) as (store, (stored,)):
        erased = store.erase(stored)
    typer.echo(
        f"erased {erased.exposures:,} answers and {erased.feedback:,} events of {unit} and "
        f"{erased.visitors:,} visitors merged into it"
    )


@contextmanager
def _units(
    catalog: Path | None, workspace: Path | None, *named: str
) -> Iterator[tuple["UnitRepository", list[str]]]:
    """Open the store of a workspace, and return the ids under which it has the named units."""
    from newshelf.catalog.schema import clean_id
    from newshelf.gateway.histories import pseudonyms
    from newshelf.server.program import read_gateway_plan
    from newshelf.store.store import EventStore

    plan = read_gateway_plan(served_workspace(catalog, workspace).gateway_plan)
    pseudonym = pseudonyms(plan.pseudonym_key)
    try:
        stored = [pseudonym(clean_id(name)) for name in named]
    except ValueError as error:
        raise SettingsError(f"a unit's id {error}") from error
    with EventStore.open(plan.store_url) as store:
        yield store.units, stored
