"""A picture as it came, before it is decoded: as text within JSON, or as bytes."""

import io
from contextlib import suppress

import pybase64
from PIL import Image

from newshelf.catalog.picture_kind import READ_KINDS
from newshelf.errors import InvalidField, TooLarge

__all__ = ["check_size", "picture_from_base64", "pixels_of", "refuse_text"]

_BREAKS = "\n\r\t "
_TEXT_STARTS = (b"data:", b"/9j/", b"iVBORw", b"R0lGOD", b"UklGR")
"""Of a ``data:`` URL, and of JPEG, PNG, GIF and WebP in base64."""
_MEASURED = tuple(kind.upper() for kind in READ_KINDS)


def picture_from_base64(text: str, max_bytes: int) -> bytes:
    """The bytes of a picture in base64, perhaps with line breaks, perhaps as a ``data:`` URL.

    Raises:
        TooLarge: more than ``max_bytes``, measured before it is decoded.
        InvalidField: a URL, or not base64.
    """
    if text[:8].lower().startswith(("http:", "https:")):
        raise InvalidField("URLs are not fetched; send the picture's bytes in base64")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    # Some encoders break lines; nothing else may stand between the digits.
    digits = "".join(text.split()) if any(line in text for line in _BREAKS) else text
    if len(digits) // 4 * 3 > max_bytes + 3:
        raise TooLarge(
            f"the picture has about {len(digits) // 4 * 3} bytes; at most {max_bytes} are accepted"
        )
    try:
        data = pybase64.b64decode(digits, validate=True)
    except ValueError as error:
        raise InvalidField("not base64: a character that is no digit, or a wrong length") from error
    check_size(data, max_bytes)
    return data


def check_size(data: bytes | bytearray, max_bytes: int) -> None:
    """Refuse a picture of too many bytes.

    Raises:
        TooLarge: more than ``max_bytes``.
    """
    if len(data) > max_bytes:
        raise TooLarge(f"the picture has {len(data)} bytes; at most {max_bytes} are accepted")


def refuse_text(data: bytes | bytearray) -> None:
    """Refuse base64 where the bytes themselves belong.

    Raises:
        InvalidField: it begins like a picture in base64.
    """
    if data[:16].lstrip().startswith(_TEXT_STARTS):
        raise InvalidField(
            "this is text in base64: send the picture's bytes (curl: -F image=@FILE)"
        )


def pixels_of(data: bytes | bytearray) -> int:
    """Width times height, by the header; 0 for what is no picture, which nobody decodes."""
    with suppress(Exception), Image.open(io.BytesIO(data), formats=_MEASURED) as picture:
        return picture.width * picture.height
    return 0
