"""Kinds of recommendations and searches: the rankings that fill an answer, and explanations.

==================  ==========================================================================
``for_you``         model, similar, popular in category, popular
``similar``         nearest by content to the given products, then popular ones
``bought_together`` those linked with the given products, in the model's order, then as ``similar``
``cart``            the model's among products of other types than the given ones have
``trending``        more interactions of late than their popularity leads to expect, then popular
``popular``         popular, whatever the category
``new``             the newest, in the model's order if there is a history, then popular
``buy_again``       the named candidates in their order, and nothing else
==================  ==========================================================================

The given products are the request's history. A search joins rankings by words, by embedding and by
history.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from newshelf.attributes.lexicon import Lexicon
from newshelf.catalog.schema import category_levels, category_path, split_values
from newshelf.errors import InvalidField, NewshelfError
from newshelf.nn.rows import first_allowed
from newshelf.serving.item_table import in_categories
from newshelf.serving.live import LiveIndex
from newshelf.serving.ranking import (
    Picked,
    Ranked,
    categories_of,
    fill,
    rank_by_popularity,
    rank_by_similarity,
    rounded,
)
from newshelf.serving.requests import ParsedRequest, read_filters, with_read
from newshelf.serving.resolve import Encoded, Facts, Resolved, resolve
from newshelf.serving.schemas import Filters, Kind, SearchQuery, Source
from newshelf.serving.scoring import linked_rows
from newshelf.serving.search.base import IntArray

_NEWEST = 100
"""Number of products that count as new."""
POPULAR = "popular with other shoppers"
"""The reason for want of anything more personal."""
REASONS: Mapping[Source, str] = {
    "bought_together": "often bought together",
    "cart": "goes with your cart",
    "trending": "in demand right now",
    "new": "new in the shop",
    "buy_again": "you bought it before",
    "pinned": "chosen by the shop",
}
"""Explanations of items for which no product of the history counted most."""


def for_model(row: Resolved) -> Resolved | None:
    """Return the request whose candidates the model ranks; None where it ranks nothing."""
    match row.request.kind:
        case "for_you":
            return row
        case "bought_together":
            linked = rank_by_links(row)
            return None if linked is None else _among(row, np.sort(linked.positions))
        case "cart":
            return _of_other_types(row)
        case "new":
            return _among(row, np.sort(newest(row, max(_NEWEST, row.request.k))[0]))
        case _:
            return None


def pick(row: Resolved, by_model: Ranked | None, retrieve: int) -> list[Picked]:
    """Choose at most ``k`` items; a later ranking is made only when the earlier ones ran out."""
    request = row.request
    rankings = _RANKINGS[request.kind](row, by_model, max(retrieve, request.k))
    return fill(row.candidate_set, rankings, k=request.k, diversity=request.diversity)


Rankings = Iterator[Ranked | None]


def _for_you(row: Resolved, by_model: Ranked | None, limit: int) -> Rankings:
    yield by_model
    yield from _similar(row, None, limit)


def _similar(row: Resolved, _by_model: Ranked | None, limit: int) -> Rankings:
    yield rank_by_similarity(row, limit)
    if categories := categories_of(row):
        yield rank_by_popularity(row, limit, categories)
    yield rank_by_popularity(row, limit)


def _bought_together(row: Resolved, by_model: Ranked | None, limit: int) -> Rankings:
    yield _named("bought_together", by_model or rank_by_links(row))
    yield from _similar(row, None, limit)


def _cart(row: Resolved, by_model: Ranked | None, limit: int) -> Rankings:
    others = _of_other_types(row)
    ranked = by_model or rank_by_links(others) or rank_by_similarity(others, limit)
    yield _named("cart", ranked)
    yield rank_by_popularity(others, limit)


def _named(source: Source, ranked: Ranked | None) -> Ranked | None:
    """Return the ranking under its kind's name, which explains its items too."""
    return ranked and replace(ranked, source=source, explained_by=None)


def _trending(row: Resolved, _by_model: Ranked | None, limit: int) -> Rankings:
    positions, growth = row.candidate_set.live.growth
    allowed = row.candidate_set.allowed[positions]
    yield Ranked("trending", positions[allowed], growth[allowed])
    yield rank_by_popularity(row, limit)


def _popular(row: Resolved, _by_model: Ranked | None, limit: int) -> Rankings:
    yield rank_by_popularity(row, limit)


def _new(row: Resolved, by_model: Ranked | None, limit: int) -> Rankings:
    ranked = by_model or Ranked("new", *newest(row, limit))
    yield _named("new", ranked)
    yield rank_by_popularity(row, limit)


def _buy_again(row: Resolved, _by_model: Ranked | None, _limit: int) -> Rankings:
    named = row.candidate_set.named
    positions = np.zeros(0, dtype=np.int64) if named is None else named
    places = {str(ref): place for place, ref in enumerate(row.request.candidates or ())}
    ids = map(row.candidate_set.id, positions.tolist())
    order = [places.get(item, len(places)) for item in ids]
    yield Ranked("buy_again", positions, 1 / (1 + np.array(order, dtype=np.float64)))


_RANKINGS: Mapping[Kind, Callable[[Resolved, Ranked | None, int], Rankings]] = {
    "for_you": _for_you,
    "similar": _similar,
    "bought_together": _bought_together,
    "cart": _cart,
    "trending": _trending,
    "popular": _popular,
    "new": _new,
    "buy_again": _buy_again,
}


