"""The checks of the events and baskets tables."""

from collections.abc import Sequence

import pandas as pd

from newshelf.catalog.checked import CheckedTable, listed
from newshelf.catalog.columns import (
    BEFORE_SHOPS,
    parse_distinct,
    parse_id,
    parse_seconds,
    parse_text,
)
from newshelf.catalog.report import quoted
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
    ids = _ids(table, ("user_id", "item_id"), known, left_out)
    kinds = parse_distinct(parse_text(table.frame["event_type"]), _event_type, "str")
    columns = {**ids, "event_type": table.read("event_type", kinds, required=True)}
    columns["timestamp"] = table.read(
        "timestamp", parse_seconds(table.frame["timestamp"]), required=True
    )
    events = table.kept({name: columns[name] for name in EVENT_COLUMNS})
    events["timestamp"] = events["timestamp"].astype("int64")
    if len(events) and events["timestamp"].max() < BEFORE_SHOPS:
        table.notes.append(
            f"{table.file}: all timestamps are before 1990; are they seconds since 1970?"
        )
    return events.sort_values("timestamp", kind="stable", ignore_index=True)


def check_baskets(table: CheckedTable, known: pd.Series, left_out: pd.Series) -> pd.DataFrame:
    """Check every basket row; arguments and errors as in :func:`check_events`.

    Returns:
        ``BASKET_COLUMNS`` (``str``), then the others, in the order of the file.
    """
    table.require(BASKET_COLUMNS)
    return table.kept(_ids(table, BASKET_COLUMNS, known, left_out))


def _event_type(cell: str) -> tuple[str | None, str | None]:
    word = cell.strip().casefold()
    known = word in list(EventType)
    return (word, None) if known else (None, f"is not {listed(EventType)}")


def _ids(
    table: CheckedTable, names: Sequence[str], known: pd.Series, left_out: pd.Series
) -> dict[str, pd.Series]:
    """Read the columns of ids and check that the items are there."""
    ids = {name: table.read(name, parse_id(table.frame[name]), required=True) for name in names}
    unknown = ids["item_id"].notna() & ~ids["item_id"].isin(known)
    if not unknown.any():
        return ids
    out = unknown & ids["item_id"].isin(left_out)
    table.reject(out, "item_id", lambda cell: f"the item {quoted(cell)} was left out of the items")
    near = {_loose(one): one for one in known}
    alike = ids["item_id"].where(unknown & ~out).map(lambda one: near.get(_loose(one)), "ignore")
    twins = iter(alike.dropna().tolist())
    table.reject(
        alike.notna(),
        "item_id",
        lambda cell: (
            f"there is no item {quoted(cell)} in the items, but there is {quoted(next(twins))}:"
            " save ids as text, in one spelling"
        ),
    )
    table.reject(
        unknown & ~out & alike.isna(),
        "item_id",
        lambda cell: f"there is no item {quoted(cell)} in the items",
    )
    return ids


def _loose(one: str) -> str:
    """An id without what spreadsheets and databases change: leading zeros, ``.0``, and case."""
    return one.casefold().removesuffix(".0").lstrip("0")
