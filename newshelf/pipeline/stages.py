"""The stages from a catalogue to its archives, and what each depends on.

Bring stages up to date, telling what is done, and why.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from newshelf.config import Settings
from newshelf.files import read_json, write_json
from newshelf.pipeline.stage import (
    Component,
    Inputs,
    Stage,
    catalog_files,
    files_by_stat,
    inputs_digest,
    libraries,
    make,
    output_id,
    settings_values,
    sources,
    why_stale,
)
from newshelf.pipeline.workspace import ROOT, Workspace

_ARCHIVES = "archives.json"
_CATALOG = ("newshelf/catalog/*.py",)
_NN = ("newshelf/nn/**/*.py",)
_ATTRIBUTES = ("newshelf/attributes/*.py", "newshelf/attributes/vocabulary.tsv")
CODE: dict[str, tuple[str, ...]] = {
    "sample": ("newshelf/sample/**/*.py", "newshelf/catalog/schema.py"),
    "train": (
        *_CATALOG,
        *_NN,
        *_ATTRIBUTES,
        "newshelf/training/**/*.py",
        "newshelf/evaluation/item_to_item.py",
        "newshelf/catalog/interactions.py",
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
    "export": (*_CATALOG, *_NN, *_ATTRIBUTES, "newshelf/serving/**/*.py", "export/**/*.py"),
    "archive": (
        "newshelf/catalog/__init__.py",
        "newshelf/catalog/clean.py",
        "newshelf/catalog/picture_kind.py",
        "newshelf/catalog/schema.py",
        "newshelf/config.py",
        "newshelf/errors.py",
        "newshelf/files.py",
        "newshelf/report/tables.py",
        *_NN,
        *_ATTRIBUTES,
        "newshelf/serving/**/*.py",
        "handlers/*.py",
        "export/**/*.py",
    ),
}
"""The sources of each stage, as globs; a test compares them with the real imports."""

SHARED_CODE = (
    "newshelf/config.py",
    "newshelf/errors.py",
    "newshelf/files.py",
)
"""Left out of all but the archive, which carries them: they decide no number, and the
settings' values are compared by themselves."""

_LIBRARIES: dict[str, tuple[str, ...]] = {
    "sample": ("numpy", "pillow"),
    "train": (
        "torch",
        "timm",
        "transformers",
        "tokenizers",
        "pillow",
        "cykooz-resizer",
        "numpy",
        "scipy",
        "scikit-learn",
        "python-crfsuite",
    ),
    "export": (
        "torch",
        "onnx",
        "onnxscript",
        "onnxruntime-gpu",
        "openvino",
        "tokenizers",
        "pillow",
        "cykooz-resizer",
        "numpy",
        "faiss-cpu",
    ),
    "archive": ("torch-model-archiver",),
}


@dataclass(frozen=True)
class Jobs:
    """The work itself. Each writes into the folder that comes last."""

    sample: Callable[[Settings, Path], None]
    train: Callable[[Workspace, Settings, str, Path], None]
    """The text is the digest of the inputs: what was kept of a training under another one
    is not gone on with."""
    evaluate: Callable[[Workspace, Settings, Path], None]
    export: Callable[[Workspace, Settings, Path], None]
    archive: Callable[[Workspace, Settings], list[Path]]
    """Returns the archives that it wrote to the model store."""


@dataclass(frozen=True)
class Stages:
    """Every stage of one workspace."""

    sample: Stage | None
    """None for a user's own catalogue."""
    train: Stage
    evaluate: Stage
    export: Stage
    archive: Stage

    def up_to(self, last: str) -> list[Stage]:
        """The stages that lead to ``last``, in order; ``evaluate`` is a branch of its own."""
        trunk = [stage for stage in (self.sample, self.train) if stage is not None]
        ways = {
            "sample": trunk[:-1],
            "train": trunk,
            "evaluate": [*trunk, self.evaluate],
            "export": [*trunk, self.export],
            "archive": [*trunk, self.export, self.archive],
        }
        return ways[last]


