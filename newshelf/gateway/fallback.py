"""An answer without a model: what is popular, in the category that is asked about first.

Filters, exclusions and candidates are obeyed as far as the products' columns tell; what a
model would know beyond them (a style, the colour in a picture) is not known here.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from newshelf.catalog.schema import category_levels, split_values
from newshelf.gateway.popular import PopularItem
from newshelf.serving.schemas import EncoderProduct, Filters, RecommendRequest

__all__ = ["Fallback", "FallbackItem"]

_MAX_K = 100
_MAX_LOOKED_AT = 5_000
_OUT_OF_STOCK = "out_of_stock"

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FallbackItem:
    """One product of the answer."""

    id: str
    score: float
    """Its share of all interactions."""
    source: Literal["popular_in_category", "popular"]


@dataclass(frozen=True, slots=True)
class _Known:
    item: PopularItem
    path: Path
    colors: frozenset[str]
    materials: frozenset[str]


class Fallback:
    """Ranks by popularity.

    Args:
        items: the most popular first.
    """

    def __init__(self, items: Sequence[PopularItem]) -> None:
        self._items = [_known(item) for item in items]
        self._row = {known.item.id: row for row, known in enumerate(self._items)}
        self._below: dict[Path, list[int]] = {}
        for row, known in enumerate(self._items):
            for depth in range(1, len(known.path) + 1):
                self._below.setdefault(known.path[:depth], []).append(row)

    def __len__(self) -> int:
        return len(self._items)

    def recommend(self, request: RecommendRequest) -> list[FallbackItem]:
        """At most ``k`` products, and at most 100: those of the category, then others."""
        k = min(request.k, _MAX_K)
        allowed = _passes(request.filters)
        left_out = {*_ids(request.history), *request.exclude}

        def fresh(among: Iterable[_Known]) -> Iterator[_Known]:
            # Only so many are looked at: this runs while much is asked.
            for known in islice(among, _MAX_LOOKED_AT):
                if known.item.id not in left_out and allowed(known):
                    left_out.add(known.item.id)
                    yield known

        categories = self._categories(request)
        if request.candidates is None:
            among: Sequence[_Known] = self._items
            in_category = [self._items[row] for row in self._rows(categories)]
        else:
            among = self._candidates(request.candidates)
            in_category = [known for known in among if _is_below(known.path, categories)]
        first = list(islice(fresh(in_category), k))
        then = islice(fresh(among), k - len(first))
        return [
            *(FallbackItem(k.item.id, k.item.share, "popular_in_category") for k in first),
            *(FallbackItem(k.item.id, k.item.share, "popular") for k in then),
        ]

    def _rows(self, categories: frozenset[Path]) -> list[int]:
        return sorted({row for category in categories for row in self._below.get(category, ())})

    def _candidates(self, refs: Sequence[str | EncoderProduct]) -> list[_Known]:
        """Those that are known, or sent whole; the most popular first."""
        inline = {ref.id: ref for ref in refs if isinstance(ref, EncoderProduct) and ref.id}
        known = [
            _inline(inline[name]) if name in inline else self._items[self._row[name]]
            for name in dict.fromkeys(_ids(refs))
            if name in inline or name in self._row
        ]
        return sorted(known, key=lambda one: -one.item.share)

    def _categories(self, request: RecommendRequest) -> frozenset[Path]:
        """Those that are filtered by; else those of the history."""
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
        _path(item.product_type),
        frozenset(split_values(item.color)),
        frozenset(split_values(item.material)),
    )


def _inline(product: EncoderProduct) -> _Known:
    columns = ("id", "product_type", "brand", "color", "material", "price")
    columns_sent = {name: getattr(product, name) for name in columns}
    return _known(PopularItem(share=0.0, **columns_sent))


def _path(product_type: str | None) -> Path:
    return tuple(level.lower() for level in category_levels(product_type))


def _paths(product_types: Iterable[str]) -> frozenset[Path]:
    return frozenset(path for path in map(_path, product_types) if path)


def _is_below(path: Path, categories: frozenset[Path]) -> bool:
    return any(path[:depth] in categories for depth in range(1, len(path) + 1))


def _passes(filters: Filters) -> Callable[[_Known], bool]:
    """Whether one product passes; only the filters that are given are looked at."""
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
        # No column says it.
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
