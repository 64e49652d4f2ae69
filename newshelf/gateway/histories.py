"""Units as the event store knows them: their pseudonyms, and histories for requests without one."""

import hashlib
import hmac
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cachetools import TTLCache

from newshelf.config import HistorySettings
from newshelf.errors import Unavailable
from newshelf.files import secret_key
from newshelf.gateway.observability import GatewayMetrics
from newshelf.gateway.record import Record
from newshelf.gateway.schemas import Invalid, RecommendQuery
from newshelf.serving.schemas import Ids
from newshelf.store.records import Feedback
from newshelf.store.units import Interaction

_LOG = logging.getLogger(__name__)
_VALID_S = 0.5
"""Other processes' feedback is seen after that time."""
_MOST_UNITS = 10_000
_READ_PER_ITEM = 4
"""Interactions that are read for each product of a history: a product may have several."""
_DAY_US = 86_400_000_000


Pseudonym = Callable[[str], str]
"""The id under which a unit is stored."""


def pseudonyms(key: Path | None) -> Pseudonym:
    """Return the function that replaces ids of units by HMAC-SHA256, if there is a key."""
    if key is None:
        return lambda unit: unit
    secret = secret_key(key)
    # A search of nobody known has no unit.
    return lambda unit: unit and hmac.digest(secret, unit.encode(), hashlib.sha256).hex()


def stored_event(
    event: Feedback | Invalid, pseudonym: Pseudonym, key: str | None
) -> Feedback | Invalid:
    """Return an event of the unit's pseudonym, with the name of the key through which it came."""
    if isinstance(event, Invalid):
        return event
    unit = event.unit and pseudonym(event.unit)
    return event.model_copy(update={"unit": unit, "key_name": key})


@dataclass(eq=False)
class Histories:
    """Reads histories from the event store, and keeps them for half a second."""

    record: Record
    settings: HistorySettings
    metrics: GatewayMetrics

    def __post_init__(self) -> None:
        self._kept: TTLCache[str, Sequence[str]] = TTLCache(_MOST_UNITS, _VALID_S)
        self._missing = False

    async def filled(self, query: RecommendQuery) -> RecommendQuery:
        """Return the query with its unit's history, unless it has one, be it empty."""
        if "history" in query.sent or not query.unit or not self.settings.items:
            return query
        history = await self.of(query.unit)
        return query.replaced(history=Ids(history)) if history else query

    async def of(self, unit: str) -> Sequence[str]:
        """Return a unit's products, oldest first; none while the store is away."""
        history: Sequence[str] | None = self._kept.get(unit)
        if history is not None:
            self.metrics.histories.labels("cache").inc()
            return history
        limit = _READ_PER_ITEM * self.settings.items
        try:
            history = weighed(await self.record.history(unit, limit), self.settings)
        except Unavailable as error:
            if not self._missing:
                _LOG.warning("shoppers are answered without their histories: %s", error.message)
            self._missing = True
            self.metrics.histories.labels("unavailable").inc()
            return ()
        self._missing = False
        self.metrics.histories.labels("store").inc()
        self._kept[unit] = history
        return history

    def drop(self, units: Iterable[str | None]) -> None:
        """Read the histories of these units again."""
        for unit in units:
            self._kept.pop(unit or "", None)


def decayed(
    interactions: Sequence[Interaction], half_life_days: float, weight_of: Mapping[str, float]
) -> dict[str, float]:
    """Return the weights of products, that with the newest interaction first.

    A product's weight is the sum over its interactions::

        weight(type) · 2^(−age / half-life)

    Ages are counted from the newest interaction, the first. A type with weight 0 is left out.
    """
    weights: dict[str, float] = defaultdict(float)
    for one in interactions:
        if weight := weight_of.get(one.event_type):
            age_days = (interactions[0].at_us - one.at_us) / _DAY_US
            weights[one.item_id] += weight * 2.0 ** (-age_days / half_life_days)
    return weights


def weighed(interactions: Sequence[Interaction], settings: HistorySettings) -> list[str]:
    """Return the products with the largest weights, by their last interaction, oldest first."""
    weights = decayed(interactions, settings.half_life_days, settings.model_dump())
    # Both sorts are stable: of equal weights, the newer interaction counts.
    chosen = set(sorted(weights, key=lambda item: -weights[item])[: settings.items])
    return [item for item in reversed(weights) if item in chosen]