def plan_stages(
    workspace: Workspace, settings: Settings, jobs: Jobs, *, root: Path = ROOT
) -> Stages:
    """Lay out the stages of ``workspace``; nothing is looked at or made yet.

    Args:
        workspace: whose stages.
        settings: decide what is made; each stage depends on its own sections only.
        jobs: do the work.
        root: the folder of the sources.
    """
    look = _Inputs(workspace, settings, root)
    train = Stage(
        "train",
        workspace.checkpoint,
        look.train,
        lambda out: jobs.train(workspace, settings, inputs_digest(look.train()), out),
        volatile=frozenset({"training.json"}),
        scratch=workspace.training,
    )
    evaluate = Stage(
        "evaluate",
        workspace.evaluation,
        lambda: look.evaluate(train),
        lambda out: jobs.evaluate(workspace, settings, out),
    )
    export = Stage(
        "export",
        workspace.export,
        lambda: look.export(train),
        lambda out: jobs.export(workspace, settings, out),
    )
    archive = Stage(
        "archive",
        workspace.archive,
        lambda: look.archive(export),
        lambda out: write_json(
            out / _ARCHIVES, [str(path) for path in jobs.archive(workspace, settings)]
        ),
        elsewhere=archive_paths,
    )
    sample = Stage("sample", workspace.catalog, look.sample, lambda out: jobs.sample(settings, out))
    return Stages(sample if workspace.is_sample else None, train, evaluate, export, archive)


@dataclass(frozen=True)
class _Inputs:
    """Looks at what each stage depends on."""

    workspace: Workspace
    settings: Settings
    root: Path

    def sample(self) -> Inputs:
        return {
            "settings": self._sections("seed", "sample"),
            "code": self._code("sample"),
            "libraries": libraries(_LIBRARIES["sample"]),
        }

    def train(self) -> Inputs:
        return {
            "the catalogue": catalog_files(self.workspace.catalog),
            "settings": self._sections(
                "seed",
                "image",
                "text",
                "attributes",
                "fusion",
                "tower",
                "finetune",
                "scorer",
                "knowledge",
            ),
            "weights": self._local_weights(),
            "code": self._code("train"),
            "libraries": libraries(_LIBRARIES["train"]),
        }

    def evaluate(self, train: Stage) -> Inputs:
        return {
            "the trained model": {"checkpoint": output_id(train)},
            "the catalogue": catalog_files(self.workspace.catalog),
            "settings": self._sections("seed", "finetune", "scorer", "evaluation"),
            "code": self._code("evaluate"),
            "libraries": libraries(_LIBRARIES["train"]),
        }

    def export(self, train: Stage) -> Inputs:
        return {
            "the trained model": {"checkpoint": output_id(train)},
            "the catalogue": catalog_files(self.workspace.catalog),
            "settings": self._sections("index"),
            "code": self._code("export"),
            "libraries": libraries(_LIBRARIES["export"]),
        }

    def archive(self, export: Stage) -> Inputs:
        return {
            "the export": {"graphs and index": output_id(export)},
            "the model store": {"folder": str(self.workspace.model_store.resolve())},
            "settings": self._sections("archive"),
            "code": self._code("archive"),
            "libraries": libraries(_LIBRARIES["archive"]),
        }

    def _code(self, stage: str) -> Component:
        return sources(self.root, CODE[stage])

    def _sections(self, *names: str) -> Component:
        table = self.settings.model_dump(mode="json")
        return settings_values({name: table[name] for name in names})

    def _local_weights(self) -> Component:
        towers = (self.settings.image, self.settings.text)
        paths = [Path(tower.weights) for tower in towers if tower is not None]
        if self.settings.knowledge.tagger_data is not None:
            paths.append(self.settings.knowledge.tagger_data)
        return {part: value for path in paths for part, value in files_by_stat(path).items()}


def archive_paths(directory: Path) -> list[Path]:
    """The archives that the archive stage's output in ``directory`` names."""
    path = directory / _ARCHIVES
    return [Path(name) for name in read_json(path)] if path.is_file() else []


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
