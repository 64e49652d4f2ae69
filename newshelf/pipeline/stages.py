"""The stages from a catalogue to its archives, what each depends on, and their update."""

import ast
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from newshelf.catalog.schema import find_table
from newshelf.config import Settings, settings_values
from newshelf.errors import SetupError
from newshelf.files import directory_aside, read_json, write_json
from newshelf.pipeline.workspace import ROOT, Workspace

Component = Mapping[str, str]
"""Parts with their values or digests, such as ``{"items.parquet": "#3f…"}``."""

DIGEST = "#"
"""Prefix of a digest, to tell it from a readable value."""

_TABLES = ("items", "events", "baskets")
_PICTURES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def catalog_files(catalog: Path, tables: Sequence[str] = _TABLES) -> Component:
    """Return digests of the tables' bytes, and of the paths, sizes and mtimes of pictures."""
    found = (find_table(catalog, table) for table in tables)
    parts = {path.name: file_digest(path) for path in found if path is not None}
    folder = catalog.parent if catalog.is_file() else catalog
    pictures = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _PICTURES:
            pictures.update(f"{path.relative_to(folder)}\0{_stat(path)}\n".encode())
    return parts | {"pictures": _short(pictures)}


def files_by_stat(path: Path) -> Component:
    """Return size and mtime of a file, or of every file of a folder; empty if absent."""
    if path.is_file():
        return {str(path): _stat(path)}
    return {str(inner): _stat(inner) for inner in sorted(path.rglob("*")) if inner.is_file()}


def sources(root: Path, patterns: Iterable[str]) -> Component:
    """Return digests of the files that match; Python's are without comments and docstrings."""
    found: dict[str, str] = {}
    for pattern in patterns:
        paths = sorted(path for path in root.glob(pattern) if path.is_file())
        if not paths:
            raise SetupError(f"no source matches {pattern} in {root}")
        for path in paths:
            is_code = path.suffix == ".py"
            digest = _code_digest(path) if is_code else file_digest(path)
            found[path.relative_to(root).as_posix()] = digest
    return found


def libraries(names: Iterable[str]) -> Component:
    """Return the installed versions."""
    return {name: version(name) for name in names}


def file_digest(path: Path) -> str:
    """Return the shortened SHA-256 of a file's bytes."""
    with path.open("rb") as opened:
        return _short(hashlib.file_digest(opened, "sha256"))


def inputs_digest(inputs: Mapping[str, Component]) -> str:
    """Return one digest of all inputs of a stage."""
    plain = json.dumps({name: dict(parts) for name, parts in inputs.items()}, sort_keys=True)
    return _short(hashlib.sha256(plain.encode()))


def _short(digest: "hashlib._Hash") -> str:
    return DIGEST + digest.hexdigest()[:16]


def _stat(path: Path) -> str:
    stat = path.stat()
    return f"{DIGEST}{stat.st_size}:{stat.st_mtime_ns}"


def _code_digest(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_bare_string(line)]
    return _short(hashlib.sha256(ast.dump(tree).encode()))


