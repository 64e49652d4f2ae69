"""Verbs that make an artifact (sample, train … archive) or a page of it, and the jobs behind them.

Each job imports its libraries itself, so that a start with up-to-date artifacts loads no torch.
"""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from newshelf.cli.console import (
    CatalogOption,
    LanguageOption,
    RuntimeOption,
    SettingsOption,
    StoreOption,
    StrictOption,
    WorkspaceOption,
    make_console,
    verb_group,
)
from newshelf.config import ArchiveSettings, Language, Settings, load_settings
from newshelf.errors import CatalogError, SettingsError, SetupError
from newshelf.files import directory_aside, read_json
from newshelf.pipeline.stages import Jobs, StageName, bring_up_to_date, plan_stages
from newshelf.pipeline.workspace import ROOT, Workspace, open_workspace

_SHOWN_PROBLEMS = 20


def make_jobs(console: Console, *, strict: bool = False, processes: int = 1) -> Jobs:
    """Return the jobs of the stages; ``strict`` refuses a catalogue with bad rows."""

    def sample(settings: Settings, out: Path) -> None:
        from newshelf.sample.build import draw_sample

        draw_sample(
            out,
            seed=settings.seed,
            products=settings.sample.products,
            shoppers=settings.sample.shoppers,
            language=settings.sample.language,
        )

    def train(workspace: Workspace, settings: Settings, inputs: str, out: Path) -> None:
        from newshelf.training.launch import TrainJob, launch

        job = TrainJob(
            catalog=workspace.catalog,
            settings=settings,
            out=out,
            features=workspace.features,
            state=workspace.training,
            runs=workspace.runs,
            # The batches depend on the number of processes.
            identity=f"{inputs} by {processes}",
            strict=strict,
            start=workspace.start if settings.retrain.warm_start else None,
        )
        launch(job, processes, console)

    def evaluate(workspace: Workspace, settings: Settings, out: Path) -> None:
        from newshelf.catalog.catalog import read_catalog
        from newshelf.training.evaluate import evaluate_checkpoint

        catalog = read_catalog(workspace.catalog)
        evaluate_checkpoint(
            catalog, settings, workspace.checkpoint, workspace.features, out, console
        )

    def graphs(workspace: Workspace, settings: Settings, out: Path) -> None:
        from export.index import build_index, export_golden
        from export.model_card import write_data
        from export.run import export_model
        from newshelf.catalog.catalog import read_catalog

        catalog = read_catalog(workspace.catalog)
        export_model(workspace.checkpoint, out, console)
        write_data(out, catalog)
        export_golden(out, catalog)
        build_index(
            workspace.checkpoint,
            catalog,
            out / "index",
            ann_items=settings.index.ann_items,
            weights=settings.training.event_weights,
            robots=settings.robots,
        )

    def precision(workspace: Workspace, _: Settings, out: Path) -> None:
        from export.precision import find_precisions
        from newshelf.catalog.catalog import read_catalog

        find_precisions(workspace.graphs, out, read_catalog(workspace.catalog), console)

    def archive(workspace: Workspace, settings: Settings, source: Path, out: Path) -> list[Path]:
        from export.archive import archive as run
        from export.model_card import write_model_card
        from newshelf.rollout.versions import FIRST
        from newshelf.training.run import register_version

        card = write_model_card(out, source, workspace.checkpoint, workspace.evaluation, settings)
        label = FIRST if source == workspace.graphs else ""
        paths = run(source, settings, workspace.model_store, console, card=out, label=label)
        register_version(settings.tracking, workspace.runs, card, out, console)
        return paths

    return Jobs(sample, train, evaluate, graphs, precision, archive)


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
    processes: Annotated[int, typer.Option(min=1, help="Training processes on this machine.")] = 1,
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
    from newshelf.evaluation.report import compare_reports, print_pairs, print_report

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


def analyse(
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
    near: Annotated[
        Path | None,
        typer.Option("--near", metavar="PICTURE", help="Find products like this photo or sketch."),
    ] = None,
) -> None:
    """Analyse a trained catalogue by style and material: clusters and gaps.

    Example: `./run analyse --near sketch.png`
    """
    from newshelf.catalog.catalog import read_catalog
    from newshelf.cli.assortment_page import near_section, sections
    from newshelf.report.page import Page, save_page

    console, opened = make_console(), open_workspace(catalog, override=workspace)
    if not opened.checkpoint.is_dir():
        raise SetupError(f"{opened.checkpoint} does not exist: ./run train makes it")
    with opened.locked(console), TemporaryDirectory() as folder:
        read, pictures = read_catalog(opened.catalog), Path(folder)
        shown = [] if near is None else [near_section(opened, read, near, pictures, console)]
        shown += sections(opened, read, pictures, console)
        page = Page(f"Assortment of {read.name}", [f"{len(read.items):,} products"], [], shown)
        save_page(page, opened.root / "analysis" / "report.html", pictures)
    console.print(f"written to {opened.root / 'analysis' / 'report.html'}", markup=False)


def embed(
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default="WORKSPACE/embeddings")
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="In this process, or by Ray on all cores.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Ray's; default: a cluster of its own.")
    ] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write the embeddings of all products as Parquet files, by the model that is served.

    An interrupted run continues where it was; what is unchanged is not encoded again.

    Example: `./run embed --output embeddings --engine ray`
    """
    from export.embeddings import CatalogEncoder, encode_by_ray
    from newshelf.catalog.catalog import read_catalog
    from newshelf.pipeline.merged_catalog import catalog_items
    from newshelf.pipeline.serve import served_recommender
    from newshelf.rollout.versions import ARCHIVES, unpack
    from newshelf.store.items import seeded_item

    console, opened = make_console(), open_workspace(catalog, override=workspace)
    packed = served_recommender(opened, console)
    archive = unpack(packed, opened.shelf / ARCHIVES / packed.stem.partition("-")[2])
    out = (output or opened.root / "embeddings").absolute()
    read = read_catalog(opened.catalog)
    console.print(read.report.summary(console.width), markup=False)
    rows = [*catalog_items(read)]
    refused = dict(row for row in rows if isinstance(row, tuple))
    encoder = CatalogEncoder(archive, out, len(os.sched_getaffinity(0)))
    products = (seeded_item(row) for row in rows if not isinstance(row, tuple))
    shards = dict(encoder.split(products))
    missing = [shard for shard in shards.items() if not (out / shard[0]).exists()]
    if engine == "ray" and missing:
        written = encode_by_ray(missing, archive, out, address)
    else:
        written = map(encoder.write, missing)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("encoding", total=sum(len(items) for _, items in missing))
        for count in written:
            progress.advance(task, count)
    manifest = encoder.write_manifest(shards, refused)
    for item_id, problem in [*manifest["problems"].items()][:_SHOWN_PROBLEMS]:
        console.print(f"  {item_id}: {problem}", markup=False)
    found = f"{manifest['rows']:,} embeddings, {len(manifest['problems']):,} problems"
    console.print(f"{found}: {out / 'manifest.json'}", markup=False)


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
