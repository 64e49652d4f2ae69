"""Fills an answer from ordered rankings: model → similar → popular in category → popular."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from newshelf.serving.diversity import diversify
from newshelf.serving.ranking import (
    Ranked,
    categories_of,
    rank_by_likeness,
    rank_by_popularity,
)
from newshelf.serving.resolve import Resolved
from newshelf.serving.schemas import Source
from newshelf.serving.shelf import Shelf

__all__ = ["Picked", "fill", "pick"]


@dataclass(frozen=True, slots=True)
class Picked:
    """One item of the answer."""

    position: int
    score: float
    source: Source
    because: int | None
    """The history item that counted most."""


def pick(row: Resolved, by_model: Ranked | None, retrieve: int) -> list[Picked]:
    """Choose at most ``k`` items; a later ranking is made only when the earlier ran out."""
    request = row.request
    limit = max(retrieve, request.k)
    rankings: list[Callable[[], Ranked | None]] = [
        lambda: by_model,
        partial(rank_by_likeness, row, limit),
        partial(_popular_in_category, row, limit),
        partial(rank_by_popularity, row, limit),
    ]
    return fill(row.shelf, (make() for make in rankings), k=request.k, diversity=request.diversity)


def _popular_in_category(row: Resolved, limit: int) -> Ranked | None:
    categories = categories_of(row)
    return rank_by_popularity(row, limit, categories) if categories else None


def fill(
    shelf: Shelf, rankings: Iterable[Ranked | None], *, k: int, diversity: float
) -> list[Picked]:
    """Take the best of each ranking in turn, no item twice, until there are ``k``."""
    picked: list[Picked] = []
    for ranked in rankings:
        if ranked is not None:
            fresh = _fresh(ranked, picked)
            order = _order(shelf, ranked, fresh, k - len(picked), diversity)
            picked.extend(_items(ranked, order))
        if len(picked) >= k:
            break
    return picked


def _fresh(ranked: Ranked, picked: Sequence[Picked]) -> NDArray[np.int64]:
    """Where in the ranking there is an item that was not picked before."""
    if not picked:
        return np.arange(len(ranked.positions))
    return np.flatnonzero(~np.isin(ranked.positions, [item.position for item in picked]))


def _order(
    shelf: Shelf, ranked: Ranked, fresh: NDArray[np.int64], count: int, diversity: float
) -> NDArray[np.int64]:
    scores, positions = ranked.scores[fresh], ranked.positions[fresh]
    if diversity == 0:
        best = _best(scores, positions, count)
    else:
        best = diversify(scores, shelf.embeddings(positions), count, diversity)
    return fresh[best]


def _best(
    scores: NDArray[np.float64], positions: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """The ``count`` highest scores; among equals, by position."""
    among = np.arange(len(scores))
    if count < len(scores):
        # All that equal the last one, so that the tie is broken below.
        among = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    # The first key last.
    return among[np.lexsort((positions[among], -scores[among]))[:count]]


def _items(ranked: Ranked, order: NDArray[np.int64]) -> Iterator[Picked]:
    because: list[int | None] = [None] * len(order)
    if ranked.because is not None:
        because = ranked.because[order].tolist()
    chosen = ranked.positions[order].tolist(), ranked.scores[order].tolist()
    for position, score, counted in zip(*chosen, because, strict=True):
        yield Picked(position, score, ranked.source, counted)
