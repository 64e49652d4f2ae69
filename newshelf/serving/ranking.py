"""Rankings of a shelf: by the scorer, by likeness to the history, by popularity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newshelf.nn.blend_lookup import BlendLookup
from newshelf.nn.content_bound import ContentBound
from newshelf.nn.pair_sums import PairSums
from newshelf.serving.blending import blended, link_sums, promising, unpersonal_at
from newshelf.serving.filters import in_categories
from newshelf.serving.resolve import Resolved
from newshelf.serving.runtimes import Runtime
from newshelf.serving.schemas import Source
from newshelf.serving.scoring import Scored, score_histories
from newshelf.serving.search import Search, top_rows

__all__ = ["ModelRanker", "Ranked", "categories_of", "rank_by_likeness", "rank_by_popularity"]

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
    """For each, the history item that counted most; None when none did, or nobody asked."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Positions to be scored, and what links and prior say of each, ``(C,)``."""

    positions: IntArray
    unpersonal: FloatArray | None


@dataclass(frozen=True)
class ModelRanker:
    """Ranks by the scorer and by the signals beside it.

    Args:
        scorer: its graph, for an index that does not hold the pooling's numbers.
        links: the index's signals; None where the scorer ranks alone.
        bound: of the index's embeddings; None where it would not help.
        pairs: of the index's items; None where they are too many.
        retrieve: items that are retrieved for a request that names no candidates.
    """

    scorer: Runtime
    links: BlendLookup | None
    bound: ContentBound | None
    pairs: PairSums | None
    retrieve: int

    def rank(self, rows: Sequence[Resolved]) -> list[Ranked | None]:
        """Retrieve from the index, then score.

        Retrieval takes the ``retrieve`` allowed items nearest to the mean of the projected
        history, and as many by what the signals beside the scorer say; candidates that the
        request names are all scored.

        Returns:
            One ranking per row; None for a row without history, or with nothing allowed.
        """
        found = [self._found(row) for row in rows]
        active = [at for at, positions in enumerate(found) if len(positions.positions)]
        asked = [(rows[at], found[at].positions) for at in active]
        scored = score_histories(asked, self.scorer, self.pairs)
        ranked: list[Ranked | None] = [None] * len(rows)
        for at, scores in zip(active, scored, strict=True):
            ranked[at] = self._ranked(rows[at], found[at], scores)
        return ranked

    def _found(self, row: Resolved) -> _Found:
        if not len(row.history):
            return _Found(np.zeros(0, dtype=np.int64), None)
        sums = None if self.links is None else link_sums(row, self.links)
        if row.shelf.named is not None:
            if self.links is None or sums is None:
                return _Found(row.shelf.named, None)
            return _Found(row.shelf.named, unpersonal_at(row, self.links, sums, row.shelf.named))
        nearest = self._nearest(row)
        if self.links is None or sums is None:
            return _Found(nearest, None)
        beside = self.links.everywhere(sums)
        limit = max(self.retrieve, row.request.k)
        positions = np.union1d(nearest, top_rows(beside, row.shelf.allowed, limit))
        return _Found(positions, beside[positions])

    def _nearest(self, row: Resolved) -> IntArray:
        vectors, search = row.history.vectors, row.shelf.index.vector_search
        if vectors is None or search is None:
            raise ValueError("an index without a scorer has no projected vectors")
        return _nearest(row, search, _unit_mean(vectors), self.retrieve)

    def _ranked(self, row: Resolved, found: _Found, scored: Scored) -> Ranked:
        blend = row.shelf.index.blend
        if blend is None or found.unpersonal is None:
            return _finite(found.positions, scored.scores, scored.because)
        spec, positions, because = blend.spec, found.positions, scored.because
        beside = found.unpersonal + np.float32(spec.weights["siamese"]) * scored.scores
        if self.bound is not None:
            kept = promising(row, spec, self.bound, positions, beside)
            if kept is not None:
                positions, beside = positions[kept], beside[kept]
                because = None if because is None else because[kept]
        return _finite(positions, blended(row, spec, positions, beside, self.pairs), because)


def _finite(positions: IntArray, values: FloatArray, because: IntArray | None) -> Ranked:
    finite = np.isfinite(values)
    if not finite.all():
        positions, values = positions[finite], values[finite]
        because = None if because is None else because[finite]
    return Ranked("model", positions, _rounded(values), because)


def rank_by_likeness(row: Resolved, limit: int) -> Ranked | None:
    """Cosine of the embedding to the mean of the history's; None without history."""
    if not len(row.history):
        return None
    query = _unit_mean(row.history.embeddings)
    positions = _nearest(row, row.shelf.index.embedding_search, query, limit)
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
        tables = [shelf.index.table, *([shelf.extras.table] if shelf.listed else [])]
        among = among & np.concatenate([in_categories(table, categories) for table in tables])
    positions, shares = shelf.popular(among, limit)
    return Ranked("popular" if categories is None else "popular_in_category", positions, shares)


def categories_of(row: Resolved) -> list[str]:
    """What the request filters by, or else what the history is made of."""
    if row.request.filters.product_type is not None:
        return list(row.request.filters.product_type)
    types = (facts.product_type for facts in row.history.facts)
    return list(dict.fromkeys(value for value in types if value))


def _nearest(row: Resolved, search: Search, query: FloatArray, limit: int) -> IntArray:
    if row.shelf.named is not None:
        return row.shelf.named
    # Only named candidates are brought along, so here every position is an index row.
    return search.nearest(query, row.shelf.allowed, max(limit, row.request.k))


def _unit_mean(vectors: FloatArray) -> FloatArray:
    mean: FloatArray = vectors.mean(axis=0)
    # Opposite vectors cancel out; then any item is as near as another.
    unit: FloatArray = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return unit


def _rounded(scores: FloatArray) -> NDArray[np.float64]:
    return scores.astype(np.float64).round(_DECIMALS)
