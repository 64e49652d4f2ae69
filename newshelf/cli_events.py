"""``events``: what shoppers were shown and did, for training, and for as long as it is wanted."""

from pathlib import Path
from typing import Annotated

import typer

from newshelf.cli_controller import controller_of
from newshelf.cli_options import CatalogOption, WorkspaceOption
from newshelf.cli_refusing import refusing_group

__all__ = ["events"]

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
    from newshelf.console import make_console
    from newshelf.rollout.open import open_rollouts

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

    from newshelf.console import make_console
    from newshelf.rollout.open import open_rollouts
    from newshelf.rollout.prune import prune_events

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
