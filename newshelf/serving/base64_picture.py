"""A picture that came as text within JSON."""

import pybase64

from newshelf.errors import InvalidField, TooLarge

__all__ = ["check_size", "picture_from_base64"]

_BREAKS = "\n\r\t "


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
