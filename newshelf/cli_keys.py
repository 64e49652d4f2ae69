"""``keys``: who may call the gateway."""

from typing import Annotated

import typer

from newshelf.cli_options import CatalogOption, WorkspaceOption
from newshelf.cli_refusing import refusing_group

__all__ = ["keys"]

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

    from newshelf.console import make_console
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
