"""Answers without a model: the popular products, first those of the request's category; and the
file of popular products.

Filters, exclusions and candidates apply to the products' columns only; attributes that a worker
infers from texts and pictures are not available here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError

from newshelf.catalog.schema import category_levels
from newshelf.errors import SettingsError
from newshelf.files import StrictModel, write_aside
from newshelf.serving.item_table import ItemTable, allowed_mask, in_categories
from newshelf.serving.schemas import EncoderProduct, RecommendedItem, RecommendRequest, Source

_MOST_POPULAR = 5_000
_PER_CATEGORY = 20
"""Most popular products of each category, in addition."""
_NEWEST = 500
"""Newest products, in addition."""


class PopularItem(StrictModel):
    """One product, with the columns of the filters."""

    id: str
    share: float
    """Of all interactions."""
    product_type: str | None = None
    brand: str | None = None
    color: str | None = None
    material: str | None = None
    price: float | None = None
    availability: str | None = None
    created_at: int | None = None


def write_popular(columns: Mapping[str, Sequence[object]], out: Path) -> int:
    """Write the most popular products of an index, atomically; return their number."""
    names = [name for name in PopularItem.model_fields if name != "share"]
    table = ItemTable.from_columns({name: columns[name] for name in (*names, "popularity")})
    shares = (table.popularity / (table.popularity.sum() or 1.0)).tolist()
    newest = set(table.newest_first[:_NEWEST].tolist())
    kept = _kept(table.popular_first.tolist(), columns["product_type"], newest)
    rows = [{name: columns[name][row] for name in names} | {"share": shares[row]} for row in kept]
    with write_aside(out) as aside:
        aside.write_bytes(orjson.dumps(rows))
    return len(rows)


def read_popular(path: Path) -> list[PopularItem]:
    """Read what ``write_popular`` wrote."""
    try:
        return [PopularItem.model_validate(row) for row in orjson.loads(path.read_bytes())]
    except OSError as error:
        raise SettingsError(f"cannot read the popular products {path}: {error.strerror}") from error
    except (orjson.JSONDecodeError, ValidationError, TypeError) as error:
        raise SettingsError(f"{path} is not a file of popular products: {error}") from error


def _kept(order: Sequence[int], categories: Sequence[object], newest: set[int]) -> list[int]:
    """Return the rows of ``order`` that are new, or among the first of all or their category."""
    seen: Counter[object] = Counter()
    kept = []
    for rank, row in enumerate(order):
        seen[categories[row]] += 1
        if rank < _MOST_POPULAR or seen[categories[row]] <= _PER_CATEGORY or row in newest:
            kept.append(row)
    return kept


_MAX_K = 100
_CATEGORIES = 12


class Fallback:
    """Ranks by popularity; ``items`` have the most popular first."""

    def __init__(self, items: Sequence[PopularItem]) -> None:
        self._items = items
        self._table = _table(items)
        # Now rather than under load.
        _ = self._table.in_stock, self._table.newest_first, self._table.by("product_type")

    def __len__(self) -> int:
        return len(self._items)

    @cached_property
    def categories(self) -> list[str]:
        """The first levels of the product types, those of most products first."""
        levels = (category_levels(item.product_type)[:1] for item in self._items)
        found = Counter(level for first in levels for level in first)
        return [level for level, _ in found.most_common(_CATEGORIES)]

    def recommend(self, request: RecommendRequest) -> list[RecommendedItem]:
        """Return at most ``k`` products, and at most 100.

        A search gets what its words find, ``new`` the newest, ``buy_again`` the candidates in their
        order; all other kinds get popular products, except for ``popular`` and ``trending`` first
        those of the category.
        """
        table, named = self._table, [*dict.fromkeys(_ids(request.candidates or ()))]
        if any(isinstance(ref, EncoderProduct) for ref in request.candidates or ()):
            table = self._with_inline(request.candidates or ())
        left = allowed_mask(table, request.filters)
        if request.candidates is not None:
            left &= np.isin(np.arange(len(table)), table.rows(named))
        seen = table.rows([*_ids(request.history), *request.exclude])
        left[seen[seen >= 0]] = False
        items: list[RecommendedItem] = []
        for source, rows in self._rankings(request, table, named):
            found = rows[left[rows]][: min(request.k, _MAX_K) - len(items)]
            left[found] = False
            scores = table.popularity[found].tolist()
            items += [
                RecommendedItem(id=table.id[row], score=score, source=source)
                for row, score in zip(found.tolist(), scores, strict=True)
            ]
        return items

    def _rankings(
        self, request: RecommendRequest, table: ItemTable, named: Sequence[str]
    ) -> Iterator[tuple[Source, NDArray[np.int64]]]:
        """Yield the rows of the kind's ranking, as far as there is one, then the popular ones."""
        if request.search is not None or request.kind == "buy_again":
            search = request.search
            rows = table.rows(named if search is None else [*dict.fromkeys(search.hits)])
            yield "buy_again" if search is None else "search", rows[rows >= 0]
            return
        if request.kind == "new":
            yield "new", table.newest_first
        elif request.kind not in {"popular", "trending"}:
            inside = in_categories(table, self._categories(request))
            yield "popular_in_category", np.flatnonzero(inside)
        yield "popular", np.arange(len(table))

    def _with_inline(self, refs: Sequence[str | EncoderProduct]) -> ItemTable:
        """Return the popular products, then those of the request, which replace equal ones."""
        columns = PopularItem.model_fields.keys() & EncoderProduct.model_fields.keys()
        sent = {
            ref.id: PopularItem(share=0.0, **ref.model_dump(include=columns))
            for ref in refs
            if isinstance(ref, EncoderProduct) and ref.id
        }
        return _table([*(item for item in self._items if item.id not in sent), *sent.values()])

    def _categories(self, request: RecommendRequest) -> Sequence[str]:
        """Return the categories of the filter, or else of the history."""
        if request.filters.product_type is not None:
            return request.filters.product_type
        rows = self._table.rows([ref for ref in request.history if isinstance(ref, str)])
        known = (self._table.product_type[row] for row in rows[rows >= 0].tolist())
        sent = (ref.product_type for ref in request.history if isinstance(ref, EncoderProduct))
        return [value for value in (*known, *sent) if value]


def _table(items: Sequence[PopularItem]) -> ItemTable:
    names = {name: name for name in PopularItem.model_fields} | {"share": "popularity"}
    return ItemTable.from_columns(
        {column: [getattr(item, name) for item in items] for name, column in names.items()}
    )


def _ids(refs: Iterable[str | EncoderProduct]) -> Iterator[str]:
    for ref in refs:
        identity = ref if isinstance(ref, str) else ref.id
        if identity:
            yield identity
