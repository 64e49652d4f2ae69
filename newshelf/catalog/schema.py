"""Schema of products, events and baskets: columns, ids, a product as a value, formats of files.

Item columns follow Google Merchant's product data, event columns Amazon Personalize's
interactions. Serving archives contain this module, so it imports neither pandas nor torch.
"""

import re
import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema

from newshelf.errors import CatalogError
from newshelf.files import StrictModel

ITEM_COLUMNS = (
    "id",
    "title",
    "description",
    "product_type",
    "brand",
    "color",
    "material",
    "size",
    "price",
    "image_link",
    "availability",
    "created_at",
)
EVENT_COLUMNS = ("user_id", "item_id", "event_type", "timestamp")
BASKET_COLUMNS = ("basket_id", "item_id")

MAX_ID_CHARS = 200
_INVISIBLE = "\u180e\u200b\u200e\u200f\u2060\ufeff"
"""Zero-width characters, which copied text has and Unicode does not count as blank."""


def trim(text: str) -> str:
    """Return ``text`` in NFC, without blanks and invisible characters at its ends."""
    text = text.strip()
    if text.isascii():
        return text
    while text and (text[0] in _INVISIBLE or text[-1] in _INVISIBLE):
        text = text.strip(_INVISIBLE).strip()
    return unicodedata.normalize("NFC", text)


def clean_id(text: str) -> str:
    """Return an id in the form that catalogue, requests and event store compare.

    Raises ``ValueError`` if it is blank, too long, or has a control character.
    """
    cleaned = trim(text)
    if not cleaned:
        raise ValueError("must not be blank")
    if len(cleaned) > MAX_ID_CHARS:
        raise ValueError(f"must have at most {MAX_ID_CHARS} characters")
    # isprintable() is fast, and true of nearly all ids.
    if not cleaned.isprintable() and any(unicodedata.category(c) == "Cc" for c in cleaned):
        raise ValueError("must have no control characters")
    return cleaned


def clean_ids(ids: Sequence[str]) -> list[str]:
    """Return ``clean_id`` of each; fast if all are plain ASCII."""
    joined = "".join(ids)
    plain = joined.isascii() and " " not in joined and joined.isprintable()
    if plain and all(ids) and max(map(len, ids), default=0) <= MAX_ID_CHARS:
        return [*ids]
    return [*map(clean_id, ids)]


Id = Annotated[
    str,
    AfterValidator(clean_id),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS}),
]
"""An id in a request, in the catalogue, or in the event store."""


class EventType(StrEnum):
    """Types of events, weakest signal first."""

    VIEW = "view"
    CLICK = "click"
    FAVOURITE = "favourite"
    CART = "cart"
    PURCHASE = "purchase"


class Availability(StrEnum):
    """Availability of a product; only ``out_of_stock`` hides it from responses."""

    IN_STOCK = "in_stock"
    OUT_OF_STOCK = "out_of_stock"
    PREORDER = "preorder"
    BACKORDER = "backorder"


class Product(StrictModel):
    """A product as the encoder reads it, cleaned, without its picture. Absent fields are None."""

    model_config = ConfigDict(strict=True)

    id: Id | None = None
    title: str | None = None
    description: str | None = None
    product_type: str | None = None
    brand: str | None = None
    color: str | None = None
    material: str | None = None
    size: str | None = None
    price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    def text(self) -> str:
        """Return title and description for the text tower; empty if both are absent."""
        parts = (part.strip() for part in (self.title, self.description) if part)
        return ". ".join(part for part in parts if part)


_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def guard_formula(cell: str) -> str:
    """Return a cell with an apostrophe before text that spreadsheets would execute."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguard_formula(cell: str) -> str:
    """Return a cell without the apostrophe of ``guard_formula``."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell


ENCODABLE = {
    "title": "ready?",
    "brand": "ready?",
    "image": "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
}
"""A product that every encoder can encode, for readiness checks."""


