"""A product's picture, text and attributes as the encoder's inputs; no torch.

Training and serving share this code. Decoding and normalising a picture release the GIL, so
threads run them in parallel; the resize between them, .1 to .3 ms, holds it. On a GPU
``newshelf.nn.gpu_inputs`` does the same.

A text that the tokenizer cannot read counts as absent: to an English vocabulary a Thai text is
only ``[UNK]``, and all products of a Thai shop would have the same text.

Attributes are hashed (Weinberger et al., 2009): a bucket depends on the value alone, so a brand
that training has never seen needs no vocabulary.
"""

import hashlib
import io
import math
import struct
import warnings
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import tokenizers
from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from newshelf.catalog.schema import READ_KINDS, Product, category_levels, picture_kind, split_values
from newshelf.errors import BadPicture, TooLarge
from newshelf.nn.spec import AttributeInput, ImageInput

FORMATS = tuple(kind.upper() for kind in READ_KINDS)
MAX_PIXELS = 40_000_000
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
"""A JPEG's markers of a scan and of the end."""
_TAILS = (
    b"",
    b"".join(bytes([*range(254, 0, -1), 0xFF, marker]) for marker in range(0xD0, 0xD8)),
)
"""Endings for a JPEG without end marker, without and with restart markers. Neither is visible if
the picture is complete."""
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")

# Any client could fill a server's log with Pillow's warnings about metadata and sizes. Filtered
# here, because warnings.catch_warnings is not safe in decoding threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_rgb(
    data: bytes | bytearray | memoryview,
    *,
    max_pixels: int = MAX_PIXELS,
    least_side: int | None = None,
) -> Image.Image:
    """Decode a picture to RGB, oriented by its EXIF data; white where it is transparent.

    ``max_pixels`` are checked before any pixel is decoded. ``least_side`` allows decoding a JPEG at
    a half, a quarter or an eighth of its size, if the short side keeps at least this number of
    pixels.

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
    """Decode a JPEG that lacks nothing but its end marker; return None for any other data.

    The decoder fills missing parts silently. So two different endings are decoded: if the results
    differ, a part of the picture is missing.
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
    # In place, and converted only if necessary: each step would copy the pixels.
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


_OVERSAMPLING = 1.5
"""Minimum side of a JPEG decoded at a fraction of its size, relative to the side that is needed.
Mean cosine of the packaged tower's features to those of whole pictures, home and jewellery: 0.97
to 0.993 with 1, 0.995 to 0.999 with 1.5, 0.999 with 2."""
_BILINEAR = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.bilinear))
"""Pillow's antialiasing bilinear filter within one level of 255, with vector instructions: a fifth
of Pillow's time."""


def decode_picture(
    data: bytes | bytearray | memoryview,
    spec: ImageInput,
    *,
    max_pixels: int = MAX_PIXELS,
    scaled: bool = True,
) -> NDArray[np.uint8]:
    """Return a picture's centre square as ``(size, size, 3)`` uint8; errors are ``decode_rgb``'s.

    The crop comes first: the result is the same, and a picture of 1 × 10⁷ pixels never grows.
    ``scaled`` allows decoding a large JPEG at a fraction of its size.
    """
    least = math.ceil(_OVERSAMPLING * spec.size / spec.crop) if scaled else None
    picture = decode_rgb(data, max_pixels=max_pixels, least_side=least)
    # Cropped here, because the filter of a resize with a box reads pixels outside of it.
    picture = picture.crop(centre_box(picture.width, picture.height, spec.crop))
    resized = Image.new("RGB", (spec.size, spec.size))
    Resizer().resize_pil(picture, resized, _BILINEAR)
    return np.asarray(resized)


def normalise_picture(
    pixels: NDArray[np.uint8], spec: ImageInput, out: NDArray[np.float32]
) -> None:
    """Write ``(pixels / 255 - mean) / std`` of ``(size, size, 3)`` to ``(3, size, size)``."""
    std = np.array(spec.std, dtype=np.float32).reshape(3, 1, 1)
    mean = np.array(spec.mean, dtype=np.float32).reshape(3, 1, 1)
    # Transposed first, while a pixel's level is one byte instead of four.
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
    """``decode_picture``, then ``normalise_picture`` into ``out (3, size, size)`` float32."""
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
    """Return left, top, right and bottom of the centre square, ``crop`` of the short side."""
    side = max(1, round(min(height, width) * crop))
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


