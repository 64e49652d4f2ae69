"""One archive for TorchServe: the files and settings in it, and its packing."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grimp
import yaml

import newshelf
from newshelf.config import ArchiveSettings, ModelServingSettings
from newshelf.errors import SetupError
from newshelf.files import read_json, write_json
from newshelf.serving.model_config import MODEL_CONFIG
from newshelf.serving.settings import INDEX, VERSION, ServingSettings

INDEX_MANIFEST = f"{INDEX}/index.json"
"""File of an export or an archive that describes the index."""
ROOT = Path(newshelf.__file__).resolve().parents[1]
"""The folder that holds ``newshelf`` and ``handlers``."""

START_UP = "sitecustomize.py"
"""In ``handlers``, and at an archive's root: what a worker's Python runs first."""


def handler_path(name: str) -> Path:
    """Return the path of a model's handler: ``encoder`` → ``handlers/encoder_handler.py``."""
    return ROOT / "handlers" / f"{name}_handler.py"


def needed_sources(name: str) -> list[Path]:
    """Every module of ours that the handler of model ``name``, or a worker's start, imports,
    however indirectly.

    Imports for type checkers alone do not count, nor do those that name their module at run
    time. The packages around a module do, since they are run before it.

    Returns:
        Paths relative to ``ROOT``, sorted.
    """
    graph = grimp.build_graph(
        "newshelf", "handlers", exclude_type_checking_imports=True, cache_dir=None
    )
    found: set[str] = set()
    roots = {f"handlers.{name}_handler", "handlers.sitecustomize"}
    new = {*roots, "handlers.worker_fork"}
    while new:
        found |= new
        reached = {module for start in new for module in graph.find_upstream_modules(start)}
        parents = {parent for module in reached for parent in _parents(module)}
        new = (reached | parents) - found
    # These two lie at an archive's root.
    return sorted(_source(module) for module in found - roots)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _source(module: str) -> Path:
    path = Path(*module.split("."))
    package = path / "__init__.py"
    return package if (ROOT / package).exists() else path.with_suffix(".py")


_ALLOCATED = 0.9
"""Share of a GPU's memory for all workers' allocators; CUDA's contexts and kernels take more."""
_VERSIONS = 2
"""A rollout serves another version next to this one."""
_HEAD = """\
# Generated from the [archive] sections of the settings: change those, and archive again.
# The first keys are TorchServe's: maxBatchDelay in milliseconds, responseTimeout in
# seconds. `serving` and `limits` are read by newshelf.serving.settings.
"""


def model_config(settings: ArchiveSettings, model: ModelServingSettings) -> str:
    """Return the text of ``model-config.yaml``, with every key written out.

    Without ``deviceType``, TorchServe gives a worker a GPU when there is one; what computes
    on one kind of device alone says so.

    Args:
        settings: of all archives, with runtime and precision decided.
        model: of this archive. ``threads = 0`` and ``decode_threads = 0`` are kept: they divide
            the serving machine's cores among the model's workers.

    Raises:
        SetupError: runtime or precision is ``auto``.
    """
    if settings.runtime == "auto" or settings.precision == "auto":
        raise SetupError("[archive] runtime and precision are not decided: see export.precision")
    decided = settings.model_dump(include={"runtime", "precision"})
    table = {
        "minWorkers": model.workers,
        "maxWorkers": model.workers,
        "batchSize": model.batch_size,
        "maxBatchDelay": model.max_batch_delay_ms,
        "responseTimeout": model.response_timeout_s,
        "jobQueueSize": model.queue_size,
        **_device_type(settings),
        "serving": decided
        | model.model_dump(include=set(ServingSettings.model_fields))
        | {"gpu_memory": _gpu_memory(settings, model)},
        "limits": settings.limits.model_dump(),
    }
    return _HEAD + yaml.safe_dump(table, sort_keys=False)


def _gpu_memory(settings: ArchiveSettings, model: ModelServingSettings) -> float:
    """Share of a GPU for a worker, as if all workers had the same one."""
    workers = settings.encoder.workers + settings.recommender.workers
    # What each process has outside of its allocators is in what is left over.
    return model.gpu_memory or round(_ALLOCATED / _VERSIONS / workers, 3)


