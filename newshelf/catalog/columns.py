"""Parsers of columns: text, ids, availability, times and prices.

A parser returns the values of a column, and a reason for each cell that it cannot read. It never
raises, and works on whole columns or distinct cells, since events are many.

A price is read only if it means one amount. In ``1,299`` and ``1.299`` the mark is ambiguous; the
decimal mark of other cells of the column decides, if they agree. ``$``, ``¥`` and ``kr`` stand
for the most frequent currency that uses them.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from newshelf.catalog.schema import Availability, clean_id, clean_ids

BEFORE_SHOPS = 631_152_000
"""Epoch second of the year 1990; earlier times among later ones are errors."""
_LATEST_SECOND = 4_102_444_800
"""Of the year 2100."""
_UNITS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3))
"""Least number for nano-, micro- and milliseconds, and the units in a second."""
_DAYS = (19_900_101, 20_991_231)
"""First and last day written as a number, such as 20250131."""
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
    """Values of a column, and reasons for its unreadable cells."""

    values: pd.Series
    """Absent if the cell is absent or unreadable."""
    reasons: pd.Series
    """``object``: predicate of the cell (``is negative``); absent for readable cells."""


def parse_text(column: pd.Series) -> pd.Series:
    """Return any column as ``str`` dtype, with NaN for absent and blank cells.

    An id in a float column (``123.0``) becomes an integer (``123``). Invalid UTF-8 and lone
    surrogates become escapes.
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
    if isinstance(cell, Decimal):  # pd.isna raises for a signalling NaN
        return None if cell.is_nan() else str(cell)
    if pd.api.types.is_scalar(cell) and pd.isna(cell):
        return None
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).encode("utf-8", "backslashreplace").decode()


def typed_number(cell: Any) -> float:
    """Return a cell of numeric type as float; NaN for all others."""
    if isinstance(cell, bool | np.bool_) or not isinstance(cell, int | float | Decimal | np.number):
        return math.nan
    try:
        return float(cell)
    except (OverflowError, ValueError):
        return math.inf


def parse_distinct(
    text: pd.Series, parse: Callable[[str], tuple[Any, str | None]], dtype: str
) -> Parsed:
    """Apply ``parse``, which returns a value or None, and a reason, to each distinct cell."""
    codes, cells = pd.factorize(text)
    found = [*map(parse, cells.tolist()), (None, None)]
    columns = []
    for which in (0, 1):
        distinct = np.empty(len(found), dtype=object)
        distinct[:] = [one[which] for one in found]
        columns.append(pd.Series(distinct[codes], index=text.index, dtype=object))
    return Parsed(columns[0].astype(dtype), columns[1])


