"""Results of a search: rankings by words, embedding and history, and their fusion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from newshelf.errors import InvalidField, NewshelfError
from newshelf.serving.live import LiveIndex
from newshelf.serving.query import read_filters, with_read
from newshelf.serving.ranking import Picked, Ranked, fill, rank_by_similarity
from newshelf.serving.requests import ParsedRequest
from newshelf.serving.resolve import Encoded, Resolved, resolve
from newshelf.serving.schemas import Filters, SearchQuery
from newshelf.serving.search.base import IntArray

_WORDS, _NEAR, _PERSONAL = 1.0, 0.5, 0.3
"""Weights of the rankings by words, by embedding and by the history."""
_DECIMALS = 6


@dataclass(frozen=True)
class Found(Resolved):
    """A search, with what was found before the history counts; its candidates are named."""

    read: Filters
    """Filters of the sentence that the candidates pass."""
    relaxed: Sequence[str]
    """Filters of the sentence that nothing passed."""
    rankings: Sequence[tuple[float, IntArray]]
    """Weight, and positions, best first."""

    def understood(self) -> dict[str, object]:
        """Return how the sentence was read, as JSON."""
        answer: dict[str, object] = {"filters": self.read.model_dump(exclude_none=True)}
        return {**answer, "relaxed": self.relaxed} if self.relaxed else answer


def is_unread_sentence(asked: ParsedRequest, at: str, error: NewshelfError) -> bool:
    """Return True for a sentence that the text tower cannot read, which words still find."""
    query = asked.query
    sentence = query is not None and query.at == at and query.picture is None
    return sentence and isinstance(error, InvalidField)


def resolve_search(
    asked: ParsedRequest,
    encoded: Mapping[str, Encoded],
    live: LiveIndex,
    max_history: int,
    retrieve: int,
) -> Found:
    """Find what passes the filters of request and sentence.

    Filters of the sentence are dropped one by one while nothing passes them
    (``newshelf.serving.query``). Products of the history may be found again. ``encoded`` has, by
    path, each of ``asked.inline`` that could be encoded.
    """
    search = asked.request.search or SearchQuery()
    history = resolve(replace(asked, candidates=None), encoded, live, max_history)
    passing, read, relaxed = _passing(asked, search, encoded, live)
    allowed = passing.candidate_set.allowed
    words = live.rows(search.hits)
    words = words[words >= 0]
    rankings = [(_WORDS, words[allowed[words]])]
    limit = max(retrieve, asked.request.k)
    if asked.query is not None and asked.query.at in encoded:
        embedding = encoded[asked.query.at].embedding
        near = live.nearest(live.base.embedding_search, embedding, allowed, limit, projected=False)
        scores = live.positions.embeddings(near) @ embedding
        rankings.append((_NEAR, near[np.argsort(-scores, kind="stable")]))
    elif not len(rankings[0][1]):
        rankings.append((_NEAR, live.popular(allowed, limit)[0]))
    named, _ = fuse(rankings)
    return Found(
        passing.request,
        history.history,
        replace(passing.candidate_set, named=named, unnamed=None),
        history.ignored,
        read,
        relaxed,
        rankings,
    )


def _passing(
    asked: ParsedRequest, search: SearchQuery, encoded: Mapping[str, Encoded], live: LiveIndex
) -> tuple[Resolved, Filters, Sequence[str]]:
    reader = live.base.table.known.reader
    stated = read_filters(search.text or "", reader.lexicon, reader.least)
    steps = list(with_read(asked.request.filters, stated))
    for filters, read, relaxed in steps:
        request = asked.request.model_copy(update={"filters": filters})
        anybodys = replace(asked, request=request, history=(), candidates=None)
        passing = resolve(anybodys, encoded, live, max_history=0)
        if passing.candidate_set.allowed.any():
            return passing, read, relaxed
    return passing, steps[-1][1], steps[-1][2]


def pick_found(row: Found, by_model: Ranked | None) -> list[Picked]:
    """Return at most ``k`` products by the fused ranking and the model's scores, if it has any."""
    personal = by_model or rank_by_similarity(row, row.request.k)
    rankings = [*row.rankings]
    if personal is not None:
        order = np.lexsort((personal.positions, -personal.scores))
        rankings.append((_PERSONAL, personal.positions[order]))
    positions, scores = fuse(rankings)
    ranked = Ranked("search", positions, scores.round(_DECIMALS))
    return fill(row.candidate_set, [ranked], k=row.request.k, diversity=0.0)


_RANK = 60
"""Constant of the reciprocal ranks; the larger, the less the first ranks stand out."""


def fuse(
    rankings: Sequence[tuple[float, IntArray]],
) -> tuple[IntArray, NDArray[np.float64]]:
    """Fuse rankings by weighted reciprocal ranks (Cormack et al., SIGIR 2009).

    A product's score is ``Σ w / (60 + rank)`` over the rankings that have it, divided by what the
    first of all of them would get. Returns all positions in increasing order, and their scores.
    """
    positions = np.unique(np.concatenate([np.zeros(0, np.int64), *(own for _, own in rankings)]))
    scores = np.zeros(len(positions))
    for weight, ranked in rankings:
        scores[positions.searchsorted(ranked)] += weight / (_RANK + 1 + np.arange(len(ranked)))
    total = sum(weight for weight, _ in rankings)
    return positions, scores * (_RANK + 1) / total if total else scores
