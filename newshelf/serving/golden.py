"""Golden products: their embeddings and scores at export, compared when an archive is loaded.

Another processor, runtime or precision may compute different values without an error: for example,
8-bit weights overflow on processors without VNNI.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from newshelf.config import Limits, Precision
from newshelf.errors import NewshelfError, SetupError
from newshelf.files import read_json, write_json
from newshelf.serving.encode import Encoding, ProductEncoder
from newshelf.serving.products import parse_products
from newshelf.serving.protocol import RawRequest
from newshelf.serving.runtimes.base import Device, ScorerGraphs
from newshelf.serving.search.base import FloatArray
from newshelf.serving.settings import GOLDEN, ServingSettings
from newshelf.serving.trace import StageTimer

_EXACT = (0.999, 0.995)
_LEAST_COSINE: Mapping[Precision, tuple[float, float]] = {
    "fp32": _EXACT,
    "bf16": _EXACT,
    "fp16": _EXACT,
    # The export's gate asks for a mean of 0.99 over 200 products; these are 16 of them.
    "int8": (0.985, 0.95),
}
"""Mean and least cosine to the embeddings of the export, which are in float32."""
_SCORE_TOLERANCE = 0.01
"""Absolute and relative: the scorer is always computed in float32."""


@dataclass(frozen=True)
class _Golden:
    requests: Sequence[Mapping[str, object]]
    """Bodies of requests to the encoder."""
    embeddings: FloatArray
    """``(N, 512)`` float32, of unit length."""
    scores: FloatArray | None
    """See ``_scores``; None without a scorer."""


def write_golden(
    directory: Path,
    requests: Sequence[Mapping[str, object]],
    encoder: ProductEncoder,
    scorer: ScorerGraphs | None,
) -> None:
    """Write golden products' embeddings and scores, but of those that cannot be encoded."""
    encoded = [
        (request, result.embedding)
        for request, result in zip(requests, _encode(encoder, requests), strict=True)
        if isinstance(result, Encoding)
    ]
    if not encoded:
        raise SetupError("the catalogue has no product with a text or picture that can be encoded")
    kept, rows = zip(*encoded, strict=True)
    embeddings = np.stack(rows)
    scores = None if scorer is None else _scores(scorer, embeddings).tolist()
    table = {"requests": kept, "embeddings": embeddings.tolist(), "scores": scores}
    write_json(directory / GOLDEN, table)


def check_golden_embeddings(
    directory: Path, encoder: ProductEncoder, settings: ServingSettings, device: Device
) -> None:
    """Raise ``SetupError`` if embeddings differ more than the precision explains."""
    golden = _read(directory)
    results = _encode(encoder, golden.requests)
    # A product that is refused here is as wrong as one can be.
    cosines = np.array(
        [
            result.embedding @ expected if isinstance(result, Encoding) else -1.0
            for result, expected in zip(results, golden.embeddings, strict=True)
        ]
    )
    mean, least = float(cosines.mean()), float(cosines.min())
    least_mean, least_one = _LEAST_COSINE[settings.precision]
    if mean >= least_mean and least >= least_one:
        return
    raise SetupError(
        f"{settings.runtime} in {settings.precision} on {_place(device)} answers otherwise than "
        f"the machine that exported the model: golden products have a mean cosine of {mean:.4f} "
        f"(at least {least_mean} is needed) and a least one of {least:.4f} ({least_one}). Export "
        'on a processor like this one, or set [archive] precision = "fp32"'
    )


def check_golden_scores(
    directory: Path, scorer: ScorerGraphs, settings: ServingSettings, device: Device
) -> None:
    """Raise ``SetupError`` if scores differ by more than ``_SCORE_TOLERANCE``."""
    golden = _read(directory)
    if golden.scores is None:
        raise SetupError(f"{directory / GOLDEN} has no scores, but the model a scorer: {_AGAIN}")
    computed = _scores(scorer, golden.embeddings)
    distance = np.abs(computed - golden.scores)
    allowed = _SCORE_TOLERANCE * (1 + np.abs(golden.scores))
    # Not the other way round: a score that is no number is an error, too.
    if (distance <= allowed).all():
        return
    raise SetupError(
        f"the scorer by {settings.runtime} on {_place(device)} answers otherwise than on the "
        f"machine that exported the model: golden scores differ by up to {distance.max():.4f}. "
        "Export on a processor like this one, or set another [archive] runtime"
    )


_AGAIN = "export and archive again"


def _read(directory: Path) -> _Golden:
    path = directory / GOLDEN
    try:
        table = read_json(path)
        scores = table["scores"]
        return _Golden(
            table["requests"],
            np.asarray(table["embeddings"], dtype=np.float32),
            None if scores is None else np.asarray(scores, dtype=np.float32),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{path} is missing or damaged: {_AGAIN} ({error})") from error


def _encode(
    encoder: ProductEncoder, requests: Sequence[Mapping[str, object]]
) -> list[Encoding | NewshelfError]:
    """Encode each; under the standard limits, whatever this archive's are."""
    products = []
    for request in requests:
        raw = RawRequest.unhurried(orjson.dumps(request))
        (product,), _ = parse_products(raw, Limits())
        if isinstance(product, NewshelfError):
            raise product
        products.append(product)
    return encoder.encode(products, StageTimer())


def _scores(scorer: ScorerGraphs, embeddings: FloatArray) -> FloatArray:
    """``(N,)``: each of the ``N`` golden products for a shopper who took the first few."""
    vectors = scorer.projector.run({"embedding": embeddings})["vector"]
    history = vectors[: min(scorer.max_history, len(vectors) // 2 or 1)]
    inputs = {
        "history": history[None],
        "history_mask": np.ones((1, len(history)), dtype=np.bool_),
        "candidates": vectors[None],
    }
    scores: FloatArray = scorer.scorer.run(inputs)["scores"][0]
    return scores


def _place(device: Device) -> str:
    if device.kind != "cpu":
        return str(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
