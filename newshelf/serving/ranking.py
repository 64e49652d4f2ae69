"""Rankings by the model, by similarity to the history and by popularity, and the final selection.

``newshelf.serving.kinds`` chooses the rankings that fill an answer.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newshelf.nn.blend import ContentBound
from newshelf.nn.blend_lookup import BlendLookup, LinkSums
from newshelf.nn.numpy_scorer import PairSums, Pooling
from newshelf.nn.rows import distinct
from newshelf.serving.item_table import in_categories
from newshelf.serving.resolve import CandidateSet, Resolved
from newshelf.serving.rule_masks import ActiveRules
from newshelf.serving.schemas import Source
from newshelf.serving.scoring import (
    blended,
    link_sums,
    promising,
    score_history,
    unpersonal_at,
)
from newshelf.serving.search.base import FloatArray, IntArray, best_rows, top_rows

_DECIMALS = 4
"""Scores are rounded, so that rounding errors of one runtime or another break no tie."""


@dataclass(frozen=True)
class Ranked:
    """Positions with their scores, in any order."""

    source: Source
    positions: IntArray
    scores: NDArray[np.float64]
    explained_by: IntArray | None = None
    """For each, the history item that counted most; None when none did, or nobody asked."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Positions to be scored, and what links and prior say of each, ``(C,)``."""

    positions: IntArray
    unpersonal: FloatArray | None


@dataclass(frozen=True)
class ModelRanker:
    """Ranks by the scorer and by the signals added to it.

    ``links``, ``bound`` and ``pairs`` are of the archive's items. ``retrieve`` items are retrieved
    for a request that names no candidates.
    """

    pooling: Pooling
    links: BlendLookup | None
    bound: ContentBound | None
    pairs: PairSums | None
    retrieve: int

    def rank(self, rows: Sequence[Resolved]) -> list[Ranked | None]:
        """Retrieve from the index, then score; None for a row without history or anything allowed.

        Retrieval takes the ``retrieve`` allowed items nearest to the mean of the projected history,
        and as many by the signals added to the scorer; candidates that the request names are all
        scored.
        """
        # A step for all of a batch: its data stays in the processor's cache.
        found = [self._found(row) for row in rows]
        return [self._ranked(row, one) for row, one in zip(rows, found, strict=True)]

    def _found(self, row: Resolved) -> _Found:
        if not len(row.history):
            return _Found(np.zeros(0, dtype=np.int64), None)
        sums = None if self.links is None else link_sums(row, self.links)
        positions = row.candidate_set.named
        if positions is None:
            positions = self._nearest(row)
            if self.links is not None and sums is not None:
                return self._with_linked(row, self.links, sums, positions)
        if self.links is None or sums is None:
            return _Found(positions, None)
        return _Found(positions, unpersonal_at(row, self.links, sums, positions))

    def _with_linked(
        self, row: Resolved, links: BlendLookup, sums: LinkSums, nearest: IntArray
    ) -> _Found:
        """Add what links and prior alone recommend."""
        live, allowed = row.candidate_set.live, row.candidate_set.allowed
        limit = max(self.retrieve, row.request.k)
        among, everywhere = live.archive_mask(allowed), None
        if links.stored is None:
            everywhere = links.everywhere(sums)
            rows = top_rows(everywhere, among, limit)
            of_rows = everywhere[rows]
        else:
            rows, of_rows = links.best(sums, among, limit)
        if live.is_archive:
            positions = distinct(np.concatenate([nearest, rows]))
            unpersonal = (
                links.unpersonal(sums, positions) if everywhere is None else everywhere[positions]
            )
            return _Found(positions, unpersonal)
        linked, of_new = live.of_archive(rows), None
        if live.newcomers is not None:
            of_new, shown = links.outside(sums, live.newcomers), allowed[live.new]
            scores = np.concatenate([of_rows, of_new[shown]])
            linked = best_rows(np.concatenate([linked, live.new[shown]]), scores, limit)
        positions = distinct(np.concatenate([nearest, linked]))
        return _Found(positions, unpersonal_at(row, links, sums, positions, of_new))

    def _nearest(self, row: Resolved) -> IntArray:
        return _nearest(row, _unit_mean(row.history.vectors), self.retrieve, projected=True)

    def _ranked(self, row: Resolved, found: _Found) -> Ranked | None:
        if not len(found.positions):
            return None
        scores, explained_by = score_history(row, found.positions, self.pooling, self.pairs)
        blend = row.candidate_set.live.archive.blend
        if blend is None or found.unpersonal is None:
            return _finite(found.positions, scores, explained_by)
        spec, positions = blend.spec, found.positions
        rest = found.unpersonal + np.float32(spec.weights["siamese"]) * scores
        if self.bound is not None:
            kept = promising(row, spec, self.bound, positions, rest)
            if kept is not None:
                positions, rest = positions[kept], rest[kept]
                explained_by = None if explained_by is None else explained_by[kept]
        return _finite(positions, blended(row, spec, positions, rest, self.pairs), explained_by)


def _finite(positions: IntArray, values: FloatArray, explained_by: IntArray | None) -> Ranked:
    finite = np.isfinite(values)
    if not finite.all():
        positions, values = positions[finite], values[finite]
        explained_by = None if explained_by is None else explained_by[finite]
    return Ranked("model", positions, rounded(values), explained_by)


def rank_by_similarity(row: Resolved, limit: int) -> Ranked | None:
    """Cosine of the embedding to the mean of the history's; None without history."""
    if not len(row.history):
        return None
    query = _unit_mean(row.history.embeddings)
    positions = _nearest(row, query, limit, projected=False)
    embeddings = row.candidate_set.positions.embeddings(positions)
    explained_by = (embeddings @ row.history.embeddings.T).argmax(axis=1)
    return Ranked("similar", positions, rounded(embeddings @ query), explained_by)


