"""The scorer for the rows of a batch: by its graph, or by its formula in NumPy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newshelf.errors import VersionMismatch
from newshelf.nn.pair_sums import PairSums
from newshelf.nn.pooling import Pooling
from newshelf.serving.resolve import Resolved
from newshelf.serving.runtimes import Runtime

__all__ = ["Scored", "check_pooling", "score_histories"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

_TOLERANCE = 1e-4
"""Relative, with which graphs are held equal at export too."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The scorer's answer for ``C`` positions."""

    scores: FloatArray
    """``(C,)``."""
    because: IntArray | None
    """``(C,)``: the history item that counted most; None where nobody asked to explain."""


def score_histories(
    rows: Sequence[tuple[Resolved, IntArray]], scorer: Runtime, pairs: PairSums | None = None
) -> list[Scored]:
    """Score positions of each row's shelf against the row's history.

    Args:
        rows: of one index; each with a history and some positions.
        scorer: the graph, which is asked once for all rows, if the index does not hold the
            pooling's numbers.
        pairs: the index's.
    """
    if not rows:
        return []
    pooling = rows[0][0].shelf.index.manifest.pooling
    if pooling is None:
        return _by_graph(rows, scorer)
    return [
        Scored(pairs.scores(row.history.recent, positions), None)
        if pairs is not None and _by_pairs(row, positions, pairs)
        else _by_formula(row, positions, pooling)
        for row, positions in rows
    ]


def check_pooling(pooling: Pooling, scorer: Runtime, width: int) -> None:
    """Check that the formula gives what the graph gives.

    Args:
        pooling: the index's.
        scorer: the archive's graph.
        width: of a projected vector.

    Raises:
        VersionMismatch: it does not.
    """
    drawn = np.random.default_rng(7).standard_normal((24, width)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    # Some candidates are in the history, so that attention has something to prefer.
    history, candidates = drawn[:8], drawn[4:]
    outputs = scorer.run(
        {
            "history": history[None],
            "history_mask": np.ones((1, len(history)), dtype=np.bool_),
            "candidates": candidates[None],
        }
    )
    wanted = outputs["scores"][0]
    given = pooling.scores(pooling.similarity(history, candidates))
    if not np.allclose(given, wanted, rtol=_TOLERANCE, atol=_TOLERANCE * pooling.scale):
        raise VersionMismatch(
            f"the index's pooling differs from the scorer's graph by up to "
            f"{float(np.abs(given - wanted).max()):.2g}: export both from one checkpoint"
        )


def _by_pairs(row: Resolved, positions: IntArray, pairs: PairSums) -> bool:
    # Sums do not tell which history item counted most.
    only_index = not row.history.inline and not len(row.shelf.extras.embeddings)
    return only_index and not row.request.explain and pairs.worthwhile(len(positions))


def _by_formula(row: Resolved, positions: IntArray, pooling: Pooling) -> Scored:
    similarity = pooling.similarity(_vectors(row), row.shelf.vectors(positions))
    because = pooling.counted_most(similarity) if row.request.explain else None
    return Scored(pooling.scores(similarity), because)


def _by_graph(rows: Sequence[tuple[Resolved, IntArray]], scorer: Runtime) -> list[Scored]:
    outputs = scorer.run(_padded(rows))
    because = outputs["attention"].argmax(axis=2)
    return [
        Scored(outputs["scores"][at, : len(positions)], because[at, : len(positions)])
        for at, (_, positions) in enumerate(rows)
    ]


def _padded(rows: Sequence[tuple[Resolved, IntArray]]) -> dict[str, NDArray[Any]]:
    histories = [_vectors(row) for row, _ in rows]
    candidates = [row.shelf.vectors(positions) for row, positions in rows]
    lengths = np.array([len(history) for history in histories])
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    return {
        "history": _stack_padded(histories),
        "history_mask": mask,
        "candidates": _stack_padded(candidates),
    }


def _vectors(row: Resolved) -> FloatArray:
    if row.history.vectors is None:
        raise ValueError("an index without a scorer has no projected vectors")
    return row.history.vectors


def _stack_padded(arrays: Sequence[FloatArray]) -> FloatArray:
    longest = max(len(array) for array in arrays)
    padded = np.zeros((len(arrays), longest, arrays[0].shape[1]), dtype=np.float32)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = array
    return padded
