"""Predictions of the encoder for a batch of requests, and its loading from an unpacked archive.

The directory holds, at its root::

    model.json  version.json  golden.json
    tokenizer.json                                  only with a text tower
    encoder.onnx | encoder.<precision>.onnx | encoder.pt | encoder.xml encoder.bin | …
    projector.* scorer.*                            only with a scorer
    index/                                          the recommender only
"""

import base64
import ctypes
import io
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import orjson
from PIL import Image

from newshelf.config import Limits
from newshelf.errors import DeadlineExceeded, NewshelfError, SetupError
from newshelf.nn.inputs import Tokenizer
from newshelf.nn.spec import EncoderSpec, ModelSpec, read_spec
from newshelf.serving.encode import EncodingCache, ProductEncoder, Result
from newshelf.serving.golden import check_golden_embeddings
from newshelf.serving.preprocess import InputBuilder, open_reader
from newshelf.serving.products import ProductInput, parse_products
from newshelf.serving.protocol import Answer, Predictor, RawRequest, error_answer, json_answer
from newshelf.serving.runtimes.base import Device, encoder_graph, open_runtime
from newshelf.serving.settings import TOKENIZER, ServingSettings, read_version
from newshelf.serving.trace import RecordingObserver, StageTimer

_TEXT_UNREAD = (
    "the text counts as absent: this model's text tower knows no word of title and description"
)


_Row = tuple[Sequence[ProductInput | NewshelfError], bool]
"""One request on its way: an entry per product, or one error for all; whether it has instances."""


@dataclass(eq=False)
class EncoderPredictor:
    """Products → embeddings and labels; one forward for all the requests of a batch.

    A request with ``instances`` answers 200 as long as one of them was encoded, with an
    ``error`` in the place of each that was not; when none was, it answers as the first, and
    when its deadline passed on the way, nobody waits for the rest.
    """

    encoder: ProductEncoder
    model_version: str
    limits: Limits
    observer: RecordingObserver | None = None

    def predict(self, rows: Sequence[RawRequest]) -> list[Answer]:
        """See ``newshelf.serving.protocol.Predictor``."""
        stages = StageTimer()
        with stages.measure("parse"):
            parsed = [self._parse(row) for row in rows]
        items = (item for products, _ in parsed for item in products)
        readable = [item for item in items if isinstance(item, ProductInput)]
        encoded = iter(self.encoder.encode(readable, stages))
        with stages.measure("postprocess"):
            results = [
                [item if isinstance(item, NewshelfError) else next(encoded) for item in products]
                for products, _ in parsed
            ]
            answers = [
                self._answer(result, many=many)
                for result, (_, many) in zip(results, parsed, strict=True)
            ]
        stages.report(self.observer, len(rows))
        return answers

    def _parse(self, request: RawRequest) -> _Row:
        try:
            return parse_products(request, self.limits)
        except NewshelfError as error:
            return [error], False

    def _answer(self, results: Sequence[Result], *, many: bool) -> Answer:
        errors = [result for result in results if isinstance(result, NewshelfError)]
        late = [error for error in errors if isinstance(error, DeadlineExceeded)]
        if late or len(errors) == len(results):
            return error_answer((late or errors)[0])
        if not many:
            return json_answer(self._prediction(results[0]))
        predictions = [self._prediction(result) for result in results]
        return json_answer({"predictions": predictions, "model_version": self.model_version})

    def _prediction(self, result: Result) -> dict[str, object]:
        if isinstance(result, NewshelfError):
            return {"error": {**result.body(), "status": result.http_status}}
        labels = {
            head: {"value": value, "score": score} for head, (value, score) in result.labels.items()
        }
        prediction: dict[str, object] = {
            "embedding": result.embedding,
            "labels": labels,
            "model_version": self.model_version,
        }
        if result.text_unread:
            prediction["warnings"] = [_TEXT_UNREAD]
        return prediction


_LOG = logging.getLogger(__name__)
_Body = Mapping[str, object]
_TRIED = 8
"""Pictures in a CPU's largest batch: with more of them it would take long."""


