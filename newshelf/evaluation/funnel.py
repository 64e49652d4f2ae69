"""CTR and CVR from events, in total, by category and by item.

::

    CTR = clicks / views
    CVR = purchases / clicks, or purchases / views if clicks are not recorded

Each has Wilson's interval (1927), which holds for few events too. It assumes independent events;
those of one shopper are not quite independent, so it is slightly too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from newshelf.catalog.schema import EventType, category_levels
from newshelf.evaluation.types import Interval

_STEPS = (EventType.VIEW, EventType.CLICK, EventType.CART, EventType.PURCHASE)
_ALL = "all"
_UNTYPED = "(no type)"


@dataclass(frozen=True)
class Rate:
    """A share of events, with its interval."""

    value: float
    interval: Interval
    """95 %."""


@dataclass(frozen=True)
class FunnelRow:
    """Events and rates of one category."""

    name: str
    views: int
    clicks: int
    carts: int
    purchases: int
    ctr: Rate | None
    """None if unknown, as is ``cvr``."""
    cvr: Rate | None


@dataclass(frozen=True)
class Funnel:
    """The whole shop, and its categories by number of events."""

    total: FunnelRow
    rows: Sequence[FunnelRow]
    cvr_base: EventType | None
    """Event that purchases are divided by; None if there is none."""
    missing: Sequence[str]
    """Rates that cannot be computed and why, one sentence each."""


def funnel(events: pd.DataFrame, items: pd.DataFrame) -> Funnel:
    """Return the events and rates by category, the first level of the product type."""
    if events.empty:
        raise ValueError("a funnel needs events")
    tops = [(*category_levels(cell), _UNTYPED)[0] for cell in items["product_type"]]
    keys = events["item_id"].map(dict(zip(items["id"], tops, strict=True))).fillna(_UNTYPED)
    counts = pd.crosstab(keys.to_numpy(), events["event_type"].astype(str).to_numpy())
    counts = counts.reindex(columns=[str(step) for step in _STEPS], fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    totals = counts.sum()
    base = _base(totals)
    # If a shop does not record clicks, CTR is unknown, not 0.
    clicked = bool(totals[EventType.VIEW] and totals[EventType.CLICK])
    return Funnel(
        total=_row(_ALL, totals, base, clicked=clicked),
        rows=[_row(str(name), row, base, clicked=clicked) for name, row in counts.iterrows()],
        cvr_base=base,
        missing=_missing(totals, base),
    )


def _base(totals: "pd.Series[int]") -> EventType | None:
    if not totals[EventType.PURCHASE]:
        return None
    for step in (EventType.CLICK, EventType.VIEW):
        if totals[step] >= totals[EventType.PURCHASE]:
            return step
    return None


def _row(
    name: str, counts: "pd.Series[int]", base: EventType | None, *, clicked: bool
) -> FunnelRow:
    views, clicks, carts, purchases = (int(counts[step]) for step in _STEPS)
    return FunnelRow(
        name, views, clicks, carts, purchases,
        ctr=rate(clicks, views) if clicked else None,
        cvr=rate(purchases, int(counts[base])) if base is not None else None,
    )  # fmt: skip


def rate(part: int, whole: int) -> Rate | None:
    """Return part / whole, or None if the whole is 0 or smaller than its part."""
    if whole == 0 or part > whole:
        return None
    interval = stats.binomtest(part, whole).proportion_ci(method="wilson")
    return Rate(part / whole, (float(interval.low), float(interval.high)))


def _missing(totals: "pd.Series[int]", base: EventType | None) -> list[str]:
    views, clicks, _, purchases = (int(totals[step]) for step in _STEPS)
    notes = []
    if not views or not clicks:
        absent = " and no ".join(
            name for name, count in (("views", views), ("clicks", clicks)) if not count
        )
        notes.append(f"CTR needs views and clicks; there are no {absent}.")
    elif clicks > views:
        notes.append(
            f"CTR: {clicks} clicks on {views} views; not every view that was clicked is recorded."
        )
    if not purchases:
        notes.append("CVR needs purchases; there are none.")
    elif base is None:
        notes.append(
            "CVR needs at least as many clicks or views as purchases; there are "
            f"{clicks} clicks and {views} views for {purchases} purchases."
        )
    elif base is EventType.VIEW:
        notes.append("CVR is purchases per view, as there are too few clicks.")
    return notes
