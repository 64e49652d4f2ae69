"""Pictures: from bytes to uint8 tensors, and from those to the image tower's input."""

import io
import struct
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from newshelf.errors import BadPicture, TooLarge
from newshelf.nn.spec import ImageInput

__all__ = ["MAX_PIXELS", "decode_picture", "prepare_pictures"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MAX_PIXELS = 40_000_000
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")

# Pillow warns of damaged metadata, and of sizes for which the cap below is the stricter
# judge: lines that any client could fill a server's log with. Said once, here, since
# warnings.catch_warnings is not safe in the threads that decode.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_picture(
    data: bytes | bytearray | memoryview,
    *,
    max_pixels: int = MAX_PIXELS,
    short_side: int | None = None,
) -> Tensor:
    """Decode a picture as a person sees it.

    The first frame of an animation, turned as its EXIF orientation says, laid on white
    where it is transparent, in RGB whatever its colour space or depth.

    Args:
        data: the bytes of a JPEG, PNG, WebP or GIF.
        max_pixels: refused above, before any pixel is decoded.
        short_side: a JPEG may be decoded at a fraction of its size, as long as its short
            side keeps at least twice this many pixels.

    Returns:
        ``(3, height, width)`` uint8, on the CPU.

    Raises:
        BadPicture: not a picture of a known format, or a damaged one.
        TooLarge: more than ``max_pixels``.
    """
    if not data:
        raise BadPicture("the picture is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_pixels(picture.size, max_pixels)
            if short_side is not None:
                picture.draft(None, (2 * short_side, 2 * short_side))
            rgb = _to_rgb(picture)
    except UnidentifiedImageError as error:
        raise BadPicture("the bytes are no JPEG, PNG, WebP or GIF picture") from error
    except Image.DecompressionBombError as error:
        raise TooLarge(f"the picture has more than {max_pixels} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        raise BadPicture(f"the picture is damaged: {error}") from error
    return torch.from_numpy(np.array(rgb, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def prepare_pictures(
    pictures: Sequence[Tensor], spec: ImageInput, device: torch.device | str
) -> Tensor:
    """Centre-crop, resize and normalise on ``device``.

    The crop comes before the resize: the result is the same, and a picture of 1 × 10⁷
    pixels never grows.

    Args:
        pictures: ``(3, height, width)`` uint8 each, of any size.
        spec: the tower's size, crop, mean and standard deviation.
        device: where the work is done and the result lives.

    Returns:
        ``(len(pictures), 3, size, size)`` float32; ``(0, …)`` for none.
    """
    if not pictures:
        return torch.zeros((0, 3, spec.size, spec.size), device=device)
    resized = [_crop_and_resize(picture.to(device), spec) for picture in pictures]
    batch = torch.stack(resized)
    mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1)
    return (batch / 255.0 - mean) / std


def _crop_and_resize(picture: Tensor, spec: ImageInput) -> Tensor:
    height, width = picture.shape[-2:]
    side = max(1, round(min(height, width) * spec.crop))
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[:, top : top + side, left : left + side].float()
    if side == spec.size:
        return square
    size = (spec.size, spec.size)
    return F.interpolate(
        square.unsqueeze(0), size=size, mode="bilinear", antialias=True, align_corners=False
    ).squeeze(0)


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise TooLarge(
            f"the picture has {width} × {height} pixels; at most {max_pixels} are accepted"
        )


def _to_rgb(picture: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in _SIXTEEN_BIT:
        # convert("RGB") would clip everything above 255 to white.
        levels = np.asarray(upright, dtype=np.float32) / 257.0
        grey = Image.fromarray(levels.clip(0, 255).round().astype(np.uint8))
        return grey.convert("RGB")
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return upright.convert("RGB")
