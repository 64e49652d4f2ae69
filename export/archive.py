"""Archives for TorchServe: one per model, with graphs, index, handler, code and settings."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grimp
import torch
import yaml
from rich.console import Console

import newshelf
from export.model_card import CARD_PAGE
from export.precision import PRECISION, choose
from export.run import PARITY
from newshelf.config import ArchiveSettings, ModelServingSettings, Precision, RuntimeKind, Settings
from newshelf.errors import ParityError, SetupError, VersionMismatch
from newshelf.files import read_json, write_json
from newshelf.nn.spec import SPEC_FILE, ModelSpec, read_spec
from newshelf.serving.model_config import MODEL_CONFIG
from newshelf.serving.runtimes.base import graph_files, projector_graph, scorer_graph
from newshelf.serving.settings import (
    GOLDEN,
    INDEX,
    MODEL_CARD,
    TOKENIZER,
    VERSION,
    ServingSettings,
    read_version,
)

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
        "serving": decided | model.model_dump(include=set(ServingSettings.model_fields)),
        "limits": settings.limits.model_dump(),
    }
    return _HEAD + yaml.safe_dump(table, sort_keys=False)


def _device_type(settings: ArchiveSettings) -> dict[str, str]:
    if settings.runtime == "openvino" or settings.precision == "int8":
        return {"deviceType": "cpu"}
    return {"deviceType": "gpu"} if settings.precision == "fp16" else {}


_ENCODER = "encoder"
_MANIFEST = f"{INDEX}/index.json"
_ARCHIVER = (
    "from model_archiver.model_packaging import generate_model_archive; generate_model_archive()"
)


@dataclass(frozen=True)
class _Model:
    """One archive to be."""

    name: Literal["encoder", "recommender"]
    serving: ModelServingSettings
    encoder: str
    """The graph that the manifest names."""
    files: list[str]
    """What else it takes of the export."""


def archive(
    export_dir: Path,
    settings: Settings,
    model_store: Path,
    console: Console | None = None,
    *,
    card: Path | None = None,
    label: str = "",
) -> list[Path]:
    """Write ``encoder-<version>.mar`` and ``recommender-<version>.mar``.

    Each holds the graphs of the chosen runtime and precision alone, what describes and
    proves them, its handler and the modules of Newshelf that the handler needs, so that two
    versions can run side by side, each with its own code.

    Args:
        export_dir: from ``export_model`` and ``build_index``.
        settings: its ``archive`` section is used.
        model_store: an archive appears there when it is complete, and replaces one of the
            same version.
        console: where the progress is shown; standard error by default.
        card: folder of the model card, which the archives carry.
        label: behind the version, to tell other archives of the same checkpoint apart.

    Returns:
        The archives' paths.

    Raises:
        ParityError: the graphs did not pass the gate, or the precision that is asked for.
        VersionMismatch: graphs and index are not of one checkpoint.
        SetupError: a file is missing, or the archiver failed.
    """
    spec, version = read_spec(export_dir), read_version(export_dir)
    _check(export_dir, version)
    console = console or Console(stderr=True)
    runtime, precision = choose(
        export_dir,
        settings.archive.runtime,
        settings.archive.precision,
        gpu=torch.cuda.is_available(),
    )
    decided = {"runtime": runtime, "precision": precision}
    console.print(f"served by {runtime} in {precision}", highlight=False)
    chosen = settings.archive.model_copy(update=decided)
    settings = settings.model_copy(update={"archive": chosen})
    has_report = (export_dir / PRECISION).exists()
    model_store.mkdir(parents=True, exist_ok=True)
    paths = []
    for model in _models(spec, settings, runtime, precision, has_report=has_report):
        with console.status(f"archive: {model.name}"):
            paths.append(_archive(model, version + label, export_dir, settings, model_store, card))
    return paths


def _models(
    spec: ModelSpec,
    settings: Settings,
    runtime: RuntimeKind,
    precision: Precision,
    *,
    has_report: bool,
) -> list[_Model]:
    encoder, *weights = graph_files(_ENCODER, runtime, precision)
    common = [SPEC_FILE, VERSION, PARITY, GOLDEN, *weights]
    common += [TOKENIZER] if spec.encoder.text else []
    common += [PRECISION] if has_report else []
    scorer = [projector_graph(), scorer_graph()] if spec.scorer else []
    graphs = [name for graph in scorer for name in graph_files(graph.name, runtime)]
    recommender = [*common, *graphs, INDEX]
    return [
        _Model("encoder", settings.archive.encoder, encoder, common),
        _Model("recommender", settings.archive.recommender, encoder, recommender),
    ]


def _check(export_dir: Path, version: str) -> None:
    """Refuse an export whose parts do not belong together."""
    try:
        parity = read_json(export_dir / PARITY)
        index = read_json(export_dir / _MANIFEST)
    except OSError as error:
        raise SetupError(f"{error.filename} is missing: export first") from error
    if not parity["passed"] or parity["model_version"] != version:
        raise ParityError(f"the graphs in {export_dir} did not pass the gate: export again")
    if index["encoder_version"] != version:
        raise VersionMismatch(
            f"the index in {export_dir} is of model {index['encoder_version']}, the graphs are of "
            f"{version}: export both from one checkpoint"
        )


def _archive(
    model: _Model,
    version: str,
    export_dir: Path,
    settings: Settings,
    model_store: Path,
    card: Path | None,
) -> Path:
    with tempfile.TemporaryDirectory(prefix=".archive-", dir=model_store) as folder:
        work = Path(folder)
        _stage(work / "stage", model, export_dir, card)
        _name(work / "stage", version)
        (work / MODEL_CONFIG).write_text(model_config(settings.archive, model.serving))
        _run_archiver(work, model.name, version, export_dir.resolve() / model.encoder)
        path = model_store / f"{model.name}-{version}.mar"
        (work / f"{model.name}.mar").replace(path)
    return path


def _stage(stage: Path, model: _Model, export_dir: Path, card: Path | None) -> None:
    """Lay out the archive's root with links; the archiver copies what they point to."""
    sources = [(ROOT / path, path) for path in needed_sources(model.name)]
    files = [(export_dir.resolve() / name, Path(name)) for name in model.files if name != INDEX]
    lazy_torch = (ROOT / "handlers" / START_UP, Path(START_UP))
    cards = (
        [(card.resolve() / name, Path(name)) for name in (CARD_PAGE, MODEL_CARD)] if card else []
    )
    index = export_dir.resolve() / INDEX
    parts = index.iterdir() if INDEX in model.files else ()
    files += [(path, Path(INDEX, path.name)) for path in parts]
    for source, path in [*sources, lazy_torch, *files, *cards]:
        if not source.exists():
            raise SetupError(f"{source} is missing: export again")
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        (stage / path).symlink_to(source, target_is_directory=source.is_dir())


def _name(stage: Path, version: str) -> None:
    """Let what is laid out be of ``version``, which workers compare with the archive's."""
    for path, key in ((stage / VERSION, "model_version"), (stage / _MANIFEST, "encoder_version")):
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
