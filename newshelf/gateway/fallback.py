"""Answers without a model: the popular products, first those of the request's category; and the
file of popular products.

Filters, exclusions and candidates apply to the products' columns only; attributes that a worker
infers from texts and pictures are not available here.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from newshelf.catalog.schema import category_path, split_values
from newshelf.errors import SettingsError
from newshelf.files import write_aside
from newshelf.serving.schemas import EncoderProduct, Filters, RecommendRequest, Source

_MOST_POPULAR = 5_000
_PER_CATEGORY = 20
"""Most popular products of each category, in addition."""
_NEWEST = 500
"""Newest products, in addition."""


class PopularItem(BaseModel):
    """One product, with the columns of the filters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    share: float
    """Share of all interactions."""
    product_type: str | None = None
    brand: str | None = None
    color: str | None = None
    material: str | None = None
    price: float | None = None
    availability: str | None = None
    created_at: int | None = None


def write_popular(columns: Mapping[str, Sequence[object]], out: Path) -> int:
    """Write the most popular products of an index, atomically; return their number."""
    popularity = [_number(value) for value in columns["popularity"]]
    total = sum(popularity) or 1.0
    # Ties keep the order of the index.
    order = sorted(range(len(popularity)), key=lambda row: -popularity[row])
    created = [_number(value) for value in columns["created_at"]]
    dated = [row for row, value in enumerate(columns["created_at"]) if value is not None]
    newest = set(sorted(dated, key=lambda row: -created[row])[:_NEWEST])
    kept = _kept(order, columns["product_type"], newest)
    names = [name for name in PopularItem.model_fields if name != "share"]
    rows = [
        {name: columns[name][row] for name in names} | {"share": popularity[row] / total}
        for row in kept
    ]
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


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


_MAX_K = 100
_MAX_LOOKED_AT = 5_000
_OUT_OF_STOCK = "out_of_stock"

CategoryPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FallbackItem:
    """One product of the answer."""

    id: str
    score: float
    """Share of all interactions."""
    source: Source


@dataclass(frozen=True, slots=True)
class _Known:
    item: PopularItem
    path: CategoryPath
    colors: frozenset[str]
    materials: frozenset[str]


class Fallback:
    """Ranks by popularity; ``items`` have the most popular first."""

    def __init__(self, items: Sequence[PopularItem]) -> None:
        self._items = [_known(item) for item in items]
        self._row = {known.item.id: row for row, known in enumerate(self._items)}
        self._below: dict[CategoryPath, list[int]] = {}
        self._newest = _newest(self._items)
        for row, known in enumerate(self._items):
            for depth in range(1, len(known.path) + 1):
                self._below.setdefault(known.path[:depth], []).append(row)

    def __len__(self) -> int:
        return len(self._items)

    def recommend(self, request: RecommendRequest) -> list[FallbackItem]:
        """Return at most ``k`` products, and at most 100.

        A search gets what its words find, ``new`` the newest, ``buy_again`` the candidates in their
        order; all other kinds get popular products, except for ``popular`` and ``trending`` first
        those of the category.
        """
        k = min(request.k, _MAX_K)
        allowed = _passes(request.filters)
        left_out = {*_ids(request.history), *request.exclude}

        def fresh(among: Iterable[_Known]) -> Iterator[_Known]:
            # Bounded, since this runs under load.
            for known in islice(among, _MAX_LOOKED_AT):
                if known.item.id not in left_out and allowed(known):
                    left_out.add(known.item.id)
                    yield known

        items: list[FallbackItem] = []
        for source, among in self._rankings(request):
            found = islice(fresh(among), k - len(items))
            items += [FallbackItem(known.item.id, known.item.share, source) for known in found]
        return items

    def _rankings(self, request: RecommendRequest) -> Iterator[tuple[Source, Sequence[_Known]]]:
        """Yield the kind's ranking, as far as there is one, then the popular products."""
        if request.search is not None:
            hits = request.search.hits
            yield "search", [self._items[self._row[one]] for one in hits if one in self._row]
            return
        named = request.candidates
        among = self._items if named is None else self._candidates(named)
        if request.kind == "buy_again":
            order = {name: place for place, name in enumerate(_ids(named or ()))}
            bought = [known for known in among if known.item.id in order]
            yield "buy_again", sorted(bought, key=lambda known: order[known.item.id])
            return
        if request.kind == "new":
            yield "new", self._newest if named is None else _newest(among)
        elif request.kind not in {"popular", "trending"}:
            categories = self._categories(request)
            yield (
                "popular_in_category",
                [self._items[row] for row in self._rows(categories)]
                if named is None
                else [known for known in among if _is_below(known.path, categories)],
            )
        yield "popular", among

    def _rows(self, categories: frozenset[CategoryPath]) -> list[int]:
        return sorted({row for category in categories for row in self._below.get(category, ())})

    def _candidates(self, refs: Sequence[str | EncoderProduct]) -> list[_Known]:
        """Return the known and the inline candidates by decreasing popularity."""
        inline = {ref.id: ref for ref in refs if isinstance(ref, EncoderProduct) and ref.id}
        known = [
            _inline(inline[name]) if name in inline else self._items[self._row[name]]
            for name in dict.fromkeys(_ids(refs))
            if name in inline or name in self._row
        ]
        return sorted(known, key=lambda one: -one.item.share)

    def _categories(self, request: RecommendRequest) -> frozenset[CategoryPath]:
        """Return the categories of the filter, or else of the history."""
        if request.filters.product_type is not None:
            return _paths(request.filters.product_type)
        rows = (self._row.get(ref) for ref in request.history if isinstance(ref, str))
        paths = {self._items[row].path for row in rows if row is not None}
        sent = (ref.product_type for ref in request.history if isinstance(ref, EncoderProduct))
        return frozenset(path for path in paths if path) | _paths(filter(None, sent))


