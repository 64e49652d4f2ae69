"""Sentences of searches: the filters that they state, and the fusion of rankings."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from newshelf.attributes.lexicon import Lexicon, Mention
from newshelf.serving.schemas import Filters, PriceRange

RELAXED = ("style", "material", "color", "price", "product_type")
"""Filters of a sentence in the order in which they are dropped while nothing passes them."""
_READ = ("product_type", "color", "material", "style")

_SIGN = r"(?:[$€£¥￥]|\b(?:usd|eur|gbp|cny|rmb|dollars?|euros?|pounds?|yuan)\b|元|块)"
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,9}(?:[.,]\d{1,2})?)"
_NO_UNIT = (
    r"(?![\d.,]*\d|%|-?[a-z]|\s*(?:mm|cm|m|inch(?:es)?|ft|kg|g|lbs?|oz|ml|cl|l|gb|tb|watts?|w"
    r"|years?|yrs|months?|people|persons?|pieces|pcs|seats)\b)"
)
"""What may not follow the number of a price: ``under 50 cm``, ``over 18 years``."""


def _amount(name: str) -> str:
    number = rf"(?P<{name}>{_NUMBER})"
    return rf"(?:(?P<sign_{name}>{_SIGN})\s*)?{number}(?:\s*(?P<unit_{name}>{_SIGN})|{_NO_UNIT})"


_LOW, _HIGH = _amount("low"), _amount("high")
_PRICES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\bbetween\s+{_LOW}\s*(?:and|to|-|–)\s*{_HIGH}",
        rf"(?:\bfrom\s+)?{_LOW}\s*(?:-|–|to\b|到|至)\s*{_HIGH}",
        r"(?:\b(?:under|below|less\s+than|cheaper\s+than|up\s+to|at\s+most|no\s+more\s+than"
        rf"|max(?:imum)?)\b|低于|少于|不超过|[<≤]=?)\s*{_HIGH}",
        r"(?:\b(?:over|above|more\s+than|at\s+least|starting\s+at|min(?:imum)?)\b|高于|超过"
        rf"|[>≥]=?)\s*{_LOW}",
        rf"{_HIGH}\s*(?:以下|以内|之内)",
        rf"{_LOW}\s*以上",
    )
)
_NEEDS_SIGN = (False, True, False, False, False, False)
"""Whether a pattern says a price only with a currency: ``36-40`` is a size."""


def read_price(sentence: str) -> tuple[str, PriceRange | None]:
    """Return the sentence without its price phrase, and the price that it states.

    ``under``, ``below``, ``over``, ``between … and …``, and their kind, in English and Chinese;
    both ends belong to the range. Numbers with a unit of measurement are no prices.
    """
    text = " ".join(unicodedata.normalize("NFKC", sentence).split())
    for pattern, needs_sign in zip(_PRICES, _NEEDS_SIGN, strict=True):
        for found in pattern.finditer(text):
            groups = {name: value for name, value in found.groupdict().items() if value}
            if needs_sign and not any(name.startswith(("sign", "unit")) for name in groups):
                continue
            ends = {name: _number(groups[name]) for name in ("low", "high") if name in groups}
            low, high = ends.get("low"), ends.get("high")
            if low is not None and high is not None and low > high:
                low, high = high, low
            left = f"{text[: found.start()]} {text[found.end() :]}"
            return " ".join(left.split()), PriceRange(min=low, max=high)
    return text, None


def _number(digits: str) -> float:
    """``1,200.50`` has thousands, ``49,99`` cents."""
    whole, comma, cents = digits.rpartition(",")
    if comma and "." not in cents and len(cents) < 3:  # noqa: PLR2004
        return float(f"{whole}.{cents}")
    return float(digits.replace(",", ""))


def read_filters(sentence: str, lexicon: Lexicon, least: float) -> Filters:
    """Return a sentence's filters: price, and types, colours, materials, styles it is sure of."""
    text, price = read_price(sentence)
    read: dict[str, list[str]] = {}
    for mention in _surest(lexicon.find(text)):
        values = read.setdefault(mention.attribute, [])
        if mention.confidence >= least and mention.value not in values:
            values.append(mention.value)
    stated = {name: read[name] for name in _READ if read.get(name)}
    return Filters.model_validate(stated if price is None else {**stated, "price": price})


def _surest(mentions: Sequence[Mention]) -> Iterator[Mention]:
    """Yield one meaning of each phrase: ``silver`` is a material or a colour."""
    by_place: dict[tuple[int, int], list[Mention]] = {}
    for mention in mentions:
        if mention.attribute in _READ:
            by_place.setdefault((mention.start, mention.end), []).append(mention)
    for meanings in by_place.values():
        yield max(meanings, key=lambda mention: mention.confidence)


def with_read(given: Filters, read: Filters) -> Iterator[tuple[Filters, Filters, list[str]]]:
    """Yield the given filters with the sentence's, relaxed one by one; and what was dropped."""
    own = {
        name: getattr(read, name)
        for name in RELAXED
        if getattr(read, name) is not None and getattr(given, name) is None
    }
    dropped: list[str] = []
    yield given.model_copy(update=own), Filters.model_construct(**own), []
    for name in RELAXED:
        if name in own:
            del own[name]
            dropped.append(name)
            yield given.model_copy(update=own), Filters.model_construct(**own), [*dropped]
