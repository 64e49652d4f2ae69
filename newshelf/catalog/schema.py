"""Schema of products, events and baskets: columns, ids, enumerations, and a product as a value.

Item columns follow Google Merchant's product data, event columns Amazon Personalize's
interactions. Serving archives contain this module, so it imports neither pandas nor torch.
"""

import re
import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema

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


def category_levels(product_type: str | None) -> tuple[str, ...]:
    """Return the levels: ``"Home > Beds"`` → ``("Home", "Beds")``."""
    if not product_type:
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
