"""Cells as shops write them → the types of the schema; each parser says what is wrong.

A parser takes one column and returns its values, with a reason for each cell that is there
but cannot be read. No cell of any type makes one raise. Everything runs on whole columns or
on their distinct cells: a shop's events are many.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from newshelf.catalog.schema import Availability, clean_id, clean_ids

__all__ = [
    "BEFORE_SHOPS",
    "Parsed",
    "parse_availability",
    "parse_distinct",
    "parse_id",
    "parse_seconds",
    "parse_text",
    "typed_number",
]

BEFORE_SHOPS = 631_152_000
"""Epoch second of the year 1990: earlier times among later ones are mistakes."""
_LATEST_SECOND = 4_102_444_800
"""Of the year 2100."""
_UNITS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3))
"""From which number on a time is in nano-, micro- or milliseconds, and how many make a second."""
_DAYS = (19_900_101, 20_991_231)
"""First and last of the days that are written as numbers: 20250131."""
_DAY_FIRST = r"(\d{1,2})\.(\d{1,2})\.(\d{4})\b"
_EITHER_ORDER = re.compile(r"\d{1,2}[/-]\d{1,2}[/-]\d{2,4}\b")

_STOCK_WORDS = {
    Availability.IN_STOCK: (
        "instock available true yes y limitedavailability limitedstock lowstock onlineonly"
        " instoreonly"
    ),
    Availability.OUT_OF_STOCK: (
        "outofstock soldout unavailable notavailable notinstock nostock temporarilyoutofstock"
        " temporarilyunavailable discontinued reserved false no n"
    ),
    Availability.PREORDER: "preorder presale availableforpreorder comingsoon",
    Availability.BACKORDER: (
        "backorder backordered onbackorder availableonbackorder availablefororder madetoorder"
    ),
}
"""schema.org, Merchant, Facebook, WooCommerce, Shopify and Magento, without blanks and hyphens."""
_STOCK = {word: str(kind) for kind, words in _STOCK_WORDS.items() for word in words.split()}


class Parsed(NamedTuple):
    """A column's values, and what cannot be read of it."""

    values: pd.Series
    """Absent where the cell is absent or cannot be read."""
    reasons: pd.Series
    """``object``: what to say after the cell (``is negative``); absent where nothing is."""


def parse_text(column: pd.Series) -> pd.Series:
    """Any column → ``str`` dtype, with NaN where absent; blank cells are absent.

    An id that went through a float column (``123.0``) comes back as it was (``123``). Bytes
    that are not UTF-8, and halves of surrogate pairs, are written as escapes.
    """
    if pd.api.types.is_float_dtype(column.dtype):
        column = column.astype(object)
    if column.dtype == object:
        column = column.map(_cell_text)
    text = column.astype("str")
    return text.where(text.str.strip() != "")


def _cell_text(cell: Any) -> str | None:
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "backslashreplace")
    if isinstance(cell, Decimal):  # pandas cannot ask a signalling NaN
        return None if cell.is_nan() else str(cell)
    if pd.api.types.is_scalar(cell) and pd.isna(cell):
        return None
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).encode("utf-8", "backslashreplace").decode()


def typed_number(cell: Any) -> float:
    """Return a cell that is a number, not text, as float; NaN for all else."""
    if isinstance(cell, bool | np.bool_) or not isinstance(cell, int | float | Decimal | np.number):
        return math.nan
    try:
        return float(cell)
    except (OverflowError, ValueError):
        return math.inf


def parse_distinct(
    text: pd.Series, parse: Callable[[str], tuple[Any, str | None]], dtype: str
) -> Parsed:
    """Apply ``parse`` to each distinct cell of a column of text.

    Args:
        text: ``str`` dtype, NaN where absent.
        parse: a cell → its value (None where there is none) and the reason.
        dtype: of the values.
    """
    codes, cells = pd.factorize(text)
    found = [*map(parse, cells.tolist()), (None, None)]
    columns = []
    for which in (0, 1):
        distinct = np.empty(len(found), dtype=object)
        distinct[:] = [one[which] for one in found]
        columns.append(pd.Series(distinct[codes], index=text.index, dtype=object))
    return Parsed(columns[0].astype(dtype), columns[1])


def parse_id(column: pd.Series) -> Parsed:
    """Ids → ``str`` dtype in the form of ``clean_id``."""
    text = parse_text(column)
    cells = pd.unique(text.dropna()).tolist()
    try:
        if clean_ids(cells) == cells:
            return Parsed(text, _no_reasons(text))
    except ValueError:
        pass
    return parse_distinct(text, _id, "str")


def _id(cell: str) -> tuple[str | None, str | None]:
    try:
        return clean_id(cell), None
    except ValueError as error:
        return None, str(error)


