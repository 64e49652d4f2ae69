"""Pictures to the encoder's input, by the two readers."""

import threading
import time

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from newshelf.catalog.schema import Product
from newshelf.errors import BadPicture, DeadlineExceeded, InvalidField, TooLarge
from newshelf.nn import gpu_inputs as gpu
from newshelf.nn.inputs import decode_picture, prepare_pictures
from newshelf.serving.preprocess import CpuReader, GpuReader, open_reader
from newshelf.serving.products import ProductInput, picture_from_base64
from newshelf.serving.runtimes.base import Device

MANY = 10_000_000


def inputs(*pictures, deadline_s=None):
    return [
        ProductInput(Product(), data, f"instances[{at}]", deadline_s)
        for at, data in enumerate(pictures)
    ]


@pytest.fixture
def image(spec):
    return spec.encoder.image


@pytest.mark.parametrize("threads", [1, 3])
def test_each_picture_is_in_its_row_and_errors_in_theirs(image, picture, threads):
    pictures = [picture(size=(20 + 9 * at, 20)) for at in range(7)]
    pictures[3] = b"damaged"
    read = CpuReader(image, max_pixels=MANY, threads=threads).start(inputs(*pictures))()
    assert list(read.failed) == [3]
    assert isinstance(read.failed[3], BadPicture)
    assert read.failed[3].field == "instances[3].image"
    assert read.images.shape == (7, 3, 32, 32)
    assert read.images.dtype == np.float32
    for at, data in enumerate(pictures):
        if at != 3:
            [alone] = prepare_pictures([decode_picture(data, image)], image)
            np.testing.assert_array_equal(read.images[at], alone)


@pytest.mark.parametrize(
    ("threads", "pictures", "own"), [(2, 1, True), (2, 2, False), (1, 1, True), (1, 2, True)]
)
def test_what_cannot_be_done_side_by_side_is_done_by_who_asks(
    image, picture, monkeypatch, threads, pictures, own
):
    seen = []
    monkeypatch.setattr(
        "newshelf.serving.preprocess.prepare_picture",
        lambda *_args, **_options: seen.append(threading.current_thread()),
    )
    reader = CpuReader(image, max_pixels=MANY, threads=threads)
    reader.start(inputs(*[picture()] * pictures))()
    assert [thread == threading.current_thread() for thread in seen] == [own] * pictures


def test_decoding_goes_on_while_nobody_waits(image, monkeypatch):
    done = threading.Barrier(3, timeout=30)
    monkeypatch.setattr(
        "newshelf.serving.preprocess.prepare_picture", lambda *_args, **_options: done.wait()
    )
    wait = CpuReader(image, max_pixels=MANY, threads=2).start(inputs(b"x", b"y"))
    # Passes only if both are being decoded now.
    done.wait()
    assert not wait().failed


def test_nothing_to_decode(image):
    read = CpuReader(image, max_pixels=MANY, threads=2).start([])()
    assert len(read.images) == 0
    assert not read.failed


def test_a_picture_of_a_late_request_is_not_decoded(image, picture, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("it was decoded")

    monkeypatch.setattr("newshelf.serving.preprocess.prepare_picture", refuse)
    late = inputs(picture(), picture(), deadline_s=time.monotonic() - 0.01)
    read = CpuReader(image, max_pixels=MANY, threads=1).start(late)()
    assert [type(error) for error in read.failed.values()] == [DeadlineExceeded] * 2


def test_pixels_are_limited(image, picture):
    reader = CpuReader(image, max_pixels=60 * 40 - 1, threads=1)
    assert isinstance(reader.start(inputs(picture()))().failed[0], TooLarge)


def test_without_an_image_tower_pictures_are_checked(picture):
    reader = open_reader(None, Device("cuda"), max_pixels=MANY, threads=1)
    assert isinstance(reader, CpuReader)
    assert list(reader.start(inputs(picture(), b"damaged"))().failed) == [1]


def test_the_device_chooses_the_reader(image):
    on_cpu = open_reader(image, Device(), max_pixels=MANY, threads=1)
    on_gpu = open_reader(image, Device("cuda", 1), max_pixels=MANY, threads=1)
    assert (type(on_cpu), type(on_gpu)) == (CpuReader, GpuReader)


def test_a_gpu_reads_pictures_there(image, picture, monkeypatch):
    def decode_jpeg(batch, *, mode, device):
        return [torch.empty((3, 40, 60), dtype=torch.uint8, device=device) for _ in batch]

    monkeypatch.setattr(gpu, "decode_jpeg", decode_jpeg)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    reader = open_reader(image, Device("cuda", 1), max_pixels=MANY, threads=1)
    given = inputs(picture("JPEG"), b"damaged", picture("PNG"))
    with FakeTensorMode():
        read = reader.start(given)()
    assert str(read.images.device) == "cuda:1"
    assert read.images.shape == (3, 3, 32, 32)
    assert [(at, error.field) for at, error in read.failed.items()] == [(1, "instances[1].image")]


def test_base64_is_measured_before_it_is_decoded(b64):
    with pytest.raises(TooLarge, match="about 300"):
        picture_from_base64(b64(bytes(3001 + 3)), 3000)
    assert picture_from_base64(b64(bytes(3000)), 3000) == bytes(3000)
    with pytest.raises(TooLarge, match="3001 bytes"):
        picture_from_base64(b64(bytes(3001)), 3000)


@pytest.mark.parametrize("text", ["!!", "abc", "ab=c", "é" * 8, "https://a.b/c.jpg"])
def test_what_is_not_base64_is_refused(text):
    with pytest.raises(InvalidField):
        picture_from_base64(text, 3000)


def test_base64_may_have_line_breaks_and_a_prefix(b64):
    text = b64(bytes(range(256)))
    broken = "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    assert picture_from_base64(f"data:image/png;base64,{broken}", 3000) == bytes(range(256))
