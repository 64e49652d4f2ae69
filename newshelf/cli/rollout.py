"""``rollout``: a new version of the recommender, from shadow to everybody, or back.

Which controller, and so which event store, a verb means.

``events``: what shoppers were shown and did, for training, and for as long as it is wanted.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newshelf.cli.options import CatalogOption, WorkspaceOption, refusing_group

if TYPE_CHECKING:
    from newshelf.rollout.operations import Command


def controller_of(catalog: Path | None, workspace: Path | None) -> Path:
    """The file of a controller: of the only server that runs, unless one is named."""
    from newshelf.pipeline.workspace import only_server, open_workspace

    if catalog is None and workspace is None:
        return only_server(None, None).directory.parent / "rollout" / "controller.json"
    return open_workspace(catalog, override=workspace).controller


rollout = refusing_group(
    "Compare a new version with the one that is served, and let the better one win."
)

NameArgument = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="Of the rollout.", show_default="the last one"),
]


@rollout.command()
def start(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="See configs/rollout.yaml.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Of the rollout.", show_default="the file's")
    ] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Begin a rollout: the challenger is loaded, checked, sent copies, then shown to a few.

    Example: `./run rollout start configs/rollout.yaml --name spring`
    """
    from newshelf.cli.console import make_console
    from newshelf.rollout.operations import open_rollouts
    from newshelf.rollout.plan import load_plan

    planned = load_plan(plan)
    with open_rollouts(controller_of(catalog, workspace)) as rollouts:
        state = rollouts.start(planned, name or plan.stem)
    console = make_console()
    console.print(f"{state.rollout}: {planned.control} against {planned.challenger}", markup=False)
    console.print("The challenger is loaded and checked first; ./run rollout status tells more.")


@rollout.command()
def status(
    name: NameArgument = None, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Tell phase, step, share, figures with their intervals, guardrails and reason.

    Example: `./run rollout status`
    """
    from newshelf.cli.console import make_console
    from newshelf.rollout.operations import open_rollouts
    from newshelf.rollout.tables import show_rollout

    with open_rollouts(controller_of(catalog, workspace)) as rollouts:
        show_rollout(make_console(), rollouts.row(name), rollouts.last_look(name))


@rollout.command()
def pause(
    name: NameArgument = None, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Stay at the step: shoppers keep what they see, and what is harmful is still ended.

    Example: `./run rollout pause`
    """
    _give("pause", name, catalog, workspace)


@rollout.command()
def resume(
    name: NameArgument = None, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Go on where it was paused; the signals that paused it are taken as seen.

    Example: `./run rollout resume`
    """
    _give("resume", name, catalog, workspace)


@rollout.command()
def promote(
    name: NameArgument = None, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Let the challenger answer everybody, without waiting for the figures.

    Example: `./run rollout promote`
    """
    _give("promote", name, catalog, workspace)


@rollout.command()
def abort(
    name: NameArgument = None, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """End a rollout that is under way: control answers everybody.

    Example: `./run rollout abort`
    """
    _give("abort", name, catalog, workspace)


@rollout.command()
def rollback(
    name: NameArgument = None, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Go back to control, also after the challenger was promoted.

    Example: `./run rollout rollback`
    """
    _give("abort", name, catalog, workspace)


@rollout.command()
def report(
    name: NameArgument = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The page.", show_default="in the workspace"),
    ] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write one HTML page: what happened, why, and every figure over time.

    Example: `./run rollout report --out spring.html`
    """
    from newshelf.cli.console import make_console
    from newshelf.rollout.operations import open_rollouts
    from newshelf.rollout.report import write_report

    plan_file = controller_of(catalog, workspace)
    with open_rollouts(plan_file) as rollouts:
        row = rollouts.row(name)
        path = out or plan_file.parent / f"{row.name}.html"
        write_report(rollouts.store, row, path)
    make_console().print(str(path), markup=False)


def _give(
    wanted: "Command", name: str | None, catalog: Path | None, workspace: Path | None
) -> None:
    from newshelf.cli.console import make_console
    from newshelf.rollout.operations import open_rollouts

    with open_rollouts(controller_of(catalog, workspace)) as rollouts:
        state = rollouts.change(name, wanted)
    make_console().print(f"{state.rollout}: {state.phase}, {state.reason}", markup=False)


events = refusing_group("What shoppers were shown and did.")


@events.command()
def export(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="Named .parquet, .csv or .tsv; replaced.")
    ],
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write what shoppers did as a catalogue's events: the next training learns from it.

    Example: `./run events export shop/events.parquet`
    """
    from newshelf.cli.console import make_console
    from newshelf.rollout.operations import open_rollouts

    console = make_console()
    with (
        open_rollouts(controller_of(catalog, workspace)) as rollouts,
        console.status("writing the events …"),
    ):
        written = rollouts.store.export_events(path)
    console.print(f"{written:,} events → {path}", markup=False)


@events.command()
def prune(
    keep_days: Annotated[
        float,
        typer.Option(min=2, max=36500, help="How long answers and events are kept.", metavar="N"),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Also if the machine's clock may be wrong.")
    ] = False,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Remove older answers and events, also while it is served; rollouts and reports stay.

    Example: `./run events prune --keep-days 180`
    """
    from datetime import UTC, datetime, timedelta

    from newshelf.cli.console import make_console
    from newshelf.rollout.operations import open_rollouts, prune_events

    console = make_console()
    before = datetime.now(UTC) - timedelta(days=keep_days)
    with (
        open_rollouts(controller_of(catalog, workspace)) as rollouts,
        console.status("removing …") as shown,
    ):
        removed = 0

        def tell(rows: int) -> None:
            nonlocal removed
            removed += rows
            shown.update(f"removed {removed:,} rows …")

        covariate_days = rollouts.plan.settings.covariate_days
        pruned = prune_events(
            rollouts.store, before, covariate_days=covariate_days, force=force, on_removed=tell
        )
    console.print(
        f"removed what was before {before:%Y-%m-%d %H:%M} UTC: {pruned.exposures:,} answers, "
        f"{pruned.feedback:,} events, {pruned.shadow_answers:,} shadow answers"
    )
