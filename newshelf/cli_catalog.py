"""``catalog``: what is read of a shop's catalogue and what is lost, without training on it."""

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["catalog"]

catalog = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Check and convert a catalogue."
)


@catalog.callback()
def _group() -> None:
    """Keep ``check`` a verb of its own."""


@catalog.command()
def check(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE", exists=True, help="A catalogue's folder, or a file of products."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write what was read into this new folder as a canonical catalogue.",
        ),
    ] = None,
) -> None:
    """Read a catalogue and report what is lost and why; nothing is trained.

    Exit code 0: all was read. 1: rows or cells were lost. 2: the command was wrong.

    Example: `./run catalog check shop --out canonical`
    """
    from newshelf.catalog import read_catalog, write_catalog
    from newshelf.console import make_console
    from newshelf.errors import CatalogError, SetupError

    try:
        read = read_catalog(path)
    except CatalogError as error:
        if as_json:
            typer.echo(json.dumps({"error": error.message}, ensure_ascii=False))
            raise typer.Exit(1) from error
        raise
    console = make_console()
    if as_json:
        typer.echo(json.dumps(read.report.as_json(), ensure_ascii=False, indent=2))
    else:
        console.print(read.report.summary(console.width), markup=False)
    if out is not None:
        try:
            write_catalog(read, out)
        except SetupError as error:
            raise typer.BadParameter(error.message, param_hint="--out") from error
        if not as_json:
            console.print(f"written to {out}; ./run serve --catalog {out} serves it", markup=False)
    raise typer.Exit(1 if read.report.problems else 0)
