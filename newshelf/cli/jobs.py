"""Work behind the pipeline's stages; the only module of newshelf that imports ``export``.

Each job imports its libraries itself, so that a start with up-to-date artifacts loads no torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from newshelf.config import Settings
from newshelf.pipeline.stages import Jobs
from newshelf.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from loadtest.tuning.load import ModelName
    from loadtest.tuning.server import ExportTools


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

    def export(workspace: Workspace, settings: Settings, out: Path) -> None:
        from export.index import build_index, export_golden
        from export.model_card import write_data
        from export.precision import export_precisions
        from export.run import export_model
        from newshelf.catalog.catalog import read_catalog

        catalog = read_catalog(workspace.catalog)
        export_model(workspace.checkpoint, out, console)
        write_data(out, catalog)
        export_golden(out, catalog)
        export_precisions(out, catalog, console)
        build_index(
            workspace.checkpoint,
            catalog,
            out / "index",
            ann_items=settings.index.ann_items,
            weights=settings.training.event_weights,
            robots=settings.robots,
        )

    def archive(workspace: Workspace, settings: Settings, out: Path) -> list[Path]:
        from export.archive import archive as run
        from export.model_card import write_model_card
        from newshelf.training.run import register_version

        folders = workspace.export, workspace.checkpoint, workspace.evaluation
        card = write_model_card(out, *folders, settings)
        paths = run(workspace.export, settings, workspace.model_store, console, card=out)
        register_version(settings.tracking, workspace.runs, card, out, console)
        return paths

    return Jobs(sample, train, evaluate, export, archive)


def make_tools(workspace: Workspace) -> "ExportTools":
    """Return what the tuner needs of ``export``, applied to the export of ``workspace``."""
    from export.archive import archive as run
    from export.archive import model_config as text
    from loadtest.tuning.server import ExportTools

    def archive(settings: Settings, store: Path) -> list[Path]:
        return run(workspace.export, settings, store)

    def model_config(settings: Settings, model: "ModelName") -> str:
        return text(settings.archive, getattr(settings.archive, model))

    return ExportTools(archive, model_config)
