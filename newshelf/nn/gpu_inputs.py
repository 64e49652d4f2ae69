"""Pictures on a GPU: JPEGs decoded there in batches (nvJPEG), then cropped and resized there.

Imports torch, and is imported only where a GPU is. What the GPU does not decode as a person
sees it (other formats, four-colour or damaged JPEGs, and whatever its decoder refuses) is
decoded on the CPU, one by one.
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
_PIXELS_AT_A_TIME = 64_000_000
"""Of the JPEGs of one call to the GPU's decoder: three bytes each in its memory."""
_END = b"\xff\xd9"
"""A JPEG's last two bytes; without them it was cut off, which the GPU may not notice."""


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
    """Decode, turn upright, crop, resize and normalise on ``device``.

    Args:
        pictures: the bytes of N pictures of any accepted format.
        spec: the tower's size, crop, mean and standard deviation.
        device: a CUDA device.
        max_pixels: of one picture; those with more are refused by their header.

    Returns:
        ``(N, 3, size, size)`` float32 on ``device``, and why some could not be decoded, by
        position; their rows hold nothing of meaning.
    """
    squares = torch.zeros((len(pictures), 3, spec.size, spec.size), device=device)
    done: set[int] = set()
    for jpegs in _in_turns(pictures, max_pixels):
        # None when the GPU refused them; else as many as were given.
        for jpeg, picture in zip(jpegs, _decoded(jpegs, device), strict=False):
            [squares[jpeg.at]] = resize_pictures([_turned(picture, jpeg.orientation)], spec)
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
            # Decoders fail in many ways on hostile bytes; none of them is worth a batch.
            _LOG.warning("a picture could not be decoded", exc_info=True)
            failed[at] = BadPicture("the picture cannot be decoded")
        else:
            squares[at] = torch.tensor(pixels).permute(2, 0, 1).to(device)
    return normalise_pictures(squares, spec), failed


def resize_pictures(pictures: Sequence[Tensor], spec: ImageInput) -> Tensor:
    """Cut the centre square out and resize it, where the pictures are.

    Args:
        pictures: ``(3, height, width)`` uint8 each, at least one, of any size.
        spec: the tower's size and crop.

    Returns:
        ``(len(pictures), 3, size, size)`` float32 in 0 … 255.
    """
    return torch.stack([_crop_and_resize(picture, spec) for picture in pictures])


def _crop_and_resize(picture: Tensor, spec: ImageInput) -> Tensor:
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


def _in_turns(pictures: Sequence[bytes | bytearray], max_pixels: int) -> Iterator[list[_Jpeg]]:
    """Yield the pictures that the GPU can decode, in groups that fit into its memory."""
    turn: list[_Jpeg] = []
    for at, data in enumerate(pictures):
        jpeg = _as_jpeg(at, data)
        if jpeg is None or jpeg.pixels > max_pixels:
            continue
        if turn and sum(item.pixels for item in turn) + jpeg.pixels > _PIXELS_AT_A_TIME:
            yield turn
            turn = []
        turn.append(jpeg)
    if turn:
        yield turn


def _as_jpeg(at: int, data: bytes | bytearray) -> _Jpeg | None:
    """Return the header's content, or None if the GPU cannot decode the picture reliably."""
    if bytes(data[-2:]) != _END:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            if picture.mode not in ("RGB", "L"):
                return None
            width, height = picture.size
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Whatever is wrong with it, the CPU's decoder will say it better.
        _LOG.debug("a picture is left to the CPU", exc_info=True)
        return None
    return _Jpeg(at, data, width * height, orientation if orientation in range(1, 9) else 1)


def _decoded(jpegs: Sequence[_Jpeg], device: torch.device) -> list[Tensor]:
    """``(3, height, width)`` uint8 each on ``device``; none when the decoder refuses one."""
    # bytearray: torch warns of buffers that it must not write to.
    data = [torch.frombuffer(bytearray(jpeg.data), dtype=torch.uint8) for jpeg in jpegs]
    try:
        return list(decode_jpeg(data, mode=ImageReadMode.RGB, device=device))
    except RuntimeError:
        _LOG.info("%d JPEGs are decoded on the CPU instead", len(jpegs), exc_info=True)
        return []


def _turned(picture: Tensor, orientation: int) -> Tensor:
    """``(3, height, width)`` as EXIF's ``orientation`` says that it is to be seen."""
    if orientation in (5, 6, 7, 8):
        picture = picture.transpose(1, 2)
    if orientation in (2, 3, 6, 7):
        picture = picture.flip(2)
    if orientation in (3, 4, 7, 8):
        picture = picture.flip(1)
    return picture
