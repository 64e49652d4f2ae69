"""How many rows an approximate search has to compare for the recall that it owes."""

from collections.abc import Sequence

import numpy as np

from newshelf.serving.search.base import FloatArray, IntArray
from newshelf.serving.search.blocks import top_products
from newshelf.serving.search.lists import Lists

__all__ = ["LIMITS", "RECALL", "tune_budgets"]

LIMITS = (10, 100, 1000)
"""Answers of these lengths are tuned for."""
RECALL = 0.98
"""Share of the true nearest that lie in the visited lists. What is promised is 0.95; the
rest is for requests that are harder than the queries here."""

_QUERIES = 256
_NEAR = 50
_LONGEST = 5
_SEED = 4321


def tune_budgets(matrix: FloatArray, lists: Lists) -> dict[int, int]:
    """The rows to compare, by how many are asked for.

    A true neighbour is found when its list is visited, which it is once the rows of the
    lists before it do not fill the budget. So the budget for a recall is that quantile of
    the rows before the true neighbours' lists.

    Args:
        matrix: ``(N, D)`` float32.
        lists: of all its rows.
    """
    queries = _queries(matrix)
    limits = sorted({min(limit, len(matrix)) for limit in LIMITS})
    list_of = np.empty(len(matrix), dtype=np.int64)
    list_of[lists.members] = np.repeat(np.arange(len(lists.sizes)), lists.sizes)
    before = [lists.rows_before(query) for query in queries]
    return {limit: _budget(_truth(matrix, queries, limit), before, list_of) for limit in limits}


def _budget(truth: Sequence[IntArray], before: Sequence[IntArray], list_of: IntArray) -> int:
    needed = [rows[list_of[found]] for found, rows in zip(truth, before, strict=True)]
    # A list is visited while the budget is not reached, so one row more than come before it.
    return int(np.quantile(np.concatenate(needed), RECALL, method="higher")) + 1


def _queries(matrix: FloatArray) -> FloatArray:
    """Unit means of one to five items, as of histories: half alike, half at random."""
    rng = np.random.default_rng(_SEED)
    rows = rng.choice(len(matrix), min(_QUERIES, len(matrix)), replace=False)
    near = _truth(matrix, matrix[rows], min(_NEAR, len(matrix)))
    means = []
    for at, (row, found) in enumerate(zip(rows, near, strict=True)):
        others = found if at % 2 else np.arange(len(matrix))
        beside = rng.choice(others, rng.integers(_LONGEST))
        means.append(matrix[[row, *beside]].mean(axis=0))
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    unit: FloatArray = np.stack(means) / np.maximum(lengths, 1e-12)
    return unit


def _truth(matrix: FloatArray, queries: FloatArray, limit: int) -> list[IntArray]:
    return top_products(matrix, np.ascontiguousarray(queries), limit)
