"""Pictures that are sent: drawn photographs as JPEG, other formats, and damaged files."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

Size = tuple[int, int]
SMALL: Size = (400, 300)
_CELL = 50
_GRAIN = 6.0
_START = b"\xff\xd8"
_COMMENT = b"\xff\xfe"


def photograph(size: Size, seed: int) -> Image.Image:
    """Return soft colours, a textured disc with a hard edge, and grain; (width, height)."""
    width, height = size
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (max(2, height // _CELL), max(2, width // _CELL), 3), np.uint8)
    soft = Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    centre_x, centre_y = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height
    disc = np.hypot(x - centre_x, y - centre_y) < 0.3 * min(size)
    texture = rng.integers(0, 256, 3) * (0.7 + 0.3 * np.sin(x / 7 + y / 11))[..., None]
    pixels = np.where(disc[..., None], texture, np.asarray(soft, dtype=np.float32))
    grainy = pixels + rng.normal(0, _GRAIN, (height, width, 1))
    return Image.fromarray(grainy.clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Return the bytes of a picture."""
    out = io.BytesIO()
    picture.save(out, kind, **({"quality": 85} | options if kind == "JPEG" else options))
    return out.getvalue()


def distinct(jpeg: bytes, number: int) -> bytes:
    """Return a JPEG of the same picture and other bytes: equal ones are encoded once."""
    comment = number.to_bytes(8)
    length = (len(comment) + 2).to_bytes(2)
    return _START + _COMMENT + length + comment + jpeg.removeprefix(_START)


def jpegs(count: int, size: Size = SMALL) -> list[bytes]:
    """Return ``count`` JPEGs of different bytes, of at most 64 different pictures."""
    drawn = [encoded(photograph(size, seed)) for seed in range(min(count, 64))]
    return [distinct(drawn[at % len(drawn)], at) for at in range(count)]


@dataclass(frozen=True)
class Sent:
    """One picture that a client may send."""

    kind: str
    data: bytes
    good: bool
    """Whether it can be decoded."""


def mixture(large: Size) -> list[Sent]:
    """Return what a shop sends, and what a client sends by mistake."""
    one = photograph((640, 480), 1)
    whole = encoded(one)
    noise = np.random.default_rng(0).integers(0, 255, 3000, np.uint8).tobytes()
    sizes = (SMALL, (900, 1200), large, (225, 224), (37, 501))
    found = [Sent(f"JPEG {w}×{h}", encoded(photograph((w, h), w)), good=True) for w, h in sizes]
    found += [
        Sent(f"JPEG, EXIF {turn}", encoded(one, exif=_exif(turn)), good=True) for turn in (3, 6, 7)
    ]
    found += [
        Sent("JPEG 4:4:4", encoded(one, subsampling=0), good=True),
        Sent("JPEG 4:2:2", encoded(one, subsampling=1), good=True),
        Sent("JPEG, progressive", encoded(one, progressive=True), good=True),
        Sent("JPEG, grey", encoded(one.convert("L")), good=True),
        Sent("JPEG, CMYK", encoded(one.convert("CMYK")), good=True),
        Sent("PNG", encoded(one, "PNG"), good=True),
        Sent("WebP", encoded(one, "WEBP"), good=True),
        Sent("JPEG, half", whole[: len(whole) // 2], good=False),
        Sent("no picture", b"hello", good=False),
        Sent("PNG, half", encoded(one, "PNG")[:5000], good=False),
        Sent("JPEG, header of noise", whole[:200] + noise, good=False),
    ]
    return found


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif
