"""``bench``: measurements of methods, whose code is in ``benchmarks`` and not in newshelf."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["bench"]

bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Measure the methods on real catalogues.",
)


@bench.callback()
def _group() -> None:
    """Keeps ``transfer`` a verb of its own while it is the only one."""


@bench.command()
def transfer(
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="A task; repeat it. Others keep theirs."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often each method is trained.")] = 3,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="A folder of catalogues.",
            show_default="../shared/data beside the repository",
        ),
    ] = None,
    kept_back: Annotated[
        Path | None,
        typer.Option(
            "--kept-back",
            metavar="DIR",
            help="A folder like it with what was kept back: tested on instead of own splits.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The report; results and figures go beside it.",
            show_default="docs/benchmarks/transfer.md",
        ),
    ] = None,
) -> None:
    """Compare every method of transfer learning with its baselines.

    Prints method, baseline, ratio and goal, and writes the report. Exit code 1 when a task
    failed; a goal that was not reached is a result.

    Example: `./run bench transfer --only jewellery --seeds 3`
    """
    from benchmarks.transfer.command import REPORT, Options, run
    from newshelf.cli_pipeline import settings_from
    from newshelf.console import make_console
    from newshelf.transfer.build import set_threads

    settings = settings_from(None)
    set_threads(settings)
    options = Options(only or (), seeds, data, kept_back, out or REPORT)
    raise typer.Exit(run(options, settings, make_console()))
