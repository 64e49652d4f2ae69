"""Scores of candidates by the scorer's formula in NumPy, blended with the other signals."""

from collections.abc import Callable

import numpy as np

from newshelf.errors import VersionMismatch
from newshelf.nn.blend import ContentBound, content_signal, nearest_shares
from newshelf.nn.blend_lookup import BlendLookup, LinkSums
from newshelf.nn.numpy_scorer import PairSums, Pooling
from newshelf.nn.spec import BlendSpec
from newshelf.serving.resolve import EncodedHistory, Resolved
from newshelf.serving.runtimes.base import Runtime
from newshelf.serving.search.base import FloatArray, IntArray

_TOLERANCE = 1e-4
"""Relative, with which graphs are held equal at export too."""


def check_pooling(pooling: Pooling, scorer: Runtime, width: int) -> None:
    """Check that the formula gives what the graph gives, or raise ``VersionMismatch``."""
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


def score_history(
    row: Resolved, positions: IntArray, pooling: Pooling, pairs: PairSums | None
) -> tuple[FloatArray, IntArray | None]:
    """Score candidates against a request's history, ``(C,)``.

    With the history item that counted most in each, where the request asks to explain.
    """

    def similarity(positions: IntArray) -> FloatArray:
        vectors = row.candidate_set.positions.vectors(positions)
        return pooling.similarity(row.history.vectors, vectors)

    # Sums do not tell which history item counted most.
    if row.request.explain:
        compared = similarity(positions)
        return pooling.scores(compared), pooling.counted_most(compared)
    if pairs is None or row.history.inline:
        return pooling.scores(similarity(positions)), None
    scores = _by_terms(
        row,
        row.history.recent,
        positions,
        pairs,
        pairs.scores,
        lambda positions: pooling.scores(similarity(positions)),
    )
    return scores, None


def _by_terms(
    row: Resolved,
    history: IntArray,
    positions: IntArray,
    pairs: PairSums,
    sums: Callable[[IntArray, IntArray], FloatArray],
    computed: Callable[[IntArray], FloatArray],
) -> FloatArray:
    """Sum up precomputed terms where there are some, and compute the rest: ``(C,)``."""
    if row.candidate_set.is_archive and pairs.worthwhile(len(positions)):
        return sums(history, positions)
    history = row.history.live.positions.unchanged(history)
    rows = row.candidate_set.positions.unchanged(positions)
    known = rows >= 0
    count = int(np.count_nonzero(known))
    if (history < 0).any() or not pairs.worthwhile(count):
        return computed(positions)
    if count == len(positions):
        return sums(history, rows)
    scores = np.empty(len(positions), dtype=np.float32)
    scores[known] = sums(history, rows[known])
    scores[~known] = computed(positions[~known])
    return scores


_WORTH = 4
"""With fewer candidates for each item of the answer, bounds cost more than they save."""
_MARGIN = 2e-4
"""Two units of a score's last decimal: what rounding makes equal is not left out."""


def link_sums(row: Resolved, links: BlendLookup) -> LinkSums:
    """Return the links of the whole history; an unknown product has its nearest items'."""
    return links.sums(*linked_rows(row.history))


def linked_rows(history: EncodedHistory) -> tuple[IntArray, list[tuple[IntArray, FloatArray]]]:
    """Return the archive's rows of a history, and nearest rows and shares of its other products."""
    live, unseen = history.live, history.unseen
    if live.is_archive and not len(unseen):
        return history.rows, []
    origin = live.positions.origin(history.rows)
    nearest = []
    if (new := history.rows[origin < 0]).size:
        nearest.append(live.positions.neighbours(new))
    if len(unseen):
        nearest.append(nearest_shares(unseen, live.archive.embeddings))
    return origin[origin >= 0], nearest


def unpersonal_at(
    row: Resolved,
    links: BlendLookup,
    sums: LinkSums,
    positions: IntArray,
    of_new: FloatArray | None = None,
) -> FloatArray:
    """Return the score from links and prior at some positions, ``(len(positions),)``.

    ``of_new`` are those of all new products, if they are known.
    """
    if row.candidate_set.is_archive:
        return links.unpersonal(sums, positions)
    places = row.candidate_set.positions
    origin = places.origin(positions)
    known = origin >= 0
    if known.all():
        return links.unpersonal(sums, origin)
    scores = np.empty(len(positions), dtype=np.float32)
    scores[known] = links.unpersonal(sums, origin[known])
    new = positions[~known]
    if of_new is None:
        scores[~known] = links.outside(sums, links.newcomers(*places.neighbours(new)))
    else:
        scores[~known] = of_new[row.candidate_set.live.new.searchsorted(new)]
    return scores


def blended(
    row: Resolved,
    spec: BlendSpec,
    positions: IntArray,
    rest: FloatArray,
    pairs: PairSums | None = None,
) -> FloatArray:
    """The blended log-odds at ``positions``, from ``rest``, all of the score but the content."""

    def computed(positions: IntArray) -> FloatArray:
        # This side first: the product's many rows are then what is read in order.
        embeddings = row.candidate_set.positions.embeddings(positions)
        # The whole history, as the weights were fitted, not only what the scorer reads.
        history = row.history.live.positions.embeddings(row.history.rows)
        if len(row.history.unseen):
            history = np.concatenate([history, row.history.unseen])
        return content_signal((embeddings @ history.T).T, spec.temperature)

    if pairs is None or len(row.history.unseen):
        content = computed(positions)
    else:
        content = _by_terms(row, row.history.rows, positions, pairs, pairs.content, computed)
    return rest + np.float32(spec.weights["content"]) * content


def promising(
    row: Resolved, spec: BlendSpec, bound: ContentBound, positions: IntArray, rest: FloatArray
) -> IntArray | None:
    """Return those positions that may be among the first ``k``, whatever their content.

    ``positions`` are in increasing order; ``rest``, of their shape, is all of the score but the
    content. Returns places among them, in increasing order; None where all have to be scored.
    """
    count, weight = row.request.k, spec.weights["content"]
    history = row.history.live.positions.unchanged(row.history.rows)
    rules = row.candidate_set.rules
    # Diversity weighs a score against the least of them all; boosts raise any.
    if row.request.diversity or (rules is not None and rules.moves):
        return None
    if len(row.history.unseen) or (history < 0).any():
        return None
    rows = row.candidate_set.positions.unchanged(positions)
    known = np.flatnonzero(rows >= 0)
    if len(known) <= _WORTH * count:
        return None
    content, off = bound.content(history, rows[known], spec.temperature)
    middle, reach = rest[known] + weight * content, abs(weight) * off
    least = np.partition(middle - reach, -count)[-count]
    kept = np.ones(len(positions), dtype=np.bool_)
    # What is not finite compares false, and is left to the full score.
    kept[known] = ~(middle + reach < least - _MARGIN)
    return np.flatnonzero(kept)
