"""Rankings of a shelf: by the scorer, by likeness to the history, by popularity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from newshelf.serving.blending import add_signals, unpersonal_scores
from newshelf.serving.filters import in_categories
from newshelf.serving.index import search, top_rows
from newshelf.serving.resolve import Resolved
from newshelf.serving.runtime import Runtime
from newshelf.serving.schemas import Source

__all__ = ["Ranked", "categories_of", "rank_by_likeness", "rank_by_model", "rank_by_popularity"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

_DECIMALS = 4
"""Scores are rounded, so that rounding errors of one runtime or another break no tie."""


@dataclass(frozen=True)
class Ranked:
    """Positions of a shelf with their scores, in any order."""

    source: Source
    positions: IntArray
    scores: NDArray[np.float64]
    because: IntArray | None = None
    """For each, the history item that counted most; None when none did."""


def rank_by_model(rows: Sequence[Resolved], scorer: Runtime, retrieve: int) -> list[Ranked | None]:
    """Retrieve from the index, then score: one padded forward for all rows.

    Retrieval takes the ``retrieve`` allowed items nearest to the mean of the projected
    history, and as many by what the signals beside the scorer say; candidates that the
    request names are all scored.

    Returns:
        One ranking per row; None for a row without history, or with nothing allowed.
    """
    unpersonal = _unpersonal(rows)
    found = [
        _retrieved(row, retrieve, beside) for row, beside in zip(rows, unpersonal, strict=True)
    ]
    active = [at for at, positions in enumerate(found) if len(positions)]
    ranked: list[Ranked | None] = [None] * len(rows)
    if not active:
        return ranked
    batch = _padded([(rows[at], found[at]) for at in active], scorer.device)
    outputs = scorer.run(batch)
    scores = outputs["scores"].float().cpu().numpy()
    because = outputs["attention"].argmax(dim=2).cpu().numpy()
    for row, at in enumerate(active):
        positions = found[at]
        values = scores[row, : len(positions)]
        blend, beside = rows[at].shelf.index.blend, unpersonal[at]
        if blend is not None and beside is not None:
            values = add_signals(rows[at], blend, positions, values, beside)
        finite = np.isfinite(values)
        ranked[at] = Ranked(
            "model",
            positions[finite],
            _rounded(values[finite]),
            because[row, : len(positions)][finite],
        )
    return ranked


def rank_by_likeness(row: Resolved, limit: int) -> Ranked | None:
    """Cosine of the embedding to the mean of the history's; None without history."""
    if not len(row.history):
        return None
    query = _unit_mean(row.history.embeddings)
    positions = _nearest(row, row.shelf.index.embeddings, query, limit)
    embeddings = row.shelf.embeddings(positions)
    because = (embeddings @ row.history.embeddings.T).argmax(axis=1)
    return Ranked("similar", positions, _rounded(embeddings @ query), because)


def rank_by_popularity(
    row: Resolved, limit: int, categories: Sequence[str] | None = None
) -> Ranked:
    """Share of all interactions, among all that is allowed or within categories."""
    shelf = row.shelf
    among = shelf.allowed
    if categories is not None:
        tables = (shelf.index.table, shelf.extras.table)
        among = among & np.concatenate([in_categories(table, categories) for table in tables])
    positions, shares = shelf.popular(among, limit)
    return Ranked("popular" if categories is None else "popular_in_category", positions, shares)


def categories_of(row: Resolved) -> list[str]:
    """What the request filters by, or else what the history is made of."""
    if row.request.filters.product_type is not None:
        return list(row.request.filters.product_type)
    types = (facts.product_type for facts in row.history.facts)
    return list(dict.fromkeys(value for value in types if value))


def _unpersonal(rows: Sequence[Resolved]) -> Sequence[FloatArray | None]:
    """What the signals say of every position, where the index has them."""
    blend = rows[0].shelf.index.blend if rows else None
    return [None] * len(rows) if blend is None else unpersonal_scores(rows, blend)


def _retrieved(row: Resolved, retrieve: int, beside: FloatArray | None) -> IntArray:
    if row.history.vectors is None or not len(row.history) or row.shelf.index.vectors is None:
        return np.zeros(0, dtype=np.int64)
    query = _unit_mean(row.history.vectors)
    nearest = _nearest(row, row.shelf.index.vectors, query, retrieve)
    if beside is None or row.shelf.listed:
        return nearest
    return np.union1d(nearest, top_rows(beside, row.shelf.allowed, max(retrieve, row.request.k)))


def _nearest(row: Resolved, matrix: FloatArray, query: FloatArray, limit: int) -> IntArray:
    allowed = row.shelf.allowed
    if row.shelf.listed:
        return np.flatnonzero(allowed)
    # Only named candidates are brought along, so here every position is an index row.
    return search(matrix, query, allowed, max(limit, row.request.k))


def _padded(rows: Sequence[tuple[Resolved, IntArray]], device: torch.device) -> dict[str, Tensor]:
    histories = [row.history.vectors for row, _ in rows if row.history.vectors is not None]
    candidates = [row.shelf.vectors(positions) for row, positions in rows]
    lengths = np.array([len(history) for history in histories])
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    arrays = {
        "history": _stack_padded(histories),
        "history_mask": mask,
        "candidates": _stack_padded(candidates),
    }
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def _stack_padded(arrays: Sequence[FloatArray]) -> FloatArray:
    longest = max(len(array) for array in arrays)
    padded = np.zeros((len(arrays), longest, arrays[0].shape[1]), dtype=np.float32)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = array
    return padded


def _unit_mean(vectors: FloatArray) -> FloatArray:
    mean: FloatArray = vectors.mean(axis=0)
    # Opposite vectors cancel out; then any item is as near as another.
    unit: FloatArray = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return unit


def _rounded(scores: FloatArray) -> NDArray[np.float64]:
    return scores.astype(np.float64).round(_DECIMALS)
