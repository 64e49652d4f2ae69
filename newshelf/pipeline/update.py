"""Bring stages up to date, telling what is done, and why."""

import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from newshelf.pipeline.stage import Stage, make, why_stale

__all__ = ["bring_up_to_date"]


def bring_up_to_date(stages: Sequence[Stage], console: Console) -> list[str]:
    """Make each stage whose inputs changed; what is current is reused.

    Returns:
        The names of the stages that were made.
    """
    made = []
    for stage in stages:
        reason = why_stale(stage)
        if reason is None:
            console.print(f"[green]✓[/] {stage.name}: current")
            continue
        console.print(f"[yellow]…[/] {stage.name}: {escape(reason)}")
        started = time.monotonic()
        make(stage)
        console.print(f"[green]✓[/] {stage.name}: done in {time.monotonic() - started:.1f} s")
        made.append(stage.name)
    return made
