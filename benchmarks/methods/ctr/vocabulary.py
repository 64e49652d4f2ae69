"""Ids as numbers of a table of bounded size, with a place for those never seen."""

import zlib
from collections.abc import Iterable

import numpy as np

from newshelf.evaluation.types import IntArray

__all__ = ["Vocabulary"]


class Vocabulary:
    """The known ids of one field.

    An id that was not known is 0. The known ones have a row each while there are enough;
    beyond that they share rows by their hash (Weinberger et al., 2009), so that a shop of
    any size fits the table. A new id never falls on a known one's row.

    Args:
        known: ids of the training.
        limit: rows of the table, the unknown one's among them; at least 2.
    """

    def __init__(self, known: Iterable[str], limit: int = 1 << 18) -> None:
        distinct = dict.fromkeys(known)
        if len(distinct) < limit:
            self._rows = {value: row for row, value in enumerate(distinct, start=1)}
        else:
            self._rows = {value: zlib.crc32(value.encode()) % (limit - 1) + 1 for value in distinct}
        self.size = min(len(distinct) + 1, limit)
        """Rows of the table."""

    def rows(self, values: Iterable[str]) -> IntArray:
        """``(len(values),)`` in ``0 … size - 1``."""
        return np.array([self._rows.get(value, 0) for value in values], dtype=np.int64)
