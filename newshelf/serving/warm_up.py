"""What a predictor computes before its first request, so that no request is the slow one."""

import base64
import ctypes
import io
import logging
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import orjson
from PIL import Image

from newshelf.errors import SetupError
from newshelf.nn.spec import EncoderSpec
from newshelf.serving.protocol import Answer, Predictor, RawRequest

__all__ = ["warm_up", "warm_up_products"]

_LOG = logging.getLogger(__name__)
_Body = Mapping[str, object]
_TRIED = 8
"""Pictures in the largest batch: with more of them it would take long."""


def warm_up_products(spec: EncoderSpec, pictures_at_once: int) -> list[list[_Body]]:
    """Batches of products: one of each kind, and each number of pictures that may come at once.

    OpenVINO prepares itself for each number of pictures when it first meets it, which takes
    15 to 55 ms.
    """
    # The brand: a tower for another language may know no word of the title.
    title: _Body = {}
    if spec.text is not None:
        title = {"title": "A ring of green jade", "brand": "Newshelf"}
    if spec.image is None:
        return [[title]]
    alone: list[list[_Body]] = [[{"image": _picture("alone")}], [title]] if title else []
    most = min(pictures_at_once, _TRIED)
    # Each batch has pictures of its own: those of another one may be answered from the cache.
    return alone + [
        [{"image": _picture(f"{at} of {count}"), **title} for at in range(count)]
        for count in range(1, most + 1)
    ]


def warm_up(predictor: Predictor, batches: Sequence[Sequence[_Body]]) -> None:
    """Answer each batch, a request per entry; free what only that took.

    Raises:
        SetupError: one was not answered with 200.
    """
    start = time.perf_counter()
    for batch in batches:
        rows = [RawRequest.unhurried(orjson.dumps(body)) for body in batch]
        _check(predictor.predict(rows))
    _give_back()
    _LOG.info("warmed up in %.1f s", time.perf_counter() - start)


def _picture(comment: str) -> str:
    """A JPEG in base64, of other bytes with another ``comment``."""
    picture = io.BytesIO()
    Image.new("RGB", (320, 240), (200, 180, 160)).save(picture, "JPEG", comment=comment)
    return base64.b64encode(picture.getvalue()).decode()


def _give_back() -> None:
    """Return to the system what loading and compiling have freed; glibc alone would keep it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _check(answers: Sequence[Answer]) -> None:
    for answer in answers:
        if answer.status != HTTPStatus.OK:
            raise SetupError(f"the model does not answer a plain request: {answer.body.decode()}")
