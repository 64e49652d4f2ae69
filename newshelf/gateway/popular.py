"""The file of popular products, by which the gateway answers when no model does."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from newshelf.errors import SettingsError
from newshelf.files import read_json, write_aside

__all__ = ["PopularItem", "read_popular", "write_popular"]

_MOST_POPULAR = 5_000
_PER_CATEGORY = 20
"""Kept besides, so that a rare category has an answer of its own."""


class PopularItem(BaseModel):
    """One product, with the columns that filters look at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


def write_popular(items: Path, out: Path) -> int:
    """Take the most popular products of an index.

    Args:
        items: ``items.json`` of the index: columns, with ``popularity``.
        out: replaced as a whole.

    Returns:
        How many products were written, the most popular first.

    Raises:
        SettingsError: there is no such index.
    """
    try:
        columns: Mapping[str, list[object]] = read_json(items)
    except OSError as error:
        raise SettingsError(f"cannot read {items}: {error.strerror}; export the model") from error
    popularity = [_number(value) for value in columns["popularity"]]
    total = sum(popularity) or 1.0
    # Among equals, as the index has them.
    order = sorted(range(len(popularity)), key=lambda row: -popularity[row])
    kept = _kept(order, columns["product_type"])
    names = [name for name in PopularItem.model_fields if name != "share"]
    rows = [
        {name: columns[name][row] for name in names} | {"share": popularity[row] / total}
        for row in kept
    ]
    with write_aside(out) as aside:
        aside.write_bytes(orjson.dumps(rows))
    return len(rows)


def read_popular(path: Path) -> list[PopularItem]:
    """Read what ``write_popular`` wrote.

    Raises:
        SettingsError: it is missing or damaged.
    """
    try:
        return [PopularItem.model_validate(row) for row in orjson.loads(path.read_bytes())]
    except OSError as error:
        raise SettingsError(f"cannot read the popular products {path}: {error.strerror}") from error
    except (orjson.JSONDecodeError, ValidationError, TypeError) as error:
        raise SettingsError(f"{path} is no file of popular products: {error}") from error


def _kept(order: Sequence[int], categories: Sequence[object]) -> list[int]:
    """Those of ``order`` that are among the first of all, or of their category."""
    seen: Counter[object] = Counter()
    kept = []
    for rank, row in enumerate(order):
        seen[categories[row]] += 1
        if rank < _MOST_POPULAR or seen[categories[row]] <= _PER_CATEGORY:
            kept.append(row)
    return kept


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
