"""The true nearest rows from approximate scores, proven."""

from collections.abc import Callable

import numpy as np

from newshelf.serving.search.base import FloatArray, IntArray
from newshelf.serving.search.codes import QueryCode
from newshelf.serving.search.select import best_rows

__all__ = ["Scan", "proven_nearest"]

Scan = Callable[[QueryCode, int], tuple[FloatArray, IntArray]]
"""The products of codes and the rows of the best so many, the best first."""

_FIRST = 512
_MORE = 4


def proven_nearest(
    matrix: FloatArray, query: FloatArray, code: QueryCode, scan: Scan, limit: int, among: int
) -> IntArray:
    """Compare the best by code in float32; look at more until no other can be nearer.

    Args:
        matrix: ``(N, D)`` float32.
        query: ``(D,)`` float32.
        code: the same as int8.
        scan: gives the best by code.
        limit: so many are asked for; fewer than ``among``.
        among: so many rows the scan can give.

    Returns:
        ``(limit,)`` row numbers in increasing order.
    """
    count = limit + _FIRST
    while True:
        count = min(count, among)
        products, rows = scan(code, count)
        scores = matrix[rows] @ query
        if count == among:
            break
        least = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        if least > products[-1] * code.step + code.error:
            break
        count *= _MORE
    return best_rows(rows, scores, limit)
