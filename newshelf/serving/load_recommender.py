"""Loading of the recommender's predictor from an unpacked archive; see ``newshelf.serving.load``.

A module of its own: the encoder's workers and archive do without scipy, the index and the signals,
about 10 MB per process.
"""

import os
from pathlib import Path

from newshelf.nn.spec import ModelSpec, read_spec
from newshelf.serving.golden import check_golden_embeddings, check_golden_scores
from newshelf.serving.index import load_index
from newshelf.serving.live import LiveIndex
from newshelf.serving.load import open_encoder, pictures_at_once, warm_up, warm_up_products
from newshelf.serving.recommender_predictor import RecommenderPredictor
from newshelf.serving.runtimes.base import Device, ScorerGraphs
from newshelf.serving.runtimes.graph import projector_graph, scorer_graph
from newshelf.serving.runtimes.open import open_runtime
from newshelf.serving.segments import SHELF_VARIABLE
from newshelf.serving.settings import INDEX, ServingSettings, read_version
from newshelf.serving.shelf_reader import ShelfReader
from newshelf.serving.trace import RecordingObserver


def load_recommender_predictor(
    directory: Path,
    *,
    device: Device | None = None,
    settings: ServingSettings | None = None,
    observer: RecordingObserver | None = None,
) -> RecommenderPredictor:
    """Load encoder, scorer and index, and answer one request. See ``load_encoder_predictor``."""
    settings = settings or ServingSettings()
    device = device or Device()
    spec = read_spec(directory)
    version = read_version(directory)
    encoder = open_encoder(directory, spec, device, settings)
    scorer = open_scorer(directory, spec, device, settings)
    check_golden_embeddings(directory, encoder, settings, device)
    if scorer is not None:
        check_golden_scores(directory, scorer, settings, device)
    index = load_index(
        directory / INDEX, encoder_version=version, min_confidence=settings.min_confidence
    )
    shelf = None
    if folder := os.environ.get(SHELF_VARIABLE):
        archive = LiveIndex.of(index)
        shelf = ShelfReader(Path(folder) / version, archive, min_confidence=settings.min_confidence)
        shelf.read()
    predictor = RecommenderPredictor(
        encoder,
        scorer,
        index,
        model_version=version,
        limits=settings.limits,
        retrieve=settings.retrieve,
        observer=observer,
        shelf=shelf,
    )
    most = settings.limits.max_history
    batches = warm_up_products(spec.encoder, min(settings.batch_size, pictures_at_once(settings)))
    warm_up(predictor, [[{"history": products[:most]}] for products in batches])
    return predictor


def open_scorer(
    directory: Path, spec: ModelSpec, device: Device, settings: ServingSettings
) -> ScorerGraphs | None:
    """The scorer's graphs; None for a model without one."""
    if spec.scorer is None:
        return None
    projector, scorer = (
        open_runtime(
            settings.runtime,
            directory,
            graph,
            device,
            settings.threads,
            provider=settings.provider,
        )
        for graph in (projector_graph(), scorer_graph())
    )
    return ScorerGraphs(projector, scorer, spec.scorer.max_history)
