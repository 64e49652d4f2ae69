"""The stages from a catalogue to its archives, what each depends on, and their update."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from newshelf.config import Settings, settings_values
from newshelf.files import read_json, write_json
from newshelf.pipeline.stage import (
    Component,
    Inputs,
    Stage,
    build,
    catalog_files,
    files_by_stat,
    inputs_digest,
    libraries,
    output_id,
    sources,
    why_stale,
)
from newshelf.pipeline.workspace import ROOT, Workspace

StageName = Literal["sample", "train", "evaluate", "export", "archive"]

_ARCHIVES = "archives.json"
_EVENTS = ("training", "robots")
"""Sections of the settings that decide what an event counts."""
SHARED_CODE = ("newshelf/config.py", "newshelf/errors.py", "newshelf/files.py")
"""Inputs of the archive only, which contains them: they decide no number, and the values of
settings are compared separately."""
_CATALOG = ("newshelf/catalog/*.py",)
_PAGE = ("newshelf/report/page.py", "newshelf/report/tables.py")
_NN = ("newshelf/nn/**/*.py",)
_ATTRIBUTES = ("newshelf/attributes/*.py", "newshelf/attributes/vocabulary.tsv")
CODE: dict[StageName, tuple[str, ...]] = {
    "sample": ("newshelf/sample/*.py", "newshelf/sample/shop.toml", "newshelf/catalog/schema.py"),
    "train": (
        *_CATALOG,
        *_NN,
        *_ATTRIBUTES,
        "newshelf/training/**/*.py",
        "newshelf/evaluation/item_to_item.py",
        "newshelf/evaluation/splits.py",
        "newshelf/evaluation/types.py",
    ),
    "evaluate": (
        *_CATALOG,
        *_NN,
        "newshelf/training/**/*.py",
        "newshelf/evaluation/**/*.py",
        "newshelf/report/*.py",
        "newshelf/report/templates/*.html",
    ),
    "export": (
        *_CATALOG,
        *_NN,
        *_ATTRIBUTES,
        *_PAGE,
        "newshelf/serving/**/*.py",
        "export/**/*.py",
    ),
    "archive": (
        *_CATALOG,
        *SHARED_CODE,
        *_PAGE,
        *_NN,
        *_ATTRIBUTES,
        "newshelf/serving/**/*.py",
        "handlers/*.py",
        "export/**/*.py",
    ),
}
"""Sources of each stage, as globs; a test compares them with the actual imports."""

_COMMON = ("torch", "tokenizers", "pillow", "cykooz-resizer", "numpy")
_LIBRARIES: dict[StageName, tuple[str, ...]] = {
    "sample": ("numpy", "pillow"),
    "train": (*_COMMON, "timm", "transformers", "scipy", "scikit-learn", "python-crfsuite"),
    "export": (*_COMMON, "onnx", "onnxscript", "onnxruntime-gpu", "openvino", "faiss-cpu"),
    "archive": ("torch-model-archiver",),
}
_LIBRARIES["evaluate"] = _LIBRARIES["train"]


@dataclass(frozen=True)
class Jobs:
    """The work of each stage; each writes into the folder that is the last argument."""

    sample: Callable[[Settings, Path], None]
    train: Callable[[Workspace, Settings, str, Path], None]
    """The text is the digest of the inputs; a run with other inputs is not resumed."""
    evaluate: Callable[[Workspace, Settings, Path], None]
    export: Callable[[Workspace, Settings, Path], None]
    archive: Callable[[Workspace, Settings, Path], list[Path]]
    """Writes archives into the model store and returns their paths; the folder gets the card."""


@dataclass(frozen=True)
class Stages:
    """The stages of a workspace."""

    sample: Stage | None
    """None for a user's catalogue."""
    train: Stage
    evaluate: Stage
    export: Stage
    archive: Stage

    def up_to(self, last: StageName) -> list[Stage]:
        """Return the stages that lead to ``last``, in order; ``evaluate`` is a branch."""
        trunk = [stage for stage in (self.sample, self.train) if stage is not None]
        paths: dict[StageName, list[Stage]] = {
            "sample": trunk[:-1],
            "train": trunk,
            "evaluate": [*trunk, self.evaluate],
            "export": [*trunk, self.export],
            "archive": [*trunk, self.export, self.archive],
        }
        return paths[last]