class Tokenizer:
    """A ``tokenizer.json`` or its text, truncating to ``max_tokens``, padding to the longest."""

    def __init__(self, source: Path | str, max_tokens: int, pad_token_id: int = 0) -> None:
        data = source.encode() if isinstance(source, str) else source.read_bytes()
        self.digest = hashlib.sha256(data).hexdigest()
        """SHA-256 of the file, part of the identity of cached text features."""
        self._pad_token_id = pad_token_id
        self._tokenizer = tokenizers.Tokenizer.from_buffer(data)
        self._tokenizer.enable_truncation(max_tokens)
        # The file may set a fixed length, which would cost time for every short title.
        self._tokenizer.no_padding()
        model = orjson.loads(data)["model"]
        name = model.get("unk_token")
        self._unknown = model.get("unk_id") if name is None else self._tokenizer.token_to_id(name)
        self._special = frozenset(self._encode([""])[0])

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, not padded; an empty list for an unreadable text.

        A text with unknown tokens is unreadable unless a known token has a letter: punctuation and
        digits between unknown words do not distinguish products.
        """
        return [row if self._readable(row) else [] for row in self._encode(texts)]

    def understood(self, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether half of its letters are in known tokens of several letters.

        An English vocabulary spells Russian or Arabic letter by letter.
        """
        found = []
        for text, row in zip(texts, self._tokenizer.encode_batch(list(texts)), strict=True):
            letters = [sum(map(str.isalpha, text[start:end])) for start, end in row.offsets]
            known = [
                count
                for count, token in zip(letters, row.ids, strict=True)
                if count > 1 and token != self._unknown
            ]
            found.append(2 * sum(known) >= sum(letters))
        return found

    def batch(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokenize at least one text, all readable, and pad to the longest."""
        return pad_tokens(self.tokens(texts), self._pad_token_id)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [row.ids for row in self._tokenizer.encode_batch_fast(list(texts))]

    def _readable(self, row: Sequence[int]) -> bool:
        if self._unknown not in row:
            return True
        known = {*row} - self._special - {self._unknown}
        names = (self._tokenizer.id_to_token(token) or "" for token in known)
        return any(map(str.isalpha, "".join(names)))


def pad_tokens(
    rows: Sequence[Sequence[int]], pad_token_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ``input_ids`` and ``attention_mask`` of one row or more, ``(B, longest)`` int64."""
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    attention_mask = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(attention_mask.shape, pad_token_id, dtype=np.int64)
    for padded, row in zip(input_ids, rows, strict=True):
        padded[: len(row)] = row
    return input_ids, attention_mask.astype(np.int64)


def attribute_row(product: Product, spec: AttributeInput) -> list[int]:
    """Return bucket numbers, 1 … buckets - 1 or 0 for absent, in ``ATTRIBUTE_COLUMNS``'s order."""
    levels = category_levels(product.product_type)
    colors = split_values(product.color)
    materials = split_values(product.material)
    values = (
        levels[0] if levels else None,
        " > ".join(levels) or None,
        product.brand,
        colors[0] if colors else None,
        colors[1] if len(colors) > 1 else None,
        materials[0] if materials else None,
        materials[1] if len(materials) > 1 else None,
        product.size,
    )
    row = [_bucket(column, value, spec.buckets) for column, value in enumerate(values)]
    row.append(_price_bin(product.price, spec))
    return row


def price_edges(prices: Sequence[float], bins: int) -> tuple[float, ...]:
    """Return edges that split the known prices into at most ``bins`` bins of equal count."""
    known = np.asarray(prices, dtype=np.float64)
    known = known[np.isfinite(known)]
    if known.size == 0:
        return ()
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    return tuple(float(edge) for edge in np.unique(np.quantile(known, inner)))


def _bucket(column: int, value: str | None, buckets: int) -> int:
    folded = " ".join(value.lower().split()) if value else ""
    if not folded:
        return 0
    return zlib.crc32(f"{column}={folded}".encode()) % (buckets - 1) + 1


def _price_bin(price: float | None, spec: AttributeInput) -> int:
    if price is None:
        return 0
    return min(bisect_right(spec.price_edges, price) + 1, spec.buckets - 1)
