"""Fills an answer from ordered rankings: model → similar → popular in category → popular."""

from collections.abc import Callable, Iterable, Iterator
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
    categories = categories_of(row)
    rankings: list[Callable[[], Ranked | None]] = [
        lambda: by_model,
        partial(rank_by_likeness, row, limit),
    ]
    if categories:
        rankings.append(partial(rank_by_popularity, row, limit, categories))
    rankings.append(partial(rank_by_popularity, row, limit))
    return fill(row.shelf, (make() for make in rankings), k=request.k, diversity=request.diversity)


def fill(
    shelf: Shelf, rankings: Iterable[Ranked | None], *, k: int, diversity: float
) -> list[Picked]:
    """Take the best of each ranking in turn, no item twice, until there are ``k``."""
    picked: list[Picked] = []
    for ranked in rankings:
        if ranked is not None:
            taken = np.array([item.position for item in picked], dtype=np.int64)
            fresh = np.flatnonzero(~np.isin(ranked.positions, taken))
            order = _order(shelf, ranked, fresh, k - len(picked), diversity)
            picked.extend(_items(ranked, order))
        if len(picked) >= k:
            break
    return picked


def _order(
    shelf: Shelf, ranked: Ranked, fresh: NDArray[np.int64], count: int, diversity: float
) -> NDArray[np.int64]:
    scores, positions = ranked.scores[fresh], ranked.positions[fresh]
    if diversity == 0:
        # The first key last: by score, and by position among equals.
        best = np.lexsort((positions, -scores))[:count]
    else:
        best = diversify(scores, shelf.embeddings(positions), count, diversity)
    return fresh[best]


def _items(ranked: Ranked, order: NDArray[np.int64]) -> Iterator[Picked]:
    for at in order:
        because = None if ranked.because is None else int(ranked.because[at])
        yield Picked(int(ranked.positions[at]), float(ranked.scores[at]), ranked.source, because)
