"""Bytes of a picture to its pixels as a person sees them; no torch."""

import io
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from newshelf.catalog.picture_kind import READ_KINDS, picture_kind
from newshelf.errors import BadPicture, TooLarge

__all__ = ["MAX_PIXELS", "upright_picture"]

FORMATS = tuple(kind.upper() for kind in READ_KINDS)
MAX_PIXELS = 40_000_000
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
"""A JPEG's markers of a scan and of the end."""
_TAILS = (
    b"",
    b"".join(bytes([*range(254, 0, -1), 0xFF, marker]) for marker in range(0xD0, 0xD8)),
)
"""What may follow where a JPEG was cut, without and with restart markers: none of it is seen in
a picture that is whole."""
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")

# Pillow warns of damaged metadata, and of sizes for which the cap below is the stricter
# judge: lines that any client could fill a server's log with. Said once, here, since
# warnings.catch_warnings is not safe in the threads that decode.
warnings.filterwarnings("ignore", module=r"PIL\.")


def upright_picture(
    data: bytes | bytearray | memoryview,
    *,
    max_pixels: int = MAX_PIXELS,
    least_side: int | None = None,
) -> Image.Image:
    """Decode a picture as a person sees it.

    The first frame of an animation, turned as its EXIF orientation says, laid on white
    where it is transparent, in RGB whatever its colour space or depth.

    Args:
        data: the bytes of a JPEG, PNG, WebP or GIF.
        max_pixels: refused above, before any pixel is decoded.
        least_side: a JPEG may be decoded at a half, a quarter or an eighth of its size, as
            long as its short side keeps at least this many pixels.

    Raises:
        BadPicture: not a picture of a known format, or a damaged one.
        TooLarge: more than ``max_pixels``.
    """
    if not data:
        raise BadPicture("the picture is empty (0 bytes)")
    try:
        return _decoded(data, max_pixels, least_side)
    except UnidentifiedImageError as error:
        kind = picture_kind(data)
        wanted = f"{', '.join(READ_KINDS[:-1])} or {READ_KINDS[-1]}"
        if kind is None or kind in READ_KINDS:
            raise BadPicture(f"the bytes are no {wanted} picture") from error
        raise BadPicture(f"this is {kind}, and no {wanted}: send one of these") from error
    except Image.DecompressionBombError as error:
        raise TooLarge(f"the picture has more than {max_pixels} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        if whole := _without_end(data, max_pixels, least_side):
            return whole
        raise BadPicture(f"the picture is damaged: {error}") from error


def _decoded(
    data: bytes | bytearray | memoryview, max_pixels: int, least_side: int | None
) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        _check_pixels(picture.size, max_pixels)
        if least_side is not None:
            picture.draft(None, (least_side, least_side))
        return _to_rgb(picture)


def _without_end(
    data: bytes | bytearray | memoryview, max_pixels: int, least_side: int | None
) -> Image.Image | None:
    """A JPEG that lacks its end marker and nothing else; None for anything else.

    The decoder fills up what is missing, without a word. So it is given two different tails:
    where they show, a part of the picture is missing.
    """
    cut = bytes(data).rstrip(b"\xff")
    header = cut.rfind(_SCAN) + len(_SCAN)
    last = header + int.from_bytes(cut[header : header + 2])
    coefficient, bits = cut[last - 2 : last - 1], cut[last - 1 : last]
    if picture_kind(cut) != "JPEG" or cut.endswith(_END) or coefficient != b"\x3f":
        return None
    if not bits or bits[0] & 0xF:  # A progressive picture, whose further scans are missing.
        return None
    try:
        first, second = (_decoded(cut + tail + _END, max_pixels, least_side) for tail in _TAILS)
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error):
        return None
    return first if first.tobytes() == second.tobytes() else None


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise TooLarge(
            f"the picture has {width} × {height} pixels; at most {max_pixels} are accepted"
        )


def _to_rgb(picture: Image.Image) -> Image.Image:
    # In place, and converted only where that changes something: each would copy the pixels.
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode in _SIXTEEN_BIT:
        # convert("RGB") would clip everything above 255 to white.
        levels = np.asarray(picture, dtype=np.float32) / 257.0
        grey = Image.fromarray(levels.clip(0, 255).round().astype(np.uint8))
        return grey.convert("RGB")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")
