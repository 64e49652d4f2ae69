"""Maximal marginal relevance: good items that do not repeat each other."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["diversify"]


def diversify(
    relevance: NDArray[np.float64], embeddings: NDArray[np.float32], k: int, diversity: float
) -> NDArray[np.int64]:
    """Choose ``k`` items one by one, each relevant yet unlike those already chosen.

    Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998), with
    ``λ = 1 - diversity``::

        next = argmax_i  λ · relevance_i - (1 - λ) · max_{j chosen} cos(i, j)

    Relevance is first stretched to 0 … 1, so that it weighs the same whatever ranking it
    comes from. The first choice is the most relevant item.

    Args:
        relevance: ``(C,)``, higher is better, finite.
        embeddings: ``(C, D)`` float32, of unit length.
        k: how many to choose; all of them when fewer.
        diversity: 0 (relevance alone) … 1 (unlikeness alone).

    Returns:
        ``(min(k, C),)`` positions, in the order of choice; ties go to the first.
    """
    count = len(relevance)
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    span = relevance.max() - relevance.min()
    scaled = (relevance - relevance.min()) / span if span > 0 else np.zeros(count)
    chosen = [int(np.argmax(relevance))]
    likeness = np.full(count, -np.inf)
    while len(chosen) < min(k, count):
        likeness = np.maximum(likeness, embeddings @ embeddings[chosen[-1]])
        marginal = (1 - diversity) * scaled - diversity * likeness
        marginal[chosen] = -np.inf
        chosen.append(int(np.argmax(marginal)))
    return np.array(chosen, dtype=np.int64)
