"""Which items a request lets through, as a mask over a table."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from newshelf.serving.schemas import Filters
from newshelf.serving.table import ItemTable, Postings, type_path

__all__ = ["allowed_mask", "in_categories"]

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]


def allowed_mask(table: ItemTable, filters: Filters, rows: IntArray | None = None) -> Mask:
    """The items that pass every filter.

    Without a filter on ``availability``, items that are out of stock do not pass.

    Args:
        table: the items.
        filters: all have to be passed.
        rows: ask of these only; of all by default.

    Returns:
        ``(len(table),)`` or ``(len(rows),)`` bool, the caller's own.
    """
    mask = _mask(table, filters) if filters.model_fields_set else table.in_stock
    return mask.copy() if rows is None else mask[rows]


def _mask(table: ItemTable, filters: Filters) -> Mask:
    if filters.availability is None:
        mask = table.in_stock.copy()
    else:
        mask = _any_of(table, table.by_availability, filters.availability)
    for attribute, wanted, postings in (
        ("brand", filters.brand, table.by_brand),
        ("color", filters.color, table.by_color),
        ("material", filters.material, table.by_material),
        ("style", filters.style, table.by_style),
    ):
        if wanted is not None:
            names = [name for value in wanted for name in _names(table, attribute, value)]
            mask &= _any_of(table, postings, names)
    if filters.product_type is not None:
        mask &= in_categories(table, filters.product_type)
    if filters.price is not None:
        low = -np.inf if filters.price.min is None else filters.price.min
        high = np.inf if filters.price.max is None else filters.price.max
        # NaN compares false, so an item without a price is in no range.
        mask &= (table.price >= low) & (table.price <= high)
    if filters.created_after is not None:
        mask &= table.created_at > _clipped(filters.created_after)
    return mask


def in_categories(table: ItemTable, product_types: Sequence[str]) -> Mask:
    """The items of any of these categories, or below them: ``(len(table),)`` bool."""
    return _any_of(table, table.by_type, product_types, key=type_path)


def _names(table: ItemTable, attribute: str, value: str) -> tuple[str, str]:
    """A filter's value as it was written, and under the name that it is known by."""
    return value.strip().lower(), table.known.asked(attribute, value).lower()


def _any_of(
    table: ItemTable,
    postings: Postings,
    wanted: Sequence[str],
    key: Callable[[str], str] = str,
) -> Mask:
    mask = np.zeros(len(table), dtype=np.bool_)
    for value in wanted:
        rows = postings.get(key(value))
        if rows is not None:
            mask[rows] = True
    return mask


def _clipped(seconds: int) -> int:
    # JSON's numbers are unbounded; the column's are not.
    bounds = np.iinfo(np.int64)
    return max(bounds.min, min(bounds.max - 1, seconds))