def rank_by_popularity(
    row: Resolved, limit: int, categories: Sequence[str] | None = None
) -> Ranked:
    """Share of all interactions, among all that is allowed or within categories."""
    candidate_set = row.candidate_set
    among = candidate_set.allowed
    if categories is not None:
        among = among & candidate_set.positions.mask(lambda table: in_categories(table, categories))
    positions, shares = candidate_set.live.popular(among, limit)
    return Ranked("popular" if categories is None else "popular_in_category", positions, shares)


def categories_of(row: Resolved) -> list[str]:
    """Return the categories that the request filters by, or else those the history is made of."""
    if row.request.filters.product_type is not None:
        return list(row.request.filters.product_type)
    types = (facts.product_type for facts in row.history.facts)
    return list(dict.fromkeys(value for value in types if value))


def _nearest(row: Resolved, query: FloatArray, limit: int, *, projected: bool) -> IntArray:
    candidate_set = row.candidate_set
    if candidate_set.named is not None:
        return candidate_set.named
    limit = max(limit, row.request.k)
    return candidate_set.live.nearest(query, candidate_set.allowed, limit, projected=projected)


def _unit_mean(vectors: FloatArray) -> FloatArray:
    mean: FloatArray = vectors.mean(axis=0)
    # Opposite vectors cancel out; then any item is as near as another.
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def rounded(scores: FloatArray) -> NDArray[np.float64]:
    """Return scores that are equal in every runtime."""
    return scores.astype(np.float64).round(_DECIMALS)


def diversify(
    relevance: NDArray[np.float64], embeddings: NDArray[np.float32], k: int, diversity: float
) -> NDArray[np.int64]:
    """Choose ``k`` items one by one, each relevant yet unlike those already chosen.

    Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998), with ``λ = 1 - diversity``::

        next = argmax_i  λ · relevance_i - (1 - λ) · max_{j chosen} cos(i, j)

    Relevance ``(C,)`` is first stretched to 0 … 1, so that it weighs the same whatever ranking it
    comes from. The first choice is the most relevant item. Embeddings are ``(C, D)`` of unit
    length. Returns ``(min(k, C),)`` positions, in the order of choice; ties go to the first.
    """
    count = len(relevance)
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    span = relevance.max() - relevance.min()
    scaled = (relevance - relevance.min()) / span if span > 0 else np.zeros(count)
    chosen = [int(np.argmax(relevance))]
    similarity = np.full(count, -np.inf)
    while len(chosen) < min(k, count):
        similarity = np.maximum(similarity, embeddings @ embeddings[chosen[-1]])
        marginal = (1 - diversity) * scaled - diversity * similarity
        marginal[chosen] = -np.inf
        chosen.append(int(np.argmax(marginal)))
    return np.array(chosen, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Picked:
    """One item of the answer."""

    position: int
    score: float
    source: Source
    explained_by: int | None
    pinned_by: str | None = None


def fill(
    candidate_set: CandidateSet, rankings: Iterable[Ranked | None], *, k: int, diversity: float
) -> list[Picked]:
    """Take the best of each ranking in turn, no item twice, until there are ``k``; apply rules."""
    picked: list[Picked] = []
    for ranked in rankings:
        if ranked is not None:
            fresh = _fresh(ranked, picked)
            order = _order(candidate_set, ranked, fresh, k - len(picked), diversity)
            picked.extend(_items(ranked, order))
        if len(picked) >= k:
            break
    rules = candidate_set.rules
    return picked if rules is None else _with_pins(candidate_set, rules, picked, k)


def _with_pins(
    candidate_set: CandidateSet, rules: ActiveRules, picked: Sequence[Picked], k: int
) -> list[Picked]:
    """Put pinned products in their places, each once, if they may be answered and are in stock."""
    pins: dict[int, Picked] = {}
    pinned: set[int] = set()
    answered = [item.position for item in picked]
    for place, rule, choices in rules.pinned(answered, candidate_set.allowed, k):
        able = (at for at in choices if at not in pinned and candidate_set.in_stock(at))
        if (position := next(able, None)) is not None:
            pinned.add(position)
            pins[place] = Picked(position, 0.0, "pinned", None, rule)
    items = [item for item in picked if item.position not in pinned]
    for place, item in pins.items():
        items.insert(place, item)
    return items[:k]


def _fresh(ranked: Ranked, picked: Sequence[Picked]) -> NDArray[np.int64]:
    """Return the next position in the ranking whose item was not picked before."""
    if not picked:
        return np.arange(len(ranked.positions))
    return np.flatnonzero(~np.isin(ranked.positions, [item.position for item in picked]))


def _order(
    candidate_set: CandidateSet,
    ranked: Ranked,
    fresh: NDArray[np.int64],
    count: int,
    diversity: float,
) -> NDArray[np.int64]:
    scores, positions = ranked.scores[fresh], ranked.positions[fresh]
    rules = candidate_set.rules
    places = None if rules is None else rules.places(scores, positions)
    if places is not None:
        # Diversity weighs the score of the place, as it would without rules.
        scores = np.sort(scores)[::-1][places] if diversity else -places.astype(np.float64)
    if diversity == 0:
        best = _best(scores, positions, count)
    else:
        best = diversify(scores, candidate_set.positions.embeddings(positions), count, diversity)
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
    explained_by: list[int | None] = [None] * len(order)
    if ranked.explained_by is not None:
        explained_by = ranked.explained_by[order].tolist()
    chosen = ranked.positions[order].tolist(), ranked.scores[order].tolist()
    for position, score, counted in zip(*chosen, explained_by, strict=True):
        yield Picked(position, score, ranked.source, counted)