def plan_stages(
    workspace: Workspace, settings: Settings, jobs: Jobs, *, root: Path = ROOT
) -> Stages:
    """Return the stages of ``workspace``, each with its own sections of the settings only."""
    inputs = _StageInputs(workspace, settings, root)
    train = Stage(
        "train",
        workspace.checkpoint,
        inputs.train,
        lambda out: jobs.train(workspace, settings, inputs_digest(inputs.train()), out),
        volatile=frozenset({"training.json"}),
        scratch=workspace.training,
    )
    evaluate = Stage(
        "evaluate",
        workspace.evaluation,
        lambda: inputs.evaluate(train),
        lambda out: jobs.evaluate(workspace, settings, out),
    )
    export = Stage(
        "export",
        workspace.export,
        lambda: inputs.export(train),
        lambda out: jobs.export(workspace, settings, out),
    )
    archive = Stage(
        "archive",
        workspace.archive,
        lambda: inputs.archive(export, evaluate),
        lambda out: write_json(
            out / _ARCHIVES, [str(path) for path in jobs.archive(workspace, settings, out)]
        ),
        outside=archive_paths,
    )
    sample = Stage(
        "sample", workspace.catalog, inputs.sample, lambda out: jobs.sample(settings, out)
    )
    return Stages(sample if workspace.is_sample else None, train, evaluate, export, archive)


@dataclass(frozen=True)
class _StageInputs:
    """Reads the inputs of each stage."""

    workspace: Workspace
    settings: Settings
    root: Path

    def sample(self) -> Inputs:
        return self._of("sample", "seed", "sample")

    def train(self) -> Inputs:
        towers = ("image", "text", "attributes", "fusion", "tower")
        sections = ("seed", *towers, "finetune", "scorer", "knowledge", *_EVENTS)
        inputs = self._of("train", *sections)
        if self.workspace.start is not None:
            inputs = {**inputs, "the earlier version": {"folder": str(self.workspace.start)}}
        return {**self._catalogue(), "weights": self._local_weights(), **inputs}

    def evaluate(self, train: Stage) -> Inputs:
        inputs = self._of("evaluate", "seed", "finetune", "scorer", "evaluation", *_EVENTS)
        return {**_model(train), **self._catalogue(), **inputs}

    def export(self, train: Stage) -> Inputs:
        return {**_model(train), **self._catalogue(), **self._of("export", "index", *_EVENTS)}

    def archive(self, export: Stage, evaluate: Stage) -> Inputs:
        return {
            "the export": {"graphs and index": output_id(export)},
            # Archives carry the model card, which has its figures.
            "the evaluation": {"report": output_id(evaluate)},
            "the model store": {"folder": str(self.workspace.model_store.resolve())},
            **self._of("archive", "archive"),
        }

    def _of(self, stage: StageName, *sections: str) -> Inputs:
        """Return the sections of the settings, the code and the libraries."""
        table = self.settings.model_dump(mode="json")
        return {
            "settings": settings_values({name: table[name] for name in sections}),
            "code": sources(self.root, CODE[stage]),
            "libraries": libraries(_LIBRARIES[stage]),
        }

    def _catalogue(self) -> Inputs:
        return {"the catalogue": catalog_files(self.workspace.catalog)}

    def _local_weights(self) -> Component:
        towers = (self.settings.image, self.settings.text)
        paths = [Path(tower.weights) for tower in towers if tower is not None]
        if self.settings.knowledge.tagger_data is not None:
            paths.append(self.settings.knowledge.tagger_data)
        return {part: value for path in paths for part, value in files_by_stat(path).items()}


def _model(train: Stage) -> Inputs:
    return {"the trained model": {"checkpoint": output_id(train)}}


def archive_paths(directory: Path) -> list[Path]:
    """Return the archives listed in ``directory``, the archive stage's output."""
    path = directory / _ARCHIVES
    return [Path(name) for name in read_json(path)] if path.is_file() else []


def bring_up_to_date(stages: Sequence[Stage], console: Console) -> list[str]:
    """Build each stale stage, print why, and return the names of those that were built."""
    built = []
    for stage in stages:
        reason = why_stale(stage)
        if reason is None:
            console.print(f"[green]✓[/] {stage.name}: current")
            continue
        console.print(f"[yellow]…[/] {stage.name}: {escape(reason)}")
        started = time.monotonic()
        build(stage)
        console.print(f"[green]✓[/] {stage.name}: done in {time.monotonic() - started:.1f} s")
        built.append(stage.name)
    return built
