"""Decoding, cropping and resizing of pictures on a GPU (nvJPEG), in batches.

Imports torch, and is imported only with a GPU. The CPU decodes what the GPU does not decode
correctly: other formats, CMYK or damaged JPEGs, and whatever its decoder refuses.
"""

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import ExifTags, Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import ImageReadMode, decode_jpeg

from newshelf.errors import BadPicture, RequestError
from newshelf.nn.inputs import MAX_PIXELS, centre_box, decode_picture
from newshelf.nn.spec import ImageInput

_LOG = logging.getLogger(__name__)
_MAX_BATCH_PIXELS = 64_000_000
"""Pixels per call of the GPU's decoder; each takes three bytes of its memory."""
_END = b"\xff\xd9"
"""Last two bytes of a complete JPEG; the GPU may not notice if they are missing."""


@dataclass(frozen=True, slots=True)
class _Jpeg:
    at: int
    """Its position among the pictures."""
    data: bytes | bytearray
    pixels: int
    orientation: int
    """EXIF's, 1 to 8; 1 is upright."""


def decode_on_gpu(
    pictures: Sequence[bytes | bytearray],
    spec: ImageInput,
    device: torch.device,
    *,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Tensor, dict[int, RequestError]]:
    """Decode, orient, crop, resize and normalise on ``device``, a CUDA device.

    Returns ``(N, 3, size, size)`` float32 on ``device``, and errors by position; the rows of
    failed pictures are undefined.
    """
    squares = torch.zeros((len(pictures), 3, spec.size, spec.size), device=device)
    done: set[int] = set()
    for jpegs in _jpeg_batches(pictures, max_pixels):
        # Empty if the GPU refused the batch.
        for jpeg, picture in zip(jpegs, _decoded(jpegs, device), strict=False):
            squares[jpeg.at] = crop_and_resize(_oriented(picture, jpeg.orientation), spec)
            done.add(jpeg.at)
    failed: dict[int, RequestError] = {}
    for at in range(len(pictures)):
        if at in done:
            continue
        try:
            pixels = decode_picture(pictures[at], spec, max_pixels=max_pixels)
        except RequestError as error:
            failed[at] = error
        except Exception:
            # Decoders raise many exceptions on hostile bytes; none may fail the batch.
            _LOG.warning("a picture could not be decoded", exc_info=True)
            failed[at] = BadPicture("the picture cannot be decoded")
        else:
            squares[at] = torch.tensor(pixels).permute(2, 0, 1).to(device)
    return normalise_pictures(squares, spec), failed


def crop_and_resize(picture: Tensor, spec: ImageInput) -> Tensor:
    """Return the centre of ``(3, height, width)`` uint8 as ``(3, size, size)`` float32, 0 … 255."""
    left, top, right, bottom = centre_box(picture.shape[2], picture.shape[1], spec.crop)
    square = picture[:, top:bottom, left:right].float()
    if right - left == spec.size:
        return square
    size = (spec.size, spec.size)
    return F.interpolate(
        square.unsqueeze(0), size=size, mode="bilinear", antialias=True, align_corners=False
    ).squeeze(0)


def normalise_pictures(squares: Tensor, spec: ImageInput) -> Tensor:
    """``(pixels / 255 - mean) / std`` of ``(N, 3, size, size)`` float32 in 0 … 255."""
    mean = torch.tensor(spec.mean, device=squares.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=squares.device).view(1, 3, 1, 1)
    return (squares / 255.0 - mean) / std


def _jpeg_batches(pictures: Sequence[bytes | bytearray], max_pixels: int) -> Iterator[list[_Jpeg]]:
    """Yield the pictures that the GPU can decode, in batches that fit into its memory."""
    batch: list[_Jpeg] = []
    for at, data in enumerate(pictures):
        jpeg = _as_jpeg(at, data)
        if jpeg is None or jpeg.pixels > max_pixels:
            continue
        if batch and sum(item.pixels for item in batch) + jpeg.pixels > _MAX_BATCH_PIXELS:
            yield batch
            batch = []
        batch.append(jpeg)
    if batch:
        yield batch


def _as_jpeg(at: int, data: bytes | bytearray) -> _Jpeg | None:
    """Read a JPEG's header; return None if the GPU cannot decode the picture reliably."""
    if bytes(data[-2:]) != _END:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            if picture.mode not in ("RGB", "L"):
                return None
            width, height = picture.size
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # The CPU's decoder has the better error messages.
        _LOG.debug("a picture is left to the CPU", exc_info=True)
        return None
    return _Jpeg(at, data, width * height, orientation if orientation in range(1, 9) else 1)


def _decoded(jpegs: Sequence[_Jpeg], device: torch.device) -> list[Tensor]:
    """Return ``(3, height, width)`` uint8 pictures; an empty list if the decoder refuses one."""
    # A bytearray, because torch warns about read-only buffers.
    data = [torch.frombuffer(bytearray(jpeg.data), dtype=torch.uint8) for jpeg in jpegs]
    try:
        return list(decode_jpeg(data, mode=ImageReadMode.RGB, device=device))
    except RuntimeError:
        _LOG.info("%d JPEGs are decoded on the CPU instead", len(jpegs), exc_info=True)
        return []


def _oriented(picture: Tensor, orientation: int) -> Tensor:
    """Return a ``(3, height, width)`` picture oriented by EXIF's ``orientation``."""
    if orientation in (5, 6, 7, 8):
        picture = picture.transpose(1, 2)
    if orientation in (2, 3, 6, 7):
        picture = picture.flip(2)
    if orientation in (3, 4, 7, 8):
        picture = picture.flip(1)
    return picture
