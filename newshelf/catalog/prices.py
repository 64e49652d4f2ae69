"""Prices as people write them → amounts of one currency.

A cell is read where it can mean one amount only. ``1,299`` and ``1.299`` cannot say what
their mark is; where other cells of the column show one decimal mark, and only one, it
decides. ``$``, ``¥`` and ``kr`` stand for the most frequent currency that has them.
"""

import re
from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd

from newshelf.catalog.columns import Parsed, parse_distinct, parse_text, typed_number

__all__ = ["parse_price"]

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
"""Currencies without a smaller unit: their prices have no decimals."""
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
"""Decimal mark → a number with it, in groups of three or, as in India, of two."""
_LONGEST = 60
_MOST = 1e12
"""No product costs more, in any currency."""


class _Price(NamedTuple):
    amounts: dict[str, float]
    """Decimal mark → the amount that the cell then means; what it cannot be is left out."""
    codes: tuple[str, ...]
    """Currencies that the cell can be in, the likeliest first; empty where it names none."""


def parse_price(column: pd.Series) -> Parsed:
    """Prices → float64, NaN where absent, unclear, negative, or in another currency than most."""
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
    # max() takes the first of equals, which is the likeliest.
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
    """Take one cell apart; None where it is not one amount."""
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
    """Codes of what stands next to the number; None where it is no currency."""
    word = word.strip(" .")
    if not word:
        return ()
    if word.upper() in _CODES:
        return (word.upper(),)
    found = _SYMBOLS.get(word.casefold())
    return None if found is None else tuple(found.split())


def _amounts(number: str, exponent: str) -> dict[str, float]:
    """What the number is with either decimal mark; a mark that it cannot have is left out."""
    found = {}
    for mark, pattern in _NUMBER.items():
        if match := pattern.fullmatch(number):
            whole = re.sub(r"[^0-9]", "", match["whole"])
            found[mark] = float(f"{whole or 0}.{match['part'] or 0}{exponent}")
    return found
