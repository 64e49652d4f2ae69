"""A predictor from an unpacked archive, warmed up.

The directory holds, at its root::

    model.json  version.json  tokenizer.json        tokenizer only with a text tower
    encoder.onnx | encoder.<precision>.onnx | encoder.pt
    projector.* scorer.*                            only with a scorer
    index/                                          the recommender only
"""

import base64
import io
import logging
import os
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

import orjson
from PIL import Image

from newshelf.errors import SetupError
from newshelf.nn.inputs import Tokenizer
from newshelf.nn.spec import EncoderSpec, ModelSpec, read_spec
from newshelf.serving.bundle import INDEX, TOKENIZER, read_version
from newshelf.serving.cache import EncodingCache
from newshelf.serving.decode import open_reader
from newshelf.serving.encode import ProductEncoder
from newshelf.serving.encoder_predictor import EncoderPredictor
from newshelf.serving.index import load_index
from newshelf.serving.limits import ServingSettings
from newshelf.serving.observe import Observer
from newshelf.serving.preprocess import InputBuilder
from newshelf.serving.protocol import Answer, Predictor, RawRequest
from newshelf.serving.recommender_predictor import RecommenderPredictor, ScorerGraphs
from newshelf.serving.runtimes import (
    Device,
    choose_device,
    encoder_graph,
    open_runtime,
    projector_graph,
    scorer_graph,
)

__all__ = ["choose_device", "load_encoder_predictor", "load_recommender_predictor"]

_LOG = logging.getLogger(__name__)
_Product = Mapping[str, object]
_TRIED = 8
"""Pictures in the largest batch of the warm-up: with more of them it would take long."""


def load_encoder_predictor(
    directory: Path,
    *,
    device: Device | None = None,
    settings: ServingSettings | None = None,
    observer: Observer | None = None,
) -> EncoderPredictor:
    """Load the encoder and answer one request of each kind, so that the first is not slow.

    Args:
        directory: see the module.
        device: the CPU by default.
        settings: runtime, threads and limits.
        observer: is told the stages' times, the warm-up's too.

    Raises:
        SetupError: a file is missing or damaged, or the files do not belong together.
    """
    settings = settings or ServingSettings()
    spec = read_spec(directory)
    predictor = EncoderPredictor(
        _encoder(directory, spec, device or Device(), settings),
        model_version=read_version(directory),
        limits=settings.limits,
        observer=observer,
    )
    _warm_up(predictor, _warm_up_batches(spec.encoder, settings))
    return predictor


def load_recommender_predictor(
    directory: Path,
    *,
    device: Device | None = None,
    settings: ServingSettings | None = None,
    observer: Observer | None = None,
) -> RecommenderPredictor:
    """Load encoder, scorer and index, and answer one request. See ``load_encoder_predictor``.

    Raises:
        SetupError: a file is missing or damaged.
        VersionMismatch: the index was made by another encoder.
    """
    settings = settings or ServingSettings()
    device = device or Device()
    spec = read_spec(directory)
    version = read_version(directory)
    predictor = RecommenderPredictor(
        _encoder(directory, spec, device, settings),
        _scorer(directory, spec, device, settings),
        load_index(
            directory / INDEX, encoder_version=version, min_confidence=settings.min_confidence
        ),
        model_version=version,
        limits=settings.limits,
        retrieve=settings.retrieve,
        observer=observer,
    )
    most = settings.limits.max_history
    batches = _warm_up_batches(spec.encoder, settings)
    _warm_up(predictor, [[{"history": products[:most]}] for products in batches])
    return predictor


def _encoder(
    directory: Path, spec: ModelSpec, device: Device, settings: ServingSettings
) -> ProductEncoder:
    encoder = spec.encoder
    tokenizer = None
    if encoder.text is not None:
        if not (directory / TOKENIZER).exists():
            raise SetupError(f"{directory / TOKENIZER} is missing: export again")
        tokenizer = Tokenizer(
            directory / TOKENIZER, encoder.text.max_tokens, encoder.text.pad_token_id
        )
    return ProductEncoder(
        encoder,
        open_runtime(
            settings.runtime,
            directory,
            encoder_graph(encoder),
            device,
            settings.threads,
            settings.precision,
            settings.provider,
        ),
        InputBuilder(encoder, tokenizer, pad_images=device.kind == "cuda"),
        open_reader(
            encoder.image,
            device,
            max_pixels=settings.limits.max_pixels,
            threads=settings.decode_threads,
        ),
        max_forward_batch=settings.max_forward_batch,
        max_forward_pictures=_pictures_at_once(settings),
        cache=EncodingCache(settings.cache_bytes) if settings.cache_bytes else None,
    )


def _pictures_at_once(settings: ServingSettings) -> int:
    """Small forwards let decoding overlap with them; large ones are better when no core is idle.

    With one thread on two cores, 4 pictures at a time were 6 to 8 % faster than 8 at once; with
    two, 1 to 8 % slower.
    """
    if settings.max_forward_pictures:
        return min(settings.max_forward_pictures, settings.max_forward_batch)
    idle = len(os.sched_getaffinity(0)) > settings.threads
    return min(4, settings.max_forward_batch) if idle else settings.max_forward_batch


def _scorer(
    directory: Path, spec: ModelSpec, device: Device, settings: ServingSettings
) -> ScorerGraphs | None:
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


def _warm_up_batches(spec: EncoderSpec, settings: ServingSettings) -> list[list[_Product]]:
    """Batches of products: one of each kind, and each number of pictures that may come at once.

    OpenVINO prepares itself for each number of pictures when it first meets it, which takes
    15 to 55 ms.
    """
    title: _Product = {} if spec.text is None else {"title": "A ring of green jade"}
    if spec.image is None:
        return [[title]]
    alone: list[list[_Product]] = [[{"image": _picture("alone")}], [title]] if title else []
    most = min(settings.batch_size, _pictures_at_once(settings), _TRIED)
    # Each batch has pictures of its own: those of another one may be answered from the cache.
    return alone + [
        [{"image": _picture(f"{at} of {count}"), **title} for at in range(count)]
        for count in range(1, most + 1)
    ]


def _picture(comment: str) -> str:
    """A JPEG in base64, of other bytes with another ``comment``."""
    picture = io.BytesIO()
    Image.new("RGB", (320, 240), (200, 180, 160)).save(picture, "JPEG", comment=comment)
    return base64.b64encode(picture.getvalue()).decode()


def _warm_up(predictor: Predictor, batches: Sequence[Sequence[_Product]]) -> None:
    """Answer each batch, a request per entry.

    Raises:
        SetupError: one was not answered with 200.
    """
    start = time.perf_counter()
    for batch in batches:
        rows = [RawRequest({"body": orjson.dumps(body)}, "application/json") for body in batch]
        _check(predictor.predict(rows))
    _LOG.info("warmed up in %.1f s", time.perf_counter() - start)


def _check(answers: Sequence[Answer]) -> None:
    for answer in answers:
        if answer.status != HTTPStatus.OK:
            raise SetupError(f"the model does not answer a plain request: {answer.body.decode()}")