def rank_by_links(row: Resolved) -> Ranked | None:
    """Rank by the history's summed links, or of a new product's neighbours; None without any."""
    history, live = row.history, row.candidate_set.live
    blend = live.archive.blend
    if blend is None or not len(history):
        return None
    known, nearest = linked_rows(history)
    given = [(known, np.ones(len(known), dtype=np.float32)), *nearest]
    rows, weights = (
        np.concatenate([part.ravel() for part in parts]) for parts in zip(*given, strict=True)
    )
    linked, sums = blend.followed(rows, weights)
    positions = live.of_archive(linked)
    shown = (positions >= 0) & row.candidate_set.allowed[positions]
    return Ranked("bought_together", positions[shown], rounded(sums[shown]))


def newest(row: Resolved, limit: int) -> tuple[IntArray, NDArray[np.float64]]:
    """Return the newest positions with a date, at most ``limit``, and their dates (epoch)."""
    candidate_set, found, dates = row.candidate_set, [], []
    for start, table in candidate_set.positions.tables:
        allowed = candidate_set.allowed[start : start + len(table)]
        rows = first_allowed(table.newest_first, allowed, limit)
        found.append(start + rows)
        dates.append(table.created_at[rows])
    positions, created = np.concatenate(found), np.concatenate(dates)
    best = np.lexsort((positions, -created))[:limit]
    return positions[best], created[best].astype(np.float64)


def _of_other_types(row: Resolved) -> Resolved:
    types = [facts.product_type for facts in row.history.facts if facts.product_type]
    if not types:
        return row
    other = ~row.candidate_set.positions.mask(partial(in_categories, product_types=types))
    other &= row.candidate_set.allowed
    if row.candidate_set.named is None:
        return replace(row, candidate_set=replace(row.candidate_set, unnamed=other))
    return _among(row, np.flatnonzero(other))


def _among(row: Resolved, positions: IntArray) -> Resolved:
    return replace(row, candidate_set=replace(row.candidate_set, named=positions, unnamed=None))


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
    (``newshelf.serving.requests``). Products of the history may be found again. ``encoded`` has, by
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
        near = live.nearest(embedding, allowed, limit, projected=False)
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


_WORDINGS = {"material": "same material {}", "color": "same colour {}", "style": "same {} style"}
_AT_MOST = 2
"""Values of one attribute in one reason."""


def like_history(item: Facts, liked: Facts, lexicon: Lexicon | None = None) -> str:
    """``like ‘Jade ring’ in your history: same material jade, same minimal style``."""
    name = liked.title or liked.id
    start = f"like ‘{name}’ in your history" if name else "like an item in your history"
    shared = _shared(item, liked, lexicon or Lexicon(()))
    return f"{start}: {', '.join(shared)}" if shared else start


def popular_in(product_type: str | None, categories: Sequence[str]) -> str:
    """``popular in Jewellery > Rings``: the first of ``categories`` that the type is in."""
    levels = category_path(product_type)
    for category in categories:
        wanted = category_path(category)
        if levels[: len(wanted)] == wanted:
            return f"popular in {' > '.join(category_levels(category))}"
    return POPULAR


def _shared(item: Facts, liked: Facts, lexicon: Lexicon) -> list[str]:
    shared = []
    if value := _common_type(item, liked):
        shared.append(f"same type {category_levels(value)[-1]}")
    if brand := _common_brand(item, liked):
        shared.append(f"same brand {brand}")
    for attribute, wording in _WORDINGS.items():
        shared += [wording.format(value) for value in _common(attribute, item, liked, lexicon)]
    return shared


def _common(attribute: str, item: Facts, liked: Facts, lexicon: Lexicon) -> list[str]:
    """The values that both have, as the item spells them; none that another one implies."""
    others = {lexicon.canonical(attribute, value) for value in _values(attribute, liked)}
    shared: dict[str, str] = {}
    for value in _values(attribute, item):
        name = lexicon.canonical(attribute, value)
        if name in others:
            shared.setdefault(name, value)
    wider = {value for name in shared for value in lexicon.implied(attribute, name)}
    return [value for name, value in shared.items() if name not in wider][:_AT_MOST]


def _values(attribute: str, item: Facts) -> list[str]:
    stated = {"color": item.color, "material": item.material}.get(attribute)
    return [*split_values(stated), *item.known.get(attribute, ())]


def _common_type(item: Facts, liked: Facts) -> str | None:
    """The stated type where both have one; otherwise the most special that is known."""
    if item.product_type and liked.product_type:
        same = category_levels(item.product_type) == category_levels(liked.product_type)
        return item.product_type if same else None
    others = [category_path(value) for value in _types(liked)]
    shared = [value for value in _types(item) if category_path(value) in others]
    return max(shared, key=lambda value: len(category_levels(value)), default=None)


def _common_brand(item: Facts, liked: Facts) -> str | None:
    brands = [item.brand] if item.brand else item.known.get("brand", ())
    others = [liked.brand] if liked.brand else liked.known.get("brand", ())
    folded = {brand.lower() for brand in others}
    return next((brand for brand in brands if brand.lower() in folded), None)


def _types(item: Facts) -> Sequence[str]:
    return [item.product_type] if item.product_type else item.known.get("product_type", ())
