"""Products, events and baskets: the column names, and one product as a value.

Item columns follow Google Merchant's product data; event columns follow Amazon
Personalize's interactions. This module imports neither pandas nor torch, so that the
serving archives can carry it.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "BASKET_COLUMNS",
    "EVENT_COLUMNS",
    "ITEM_COLUMNS",
    "Availability",
    "EventType",
    "Product",
    "category_levels",
    "split_values",
]

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


class EventType(StrEnum):
    """What a shopper did with a product, weakest first."""

    VIEW = "view"
    CLICK = "click"
    FAVOURITE = "favourite"
    CART = "cart"
    PURCHASE = "purchase"


class Availability(StrEnum):
    """Whether a product can be bought; only ``out_of_stock`` hides it from answers."""

    IN_STOCK = "in_stock"
    OUT_OF_STOCK = "out_of_stock"
    PREORDER = "preorder"
    BACKORDER = "backorder"


class Product(BaseModel):
    """A product as the encoder sees it, without its picture. Absent fields are None."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str | None = None
    title: str | None = None
    description: str | None = None
    product_type: str | None = None
    brand: str | None = None
    color: str | None = None
    material: str | None = None
    size: str | None = None
    price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    def text(self) -> str:
        """Title and description, as the text tower reads them; empty when both are absent."""
        parts = (part.strip() for part in (self.title, self.description) if part)
        return ". ".join(part for part in parts if part)


def category_levels(product_type: str | None) -> tuple[str, ...]:
    """``"Home > Beds"`` → ``("Home", "Beds")``."""
    if not product_type:
        return ()
    return tuple(level for part in product_type.split(">") if (level := part.strip()))


def split_values(value: str | None) -> tuple[str, ...]:
    """Several values in one cell, lower-cased: ``"White,pine"`` → ``("white", "pine")``."""
    if not value:
        return ()
    parts = value.lower().replace("/", ",").replace(";", ",").split(",")
    return tuple(part for piece in parts if (part := piece.strip()))
