"""A predictor from an unpacked archive, warmed up.

The directory holds, at its root::

    model.json  version.json  golden.json
    tokenizer.json                                  only with a text tower
    encoder.onnx | encoder.<precision>.onnx | encoder.pt | encoder.xml encoder.bin | …
    projector.* scorer.*                            only with a scorer
    index/                                          the recommender only
"""

import os
from pathlib import Path

from newshelf.errors import SetupError
from newshelf.nn.inputs import Tokenizer
from newshelf.nn.spec import ModelSpec, read_spec
from newshelf.serving.bundle import TOKENIZER, read_version
from newshelf.serving.cache import EncodingCache
from newshelf.serving.decode import open_reader
from newshelf.serving.encode import ProductEncoder
from newshelf.serving.encoder_predictor import EncoderPredictor
from newshelf.serving.golden import check_golden_embeddings
from newshelf.serving.limits import ServingSettings
from newshelf.serving.observe import Observer
from newshelf.serving.preprocess import InputBuilder
from newshelf.serving.runtimes import Device, encoder_graph, open_runtime
from newshelf.serving.warm_up import warm_up, warm_up_products

__all__ = ["load_encoder_predictor", "open_encoder", "pictures_at_once"]


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
        SetupError: a file is missing or damaged, the files do not belong together, or golden
            products are answered otherwise than where the model was exported.
    """
    settings = settings or ServingSettings()
    device = device or Device()
    spec = read_spec(directory)
    encoder = open_encoder(directory, spec, device, settings)
    check_golden_embeddings(directory, encoder, settings, device)
    predictor = EncoderPredictor(
        encoder,
        model_version=read_version(directory),
        limits=settings.limits,
        observer=observer,
    )
    warm_up(
        predictor,
        warm_up_products(spec.encoder, min(settings.batch_size, pictures_at_once(settings))),
    )
    return predictor


def open_encoder(
    directory: Path, spec: ModelSpec, device: Device, settings: ServingSettings
) -> ProductEncoder:
    """The encoder with everything that makes its inputs; not warmed up.

    Raises:
        SetupError: a file is missing or damaged.
    """
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
        max_forward_pictures=pictures_at_once(settings),
        cache=EncodingCache(settings.cache_bytes) if settings.cache_bytes else None,
    )


def pictures_at_once(settings: ServingSettings) -> int:
    """How many share a forward at most.

    Small forwards let the next pictures be decoded meanwhile; large ones are better where no
    thread or no core is left for that.

    On two cores, 4 pictures at a time were 6 to 8 % faster than 8 at once with one worker of one
    thread, and 1 to 8 % slower with one of two threads or with two workers that do not overlap.
    """
    if settings.max_forward_pictures:
        return min(settings.max_forward_pictures, settings.max_forward_batch)
    overlap = settings.decode_threads > 1 and len(os.sched_getaffinity(0)) > settings.threads
    return min(4, settings.max_forward_batch) if overlap else settings.max_forward_batch
