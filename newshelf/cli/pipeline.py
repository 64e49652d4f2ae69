"""Verbs that make an artifact: sample, train, evaluate, export, archive; ``catalog check``."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from newshelf.cli.console import make_console
from newshelf.cli.jobs import make_jobs
from newshelf.cli.options import (
    CatalogOption,
    LanguageOption,
    RuntimeOption,
    SettingsOption,
    StoreOption,
    StrictOption,
    WorkspaceOption,
    verb_group,
)
from newshelf.config import ArchiveSettings, Language, Settings, load_settings
from newshelf.errors import CatalogError, SettingsError, SetupError
from newshelf.files import directory_aside, read_json
from newshelf.pipeline.stages import StageName, bring_up_to_date, plan_stages
from newshelf.pipeline.workspace import ROOT, Workspace, open_workspace


def settings_from(
    path: Path | None, runtime: str | None = None, language: Language | None = None
) -> Settings:
    """Read the settings; ``runtime`` replaces that of the archive, ``language`` the sample's."""
    settings = load_settings(path or ROOT / "configs" / "packaged.toml")
    if language is not None:
        sample = settings.sample.model_copy(update={"language": language})
        settings = settings.model_copy(update={"sample": sample})
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


def open_for(
    settings: Settings,
    catalog: Path | None,
    workspace: Path | None,
    model_store: Path | None,
    language: Language | None,
) -> Workspace:
    """Return the workspace of a catalogue, or of the sample in the settings' language."""
    if catalog is not None and language is not None:
        raise SetupError("--language is for the drawn sample; --catalog has its own texts")
    spoken = settings.sample.language
    return open_workspace(catalog, override=workspace, model_store=model_store, language=spoken)


def sample(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="New folder, instead of the workspace's."),
    ] = None,
    seed: Annotated[int, typer.Option(help="With --out: each seed draws another shop.")] = 7,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    language: LanguageOption = None,
) -> None:
    """Draw the sample catalogue: jewellery, clothing, home goods, and their shoppers.

    Example: `./run sample --out /tmp/shop --seed 3`
    """
    from newshelf.sample.build import draw_sample

    if out is None:
        _bring_up_to("sample", None, settings, workspace, language=language)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SetupError(f"--out {out} exists and is not an empty folder")
    with directory_aside(out.resolve()) as aside:
        draw_sample(aside, seed=seed, language=language or "en")
    make_console().print(f"drawn into {out}; ./run serve --catalog {out} serves it", markup=False)


def train(
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    strict: StrictOption = False,
    processes: Annotated[
        int, typer.Option(min=1, help="Training processes on this machine (torchrun).")
    ] = 1,
    language: LanguageOption = None,
) -> None:
    """Train the encoder and the scorer on a catalogue.

    Resumes an interrupted training run.

    Example: `./run train --catalog shop --settings configs/production.toml`
    """
    _bring_up_to(
        "train",
        catalog,
        settings,
        workspace,
        strict=strict,
        processes=processes,
        language=language,
    )


def evaluate(
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            metavar="DIR",
            help="Report of another model: tests which of the two is better.",
        ),
    ] = None,
    language: LanguageOption = None,
) -> None:
    """Compare the trained model with baselines, on known and on new products.

    Prints the tables; the workspace keeps report.html, report.md and report.json.

    Example: `./run evaluate --catalog shop --compare reports/last-month`
    """
    from newshelf.evaluation.compare_reports import compare_reports, print_pairs
    from newshelf.evaluation.report import print_report

    opened = _bring_up_to("evaluate", catalog, settings, workspace, language=language)
    console = make_console()
    print_report(read_json(opened.evaluation / "report.json"), console)
    if compare is not None:
        print_pairs(compare_reports(opened.evaluation, compare), console)
    console.print(f"with all figures: {opened.evaluation / 'report.html'}", markup=False)


def export(
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Export the model to TorchScript and ONNX, and check that both compute the same.

    Example: `./run export`
    """
    _bring_up_to("export", catalog, settings, workspace)


def archive(
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    model_store: StoreOption = None,
    runtime: RuntimeOption = None,
) -> None:
    """Pack the exported models into archives for TorchServe.

    Example: `./run archive --runtime torchscript`
    """
    _bring_up_to("archive", catalog, settings, workspace, model_store=model_store, runtime=runtime)


def _bring_up_to(
    last: "StageName",
    catalog: Path | None,
    settings: Path | None,
    workspace: Path | None,
    *,
    model_store: Path | None = None,
    runtime: str | None = None,
    strict: bool = False,
    processes: int = 1,
    language: Language | None = None,
) -> Workspace:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise SetupError(
            "torchrun would run every stage in each process: use ./run train --processes N, or "
            "on several machines torchrun … -m newshelf.training.launch"
        )
    console = make_console()
    chosen = settings_from(settings, runtime, language)
    opened = open_for(chosen, catalog, workspace, model_store, language)
    stages = plan_stages(opened, chosen, make_jobs(console, strict=strict, processes=processes))
    with opened.locked(console):
        bring_up_to_date(stages.up_to(last), console)
    return opened


catalog = verb_group("Check and convert a catalogue.")


@catalog.callback()
def _group() -> None:
    """Keep ``check`` a verb of its own: Typer merges a single command into its group."""


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
            help="Write the rows that were kept into this new folder, as a canonical catalogue.",
        ),
    ] = None,
) -> None:
    """Read a catalogue and report what is lost and why; trains nothing.

    Exit code 0: everything was read; 1: rows or cells were lost; 2: wrong usage.

    Example: `./run catalog check shop --out canonical`
    """
    from newshelf.catalog.catalog import read_catalog, write_catalog

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
