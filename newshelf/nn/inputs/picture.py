"""Pictures: from bytes to the image tower's input. One code for training and serving.

Decoding and normalising let go of the interpreter's lock, so threads do them side by side; the
resize between them, .1 to .3 ms, holds it. On a GPU ``newshelf.nn.inputs.gpu`` does the same;
``tests.decode_agreement`` compares the two.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image

from newshelf.nn.inputs.upright import MAX_PIXELS, upright_picture
from newshelf.nn.spec import ImageInput

__all__ = ["decode_picture", "normalise_picture", "prepare_picture", "prepare_pictures"]

_SPARE = 1.5
"""A JPEG decoded at a fraction of its size keeps this many times the pixels that are wanted.
Mean cosine of the packaged tower's features to those of whole pictures, home and jewellery:
0.97 to 0.993 with 1, 0.995 to 0.999 with 1.5, 0.999 with 2."""
_BILINEAR = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.bilinear))
"""Pillow's bilinear filter within a level of 255, by the processor's vector instructions: a fifth
of Pillow's time. As wide as what one new pixel covers: it antialiases."""


def decode_picture(
    data: bytes | bytearray | memoryview,
    spec: ImageInput,
    *,
    max_pixels: int = MAX_PIXELS,
    scaled: bool = True,
    whole: bool = False,
) -> NDArray[np.uint8]:
    """Decode a picture, cut its centre square out and resize that.

    The crop comes before the resize: the result is the same, and a picture of 1 × 10⁷
    pixels never grows.

    Args:
        data: the bytes of a JPEG, PNG, WebP or GIF.
        spec: the tower's size and crop.
        max_pixels: refused above, before any pixel is decoded.
        scaled: let a large JPEG be decoded at a fraction of its size.
        whole: squeeze the whole picture into the square instead of cutting the centre out.

    Returns:
        ``(size, size, 3)`` uint8.

    Raises:
        BadPicture: not a picture of a known format, or a damaged one.
        TooLarge: more than ``max_pixels``.
    """
    least = math.ceil(_SPARE * spec.size / spec.crop) if scaled else None
    picture = upright_picture(data, max_pixels=max_pixels, least_side=least)
    if not whole:
        # Not resize's own box: beyond that, the filter would still see the picture.
        picture = picture.crop(centre_box(picture.width, picture.height, spec.crop))
    resized = Image.new("RGB", (spec.size, spec.size))
    Resizer().resize_pil(picture, resized, _BILINEAR)
    return np.asarray(resized)


def normalise_picture(
    pixels: NDArray[np.uint8], spec: ImageInput, out: NDArray[np.float32]
) -> None:
    """``(size, size, 3)`` uint8 → ``(pixels / 255 - mean) / std``, ``(3, size, size)``.

    Args:
        pixels: from ``decode_picture``.
        spec: the tower's mean and standard deviation.
        out: ``(3, size, size)`` float32, which is written.
    """
    std = np.array(spec.std, dtype=np.float32).reshape(3, 1, 1)
    mean = np.array(spec.mean, dtype=np.float32).reshape(3, 1, 1)
    # By channel first, while a level is one byte and not four.
    levels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    np.multiply(levels, 1 / (255 * std), out=out)
    np.subtract(out, mean / std, out=out)


def prepare_picture(
    data: bytes | bytearray | memoryview,
    spec: ImageInput,
    out: NDArray[np.float32],
    *,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """``decode_picture``, then ``normalise_picture`` into ``out (3, size, size)`` float32.

    Raises:
        BadPicture: not a picture of a known format, or a damaged one.
        TooLarge: more than ``max_pixels``.
    """
    normalise_picture(decode_picture(data, spec, max_pixels=max_pixels), spec, out)


def prepare_pictures(
    pictures: Sequence[NDArray[np.uint8]], spec: ImageInput
) -> NDArray[np.float32]:
    """``normalise_picture`` of each ``(size, size, 3)`` uint8 → ``(N, 3, size, size)``."""
    batch: NDArray[Any] = np.empty((len(pictures), 3, spec.size, spec.size), dtype=np.float32)
    for pixels, row in zip(pictures, batch, strict=True):
        normalise_picture(pixels, spec, row)
    return batch


def centre_box(width: int, height: int, crop: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the centre square, ``crop`` of the short side long."""
    side = max(1, round(min(height, width) * crop))
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
