"""Cells as shops write them → the types of the schema; each parser says what is wrong.

A parser takes one column and returns the values with a mask of the cells that are there
but cannot be read. Everything runs on whole columns: a shop's events are many.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from newshelf.errors import CatalogError

__all__ = ["Parsed", "parse_price", "parse_seconds", "parse_text", "say_seconds"]

Mask = npt.NDArray[np.bool_]

_PRICE = r"^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Z]{3})?\s*$"
_LATEST_SECOND = 4_102_444_800  # the year 2100
_FINER_UNITS = ((10**17, "nano"), (10**14, "micro"), (10**11, "milli"))
"""From which number on a time must be in a finer unit than the second."""


class Parsed(NamedTuple):
    """A column's values, and where a cell is present but unreadable."""

    values: pd.Series
    unreadable: Mask


def parse_text(column: pd.Series) -> pd.Series:
    """Any column → ``str`` dtype, with NaN where absent; blank cells are absent.

    An id that went through a float column (``123.0``) comes back as it was (``123``).
    """
    if pd.api.types.is_float_dtype(column.dtype):
        whole = column.dropna()
        if (whole % 1 == 0).all():
            column = column.astype("Int64")
    if column.dtype == object:
        column = column.map(_cell_text)
    text = column.astype("str")
    return text.where(text.str.strip() != "")


def _cell_text(cell: Any) -> str | None:
    if isinstance(cell, bytes):
        try:
            return cell.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CatalogError(f"a cell of bytes is not UTF-8: {cell[:40]!r}") from error
    if pd.api.types.is_scalar(cell) and pd.isna(cell):
        return None
    return str(cell)


def parse_price(column: pd.Series) -> tuple[Parsed, pd.Series]:
    """Prices → float64, NaN where absent.

    ``19.99`` and, as in a Merchant feed, ``19.99 EUR`` are read.

    Returns:
        The amounts, and the currency code of each cell (NaN where none is given).
        Negative and infinite amounts count as unreadable.
    """
    if pd.api.types.is_numeric_dtype(column.dtype):
        amount = column.astype("float64")
        present = amount.notna()
        currency = pd.Series(np.nan, index=column.index, dtype="str")
    else:
        text = parse_text(column)
        present = text.notna()
        parts = text.str.extract(_PRICE)
        amount = pd.to_numeric(parts[0], errors="coerce").astype("float64")
        currency = parts[1]
    unreadable = present & ~(np.isfinite(amount) & (amount >= 0))
    return Parsed(amount.where(~unreadable), unreadable.to_numpy(dtype=bool)), currency


def parse_seconds(column: pd.Series) -> Parsed:
    """Times → Int64 epoch seconds, NA where absent.

    A parquet column of timestamps is converted (one without a time zone is taken as UTC);
    a fraction of a second is dropped.
    """
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        zoned = pd.to_datetime(column, utc=True)
        seconds = (zoned - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
        present = column.notna()
    elif pd.api.types.is_numeric_dtype(column.dtype):
        present = column.notna()
        seconds = column.astype("float64")
    else:
        text = parse_text(column)
        present = text.notna()
        seconds = pd.to_numeric(text, errors="coerce").astype("float64")
    unreadable = present & ~((seconds >= 0) & (seconds < _LATEST_SECOND))
    values = np.floor(seconds.where(~unreadable)).astype("Int64")
    return Parsed(values, unreadable.to_numpy(dtype=bool))


def say_seconds(cell: Any) -> str:
    """Why a time could not be read, and what to write instead."""
    try:
        number = float(str(cell))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        return f"{str(cell)!r} is not a time in epoch seconds, such as 1735689600"
    for least, unit in _FINER_UNITS:
        if number >= least:
            return f"{cell} looks like {unit}seconds: give epoch seconds, such as 1735689600"
    if number < 0:
        return f"{cell} is before 1970: give epoch seconds, such as 1735689600"
    return f"{cell} is after the year 2099: give epoch seconds, such as 1735689600"
