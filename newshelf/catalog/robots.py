"""Robots among the shoppers: which events count, and which are in quarantine.

The limits are multiples of a quantile of all units, which robots cannot move while they are few:
with 95 %, until they are a twentieth of the units.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from newshelf.config import RobotSettings

if TYPE_CHECKING:
    import pandas as pd

DAY_S = 86_400
_QUANTILE = 0.95


@dataclass(frozen=True)
class Suspect:
    """A unit that behaves like a robot; all its events are in quarantine, or those with a product.

    A burst is more events on a day than others send, a fixation more days with one product. An API
    key with far more events on a day than on its others is suspected for that day.
    """

    unit: str
    """Of a key, ``key_day``."""
    item_id: str | None
    """Of a fixation; None for a burst."""
    found: int
    """Events of the busiest day, or days with the product."""
    limit: float
    events: int
    """In quarantine."""


def key_day(key: str | None, day: int) -> str:
    """Return the name of a key's events of a day, in days since 1970."""
    return f"key {key} on {np.datetime64(day, 'D')}"


def quarantined(suspects: Iterable[Suspect]) -> Callable[[str, str, str | None, int], bool]:
    """Return the function that tells whether an event is in quarantine.

    It takes the event's unit, product, key and time in epoch seconds.
    """
    pairs = {(one.unit, one.item_id) for one in suspects}
    return lambda unit, item_id, key, at_s: (
        not pairs.isdisjoint({(unit, None), (unit, item_id), (key_day(key, at_s // DAY_S), None)})
    )


def limit(histogram: Mapping[int, int], factor: float, least: float) -> float:
    """Return the number above which a unit is suspected, of a histogram of all units' numbers."""
    if not histogram:
        return least
    values = np.array(sorted(histogram))
    counts = np.array([histogram[value] for value in values.tolist()])
    place = np.searchsorted(counts.cumsum(), _QUANTILE * counts.sum())
    return max(least, factor * float(values[place]))


def find_suspects(
    counts: Iterable[tuple[str, str, int, int]], settings: RobotSettings
) -> list[Suspect]:
    """Return the suspects of the numbers of events by unit, product and day, ordered by unit."""
    daily, days_with = Counter[int](), Counter[int]()
    found = []
    for unit, rows in groupby(counts, key=itemgetter(0)):
        of_day, days, events = Counter[int](), Counter[str](), Counter[str]()
        for _, item, day, count in rows:
            of_day[day] += count
            days[item] += 1
            events[item] += count
        daily.update(of_day.values())
        days_with.update(days.values())
        found.append(Suspect(unit, None, max(of_day.values()), 0, events.total()))
        found += [
            Suspect(unit, item, returned, 0, events[item])
            for item, returned in days.items()
            if returned > settings.fixation_days
        ]
    burst = limit(daily, settings.burst_factor, settings.burst_events)
    fixation = limit(days_with, settings.fixation_factor, settings.fixation_days)
    limits = (burst if one.item_id is None else fixation for one in found)
    return [
        replace(one, limit=most)
        for one, most in zip(found, limits, strict=True)
        if one.found > most
    ]


def find_key_bursts(
    counts: Iterable[tuple[str, int, int]], settings: RobotSettings
) -> list[Suspect]:
    """Return the suspects of the numbers of events by key and day, ordered by key."""
    found = []
    for key, rows in groupby(counts, key=itemgetter(0)):
        of_day = {day: count for _, day, count in rows}
        usual = float(np.median([*of_day.values()]))
        most = max(settings.key_burst_events, settings.key_burst_factor * usual)
        found += [
            Suspect(key_day(key, day), None, count, most, count)
            for day, count in of_day.items()
            if count > most
        ]
    return found


def counted_events(events: "pd.DataFrame", settings: RobotSettings) -> "pd.DataFrame":
    """Return the events that count: none in quarantine, ``daily`` per type, product and day."""
    if settings.quarantine:
        counts = events.groupby(["user_id", "item_id", events["timestamp"] // DAY_S]).size()
        rows = ((*key, count) for key, count in counts.items())
        left_out = quarantined(find_suspects(rows, settings))
        pairs = zip(events["user_id"], events["item_id"], strict=True)
        events = events[[not left_out(*pair, None, 0) for pair in pairs]]
    keys = [events[name] for name in ("user_id", "item_id", "event_type")]
    rank = events.groupby([*keys, events["timestamp"] // DAY_S], observed=True).cumcount()
    return events[rank < settings.daily]
