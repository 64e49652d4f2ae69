"""The signals beside the scorer, for one request; see ``newshelf.nn.blend``."""

import numpy as np
from numpy.typing import NDArray

from newshelf.nn.blend import content_signal, nearest_shares
from newshelf.nn.blend_lookup import BlendLookup, Sums
from newshelf.nn.content_bound import ContentBound
from newshelf.nn.pair_sums import PairSums
from newshelf.nn.spec import BlendSpec
from newshelf.serving.resolve import Resolved

__all__ = ["blended", "link_sums", "promising", "unpersonal_at"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

_WORTH = 4
"""With fewer candidates for each item of the answer, bounds cost more than they save."""
_MARGIN = 2e-4
"""Two units of a score's last decimal: what rounding makes equal is not left out."""


def link_sums(row: Resolved, links: BlendLookup) -> Sums:
    """What the whole history is linked to, not only what the scorer reads.

    A product that the index does not know stands for its nearest items, each with its share.
    """
    unseen = row.history.unseen
    if not len(unseen):
        return links.sums(row.history.rows)
    return links.sums(row.history.rows, [nearest_shares(unseen, row.shelf.index.embeddings)])


def unpersonal_at(row: Resolved, links: BlendLookup, sums: Sums, positions: IntArray) -> FloatArray:
    """What links and prior say of some positions of the row's shelf, ``(len(positions),)``.

    Args:
        row: the request.
        links: of the row's index.
        sums: the history's.
        positions: in increasing order, so that what was brought along comes last.
    """
    brought = row.shelf.extras.embeddings
    if not len(brought):
        return links.unpersonal(sums, positions)
    known = int(np.searchsorted(positions, len(links)))
    extras = brought[positions[known:] - len(links)]
    nearest, shares = nearest_shares(extras, row.shelf.index.embeddings)
    indexed = links.unpersonal(sums, positions[:known])
    return np.concatenate([indexed, links.outside(sums, nearest, shares)])


def blended(
    row: Resolved,
    spec: BlendSpec,
    positions: IntArray,
    beside: FloatArray,
    pairs: PairSums | None = None,
) -> FloatArray:
    """The blended scores of some positions, ``(len(positions),)``, as log-odds.

    Args:
        row: the request, with a history.
        spec: the weights.
        positions: of the row's shelf.
        beside: all of the score but the content, ``(len(positions),)``.
        pairs: the index's.
    """
    if pairs is not None and _only_index(row) and pairs.worthwhile(len(positions)):
        content = pairs.content(row.history.rows, positions)
    else:
        # This side first: the product's many rows are then what is read in order.
        cosines = row.shelf.embeddings(positions) @ _whole_history(row).T
        content = content_signal(cosines.T, spec.temperature)
    scores: FloatArray = beside + np.float32(spec.weights["content"]) * content
    return scores


def promising(
    row: Resolved, spec: BlendSpec, bound: ContentBound, positions: IntArray, beside: FloatArray
) -> IntArray | None:
    """Which of some positions may be among the first ``k``, whatever their content says.

    Args:
        row: the request, with a history.
        spec: the weights.
        bound: of the row's index.
        positions: of the row's shelf, in increasing order.
        beside: all of the score but the content, ``(len(positions),)``.

    Returns:
        Places among ``positions``, in increasing order; None where all have to be scored.
    """
    count, weight = row.request.k, spec.weights["content"]
    # Diversity weighs a score against the least of them all.
    if row.request.diversity or not _only_index(row) or len(positions) <= _WORTH * count:
        return None
    content, off = bound.content(row.history.rows, positions, spec.temperature)
    middle, reach = beside + weight * content, abs(weight) * off
    least = np.partition(middle - reach, -count)[-count]
    # What is not finite compares false, and is left to the full score.
    return np.flatnonzero(~(middle + reach < least - _MARGIN))


def _only_index(row: Resolved) -> bool:
    """Whether the index knows the whole history and every candidate."""
    return not len(row.history.unseen) and not len(row.shelf.extras.embeddings)


def _whole_history(row: Resolved) -> FloatArray:
    """``(H, 512)``: as the weights were fitted, not only what the scorer reads."""
    known = row.shelf.index.embeddings.take(row.history.rows, axis=0)
    return np.concatenate([known, row.history.unseen]) if len(row.history.unseen) else known
