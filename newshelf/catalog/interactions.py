"""The checks of the events and baskets tables."""

from collections.abc import Sequence

import pandas as pd

from newshelf.catalog.checked import CheckedTable, listed
from newshelf.catalog.columns import parse_seconds, parse_text, say_seconds
from newshelf.catalog.schema import BASKET_COLUMNS, EVENT_COLUMNS, EventType

__all__ = ["check_baskets", "check_events"]


def check_events(table: CheckedTable, known: pd.Series, left_out: pd.Series) -> pd.DataFrame:
    """Check every event and report what is wrong to ``table``.

    Args:
        table: the events as read.
        known: the ids of the items that are kept.
        left_out: the ids of the items that are in their file but not kept.

    Returns:
        ``EVENT_COLUMNS`` (``str`` and int64), then the others, sorted by timestamp;
        events of the same second stay in the order of the file.

    Raises:
        CatalogError: a required column is missing.
    """
    table.require(EVENT_COLUMNS)
    texts = _texts(table, ("user_id", "item_id", "event_type"))
    _check_items_known(table, texts["item_id"], known, left_out)
    kind = texts["event_type"]
    table.reject(
        kind.notna() & ~kind.isin(list(EventType)),
        "event_type",
        lambda cell: f"{str(cell)!r} is not {listed(EventType)}",
    )
    seconds, unreadable = parse_seconds(table.frame["timestamp"])
    table.reject(unreadable, "timestamp", say_seconds)
    table.reject(seconds.isna().to_numpy() & ~unreadable, "timestamp", "the timestamp is missing")
    events = table.kept({**texts, "timestamp": seconds})
    events["timestamp"] = events["timestamp"].astype("int64")
    return events.sort_values("timestamp", kind="stable", ignore_index=True)


def check_baskets(table: CheckedTable, known: pd.Series, left_out: pd.Series) -> pd.DataFrame:
    """Check every basket row; arguments and errors as in :func:`check_events`.

    Returns:
        ``BASKET_COLUMNS`` (``str``), then the others, in the order of the file.
    """
    table.require(BASKET_COLUMNS)
    texts = _texts(table, BASKET_COLUMNS)
    _check_items_known(table, texts["item_id"], known, left_out)
    return table.kept(texts)


def _texts(table: CheckedTable, names: Sequence[str]) -> dict[str, pd.Series]:
    texts = {name: parse_text(table.frame[name]) for name in names}
    for name, text in texts.items():
        table.reject(text.isna(), name, f"the {name} is missing")
    return texts


def _check_items_known(
    table: CheckedTable, ids: pd.Series, known: pd.Series, left_out: pd.Series
) -> None:
    unknown = ids.notna() & ~ids.isin(known)
    out = unknown & ids.isin(left_out)
    table.reject(out, "item_id", lambda cell: f"the item {str(cell)!r} was left out of the items")
    table.reject(
        unknown & ~out, "item_id", lambda cell: f"there is no item {str(cell)!r} in the items"
    )
