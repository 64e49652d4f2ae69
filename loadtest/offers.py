"""New products, as a shop would put them up: fields and pictures of the catalogue's own."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from newshelf.catalog import Catalog

__all__ = ["Needs", "Offer", "Offers", "Picture"]

_JPEG_QUALITY = 85
_KEPT_PICTURES = 256


@dataclass(frozen=True)
class Picture:
    """A picture file's bytes."""

    data: bytes
    media_type: str


@dataclass(frozen=True)
class Offer:
    """A new product."""

    fields: Mapping[str, Any]
    """As JSON gives them, without an id."""
    picture: Picture | None


Needs = Literal["text", "picture", "both"]


class Offers:
    """Draws products that have what a request needs."""

    def __init__(
        self, catalog: Catalog, picture_px: tuple[int, ...], random: np.random.Generator
    ) -> None:
        self._products = catalog.products()
        self._paths = [catalog.image_path(row) for row in range(len(self._products))]
        self._px = picture_px
        self._random = random
        rows = range(len(self._products))
        texts = [row for row in rows if self._products[row].text()]
        pictures = [row for row in rows if self._paths[row] is not None]
        self._rows: Mapping[Needs, list[int]] = {
            "text": texts,
            "picture": pictures,
            "both": sorted({*texts} & {*pictures}),
        }
        self._read = lru_cache(_KEPT_PICTURES)(_read_picture)

    def has(self, needs: Needs) -> bool:
        """Whether any product has it, with a picture that can be read."""
        rows = self._rows[needs]
        while rows:
            if needs == "text" or self._picture(rows[0]) is not None:
                return True
            del rows[0]
        return False

    def draw(self, needs: Needs) -> Offer:
        """A product that has it; call only when ``has`` says so.

        The picture is of one of the sizes that were asked for.
        """
        rows = self._rows[needs]
        while True:
            place = int(self._random.integers(len(rows)))
            row = rows[place]
            picture = None if needs == "text" else self._picture(row)
            if needs != "text" and picture is None:
                del rows[place]
                continue
            fields = {}
            if needs != "picture":
                fields = self._products[row].model_dump(exclude={"id"}, exclude_none=True)
            return Offer(fields, picture)

    def _picture(self, row: int) -> Picture | None:
        path = self._paths[row]
        px = int(self._random.choice(self._px)) if self._px else None
        return None if path is None else self._read(path, px)


def _read_picture(path: Path, px: int | None) -> Picture | None:
    """A picture file, or the same as a JPEG whose longest side is ``px``; None if unreadable."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            if px is None:
                return Picture(data, image.get_format_mimetype() or "application/octet-stream")
            scale = px / max(image.size)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            resized = image.convert("RGB").resize(size)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        # The catalogue's reader does not open pictures; what cannot be shown is not sent.
        return None
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return Picture(buffer.getvalue(), "image/jpeg")
