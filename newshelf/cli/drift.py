"""``drift``: what changed since the served version was trained, and in the last period."""

import json
from typing import Annotated

import typer

from newshelf.cli.options import CatalogOption, SettingsOption, WorkspaceOption
from newshelf.cli.pipeline import settings_from
from newshelf.pipeline.workspace import open_workspace


def drift(
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compare changed products, answers and clicks of the last period with those before.

    Exit code 0: no drift; 3: drift; 4: no measure has enough data. The report is kept in the
    workspace, where the gateway reads it for its metrics.

    Example: `./run drift --catalog shop`
    """
    from newshelf.cli.console import make_console
    from newshelf.pipeline.drift import drift_report, write_drift
    from newshelf.report.tables import print_table
    from newshelf.store.store import EventStore

    opened, read = open_workspace(catalog, override=workspace), settings_from(settings)
    with EventStore.open(opened.store_url(read)) as store:
        report = drift_report(opened, read, store)
    write_drift(report, opened.drift)
    if as_json:
        typer.echo(json.dumps(report.to_json(), ensure_ascii=False, indent=2))
    else:
        console = make_console()
        print_table(report.table(), console)
        page = opened.drift / "report.html"
        console.print(f"{report.verdict}\nas a page: {page}", markup=False)
    raise typer.Exit(3 if report.triggers else 0 if report.known else 4)
