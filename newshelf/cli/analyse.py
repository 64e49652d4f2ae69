"""``analyse``: style and material of the assortment, as a page for designers."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from newshelf.cli.console import CatalogOption, WorkspaceOption
from newshelf.errors import SetupError
from newshelf.pipeline.workspace import open_workspace


def analyse(
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
    near: Annotated[
        Path | None,
        typer.Option("--near", metavar="PICTURE", help="Find products like this photo or sketch."),
    ] = None,
) -> None:
    """Analyse a trained catalogue by style and material: clusters and gaps.

    Example: `./run analyse --near sketch.png`
    """
    from newshelf.catalog.catalog import read_catalog
    from newshelf.cli.assortment_page import near_section, sections
    from newshelf.cli.console import make_console
    from newshelf.report.page import Page, write_html

    console, opened = make_console(), open_workspace(catalog, override=workspace)
    if not opened.checkpoint.is_dir():
        raise SetupError(f"{opened.checkpoint} does not exist: ./run train makes it")
    with opened.locked(console), TemporaryDirectory() as folder:
        read, pictures = read_catalog(opened.catalog), Path(folder)
        shown = [] if near is None else [near_section(opened, read, near, pictures, console)]
        shown += sections(opened, read, pictures, console)
        page = Page(f"Assortment of {read.name}", [f"{len(read.items):,} products"], [], shown)
        write_html(page, opened.root / "analysis" / "report.html", pictures)
    console.print(f"written to {opened.root / 'analysis' / 'report.html'}", markup=False)
