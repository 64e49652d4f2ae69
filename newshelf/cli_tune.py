"""``tune``: the settings that serve most on this machine and keep an objective."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from newshelf.cli_options import CatalogOption, SettingsOption, WorkspaceOption

if TYPE_CHECKING:
    from newshelf.pipeline.workspace import Workspace
    from newshelf.tuning.points import Space

__all__ = ["tune"]


def tune(
    slo: Annotated[
        str,
        typer.Option(
            metavar="p99=50ms", help="What must be kept: also p50=20ms,p99.9=1s,errors=0.1%."
        ),
    ],
    model: Annotated[
        Literal["encoder", "recommender"], typer.Option(help="Which model is tuned.")
    ] = "encoder",
    seconds: Annotated[float, typer.Option(min=1, help="Of load on each finalist.")] = 10.0,
    clients: Annotated[int, typer.Option(min=1, help="How many send at a time.")] = 32,
    workers: Annotated[
        str | None,
        typer.Option(metavar="N,…", help="Processes to try.", show_default="1, 2, 4 … cores + 1"),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N,…", help="Threads of each.", show_default="cores / workers"),
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,…", help="Batch sizes.")] = "1,4,8,16",
    delay: Annotated[str, typer.Option(metavar="MS,…", help="Batch delays.")] = "1,3,10",
    runtime: Annotated[
        str | None,
        typer.Option(metavar="NAME,…", help="Runtimes.", show_default="all that are installed"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="NAME,…", help="Precisions.", show_default="all that were exported"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The settings (TOML); plot and results go beside it.",
            show_default="tuning/MODEL.toml in the workspace",
        ),
    ] = None,
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Find the settings with the most throughput that keep a latency, by live load.

    Serves one set of settings after the other by a TorchServe of its own. Exit code 1 when
    none keeps the objective; then no settings are written.

    Example: `./run tune --slo p99=50ms --model encoder --clients 8`
    """
    from newshelf.cli_jobs import make_jobs, make_tools
    from newshelf.cli_pipeline import settings_from
    from newshelf.console import make_console
    from newshelf.pipeline.stages import plan_stages
    from newshelf.pipeline.update import bring_up_to_date
    from newshelf.pipeline.workspace import open_workspace
    from newshelf.tuning.points import with_point
    from newshelf.tuning.report import frontier_table, write_report
    from newshelf.tuning.slo import parse_slo
    from newshelf.tuning.tune import Load
    from newshelf.tuning.tune import tune as run

    objective = parse_slo(slo)
    console = make_console()
    place = open_workspace(catalog, override=workspace)
    chosen = settings_from(settings)
    with place.locked(console):
        bring_up_to_date(plan_stages(place, chosen, make_jobs(console)).up_to("export"), console)
        space = _space(place, workers, threads, batch, delay, runtime, precision)
        load = Load(model, clients, seconds)
        tools = make_tools(place)
        found = run(place, chosen, space, load, objective, tools, console)
    console.print(f"{len(found.runs)} of {found.total} points were run")
    console.print(frontier_table(found, objective))
    config = tools.model_config(with_point(chosen, model, found.best.point), model)
    path = out or place.root / "tuning" / f"{model}.toml"
    written = write_report(found, chosen, load, objective, config, path)
    console.print(f"plot: {written.plot}\nresults: {written.results}", markup=False)
    if written.settings is None:
        console.print(_advice(found.best.per_second, clients))
        raise typer.Exit(1)
    console.print(
        f"settings: {written.settings}\n  ./run serve --settings {written.settings}\n"
        f"model-config.yaml of its archive: {written.model_config}",
        markup=False,
    )


def _space(
    place: "Workspace",
    workers: str | None,
    threads: str | None,
    batch: str,
    delay: str,
    runtime: str | None,
    precision: str | None,
) -> "Space":
    import os

    from newshelf.tuning.candidates import candidates, chosen
    from newshelf.tuning.points import Computing, Space, layouts

    precisions = chosen(candidates(place.export), _words(runtime), _words(precision))
    pairs = layouts(
        len(os.sched_getaffinity(0)), _numbers("workers", workers), _numbers("threads", threads)
    )
    return Space(
        tuple(Computing(w, t, arithmetic) for arithmetic in precisions for w, t in pairs),
        tuple(_numbers("batch", batch) or ()),
        tuple(_numbers("delay", delay) or ()),
    )


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",")]


def _numbers(name: str, text: str | None) -> Sequence[int] | None:
    """Increasing, each once."""
    from newshelf.errors import SettingsError

    words = _words(text)
    if words is None:
        return None
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise SettingsError(f"--{name} {text}: write whole numbers above 0, such as 1,2,4")
    return sorted({int(word) for word in words})


def _advice(per_second: float, clients: int) -> str:
    return (
        f"No point keeps the objective, so no settings are written. {clients} clients that "
        f"each wait for their answer take {clients / per_second * 1e3:.0f} ms of "
        f"{per_second:.0f} requests/s on average, whatever the batches are: fewer --clients "
        "for this machine, a longer latency, or more cores."
    )
