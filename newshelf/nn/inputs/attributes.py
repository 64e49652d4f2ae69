"""Hashed categories and a binned price.

Feature hashing (Weinberger et al., 2009): a value's bucket follows from the value alone,
so a brand that was never seen in training needs no vocabulary.
"""

import zlib
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from newshelf.catalog.schema import Product, category_levels, split_values
from newshelf.nn.spec import AttributeInput

__all__ = ["attribute_row", "price_edges"]


def attribute_row(product: Product, spec: AttributeInput) -> list[int]:
    """One row of the ``attributes`` input, in the order of ``ATTRIBUTE_COLUMNS``.

    Returns:
        Bucket numbers in ``1 … buckets - 1``; 0 where the product has no such attribute.
    """
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
    """Edges that split the known prices into at most ``bins`` bins of equal count."""
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
