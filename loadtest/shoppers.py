"""Shoppers: which items they look at, and in which order."""

from collections.abc import Iterator
from itertools import cycle

import numpy as np
import pandas as pd

from loadtest.traffic import TrafficSettings
from newshelf.catalog import Catalog
from newshelf.errors import CatalogError

__all__ = ["histories", "replayed_sessions", "zipf_shares"]

_PAUSE_S = 30 * 60
"""Half an hour without an event ends a session, as web analytics has it."""


def zipf_shares(items: int, exponent: float) -> np.ndarray:
    """Zipf's law over ``items`` ranks: the share of rank r is in proportion to r**-exponent.

    Returns:
        ``(items,) float64``, most popular first, of sum 1.
    """
    weights = np.arange(1, items + 1, dtype=np.float64) ** -exponent
    return np.asarray(weights / weights.sum())


def histories(
    catalog: Catalog, traffic: TrafficSettings, random: np.random.Generator
) -> Iterator[list[str]]:
    """What shoppers have looked at when they ask, oldest first; request after request, forever.

    So many sessions are under way as the settings say. Any of them goes on next, by one item
    more, and one that is over makes room for another.

    Raises:
        CatalogError: events are to be replayed, and there are none.
    """
    return _histories(_sessions(catalog, traffic, random), traffic, random)


def _histories(
    sessions: Iterator[list[str]], traffic: TrafficSettings, random: np.random.Generator
) -> Iterator[list[str]]:
    under_way = [_entered(next(sessions), random) for _ in range(traffic.shoppers)]
    while True:
        place = int(random.integers(len(under_way)))
        items, seen = under_way[place]
        yield items[max(0, seen - traffic.longest_history) : seen]
        under_way[place] = (items, seen + 1) if seen < len(items) else (next(sessions), 1)


def _entered(items: list[str], random: np.random.Generator) -> tuple[list[str], int]:
    """A session that is anywhere in its course: the run does not begin with the shop's doors."""
    return items, int(random.integers(1, len(items) + 1))


def _sessions(
    catalog: Catalog, traffic: TrafficSettings, random: np.random.Generator
) -> Iterator[list[str]]:
    if traffic.popularity == "events":
        if catalog.events is None:
            raise CatalogError(
                f"{catalog.folder} has no events to replay; draw items by popularity 'zipf'"
            )
        recorded = replayed_sessions(catalog.events)
        start = int(random.integers(len(recorded)))
        return cycle(recorded[start:] + recorded[:start])
    return _drawn_sessions(catalog.items["id"].tolist(), traffic, random)


def _drawn_sessions(
    ids: list[str], traffic: TrafficSettings, random: np.random.Generator
) -> Iterator[list[str]]:
    # Which item has which rank is the seed's matter, not the row's.
    ranked = random.permutation(np.array(ids, dtype=object))
    shares = zipf_shares(len(ids), traffic.zipf_exponent)
    while True:
        length = int(random.geometric(1 / traffic.session_requests))
        yield random.choice(ranked, length, p=shares).tolist()


def replayed_sessions(events: pd.DataFrame) -> list[list[str]]:
    """The items of each session, in the order in which sessions began.

    Args:
        events: ``user_id``, ``item_id`` and ``timestamp`` (epoch seconds), oldest first.
    """
    by_user = events.sort_values(["user_id", "timestamp"], kind="stable")
    changes = by_user["user_id"].ne(by_user["user_id"].shift())
    paused = by_user["timestamp"].diff() > _PAUSE_S
    session = (changes | paused).cumsum()
    grouped = by_user.groupby(session.to_numpy())
    order = grouped["timestamp"].min().sort_values(kind="stable").index
    items = grouped["item_id"].agg(list)
    return [items[number] for number in order]
