"""``rollout``: a new version of the recommender, from shadow to everybody, or back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newshelf.cli_controller import controller_of
from newshelf.cli_options import CatalogOption, WorkspaceOption
from newshelf.cli_refusing import refusing_group

if TYPE_CHECKING:
    from newshelf.rollout.commands import Command

__all__ = ["rollout"]

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
    from newshelf.console import make_console
    from newshelf.rollout.open import open_rollouts
    from newshelf.rollout.plan_file import load_plan

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
    from newshelf.console import make_console
    from newshelf.rollout.open import open_rollouts
    from newshelf.rollout.show import show_rollout

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
    from newshelf.console import make_console
    from newshelf.rollout.open import open_rollouts
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
    from newshelf.console import make_console
    from newshelf.rollout.open import open_rollouts

    with open_rollouts(controller_of(catalog, workspace)) as rollouts:
        state = rollouts.change(name, wanted)
    make_console().print(f"{state.rollout}: {state.phase}, {state.reason}", markup=False)
