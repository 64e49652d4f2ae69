"""Masks of the items of a table that filters and categories select."""

from collections.abc import Callable, Sequence

import numpy as np

from newshelf.serving.columns import Postings
from newshelf.serving.item_table import ItemTable, type_path
from newshelf.serving.schemas import Filters
from newshelf.serving.search.base import Mask


def allowed_mask(table: ItemTable, filters: Filters) -> Mask:
    """Return the items that pass every filter and, by default, are in stock: ``(N,)``, new."""
    if filters.availability is None:
        mask = table.in_stock.copy()
    else:
        mask = _any_of(table, table.by("availability"), filters.availability)
    for attribute in ("brand", "color", "material", "style"):
        wanted = getattr(filters, attribute)
        if wanted is not None:
            mask &= with_values(table, attribute, wanted)
    if filters.product_type is not None:
        mask &= in_categories(table, filters.product_type)
    if filters.price is not None:
        low = -np.inf if filters.price.min is None else filters.price.min
        high = np.inf if filters.price.max is None else filters.price.max
        # NaN compares false, so an item without a price is in no range.
        mask &= (table.price >= low) & (table.price <= high)
    if filters.created_after is not None:
        # JSON's numbers are unbounded; the column's are not.
        bounds = np.iinfo(np.int64)
        after = max(bounds.min, min(bounds.max - 1, filters.created_after))
        mask &= table.created_at > after
    return mask


def in_categories(table: ItemTable, product_types: Sequence[str]) -> Mask:
    """The items of any of these categories, or below them: ``(len(table),)`` bool."""
    return _any_of(table, table.by("product_type"), product_types, key=type_path)


def with_values(table: ItemTable, attribute: str, values: Sequence[str]) -> Mask:
    """The items with any of these values, as written or as it is known: ``(len(table),)`` bool."""
    asked = table.known.asked
    names = [(value.strip().lower(), asked(attribute, value).lower()) for value in values]
    return _any_of(table, table.by(attribute), [name for both in names for name in both])


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
