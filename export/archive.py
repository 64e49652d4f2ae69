"""Archives for TorchServe: one per model, with graphs, index, handler, code and settings."""

from pathlib import Path

import torch
from rich.console import Console

from export.mar import INDEX_MANIFEST, ArchivedModel, write_archive
from export.model_card import CARD_PAGE
from export.precision import PRECISION, choose
from export.run import PARITY
from newshelf.config import Precision, RuntimeKind, Settings
from newshelf.errors import ParityError, SetupError, VersionMismatch
from newshelf.files import read_json
from newshelf.nn.spec import SPEC_FILE, ModelSpec, read_spec
from newshelf.serving.runtimes.base import graph_files, projector_graph, scorer_graph
from newshelf.serving.settings import (
    GOLDEN,
    INDEX,
    MODEL_CARD,
    TOKENIZER,
    VERSION,
    read_version,
)

_ENCODER = "encoder"


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
    cards = [card / name for name in (CARD_PAGE, MODEL_CARD)] if card else []
    paths = []
    for model in _models(spec, settings, runtime, precision, has_report=has_report):
        with console.status(f"archive: {model.name}"):
            path = write_archive(
                model, version + label, export_dir, settings.archive, model_store, cards
            )
            paths.append(path)
    return paths


def _models(
    spec: ModelSpec,
    settings: Settings,
    runtime: RuntimeKind,
    precision: Precision,
    *,
    has_report: bool,
) -> list[ArchivedModel]:
    encoder, *weights = graph_files(_ENCODER, runtime, precision)
    common = [SPEC_FILE, VERSION, PARITY, GOLDEN, *weights]
    common += [TOKENIZER] if spec.encoder.text else []
    common += [PRECISION] if has_report else []
    scorer = [projector_graph(), scorer_graph()] if spec.scorer else []
    graphs = [name for graph in scorer for name in graph_files(graph.name, runtime)]
    recommender = [*common, *graphs, INDEX]
    return [
        ArchivedModel("encoder", settings.archive.encoder, encoder, common),
        ArchivedModel("recommender", settings.archive.recommender, encoder, recommender),
    ]


def _check(export_dir: Path, version: str) -> None:
    """Refuse an export whose parts do not belong together."""
    try:
        parity = read_json(export_dir / PARITY)
        index = read_json(export_dir / INDEX_MANIFEST)
    except OSError as error:
        raise SetupError(f"{error.filename} is missing: export first") from error
    if not parity["passed"] or parity["model_version"] != version:
        raise ParityError(f"the graphs in {export_dir} did not pass the gate: export again")
    if index["encoder_version"] != version:
        raise VersionMismatch(
            f"the index in {export_dir} is of model {index['encoder_version']}, the graphs are of "
            f"{version}: export both from one checkpoint"
        )