def category_levels(product_type: object) -> tuple[str, ...]:
    """Return the levels: ``"Home > Beds"`` → ``("Home", "Beds")``; none of an absent cell."""
    if not isinstance(product_type, str):
        return ()
    return tuple(level for part in product_type.split(">") if (level := part.strip()))


def category_path(product_type: str | None) -> tuple[str, ...]:
    """Return the levels in lower case: ``"Home >Beds"`` → ``("home", "beds")``."""
    return tuple(level.lower() for level in category_levels(product_type))


_BETWEEN = re.compile("[,/;，、；]")


def split_values(value: str | None) -> tuple[str, ...]:
    """Return the values of a cell in lower case: ``"White,pine"`` → ``("white", "pine")``."""
    if not value:
        return ()
    return tuple(part for piece in _BETWEEN.split(value.lower()) if (part := piece.strip()))


EXTENSIONS = (".parquet", ".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".xml")
"""Extensions of table files, each with or without ``.gz``."""
_NOT_READ = (".xlsx", ".xlsm", ".xls", ".ods", ".zip", ".html", ".feather", ".arrow", ".orc",
    ".avro", ".db", ".sqlite", ".bz2", ".xz", ".zst", ".7z", ".rar", ".pdf")  # fmt: skip


def find_table(folder: Path, name: str) -> Path | None:
    """Return the file of table ``name`` in any case, or None; a single file has items."""
    if not folder.is_dir():
        return folder if name == "items" and folder.is_file() else None
    inside = [path for path in folder.iterdir() if path.name.lower().startswith(name)]
    by_ending: dict[str, list[Path]] = {end: [] for end in (*EXTENSIONS, *_NOT_READ, "")}
    for path in sorted(inside):
        ending = path.name.lower().removeprefix(name).removesuffix(".gz")
        by_ending.get(ending, []).append(path)
    found = [path for end in EXTENSIONS for path in by_ending[end] if path.is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise CatalogError(f"{folder} holds {names}: keep one of them")
    if found:
        return found[0]
    parts = [path for end in ("", ".parquet") for path in by_ending[end] if path.is_dir()]
    if parts and any(path.suffix in EXTENSIONS for path in parts[0].rglob("*")):
        raise CatalogError(
            f"{parts[0]} is a folder of parts: write them as one file, such as {name}.parquet"
        )
    return next((path for end in _NOT_READ for path in by_ending[end] if path.is_file()), None)


READ_KINDS = ("JPEG", "PNG", "WebP", "GIF")
_FIRST = 1_000
"""Bytes to inspect; SVG and HTML may begin with comments."""
_KINDS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WebP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "AVIF": rb"....ftyp(?:.{4}){0,16}?avi[fs]",
    "HEIC": rb"....ftyp(?:he[iv][cxms]|mif1|msf1)",
    "a video": rb"....ftyp|\x1a\x45\xdf\xa3",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "BMP": rb"BM.{4}\0{4}",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XL": rb"\0\0\0\x0cJXL |\xff\x0a",
    "an icon (ICO)": rb"\0\0\x01\0",
    "a Photoshop file": rb"8BPS",
    "PDF": rb"%PDF",
    "a compressed file": rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf",
    "a pointer of Git LFS": rb"version https://git-lfs",
    "a picture with white space before it": rb"\s+(?:\xff\xd8\xff|\x89PNG\r|GIF8|RIFF)",
    "SVG": rb"(?:\xef\xbb\xbf)?\s*(?:<[?!][^>]*>\s*)*<svg\b",
    "an HTML page": (
        rb"(?i:(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html|head|body)\b)"
    ),
    "XML": rb"(?:\xef\xbb\xbf)?\s*<[?!a-zA-Z]",
}
_PATTERNS = {kind: re.compile(pattern, re.DOTALL) for kind, pattern in _KINDS.items()}


def picture_kind(data: bytes | bytearray | memoryview) -> str | None:
    """Return the format of ``data``; only ``READ_KINDS`` can be read, others are for messages."""
    first = bytes(data[:_FIRST])
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.match(first)), None)