def warm_up_sizes(settings: ServingSettings, device: Device) -> list[int]:
    """Return the numbers of pictures to try at once.

    OpenVINO prepares itself for each number when it first meets it, which takes 15 to 55 ms. A
    GPU's libraries load kernels by size, and the largest batch, which comes first, takes the
    memory of all.
    """
    most = pictures_at_once(settings, device)
    if device.kind == "cpu":
        return list(range(1, min(settings.batch_size, most, _TRIED) + 1))
    doubled = {2**power for power in range(most.bit_length())}
    return sorted({*range(1, min(most, _TRIED) + 1), *doubled, most}, reverse=True)


def warm_up_products(spec: EncoderSpec, sizes: Sequence[int]) -> list[list[_Body]]:
    """Batches of products: one of each kind, and ``sizes`` pictures at once."""
    # The brand: a tower for another language may know no word of the title.
    title: _Body = {}
    if spec.text is not None:
        title = {"title": "A ring of green jade", "brand": "Newshelf"}
    if spec.image is None:
        return [[title]]
    alone: list[list[_Body]] = [[{"image": _picture("alone")}], [title]] if title else []
    # Each batch has pictures of its own: those of another one may be answered from the cache.
    return alone + [
        [{"image": _picture(f"{at} of {count}"), **title} for at in range(count)] for count in sizes
    ]


def warm_up(predictor: Predictor, batches: Sequence[Sequence[_Body]]) -> None:
    """Answer each batch, a request per entry; free what only that took."""
    start = time.perf_counter()
    for batch in batches:
        rows = [RawRequest.unhurried(orjson.dumps(body)) for body in batch]
        for answer in predictor.predict(rows):
            if answer.status != HTTPStatus.OK:
                body = answer.body.decode()
                raise SetupError(f"the model does not answer a plain request: {body}")
    # Return to the system what loading and compiling have freed; glibc alone would keep it.
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
    _LOG.info("warmed up in %.1f s", time.perf_counter() - start)


def _picture(comment: str) -> str:
    """A JPEG in base64, of other bytes with another ``comment``."""
    picture = io.BytesIO()
    Image.new("RGB", (320, 240), (200, 180, 160)).save(picture, "JPEG", comment=comment)
    return base64.b64encode(picture.getvalue()).decode()


def load_encoder_predictor(
    directory: Path,
    *,
    device: Device | None = None,
    settings: ServingSettings | None = None,
    observer: RecordingObserver | None = None,
) -> EncoderPredictor:
    """Load the encoder and answer one request of each kind, so that the first is not slow.

    Raises ``SetupError`` also when golden products are answered otherwise than at the export.
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
    warm_up(predictor, warm_up_products(spec.encoder, warm_up_sizes(settings, device)))
    return predictor


def open_encoder(
    directory: Path, spec: ModelSpec, device: Device, settings: ServingSettings
) -> ProductEncoder:
    """The encoder with everything that makes its inputs; not warmed up."""
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
        ),
        InputBuilder(encoder, tokenizer, on_gpu=device.kind == "cuda"),
        open_reader(
            encoder.image,
            device,
            max_pixels=settings.limits.max_pixels,
            threads=settings.decode_threads,
        ),
        max_forward_batch=settings.max_forward_batch,
        max_forward_pictures=pictures_at_once(settings, device),
        cache=EncodingCache(settings.cache_bytes) if settings.cache_bytes else None,
    )


def pictures_at_once(settings: ServingSettings, device: Device) -> int:
    """Return the maximum number that share a forward.

    Small forwards let the next pictures be decoded meanwhile; large ones are better where no
    thread or no core is left for that, and on a GPU, which decodes them itself.

    On two cores, 4 pictures at a time were 6 to 8 % faster than 8 at once with one worker of one
    thread, and 1 to 8 % slower with one of two threads or with two workers that do not overlap.
    """
    if settings.max_forward_pictures:
        return min(settings.max_forward_pictures, settings.max_forward_batch)
    idle_core = len(os.sched_getaffinity(0)) > settings.threads
    overlap = device.kind == "cpu" and settings.decode_threads > 1 and idle_core
    return min(4, settings.max_forward_batch) if overlap else settings.max_forward_batch
