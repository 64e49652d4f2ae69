"""What is shown to a shopper, whoever ranked it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from newshelf.errors import Unavailable
from newshelf.gateway.fallback import FallbackItem

__all__ = ["Shown", "read_shown", "shown_without_model"]

_NEEDED = ("items", "model_version", "index_version")


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer, best first."""

    items: Sequence[Mapping[str, Any]]
    """``id``, ``score``, ``source`` and perhaps ``reason``."""
    model_version: str
    index_version: str
    ignored: Sequence[str] = ()
    propensities: Sequence[float] | None = None
    """Of each item at its position; None when the variant's probability says all."""
    sources: Sequence[str] | None = None
    """Of each item, for the record; None when the items say all."""
    fallback: bool = False


def read_shown(body: bytes) -> Shown:
    """What a recommender answered.

    Raises:
        Unavailable: it is no answer of a recommender.
    """
    try:
        table = orjson.loads(body)
        items, model_version, index_version = (table[name] for name in _NEEDED)
        # Their types are checked when the record is made of them.
        seen = {item["id"]: (item["score"], item["source"]) for item in items}
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise Unavailable(f"the model's answer cannot be read: {error!r}") from None
    if len(seen) != len(items):
        raise Unavailable("the model's answer names a product twice")
    return Shown(items, model_version, index_version, table.get("ignored", ()))


def shown_without_model(items: Sequence[FallbackItem], version: str) -> Shown:
    """What is popular, in the place of what ``version`` should have answered."""
    rows = [{"id": item.id, "score": item.score, "source": item.source} for item in items]
    return Shown(rows, model_version=version, index_version="", fallback=True)