def parse_id(column: pd.Series) -> Parsed:
    """Parse ids as ``str`` dtype in the form of ``clean_id``."""
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
    """Parse stock words, flags and quantities as values of ``Availability`` (``str`` dtype)."""
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
    """Parse times as Int64 epoch seconds, NA if absent; fractions of a second are dropped.

    Accepts epoch seconds, milli-, micro- and nanoseconds, detected by their size; ISO 8601 and
    similar formats with the year first; ``31.1.2025``; and columns of dates and timestamps. Times
    without zone are UTC.
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
            # pandas would read "now" and "today" too.
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
    advice = "give epoch seconds, such as 1735689600, or ISO 8601, such as 2025-01-01T00:00:00Z"
    if (unread := present & seconds.isna()).any():
        reasons[unread] = f"is not a time: {advice}"
        swapped = unread & column.map(lambda cell: bool(_EITHER_ORDER.match(str(cell).strip())))
        reasons[swapped] = "could have its day or its month first: write 2025-01-31"
    reasons[present & early] = f"is too early for a shop: {advice}"
    reasons[present & late] = f"is after the year 2099: {advice}"
    return Parsed(np.floor(seconds.where(reasons.isna())).astype("Int64"), reasons)


def _number_seconds(numbers: pd.Series) -> pd.Series:
    """Convert numbers in four units, or days such as 20250131, to epoch seconds (float64)."""
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
    # In seconds: the nanoseconds of a Timestamp end in 2262.
    seconds = zoned.dt.tz_localize(None).to_numpy("datetime64[s]").astype("float64")
    return pd.Series(seconds, index=moments.index).where(zoned.notna())


_ISO_4217 = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP"
    " BYN BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP"
    " GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR"
    " KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK"
    " MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR"
    " SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH"
    " UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG"
)
"""As of 2025."""
_CODES = frozenset(_ISO_4217.split())
_WHOLE = ("JPY", "KRW", "VND", "CLP", "ISK", "PYG", "XAF", "XOF", "XPF")
"""Currencies without decimals."""
_SYMBOLS = {
    "€": "EUR", "£": "GBP", "₹": "INR", "rs": "INR", "₩": "KRW", "₽": "RUB", "₺": "TRY",
    "₫": "VND", "₴": "UAH", "฿": "THB", "₪": "ILS", "₱": "PHP", "₦": "NGN", "₸": "KZT",
    "zł": "PLN", "kč": "CZK", "ft": "HUF", "fr": "CHF", "sfr": "CHF", "lei": "RON", "лв": "BGN",
    "руб": "RUB", "tl": "TRY", "rp": "IDR", "rm": "MYR", "元": "CNY", "円": "JPY", "원": "KRW",
    "rmb": "CNY", "us$": "USD", "ca$": "CAD", "c$": "CAD", "a$": "AUD", "au$": "AUD",
    "nz$": "NZD", "s$": "SGD", "hk$": "HKD", "nt$": "TWD", "mx$": "MXN", "r$": "BRL",
    "cn¥": "CNY", "jp¥": "JPY", "euro": "EUR", "euros": "EUR",
    "$": "USD CAD AUD NZD SGD HKD TWD MXN ARS CLP COP", "¥": "JPY CNY", "kr": "SEK NOK DKK ISK",
}  # fmt: skip
_WIDE = {0xFF01 + at: 0x21 + at for at in range(94)}
_PLAIN = str.maketrans(_WIDE | {"￥": "¥", "￡": "£", "￦": "₩"} | dict.fromkeys("’‘´`ʼ", "'"))
_MINUS = str.maketrans(dict.fromkeys("−–—", "-"))
_CELL = re.compile(
    r"(?P<head>\D*?)"
    r"(?P<number>(?:(?<![^\W\d_])[.,])?[0-9](?:[0-9.,' ]*[0-9])?)"
    r"(?P<exponent>[eE][+-]?[0-9]{1,4})?"
    r"(?:[.,] ?-+)?(?P<tail>\D*)"
)
_NUMBER = {
    mark: re.compile(
        rf"(?P<whole>[0-9]*"
        rf"|[1-9][0-9]{{0,2}}(?P<by>[{other}' ])[0-9]{{3}}(?:(?P=by)[0-9]{{3}})*"
        rf"|[1-9][0-9]?(?:{other}[0-9]{{2}})+{other}[0-9]{{3}})"
        rf"(?:[{mark}](?P<part>[0-9]+))?"
    )
    for mark, other in ((".", ","), (",", r"\."))
}
"""Decimal mark → pattern of numbers, with groups of three digits or, as in India, of two."""
_LONGEST = 60
_MOST = 1e12
"""Maximum price in any currency."""


class _Price(NamedTuple):
    amounts: dict[str, float]
    """Decimal mark → amount, without impossible marks."""
    codes: tuple[str, ...]
    """Possible currencies, the likeliest first; empty if the cell names none."""


def parse_price(column: pd.Series) -> Parsed:
    """Parse prices as float64, NaN if absent, ambiguous, negative or in a minority currency."""
    if column.dtype.kind in "iuf":
        amounts, reasons = column.astype("float64"), pd.Series(None, column.index, dtype=object)
    else:
        text = parse_text(column)
        numbers = pd.Series(np.nan, index=column.index)
        if column.dtype == object:
            numbers = column.map(typed_number).astype("float64")
        amounts, reasons = _parse_texts(text.where(numbers.isna()))
        amounts = amounts.where(numbers.isna(), numbers)
    reasons[amounts < 0] = "is negative"
    reasons[amounts > _MOST] = "is more than any product costs"
    return Parsed(amounts.where(reasons.isna()), reasons)


def _parse_texts(text: pd.Series) -> Parsed:
    counts = text.value_counts(sort=False).to_dict()
    prices = {cell: price for cell in counts if (price := _read(cell))}
    marks = {next(iter(price.amounts)) for price in prices.values() if len(price.amounts) == 1}
    frequent = Counter[str]()
    for cell, price in prices.items():
        if len(price.codes) == 1:
            frequent[price.codes[0]] += counts[cell]
    # max() returns the first of equals, which is the likeliest.
    likely = {
        cell: max(p.codes, key=lambda c: frequent[c]) for cell, p in prices.items() if p.codes
    }
    totals = Counter[str]()
    for cell, code in likely.items():
        totals[code] += counts[cell]
    common = max(totals, key=lambda code: totals[code], default="")

    def settle(cell: str) -> tuple[float | None, str | None]:
        price = prices.get(cell)
        if price is None:
            return None, "is not one amount: write it like 1299.50, or 1299.50 EUR"
        if (code := likely.get(cell, common)) != common:
            return None, f"is in {code}, and most of the prices are in {common}"
        amounts = {price.amounts[mark] for mark in marks & price.amounts.keys()}
        amounts = amounts or {*price.amounts.values()}
        if common in _WHOLE:
            amounts = {amount for amount in amounts if amount % 1 == 0} or amounts
        if len(amounts) > 1:
            low, high = sorted(amounts)
            return None, f"is either {low:g} or {high:g}: write it like 1299.50"
        return amounts.pop(), None

    return parse_distinct(text, settle, "float64")


def _read(cell: str) -> _Price | None:
    """Parse one cell; return None if it is not one amount."""
    text = " ".join(cell.translate(_PLAIN).translate(_MINUS).split())
    match = _CELL.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return None
    signs = re.sub(r"[^-+]", "", match["head"])
    head = _currencies(re.sub(r"[-+]", "", match["head"]))
    tail = _currencies(match["tail"])
    if head is None or tail is None or len(signs) > 1:
        return None
    codes = tuple(code for code in head if code in tail) if head and tail else head or tail
    amounts = _amounts(match["number"], match["exponent"] or "")
    if not amounts or (head and tail and not codes):
        return None
    factor = -1 if signs == "-" else 1
    return _Price({mark: factor * amount for mark, amount in amounts.items()}, codes)


def _currencies(word: str) -> tuple[str, ...] | None:
    """Return the codes of the text next to a number; None if it is no currency."""
    word = word.strip(" .")
    if not word:
        return ()
    if word.upper() in _CODES:
        return (word.upper(),)
    found = _SYMBOLS.get(word.casefold())
    return None if found is None else tuple(found.split())


def _amounts(number: str, exponent: str) -> dict[str, float]:
    """Return the amount for each possible decimal mark."""
    found = {}
    for mark, pattern in _NUMBER.items():
        if match := pattern.fullmatch(number):
            whole = re.sub(r"[^0-9]", "", match["whole"])
            found[mark] = float(f"{whole or 0}.{match['part'] or 0}{exponent}")
    return found
