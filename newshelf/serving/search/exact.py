"""Exact search in a quarter of the bytes: int8 first, float32 for what is left."""

from dataclasses import dataclass

import numpy as np

from newshelf.serving.search.base import FloatArray, IntArray, Mask
from newshelf.serving.search.blocks import top_products
from newshelf.serving.search.codes import Codes
from newshelf.serving.search.faiss_scan import FlatScan
from newshelf.serving.search.plain import MANY, PlainSearch, few
from newshelf.serving.search.proof import proven_nearest

__all__ = ["Int8Search"]


@dataclass(frozen=True)
class Int8Search:
    """See ``codes`` for why the answer is the same as that of float32."""

    matrix: FloatArray
    """``(N, D)``."""
    codes: Codes
    scan: FlatScan

    def nearest(self, query: FloatArray, allowed: Mask, limit: int) -> IntArray:
        """See ``Search``."""
        count = int(np.count_nonzero(allowed))
        if few(count, len(allowed), limit):
            return PlainSearch(self.matrix).nearest(query, allowed, limit)
        only = None if count == len(allowed) else allowed
        return proven_nearest(
            self.matrix,
            query,
            self.codes.query(query),
            lambda code, best: self.scan.best(code.values, best, only),
            limit,
            count,
        )

    def nearest_many(self, queries: FloatArray, allowed: Mask, limit: int) -> list[IntArray]:
        """See ``Search``."""
        if len(queries) >= MANY:
            return top_products(self.matrix, queries, limit, allowed)
        return [self.nearest(*pair, limit) for pair in zip(queries, allowed, strict=True)]
