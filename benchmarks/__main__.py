"""``./run bench NAME``: the command line of the benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from newshelf.cli import VerbGroup

__all__ = ["app"]

app = typer.Typer(
    cls=VerbGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Measure the methods on real catalogues, the server beside its peers, the event store.",
)


@app.command()
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
    from newshelf.transfer.build import set_up_torch

    settings = settings_from(None)
    set_up_torch(settings)
    options = Options(only or (), seeds, data, kept_back, out or REPORT)
    raise typer.Exit(run(options, settings, make_console()))


@app.command()
def serve(
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="A task; repeat it. Others keep theirs."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="How often each server is started and loaded.")
    ] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="Of one load.")] = 10.0,
    cores: Annotated[
        str | None,
        typer.Option(
            "--cores",
            metavar="N,N",
            help="The cores that servers and client share.",
            show_default="the first two",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="A catalogue whose pictures are sent.",
            show_default="../shared/data/home beside the repository, or else a drawn shop",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The report; results and figures go beside it.",
            show_default="docs/benchmarks/serve.md",
        ),
    ] = None,
) -> None:
    """Load this server and what a user would pick instead, in turns on the same cores.

    Prints contender, ratio and goal, and writes the report. Needs wrk and Linux, and sets up
    the peers' environment (about 0.7 GB) when it is missing. Exit code 1 when a task failed; a
    goal that was not reached is a result.

    Example: `./run bench serve --only lite0 --rounds 2 --seconds 5`
    """
    from benchmarks.serve.command import REPORT, Options, run
    from newshelf.console import make_console

    chosen = _cores(cores) if cores is not None else ()
    options = Options(only or (), rounds, seconds, chosen, data, out or REPORT)
    raise typer.Exit(run(options, make_console()))


@app.command()
def store(
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="A task; repeat it. Others keep theirs."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each database.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="Of one load.")] = 20.0,
    per_second: Annotated[float, typer.Option(min=1, help="Answers to be stored.")] = 1000.0,
    busy_us: Annotated[
        float, typer.Option(min=0, help="What a gateway computes for each answer besides.")
    ] = 300.0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The report; results go beside it.",
            show_default="docs/benchmarks/store.md",
        ),
    ] = None,
) -> None:
    """Measure how long answers wait until they are stored, in SQLite and in PostgreSQL.

    Prints database, ratio and goal, and writes the report. Starts a temporary PostgreSQL server.
    Exit code 1 when a task failed; a goal that was not reached is a result.

    Example: `./run bench store --only writes --rounds 1 --seconds 5`
    """
    from benchmarks.store.command import REPORT, Options, run
    from newshelf.console import make_console

    options = Options(only or (), rounds, seconds, per_second, busy_us, out or REPORT)
    raise typer.Exit(run(options, make_console()))


def _cores(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of core numbers, such as 0,1") from error


if __name__ == "__main__":
    app(prog_name="./run bench")