def _device_type(settings: ArchiveSettings) -> dict[str, str]:
    if settings.runtime == "openvino" or settings.precision == "int8":
        return {"deviceType": "cpu"}
    return {"deviceType": "gpu"} if settings.precision == "fp16" else {}


_ARCHIVER = (
    "from model_archiver.model_packaging import generate_model_archive; generate_model_archive()"
)


@dataclass(frozen=True)
class ArchivedModel:
    """One archive to be."""

    name: Literal["encoder", "recommender"]
    serving: ModelServingSettings
    encoder: str
    """The graph that the manifest names."""
    files: list[str]
    """What else it takes of the export."""


def write_archive(
    model: ArchivedModel,
    version: str,
    export_dir: Path,
    settings: ArchiveSettings,
    model_store: Path,
    cards: Sequence[Path] = (),
) -> Path:
    """Write ``NAME-VERSION.mar`` into ``model_store``, and return its path.

    Args:
        model: what it is of.
        version: what TorchServe and the files in it call it.
        export_dir: with the files that ``model`` names.
        settings: of all archives, with runtime and precision decided.
        model_store: an existing folder; an archive appears there when it is complete.
        cards: further files for its root.

    Raises:
        SetupError: a file is missing, or the archiver failed.
    """
    with tempfile.TemporaryDirectory(prefix=".archive-", dir=model_store) as folder:
        work = Path(folder)
        _stage(work / "stage", model, export_dir, cards)
        _name(work / "stage", version)
        (work / MODEL_CONFIG).write_text(model_config(settings, model.serving))
        _run_archiver(work, model.name, version, export_dir.resolve() / model.encoder)
        path = model_store / f"{model.name}-{version}.mar"
        (work / f"{model.name}.mar").replace(path)
    return path


def _stage(stage: Path, model: ArchivedModel, export_dir: Path, cards: Sequence[Path]) -> None:
    """Lay out the archive's root with links; the archiver copies what they point to."""
    sources = [(ROOT / path, path) for path in needed_sources(model.name)]
    files = [(export_dir.resolve() / name, Path(name)) for name in model.files if name != INDEX]
    lazy_torch = (ROOT / "handlers" / START_UP, Path(START_UP))
    index = export_dir.resolve() / INDEX
    parts = index.iterdir() if INDEX in model.files else ()
    files += [(path, Path(INDEX, path.name)) for path in parts]
    for source, path in [
        *sources,
        lazy_torch,
        *files,
        *((path.resolve(), Path(path.name)) for path in cards),
    ]:
        if not source.exists():
            raise SetupError(f"{source} is missing: export again")
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        (stage / path).symlink_to(source, target_is_directory=source.is_dir())


def _name(stage: Path, version: str) -> None:
    """Let what is laid out be of ``version``, which workers compare with the archive's."""
    for path, key in (
        (stage / VERSION, "model_version"),
        (stage / INDEX_MANIFEST, "encoder_version"),
    ):
        if path.exists():
            # Replaces the link.
            write_json(path, read_json(path) | {key: version})


def _run_archiver(work: Path, name: str, version: str, graph: Path) -> None:
    """Run torch-model-archiver in ``work``.

    In a process of its own, because it clears and fills ``<temporary folder>/<name>``,
    which must be ours alone. The paths that it splits at commas and takes for patterns are
    relative to ``work``, so they hold neither.
    """
    if not graph.exists():
        raise SetupError(f"{graph} is missing: export again")
    scratch = work / "scratch"
    scratch.mkdir()
    options = {
        "model-name": name,
        "version": version,
        "serialized-file": str(graph),
        "handler": str(handler_path(name)),
        "extra-files": "stage",
        "config-file": MODEL_CONFIG,
        "export-path": ".",
        # Weights hardly shrink, and compressing them takes most of the time.
        "archive-format": "zip-store",
    }
    done = subprocess.run(
        [sys.executable, "-c", _ARCHIVER, *(f"--{key}={value}" for key, value in options.items())],
        cwd=work,
        env={**os.environ, "TMPDIR": str(scratch.resolve())},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SetupError(f"torch-model-archiver failed for {name}: {done.stderr.strip()}")
