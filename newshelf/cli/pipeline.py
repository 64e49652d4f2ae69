"""The verbs that make something: sample, train, evaluate, export, archive.

``catalog``: what is read of a shop's catalogue and what is lost, without training on it.
"""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from newshelf.cli.console import make_console
from newshelf.cli.jobs import make_jobs
from newshelf.config import ArchiveSettings, Settings, load_settings
from newshelf.errors import SettingsError, SetupError
from newshelf.evaluation.compare_reports import compare_reports
from newshelf.evaluation.terminal import print_pairs, print_report
from newshelf.files import directory_aside, read_json
from newshelf.pipeline.stages import bring_up_to_date, plan_stages
from newshelf.pipeline.workspace import ROOT, Workspace, open_workspace


def settings_from(path: Path | None, runtime: str | None = None) -> Settings:
    """Read the settings; ``runtime`` stands in for the archive's.

    Raises:
        SettingsError: the file or the runtime is not right.
    """
    settings = load_settings(path or ROOT / "configs" / "packaged.toml")
    if runtime is None:
        return settings
    try:
        archive = ArchiveSettings.model_validate(
            settings.archive.model_dump() | {"runtime": runtime}
        )
    except ValidationError as error:
        raise SettingsError(
            f"--runtime is auto, onnxruntime, openvino or torchscript, not {runtime}"
        ) from error
    return settings.model_copy(update={"archive": archive})


def draw(out: Path, seed: int) -> None:
    """Draw the sample catalogue into ``out``.

    Raises:
        SetupError: there is something in ``out``.
    """
    from newshelf.sample.build import draw_sample

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SetupError(f"--out {out} exists and is not an empty folder")
    with directory_aside(out.resolve()) as aside:
        draw_sample(aside, seed=seed)
    make_console().print(f"drawn into {out}; ./run serve --catalog {out} serves it", markup=False)


def update(
    last: str,
    catalog: Path | None,
    settings: Path | None,
    workspace: Path | None,
    *,
    model_store: Path | None = None,
    runtime: str | None = None,
    strict: bool = False,
    processes: int = 1,
) -> Workspace:
    """Bring the stages up to ``last`` up to date.

    Raises:
        SetupError: torchrun started this, several times over.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise SetupError(
            "torchrun would run every stage in each process: use ./run train --processes N, or "
            "on several machines torchrun … -m newshelf.training.launch"
        )
    console = make_console()
    opened = open_workspace(catalog, override=workspace, model_store=model_store)
    stages = plan_stages(
        opened,
        settings_from(settings, runtime),
        make_jobs(console, strict=strict, processes=processes),
    )
    with opened.locked(console):
        bring_up_to_date(stages.up_to(last), console)
    return opened


def evaluate(
    catalog: Path | None,
    settings: Path | None,
    workspace: Path | None,
    compare: Path | None = None,
) -> None:
    """Bring the evaluation up to date and print its report, and how another one stands to it.

    Raises:
        SetupError: ``compare`` holds no report of the same cases.
    """
    opened = update("evaluate", catalog, settings, workspace)
    console = make_console()
    print_report(read_json(opened.evaluation / "report.json"), console)
    if compare is not None:
        print_pairs(compare_reports(opened.evaluation, compare), console)
    console.print(f"with all figures: {opened.evaluation / 'report.html'}", markup=False)


catalog = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Check and convert a catalogue."
)


@catalog.callback()
def _group() -> None:
    """Keep ``check`` a verb of its own."""


@catalog.command()
def check(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE", exists=True, help="A catalogue's folder, or a file of products."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write what was read into this new folder as a canonical catalogue.",
        ),
    ] = None,
) -> None:
    """Read a catalogue and report what is lost and why; nothing is trained.

    Exit code 0: all was read. 1: rows or cells were lost. 2: the command was wrong.

    Example: `./run catalog check shop --out canonical`
    """
    from newshelf.catalog.catalog import read_catalog, write_catalog
    from newshelf.cli.console import make_console
    from newshelf.errors import CatalogError, SetupError

    try:
        read = read_catalog(path)
    except CatalogError as error:
        if as_json:
            typer.echo(json.dumps({"error": error.message}, ensure_ascii=False))
            raise typer.Exit(1) from error
        raise
    console = make_console()
    if as_json:
        typer.echo(json.dumps(read.report.as_json(), ensure_ascii=False, indent=2))
    else:
        console.print(read.report.summary(console.width), markup=False)
    if out is not None:
        try:
            write_catalog(read, out)
        except SetupError as error:
            raise typer.BadParameter(error.message, param_hint="--out") from error
        if not as_json:
            console.print(f"written to {out}; ./run serve --catalog {out} serves it", markup=False)
    raise typer.Exit(1 if read.report.problems else 0)
