"""The signals beside the scorer, for the requests of a batch; see ``newshelf.nn.blend``."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from newshelf.nn.blend import Blend, Linked, content_signal, nearest_shares
from newshelf.serving.resolve import Resolved

__all__ = ["add_signals", "unpersonal_scores"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


def unpersonal_scores(rows: Sequence[Resolved], blend: Blend) -> list[FloatArray]:
    """For each request, ``(N + E,)``: what links and prior say of every position.

    A product that the index does not know, in the history or brought along, stands for
    its nearest items, each with its share.
    """
    linked = blend.linked(sparse.vstack([_history(row, len(blend)) for row in rows], format="csr"))
    indexed = blend.unpersonal(blend.links_signals(linked), blend.prior)
    return [
        np.concatenate([indexed[at], _extras(row, linked, at, blend)])
        for at, row in enumerate(rows)
    ]


def add_signals(
    row: Resolved, blend: Blend, positions: IntArray, siamese: FloatArray, unpersonal: FloatArray
) -> FloatArray:
    """The blended scores of some positions, ``(len(positions),)``, as log-odds.

    Args:
        row: the request, with a history.
        blend: the weights.
        positions: of the row's shelf.
        siamese: the scorer's, ``(len(positions),)``.
        unpersonal: ``(N + E,)``, from :func:`unpersonal_scores`.
    """
    weights = blend.spec.weights
    cosines = _whole_history(row) @ row.shelf.embeddings(positions).T
    content = content_signal(cosines, blend.spec.temperature)
    blended: FloatArray = (
        unpersonal[positions] + weights["siamese"] * siamese + weights["content"] * content
    ).astype(np.float32)
    return blended


def _whole_history(row: Resolved) -> FloatArray:
    """``(H, 512)``: as the weights were fitted, not only what the scorer reads."""
    known = row.shelf.index.embeddings[np.unique(row.history.rows)]
    return np.concatenate([known, row.history.unseen])


def _history(row: Resolved, size: int) -> sparse.csr_array:
    """``(1, N)``: the whole history, not only what the scorer reads."""
    weights = np.zeros(size, dtype=np.float32)
    unseen = row.history.unseen
    if len(unseen):
        nearest, shares = nearest_shares(unseen, row.shelf.index.embeddings)
        np.add.at(weights, nearest, shares)
    weights[row.history.rows] = 1
    return sparse.csr_array(weights[None])


def _extras(row: Resolved, linked: Linked, at: int, blend: Blend) -> FloatArray:
    """``(E,)``, for row ``at`` of the batch."""
    brought = row.shelf.extras.embeddings
    if not len(brought):
        return np.zeros(0, dtype=np.float32)
    nearest, shares = nearest_shares(brought, row.shelf.index.embeddings)
    pointers = np.arange(0, nearest.size + 1, nearest.shape[1])
    spread = sparse.csr_array(
        (shares.ravel(), nearest.ravel(), pointers), shape=(len(brought), len(blend))
    )
    own = Linked(linked.direct[at : at + 1], linked.likewise[at : at + 1])
    scores: FloatArray = blend.unpersonal(blend.unseen_signals(own, spread), spread @ blend.prior)[
        0
    ]
    return scores