def _is_bare_string(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


Inputs = Mapping[str, Component]
"""Named components, such as ``{"catalogue": {…}, "code": {…}}``."""

STAMP = "stamp.json"
_FORMAT = 1
_SHOWN = 3


@dataclass(frozen=True)
class Stage:
    """A step whose output is a folder, and possibly files outside it."""

    name: str
    directory: Path
    inputs: Callable[[], Inputs]
    """Called when it is the stage's turn, since earlier stages may make the inputs."""
    build: Callable[[Path], None]
    """Writes the output into an empty folder."""
    volatile: frozenset[str] = frozenset()
    """Files that differ between equal runs and do not matter to later stages."""
    outside: Callable[[Path], list[Path]] | None = None
    """Returns the output's files outside ``directory``, given the folder."""
    scratch: Path | None = None
    """Folder of what ``build`` needs to resume; removed when it is done."""


def why_stale(stage: Stage) -> str | None:
    """Return why ``stage`` must be built; None if it is up to date."""
    stamp = _read_stamp(stage.directory)
    if stamp is None:
        return "not made yet"
    if stamp["outputs"] != _outputs(stage, stage.directory):
        return "its files were changed or removed"
    return _difference(stamp["inputs"], stage.inputs())


def build(stage: Stage) -> None:
    """Build ``stage`` in a temporary folder and rename it into place, stamp included."""
    inputs = stage.inputs()
    # Temporary folders of killed runs; the workspace is locked.
    for left in stage.directory.parent.glob(f".{stage.directory.name}.*"):
        if left.is_dir():
            shutil.rmtree(left)
    if stage.outside is not None:
        # Files outside are replaced one by one, so the old stamp must not cover them.
        (stage.directory / STAMP).unlink(missing_ok=True)
    with directory_aside(stage.directory) as aside:
        stage.build(aside)
        stamp = {
            "format": _FORMAT,
            "stage": stage.name,
            "inputs": {name: dict(parts) for name, parts in inputs.items()},
            "outputs": _outputs(stage, aside),
            "id": _identity(stage, aside),
        }
        write_json(aside / STAMP, stamp)
    if stage.scratch is not None:
        shutil.rmtree(stage.scratch, ignore_errors=True)


def output_id(stage: Stage) -> str:
    """Return a digest of the stage's output; equal outputs have equal ids."""
    stamp = _read_stamp(stage.directory)
    return "" if stamp is None else str(stamp["id"])


def _read_stamp(directory: Path) -> dict[str, Any] | None:
    try:
        stamp = read_json(directory / STAMP)
    except (FileNotFoundError, ValueError):
        return None
    is_valid = isinstance(stamp, dict) and stamp.get("format") == _FORMAT
    return stamp if is_valid else None


def _outputs(stage: Stage, directory: Path) -> dict[str, str]:
    outputs = {
        path.relative_to(directory).as_posix(): str(path.stat().st_size)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != STAMP
    }
    for path in stage.outside(directory) if stage.outside is not None else ():
        # Another workspace may have written a file of the same name and size.
        exists = path.is_file()
        outputs[str(path)] = f"{path.stat().st_size}:{path.stat().st_mtime_ns}" if exists else ""
    return outputs


def _identity(stage: Stage, directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name not in stage.volatile:
            digest.update(f"{path.relative_to(directory)}\0{file_digest(path)}\n".encode())
    return _short(digest)


def _difference(before: Inputs, now: Inputs) -> str | None:
    reasons = [
        f"{name} changed ({_parts(before.get(name, {}), now.get(name, {}))})"
        for name in dict.fromkeys([*now, *before])
        if dict(before.get(name, {})) != dict(now.get(name, {}))
    ]
    return "; ".join(reasons) or None


def _parts(before: Component, now: Component) -> str:
    changed = [part for part in sorted({*before, *now}) if before.get(part) != now.get(part)]
    shown = [_part(part, before.get(part), now.get(part)) for part in changed[:_SHOWN]]
    further = len(changed) - len(shown)
    return ", ".join(shown) + (f" and {further} more" if further else "")


def _part(part: str, before: str | None, now: str | None) -> str:
    if before is None:
        return f"new: {part}"
    if now is None:
        return f"gone: {part}"
    return part if now.startswith(DIGEST) else f"{part}: {before} → {now}"


StageName = Literal["sample", "train", "evaluate", "graphs", "precision", "export", "archive"]

_ARCHIVES = "archives.json"
_EVENTS = ("training", "robots")
"""Sections of the settings that decide what an event counts."""
SHARED_CODE = ("newshelf/config.py", "newshelf/errors.py", "newshelf/files.py")
"""Inputs of the archive only, which contains them: they decide no number, and the values of
settings are compared separately."""
_CATALOG = ("newshelf/catalog/*.py",)
_NN = ("newshelf/nn/**/*.py",)
_ATTRIBUTES = ("newshelf/attributes/*.py", "newshelf/attributes/vocabulary.tsv")
CODE: dict[StageName, tuple[str, ...]] = {
    "sample": ("newshelf/sample/*.py", "newshelf/sample/*.toml", "newshelf/catalog/schema.py"),
    "train": (
        *_CATALOG,
        *_NN,
        *_ATTRIBUTES,
        "newshelf/training/**/*.py",
        "newshelf/evaluation/baselines.py",
        "newshelf/evaluation/splits.py",
        "newshelf/evaluation/types.py",
    ),
    "evaluate": (
        *_CATALOG,
        *_NN,
        "newshelf/training/**/*.py",
        "newshelf/evaluation/**/*.py",
        "newshelf/report/*.py",
        "newshelf/report/templates/*",
    ),
    "graphs": (
        *_CATALOG,
        *_NN,
        *_ATTRIBUTES,
        "newshelf/report/page.py",
        "newshelf/report/templates/*",
        "newshelf/serving/**/*.py",
        "export/**/*.py",
    ),
    "archive": (
        *_CATALOG,
        *SHARED_CODE,
        "newshelf/report/page.py",
        "newshelf/report/templates/*",
        *_NN,
        *_ATTRIBUTES,
        "newshelf/serving/**/*.py",
        "handlers/*.py",
        "export/**/*.py",
    ),
}
CODE["precision"] = CODE["graphs"]
"""Sources of each stage, as globs; a test compares them with the actual imports."""

_COMMON = ("torch", "tokenizers", "pillow", "cykooz-resizer", "numpy")
_LIBRARIES: dict[StageName, tuple[str, ...]] = {
    "sample": ("numpy", "pillow"),
    "train": (*_COMMON, "timm", "transformers", "scipy", "scikit-learn", "python-crfsuite"),
    "graphs": (*_COMMON, "onnx", "onnxscript", "onnxruntime-gpu", "openvino", "faiss-cpu"),
    "archive": ("torch-model-archiver",),
}
_LIBRARIES |= {"evaluate": _LIBRARIES["train"], "precision": _LIBRARIES["graphs"]}


@dataclass(frozen=True)
class Jobs:
    """The work of each stage; each writes into the folder that is the last argument."""

    sample: Callable[[Settings, Path], None]
    train: Callable[[Workspace, Settings, str, Path], None]
    """The text is the digest of the inputs; a run with other inputs is not resumed."""
    evaluate: Callable[[Workspace, Settings, Path], None]
    graphs: Callable[[Workspace, Settings, Path], None]
    precision: Callable[[Workspace, Settings, Path], None]
    archive: Callable[[Workspace, Settings, Path, Path], list[Path]]
    """Writes archives of an export into the model store and returns their paths; the last folder
    gets the card."""


@dataclass(frozen=True)
class Stages:
    """The stages of a workspace."""

    sample: Stage | None
    """None for a user's catalogue."""
    train: Stage
    evaluate: Stage
    graphs: Stage
    precision: Stage
    export: Stage
    archive: Stage
    first: Stage
    """Archives of ``graphs``, which need no search for a precision."""

    def up_to(self, last: StageName) -> list[Stage]:
        """Return the stages that lead to ``last``, in order; ``evaluate`` is a branch."""
        drawn = [self.sample] if self.sample else []
        trunk = [self.train, self.graphs, self.precision, self.export, self.archive]
        if last == "evaluate":
            trunk[1:] = [self.evaluate]
        names = ["sample", *(one.name for one in trunk)]
        return [*drawn, *trunk[: names.index(last)]]

    def to_serve(self, precision: str) -> list[Stage]:
        """Return the stages from graphs to archives, without a search where float32 is right."""
        if precision in ("auto", "fp32") and why_stale(self.precision):
            return [self.first]
        return [self.precision, self.export, self.archive]


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
    given = workspace, settings
    judged = partial(jobs.evaluate, *given)
    evaluate = Stage("evaluate", workspace.evaluation, lambda: inputs.evaluate(train), judged)
    graphs = Stage(
        "graphs", workspace.graphs, lambda: inputs.graphs(train), partial(jobs.graphs, *given)
    )
    precision = Stage(
        "precision", workspace.precision, inputs.precision, partial(jobs.precision, *given)
    )
    export = Stage(
        "export",
        workspace.export,
        lambda: {"its parts": {one.name: output_id(one) for one in (graphs, precision)}},
        lambda out: _link((workspace.graphs, workspace.precision), out),
    )

    def archive(name: str, directory: Path, source: Stage) -> Stage:
        def build(out: Path) -> None:
            paths = jobs.archive(workspace, settings, source.directory, out)
            write_json(out / _ARCHIVES, [str(path) for path in paths])

        needs = partial(inputs.archive, source, evaluate)
        return Stage(name, directory, needs, build, outside=archive_paths)

    sample = Stage(
        "sample", workspace.catalog, inputs.sample, lambda out: jobs.sample(settings, out)
    )
    return Stages(
        sample if workspace.is_sample else None,
        train,
        evaluate,
        graphs,
        precision,
        export,
        archive("archive", workspace.archive, export),
        archive("first archive", workspace.first, graphs),
    )


def _link(folders: Iterable[Path], out: Path) -> None:
    """Link every file of ``folders`` but their stamps into ``out``."""
    stamps = shutil.ignore_patterns(STAMP)
    for folder in folders:
        shutil.copytree(folder, out, ignore=stamps, copy_function=os.link, dirs_exist_ok=True)


@dataclass(frozen=True)
class _StageInputs:
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

    def graphs(self, train: Stage) -> Inputs:
        return {**_model(train), **self._catalogue(), **self._of("graphs", "index", *_EVENTS)}

    def precision(self) -> Inputs:
        # Neither another scorer nor other events change the encoder.
        return {
            "the encoder": {"graph": file_digest(self.workspace.graphs / "encoder.onnx")},
            "the products": catalog_files(self.workspace.catalog, ("items",)),
            **self._of("precision"),
        }

    def archive(self, export: Stage, evaluate: Stage) -> Inputs:
        return {
            "the export": {"graphs and index": output_id(export)},
            # Archives carry the model card, which has its figures.
            "the evaluation": {"report": output_id(evaluate)},
            "the model store": {"folder": str(self.workspace.model_store.resolve())},
            **self._of("archive", "archive"),
        }

    def _of(self, stage: StageName, *sections: str) -> Inputs:
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