def _no_reasons(column: pd.Series) -> pd.Series:
    return pd.Series(None, index=column.index, dtype=object)


def parse_availability(column: pd.Series) -> Parsed:
    """Stock words, flags and quantities → the words of ``Availability`` (``str`` dtype)."""
    return parse_distinct(parse_text(column), _availability, "str")


def _availability(cell: str) -> tuple[str | None, str | None]:
    word = re.sub(r"^https?://schema\.org/", "", cell.strip().casefold())
    try:
        quantity = float(word)
    except ValueError:
        quantity = math.nan
    if math.isfinite(quantity):
        return str(Availability.IN_STOCK if quantity > 0 else Availability.OUT_OF_STOCK), None
    found = _STOCK.get(re.sub(r"[\W_]+", "", word))
    return found, None if found else f"is not {', '.join(Availability)}, or another word for one"


def parse_seconds(column: pd.Series) -> Parsed:
    """Times → Int64 epoch seconds, NA where absent; a fraction of a second is dropped.

    Read are epoch seconds, and milli-, micro- and nanoseconds, which are recognised by their size;
    ISO 8601 and its likes with the year first; ``31.1.2025``; and columns of dates and
    timestamps. What has no time zone is UTC.
    """
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        seconds, present = _since_epoch(column), column.notna()
    elif pd.api.types.is_numeric_dtype(column.dtype) and column.dtype.kind in "iuf":
        seconds, present = _number_seconds(column.astype("float64")), column.notna()
    else:
        text = parse_text(column).str.strip()
        present = text.notna()
        plain = text.str.isdecimal().astype("boolean").fillna(False).astype(bool)
        seconds = pd.Series(np.nan, index=text.index)
        if (rest := text[present & ~plain]).size:
            # pandas would read "now" and "today", too.
            dated = rest.where(rest.str[:1].str.isdigit())
            moments = pd.to_datetime(dated, format="ISO8601", utc=True, errors="coerce")
            odd = rest[moments.isna()]
            plain.loc[odd.index] = pd.to_numeric(odd, errors="coerce").notna()
            seconds.loc[rest.index] = _since_epoch(moments)
            odd = odd[~plain]
            seconds.loc[odd.index] = parse_distinct(odd, _odd_time, "float64").values
        numbers = pd.to_numeric(text[plain], errors="coerce").astype("float64")
        seconds.loc[numbers.index] = _number_seconds(numbers)
    early = seconds < 0
    if (seconds >= BEFORE_SHOPS).sum() > (seconds < BEFORE_SHOPS).sum():
        early = seconds < BEFORE_SHOPS
    late = seconds >= _LATEST_SECOND
    reasons = _no_reasons(column)
    say = "give epoch seconds, such as 1735689600, or ISO 8601, such as 2025-01-01T00:00:00Z"
    if (unread := present & seconds.isna()).any():
        reasons[unread] = f"is not a time: {say}"
        swapped = unread & column.map(lambda cell: bool(_EITHER_ORDER.match(str(cell).strip())))
        reasons[swapped] = "could have its day or its month first: write 2025-01-31"
    reasons[present & early] = f"is too early for a shop: {say}"
    reasons[present & late] = f"is after the year 2099: {say}"
    return Parsed(np.floor(seconds.where(reasons.isna())).astype("Int64"), reasons)


def _number_seconds(numbers: pd.Series) -> pd.Series:
    """Numbers in one of four units, or all of them days, → epoch seconds (float64)."""
    present = numbers.dropna()
    if len(present) and present.between(*_DAYS).all() and (present % 1 == 0).all():
        days = pd.to_datetime(
            present.astype("int64").astype("str"), format="%Y%m%d", errors="coerce"
        )
        if days.notna().all():
            return _since_epoch(days).reindex(numbers.index)
    for least, per_second in _UNITS:
        numbers = numbers.where(numbers < least, numbers / per_second)
    return numbers


def _odd_time(cell: str) -> tuple[float | None, None]:
    iso = re.sub(r"\s*(?:UTC|GMT|Z)$", "Z", cell.upper())
    iso = re.sub(_DAY_FIRST, lambda day: f"{day[3]}-{day[2]:0>2}-{day[1]:0>2}", iso)
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return None, None
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp(), None


def _since_epoch(moments: pd.Series) -> pd.Series:
    zoned = pd.to_datetime(moments, utc=True)
    # Not in nanoseconds, as arithmetic with a Timestamp would be: those end in 2262.
    seconds = zoned.dt.tz_localize(None).to_numpy("datetime64[s]").astype("float64")
    return pd.Series(seconds, index=moments.index).where(zoned.notna())
