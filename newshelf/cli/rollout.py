"""``rollout``: a new version of the recommender; ``events``: what shoppers were shown and did."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newshelf.cli.console import (
    CatalogOption,
    SettingsOption,
    WorkspaceOption,
    make_console,
    served_workspace,
    verb_group,
)

if TYPE_CHECKING:
    from newshelf.rollout.operations import Command

_REFUSED = "Exit code 2: refused; nothing was changed."

rollout = verb_group(
    f"Compare a new version with the one that is served, and promote the better. {_REFUSED}",
    refuses=True,
)
events = verb_group(f"Exposures and feedback of shoppers. {_REFUSED}", refuses=True)

NameArgument = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="Name of the rollout.", show_default="the last one"),
]


@rollout.command()
def start(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="See configs/rollout.yaml.")],
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the rollout.", show_default="that of the file"),
    ] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Start a rollout: load and check the challenger, shadow requests, then ramp it up.

    Example: `./run rollout start configs/rollout.yaml --name spring`
    """
    from newshelf.rollout.operations import open_rollouts, start_rollout
    from newshelf.rollout.plan import load_plan
    from newshelf.rollout.versions import TorchServeVersions

    planned = load_plan(plan)
    with open_rollouts(controller_plan(catalog, workspace)) as (store, paths):
        served = TorchServeVersions(paths.torchserve, paths.model_store, paths.question).default
        state = start_rollout(store, served, paths.model_store, planned, name or plan.stem)
    console = make_console()
    console.print(f"{state.rollout}: {planned.control} against {planned.challenger}", markup=False)
    console.print("The challenger is loaded and checked first; see ./run rollout status.")


@rollout.command()
def status(
    name: NameArgument = None, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Show phase, step, share, metrics with their intervals, guardrails and reason.

    Example: `./run rollout status`
    """
    from newshelf.rollout.controller import host_obstacles
    from newshelf.rollout.history import read_snapshot, show_rollout
    from newshelf.rollout.operations import find_rollout, open_rollouts

    console = make_console()
    with open_rollouts(controller_plan(catalog, workspace)) as (store, _):
        row = find_rollout(store, name)
        last = store.rollouts.last_snapshot(row.name)
        show_rollout(console, row, None if last is None else read_snapshot(last))
        hosts = host_obstacles(store, row)
    for host, obstacle in hosts.items() if len(hosts) > 1 else ():
        console.print(f"  host {host}: {obstacle or 'ready'}", markup=False)


_CHANGES: "Mapping[str, tuple[Command, str]]" = {
    "pause": ("pause", "Stay at the current step; guardrails still end a harmful challenger."),
    "resume": ("resume", "Resume a paused rollout and acknowledge the signals that paused it."),
    "promote": ("promote", "Serve the challenger to everybody, without waiting for a decision."),
    "abort": ("abort", "End a running rollout: control answers everybody."),
    "rollback": ("abort", "Return to control, even after the challenger was promoted."),
}


def _change(
    context: typer.Context,
    name: NameArgument = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    from newshelf.rollout.operations import change_rollout, find_rollout, open_rollouts

    command, _ = _CHANGES[context.command.name or ""]
    with open_rollouts(controller_plan(catalog, workspace)) as (store, _):
        state = change_rollout(store, find_rollout(store, name).name, command)
    make_console().print(f"{state.rollout}: {state.phase}, {state.reason}", markup=False)


for _verb, (_, _about) in _CHANGES.items():
    rollout.command(_verb, help=f"{_about}\n\nExample: `./run rollout {_verb}`")(_change)


@rollout.command()
def report(
    name: NameArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="File of the page.", show_default="in the workspace"
        ),
    ] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write an HTML page: what happened, why, and every metric over time.

    Example: `./run rollout report --out spring.html`
    """
    from newshelf.rollout.operations import find_rollout, open_rollouts
    from newshelf.rollout.report import write_report

    plan_file = controller_plan(catalog, workspace)
    with open_rollouts(plan_file) as (store, _):
        row = find_rollout(store, name)
        path = out or plan_file.parent / f"{row.name}.html"
        write_report(store, row, path)
    make_console().print(str(path), markup=False)


def controller_plan(catalog: Path | None, workspace: Path | None) -> Path:
    """Return the plan file of a controller; see ``served_workspace``."""
    return served_workspace(catalog, workspace).controller


@events.command()
def export(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A .parquet, .csv or .tsv file; its rows stay."),
    ],
    settings: SettingsOption = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Add feedback to a catalogue's events, to train on; rows that are there stay.

    Units in quarantine are left out.

    Example: `./run events export shop/events.parquet`
    """
    from newshelf.cli.pipeline import settings_from
    from newshelf.rollout.operations import open_rollouts
    from newshelf.store.export import recorded_events, write_events

    console = make_console()
    with (
        open_rollouts(controller_plan(catalog, workspace)) as (store, _),
        console.status("writing the events …"),
    ):
        robots = settings_from(settings).robots
        written = write_events(recorded_events(store, robots), path)
    console.print(f"{written:,} new events → {path}", markup=False)


@events.command()
def quarantine(
    release: Annotated[
        str | None,
        typer.Option(metavar="UNIT", help="Count these events, whoever sent them."),
    ] = None,
    settings: SettingsOption = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """List units and keys that behave like robots: their feedback is kept, and not counted.

    Example: `./run events quarantine --release shop-terminal-3`
    """
    from newshelf.cli.pipeline import settings_from
    from newshelf.rollout.operations import open_rollouts

    with open_rollouts(controller_plan(catalog, workspace)) as (store, _):
        if release is not None:
            store.units.release(release)
        found = store.units.suspects(settings_from(settings).robots)
    for one in found:
        what = "events on a day" if one.item_id is None else f"days with {one.item_id}"
        typer.echo(
            f"{one.unit}: {one.found} {what}, limit {one.limit:g}; {one.events} do not count"
        )
    typer.echo(f"{len(found)} in quarantine")


@events.command()
def prune(
    keep_days: Annotated[
        float,
        typer.Option(min=2, max=36500, help="Age in days up to which both are kept.", metavar="N"),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Even if the machine's clock may be wrong.")
    ] = False,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Delete old exposures and feedback, also while serving; keep rollouts and reports.

    Example: `./run events prune --keep-days 180`
    """
    from newshelf.rollout.operations import open_rollouts, prune_events

    console = make_console()
    before = datetime.now(UTC) - timedelta(days=keep_days)
    with (
        open_rollouts(controller_plan(catalog, workspace)) as (store, plan),
        console.status("deleting …") as progress,
    ):
        removed = 0

        def report_progress(rows: int) -> None:
            nonlocal removed
            removed += rows
            progress.update(f"deleted {removed:,} rows …")

        pruned = prune_events(
            store,
            before,
            covariate_days=plan.settings.covariate_days,
            force=force,
            on_removed=report_progress,
        )
    console.print(
        f"deleted what was older than {before:%Y-%m-%d %H:%M} UTC: {pruned.exposures:,} answers, "
        f"{pruned.feedback:,} events, {pruned.shadow_answers:,} shadow answers"
    )
