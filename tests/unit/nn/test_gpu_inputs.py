"""A GPU's way of reading pictures, on a machine without one.

Its arithmetic runs on the CPU; its devices are checked under FakeTensorMode.
"""

import io

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch._subclasses.fake_tensor import FakeTensorMode

from newshelf.errors import BadPicture, TooLarge
from newshelf.nn import gpu_inputs as gpu
from newshelf.nn.inputs import decode_picture, prepare_pictures
from newshelf.nn.spec import ImageInput

SPEC = ImageInput(
    architecture="any", features=1, size=24, crop=0.9, mean=(0.1, 0.5, 0.7), std=(0.2, 0.4, 0.5)
)
CPU = torch.device("cpu")


def quarters() -> Image.Image:
    picture = Image.new("RGB", (96, 64), "white")
    picture.paste("red", (0, 0, 48, 32))
    picture.paste("lime", (48, 0, 96, 32))
    picture.paste("blue", (0, 32, 48, 64))
    return picture


@pytest.fixture
def decoder(monkeypatch):
    """Stands for nvJPEG: decodes by Pillow, and keeps the sizes of its calls."""
    calls: list[int] = []

    def decode_jpeg(batch, *, mode, device):
        calls.append(len(batch))
        pictures = [Image.open(io.BytesIO(data.numpy().tobytes())) for data in batch]
        return [
            torch.tensor(np.asarray(picture.convert("RGB"))).permute(2, 0, 1)
            for picture in pictures
        ]

    monkeypatch.setattr(gpu, "decode_jpeg", decode_jpeg)
    return calls


def on_cpu(*pictures: bytes) -> np.ndarray:
    return prepare_pictures([decode_picture(data, SPEC) for data in pictures], SPEC)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_on_the_cpu(saved, decoder, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = saved(quarters(), "JPEG", exif=exif)
    images, failed = gpu.decode_on_gpu([data], SPEC, CPU)
    assert not failed
    # A level or two of 255, where Pillow rounds and torch does not.
    np.testing.assert_allclose(images.numpy(), on_cpu(data), atol=2 / 255 / min(SPEC.std))
    assert decoder == [1]


def test_only_what_the_gpu_can_decode_is_given_to_it(saved, decoder):
    jpeg = saved(quarters(), "JPEG")
    given = [
        jpeg,
        saved(quarters(), "PNG"),
        saved(quarters().convert("CMYK"), "JPEG"),
        jpeg[: len(jpeg) // 2],
        b"",
        saved(quarters().convert("L"), "JPEG"),
    ]
    images, failed = gpu.decode_on_gpu(given, SPEC, CPU)
    assert decoder == [2]
    assert {at: type(error) for at, error in failed.items()} == {3: BadPicture, 4: BadPicture}
    good = [0, 1, 2, 5]
    expected = on_cpu(*(given[at] for at in good))
    np.testing.assert_allclose(images.numpy()[good], expected, atol=2 / 255 / min(SPEC.std))


def test_too_many_pixels_are_refused_by_the_header(saved, decoder):
    _, failed = gpu.decode_on_gpu([saved(quarters(), "JPEG")], SPEC, CPU, max_pixels=96 * 64 - 1)
    assert isinstance(failed[0], TooLarge)
    assert decoder == []


def test_what_the_gpu_refuses_is_decoded_on_the_cpu(saved, monkeypatch):
    def refuse(*_arguments, **_options):
        raise RuntimeError("nvjpegDecode failed: 3")

    monkeypatch.setattr(gpu, "decode_jpeg", refuse)
    data = saved(quarters(), "JPEG")
    images, failed = gpu.decode_on_gpu([data, b"damaged"], SPEC, CPU)
    np.testing.assert_allclose(images.numpy()[:1], on_cpu(data), atol=1e-5)
    assert list(failed) == [1]


def test_only_the_picture_that_the_gpu_refuses_leaves_it(saved, decoder, monkeypatch):
    refused = saved(Image.new("RGB", (30, 40), "red"), "JPEG")
    decode = gpu.decode_jpeg

    def decode_some(batch, *, mode, device):
        if any(data.numpy().tobytes() == refused for data in batch):
            raise RuntimeError("nvjpegDecodeBatched failed: 5")
        return decode(batch, mode=mode, device=device)

    monkeypatch.setattr(gpu, "decode_jpeg", decode_some)
    given = [saved(quarters().resize((96 + at, 64)), "JPEG") for at in range(4)]
    given.insert(3, refused)
    images, failed = gpu.decode_on_gpu(given, SPEC, CPU)
    assert not failed
    assert sum(decoder) == 4
    np.testing.assert_allclose(images.numpy(), on_cpu(*given), atol=2 / 255 / min(SPEC.std))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_what_is_no_pictures_fault_is_not_blamed_on_one(saved, monkeypatch, error):
    def fail(*_arguments, **_options):
        raise error("CUDA error")

    monkeypatch.setattr(gpu, "decode_jpeg", fail)
    with pytest.raises(error):
        gpu.decode_on_gpu([saved(quarters(), "JPEG")], SPEC, CPU)


@pytest.fixture
def gpu_without_memory(monkeypatch):
    """Tensors on a GPU that is not there; nothing can be page-locked for it."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    with FakeTensorMode():
        yield torch.device("cuda", 0)


def test_the_decoder_waits_for_what_still_reads_its_last_pictures(
    saved, monkeypatch, gpu_without_memory
):
    done: list[str] = []
    device = gpu_without_memory

    class Stream:
        def synchronize(self) -> None:
            done.append("waited")

    def decode_jpeg(batch, *, mode, device):
        done.append("decoded")
        return [torch.empty((3, 64, 96), dtype=torch.uint8, device=device) for _ in batch]

    monkeypatch.setattr(gpu, "decode_jpeg", decode_jpeg)
    monkeypatch.setattr(gpu, "_MAX_BATCH_PIXELS", 96 * 64)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda of: Stream() if of == device else None)
    gpu.decode_on_gpu([saved(quarters(), "JPEG")] * 3, SPEC, device)
    assert done == ["decoded", "waited", "decoded", "waited", "decoded"]


def test_few_pixels_are_on_the_gpu_at_a_time(saved, decoder, monkeypatch):
    monkeypatch.setattr(gpu, "_MAX_BATCH_PIXELS", 2 * 96 * 64)
    data = [saved(quarters(), "JPEG")] * 5
    images, _ = gpu.decode_on_gpu(data, SPEC, CPU)
    assert decoder == [2, 2, 1]
    np.testing.assert_allclose(images.numpy(), images.numpy()[:1].repeat(5, axis=0))


def test_everything_is_on_the_device_that_was_named(saved, monkeypatch, gpu_without_memory):
    device = gpu_without_memory

    def decode_jpeg(batch, *, mode, device):
        return [torch.empty((3, 64, 96), dtype=torch.uint8, device=device) for _ in batch]

    monkeypatch.setattr(gpu, "decode_jpeg", decode_jpeg)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 7
    given = [saved(quarters(), "JPEG", exif=exif), saved(quarters(), "PNG")]
    images, failed = gpu.decode_on_gpu(given, SPEC, device)
    assert not failed
    assert images.device == device
    assert images.shape == (2, 3, 24, 24)