def _ids(refs: Iterable[str | EncoderProduct]) -> Iterator[str]:
    for ref in refs:
        identity = ref if isinstance(ref, str) else ref.id
        if identity:
            yield identity


def _known(item: PopularItem) -> _Known:
    return _Known(
        item,
        category_path(item.product_type),
        frozenset(split_values(item.color)),
        frozenset(split_values(item.material)),
    )


def _newest(among: Sequence[_Known]) -> list[_Known]:
    dated = [known for known in among if known.item.created_at is not None]
    return sorted(dated, key=lambda known: -(known.item.created_at or 0))


def _inline(product: EncoderProduct) -> _Known:
    columns = ("id", "product_type", "brand", "color", "material", "price")
    columns_sent = {name: getattr(product, name) for name in columns}
    return _known(PopularItem(share=0.0, **columns_sent))


def _paths(product_types: Iterable[str]) -> frozenset[CategoryPath]:
    return frozenset(path for path in map(category_path, product_types) if path)


def _is_below(path: CategoryPath, categories: frozenset[CategoryPath]) -> bool:
    return any(path[:depth] in categories for depth in range(1, len(path) + 1))


def _passes(filters: Filters) -> Callable[[_Known], bool]:
    """Return a function that tells whether a product passes the given filters."""
    tests: list[Callable[[_Known], bool]] = [_stock(filters)]
    if filters.product_type is not None:
        categories = _paths(filters.product_type)
        tests.append(lambda known: _is_below(known.path, categories))
    if filters.brand is not None:
        brands = _lowered(filters.brand)
        tests.append(lambda known: (known.item.brand or "").strip().lower() in brands)
    if filters.color is not None:
        colors = _lowered(filters.color)
        tests.append(lambda known: not known.colors.isdisjoint(colors))
    if filters.material is not None:
        materials = _lowered(filters.material)
        tests.append(lambda known: not known.materials.isdisjoint(materials))
    if filters.style is not None:
        # There is no such column.
        tests.append(lambda _: False)
    if filters.price is not None:
        low, high = filters.price.min or 0.0, filters.price.max
        tests.append(
            lambda known: (
                known.item.price is not None
                and low <= known.item.price
                and (high is None or known.item.price <= high)
            )
        )
    if (after := filters.created_after) is not None:
        tests.append(lambda known: (known.item.created_at or after) > after)
    return lambda known: all(test(known) for test in tests)


def _stock(filters: Filters) -> Callable[[_Known], bool]:
    if filters.availability is None:
        return lambda known: known.item.availability != _OUT_OF_STOCK
    wanted = frozenset(filters.availability)
    return lambda known: (known.item.availability or "in_stock") in wanted


def _lowered(values: Sequence[str]) -> frozenset[str]:
    return frozenset(value.strip().lower() for value in values)
