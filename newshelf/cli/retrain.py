"""``retrain``: a new version from live products and feedback, and its rollout; ``drift``."""

import json
import re
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from newshelf.cli.console import (
    CatalogOption,
    SettingsOption,
    StoreOption,
    WorkspaceOption,
    make_console,
)
from newshelf.cli.pipeline import make_jobs, open_for, settings_from
from newshelf.errors import EvidenceError, NewshelfError, RolloutError, SetupError
from newshelf.pipeline.workspace import open_workspace

if TYPE_CHECKING:
    from newshelf.pipeline.retrain import Retraining

_UNITS_S = {"m": 60, "h": 3_600, "d": 86_400}
_NOT_PROMOTED = 3
_PAUSE_S = 3_600.0
"""Least pause, so that an error is not repeated at once."""


def retrain(
    every: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stay and repeat, such as 7d, 12h or 30m.")
    ] = None,
    gate: Annotated[
        Literal["better", "no-worse", "none"] | None,
        typer.Option(help="Required of the new version.", show_default="retrain.gate"),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="FILE", help="Plan of the rollout.", show_default="retrain.plan"
        ),
    ] = None,
    on_drift: Annotated[
        bool, typer.Option("--on-drift", help="Only if `./run drift` reports any.")
    ] = False,
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    model_store: StoreOption = None,
) -> None:
    """Train a new version on everything that happened, and roll it out if it is better.

    Resumes an interrupted retraining. Exit code 0: a rollout was opened; 1: error; 3: not
    promoted, and the output says why.

    Example: `./run retrain --catalog shop --gate better --plan configs/rollout.yaml`
    """
    from export.gate import gate as compare
    from newshelf.pipeline.retrain import Retraining

    period_s = None if every is None else _seconds(every)
    read, console = settings_from(settings), make_console()
    given = {"gate": gate or read.retrain.gate, "plan": str(plan or read.retrain.plan)}
    work = Retraining(
        open_for(read, catalog, workspace, model_store, None),
        read.model_copy(update={"retrain": read.retrain.model_copy(update=given)}),
        make_jobs(console),
        partial(compare, console=console),
        console,
        on_drift,
    )
    if period_s is None:
        raise typer.Exit(_retrain(work))
    while True:
        # A restart of the process is no reason to retrain.
        begun_s = max((run.started.timestamp() for run in work.runs()), default=0)
        time.sleep(max(0, begun_s + period_s - time.time()))
        try:
            _retrain(work)
        except NewshelfError as error:
            console.print(f"error: {error.message}", markup=False)
        time.sleep(min(period_s, _PAUSE_S))


def _retrain(work: "Retraining") -> int:
    from export.retrain_report import write_report
    from newshelf.server.webhooks import Webhooks

    webhooks = Webhooks(work.settings.webhooks)
    try:
        run = work.run()
    except (EvidenceError, RolloutError) as error:
        work.console.print(f"not now: {error.message}", markup=False)
        return _NOT_PROMOTED
    except NewshelfError as error:
        webhooks.send("retrain_failed", error.message, wait=True)
        raise
    if run.status == "failed":
        webhooks.send("retrain_failed", run.reason, name=run.name, wait=True)
    page = work.workspace.retrain / f"{run.name}.html"
    write_report(work.runs(), page)
    for note in run.notes:
        work.console.print(note, markup=False)
    work.console.print(f"{run.status}: {run.reason}\n{page}", markup=False)
    return {"rollout": 0, "failed": 1}.get(run.status, _NOT_PROMOTED)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text)
    if found is None or float(found[1]) == 0:
        raise SetupError(f"--every {text}: write a number of days, hours or minutes, such as 7d")
    return float(found[1]) * _UNITS_S[found[2]]


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
    from newshelf.pipeline.drift import drift_report, write_drift
    from newshelf.report.page import print_table
    from newshelf.server.webhooks import Webhooks
    from newshelf.store.store import EventStore

    opened, read = open_workspace(catalog, override=workspace), settings_from(settings)
    webhooks = Webhooks(read.webhooks)
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
    if report.triggers:
        webhooks.send("drift", report.verdict, version=report.version, wait=True)
    raise typer.Exit(3 if report.triggers else 0 if report.known else 4)
