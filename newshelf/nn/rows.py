"""Selections of rows by NumPy, without a loop over all of them."""

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def distinct(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return each row once, in increasing order; quicker than ``np.unique`` for some thousands."""
    ordered = np.sort(rows)
    first = np.ones(len(ordered), dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def first_allowed(order: npt.NDArray[Any], allowed: npt.NDArray[np.bool_], limit: int) -> IntArray:
    """Return the first allowed rows of an order, at most ``limit``; the rest is hardly read."""
    found: list[npt.NDArray[Any]] = [np.zeros(0, dtype=np.int64)]
    missing, start, size = limit, 0, 4 * limit
    while missing > 0 and start < len(order):
        rows = order[start : start + size]
        found.append(rows[allowed[rows]][:missing])
        missing -= len(found[-1])
        start, size = start + size, 4 * size
    return np.concatenate(found)


def ragged(starts: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Return which range each place belongs to, and the places of all ranges in turn."""
    which = np.repeat(np.arange(len(lengths)), lengths)
    before = np.cumsum(lengths) - lengths
    return which, np.arange(len(which)) + np.repeat(starts - before, lengths)
