import threading

import pytest
import torch

from newshelf.catalog.schema import Product
from newshelf.errors import BadPicture, TooLarge
from newshelf.serving.decode import PictureDecoder
from newshelf.serving.limits import Limits
from newshelf.serving.products import ProductInput


def inputs(*pictures):
    return [ProductInput(Product(), data, f"instances[{at}]") for at, data in enumerate(pictures)]


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_with_errors_in_their_place(picture, b64, threads):
    decoder = PictureDecoder(Limits(), threads)
    sizes = [(10 + at, 20) for at in range(7)]
    pictures = [
        picture(size=size) if at % 2 else b64(picture(size=size)) for at, size in enumerate(sizes)
    ]
    pictures[3] = b"damaged"
    results = list(decoder.decode(inputs(*pictures)))
    assert isinstance(results[3], BadPicture)
    assert results[3].field == "instances[3].image"
    for at, result in enumerate(results):
        if at != 3:
            assert tuple(result.shape) == (3, 20, 10 + at)
            assert result.dtype == torch.uint8


def test_few_decoded_pictures_wait_at_a_time(monkeypatch):
    """However many pictures a request has, memory holds only those of the threads."""
    started = []
    lock = threading.Lock()

    def counted(data, **_options):
        with lock:
            started.append(data)
        return torch.zeros((3, 1, 1), dtype=torch.uint8)

    monkeypatch.setattr("newshelf.serving.decode.decode_picture", counted)
    results = PictureDecoder(Limits(), 2).decode(inputs(*[b"x"] * 50))
    for taken, _ in enumerate(results, start=1):
        assert len(started) <= taken + 2
    assert taken == len(started) == 50


def test_nothing_to_decode(picture):
    assert list(PictureDecoder(Limits(), 2).decode([])) == []


def test_a_large_jpeg_is_decoded_at_a_fraction(picture):
    data = picture("JPEG", size=(1600, 1200))
    [small] = PictureDecoder(Limits(), 1, short_side=100).decode(inputs(data))
    [full] = PictureDecoder(Limits(), 1).decode(inputs(data))
    assert tuple(full.shape) == (3, 1200, 1600)
    assert 200 <= small.shape[1] < 600


def test_base64_is_measured_before_it_is_decoded(b64):
    decoder = PictureDecoder(Limits(max_picture_bytes=3000), 1)
    assert isinstance(decoder.decode_one(inputs(b64(bytes(3001 + 3)))[0]), TooLarge)
    # Of a size that is accepted, though no picture.
    assert isinstance(decoder.decode_one(inputs(b64(bytes(3000)))[0]), BadPicture)
