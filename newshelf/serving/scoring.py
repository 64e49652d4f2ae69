"""Scores of a batch: by the scorer's graph or its NumPy formula, blended with the other signals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newshelf.errors import VersionMismatch
from newshelf.nn.blend import ContentBound, content_signal, nearest_shares
from newshelf.nn.blend_lookup import BlendLookup, LinkSums
from newshelf.nn.numpy_scorer import PairSums, Pooling
from newshelf.nn.spec import BlendSpec
from newshelf.serving.resolve import Resolved
from newshelf.serving.runtimes.base import Runtime

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

_TOLERANCE = 1e-4
"""Relative, with which graphs are held equal at export too."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The scorer's answer for ``C`` positions."""

    scores: FloatArray
    """``(C,)``."""
    explained_by: IntArray | None
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
    pooling = rows[0][0].candidate_set.index.manifest.pooling
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
    only_index = not row.history.inline and not len(row.candidate_set.extras.embeddings)
    return only_index and not row.request.explain and pairs.worthwhile(len(positions))


def _by_formula(row: Resolved, positions: IntArray, pooling: Pooling) -> Scored:
    similarity = pooling.similarity(_vectors(row), row.candidate_set.vectors(positions))
    explained_by = pooling.counted_most(similarity) if row.request.explain else None
    return Scored(pooling.scores(similarity), explained_by)


def _by_graph(rows: Sequence[tuple[Resolved, IntArray]], scorer: Runtime) -> list[Scored]:
    outputs = scorer.run(_padded(rows))
    explained_by = outputs["attention"].argmax(axis=2)
    return [
        Scored(outputs["scores"][at, : len(positions)], explained_by[at, : len(positions)])
        for at, (_, positions) in enumerate(rows)
    ]


def _padded(rows: Sequence[tuple[Resolved, IntArray]]) -> dict[str, NDArray[Any]]:
    histories = [_vectors(row) for row, _ in rows]
    candidates = [row.candidate_set.vectors(positions) for row, positions in rows]
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


_WORTH = 4
"""With fewer candidates for each item of the answer, bounds cost more than they save."""
_MARGIN = 2e-4
"""Two units of a score's last decimal: what rounding makes equal is not left out."""


def link_sums(row: Resolved, links: BlendLookup) -> LinkSums:
    """Return the links of the whole history, not only of what the scorer reads.

    A product that the index does not know stands for its nearest items, each with its share.
    """
    unseen = row.history.unseen
    if not len(unseen):
        return links.sums(row.history.rows)
    return links.sums(
        row.history.rows, [nearest_shares(unseen, row.candidate_set.index.embeddings)]
    )


def unpersonal_at(
    row: Resolved, links: BlendLookup, sums: LinkSums, positions: IntArray
) -> FloatArray:
    """Return the score from links and prior at some positions, ``(len(positions),)``.

    Args:
        row: the request.
        links: of the row's index.
        sums: the history's.
        positions: in increasing order, so that what was brought along comes last.
    """
    brought = row.candidate_set.extras.embeddings
    if not len(brought):
        return links.unpersonal(sums, positions)
    known = int(np.searchsorted(positions, len(links)))
    extras = brought[positions[known:] - len(links)]
    nearest, shares = nearest_shares(extras, row.candidate_set.index.embeddings)
    indexed = links.unpersonal(sums, positions[:known])
    return np.concatenate([indexed, links.outside(sums, nearest, shares)])


def blended(
    row: Resolved,
    spec: BlendSpec,
    positions: IntArray,
    rest: FloatArray,
    pairs: PairSums | None = None,
) -> FloatArray:
    """The blended scores of some positions, ``(len(positions),)``, as log-odds.

    Args:
        row: the request, with a history.
        spec: the weights.
        positions: of the row's shelf.
        rest: all of the score but the content, ``(len(positions),)``.
        pairs: the index's.
    """
    if pairs is not None and _only_index(row) and pairs.worthwhile(len(positions)):
        content = pairs.content(row.history.rows, positions)
    else:
        # This side first: the product's many rows are then what is read in order.
        cosines = row.candidate_set.embeddings(positions) @ _whole_history(row).T
        content = content_signal(cosines.T, spec.temperature)
    scores: FloatArray = rest + np.float32(spec.weights["content"]) * content
    return scores


def promising(
    row: Resolved, spec: BlendSpec, bound: ContentBound, positions: IntArray, rest: FloatArray
) -> IntArray | None:
    """Return those positions that may be among the first ``k``, whatever their content.

    Args:
        row: the request, with a history.
        spec: the weights.
        bound: of the row's index.
        positions: of the row's shelf, in increasing order.
        rest: all of the score but the content, ``(len(positions),)``.

    Returns:
        Places among ``positions``, in increasing order; None where all have to be scored.
    """
    count, weight = row.request.k, spec.weights["content"]
    # Diversity weighs a score against the least of them all.
    if row.request.diversity or not _only_index(row) or len(positions) <= _WORTH * count:
        return None
    content, off = bound.content(row.history.rows, positions, spec.temperature)
    middle, reach = rest + weight * content, abs(weight) * off
    least = np.partition(middle - reach, -count)[-count]
    # What is not finite compares false, and is left to the full score.
    return np.flatnonzero(~(middle + reach < least - _MARGIN))


def _only_index(row: Resolved) -> bool:
    """Return True when the index knows the whole history and every candidate."""
    return not len(row.history.unseen) and not len(row.candidate_set.extras.embeddings)


def _whole_history(row: Resolved) -> FloatArray:
    """``(H, 512)``: as the weights were fitted, not only what the scorer reads."""
    known = row.candidate_set.index.embeddings.take(row.history.rows, axis=0)
    return np.concatenate([known, row.history.unseen]) if len(row.history.unseen) else known
