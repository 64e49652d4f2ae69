"""Sentences of searches: the filters that they state, and the fusion of rankings."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from newshelf.attributes.lexicon import Lexicon, Mention
from newshelf.serving.schemas import Filters, PriceRange

RELAXED = ("style", "material", "color", "price", "product_type")
"""Filters of a sentence in the order in which they are dropped while nothing passes them."""
_READ = ("product_type", "color", "material", "style")

_SIGN = r"(?:[$€£¥￥]|\b(?:usd|eur|gbp|cny|rmb|dollars?|euros?|pounds?|yuan)\b|人民币|元|块钱?|圆)"
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,9}(?:[.,]\d{1,2})?)"
_NO_UNIT = (
    r"(?![\d.,]*\d|%|-?[a-z]|\s*(?:mm|cm|m|inch(?:es)?|ft|kg|g|lbs?|oz|ml|cl|l|gb|tb|watts?|w"
    r"|years?|yrs|months?|people|persons?|pieces|pcs|seats)\b"
    r"|\s*(?:厘米|毫米|公分|米|英?寸|[千毫]?克|公?斤|毫?升|周?岁|年|个|人|件|只|双|瓦|码|折))"
)
"""What may not follow the number of a price: ``under 50 cm``, ``over 18 years``, ``50厘米``."""
_END = r"(?=的|[\s，。,]|$)"
"""What follows a short Chinese word, which may also begin another: ``50元内``, ``50元内衣``."""


def _amount(name: str) -> str:
    number = rf"(?P<{name}>{_NUMBER})"
    return rf"(?:(?P<sign_{name}>{_SIGN})\s*)?{number}(?:\s*(?P<unit_{name}>{_SIGN})|{_NO_UNIT})"


_LOW, _HIGH = _amount("low"), _amount("high")
_PRICES = tuple(
    re.compile(rf"(?:(?:价格|价位|预算|售价)?[在为是]?)?{pattern}的?", re.IGNORECASE)
    for pattern in (
        rf"\bbetween\s+{_LOW}\s*(?:and|to|-|–)\s*{_HIGH}",
        rf"{_LOW}\s*(?:[-–~到至和与])\s*{_HIGH}\s*之间",
        rf"(?:\bfrom\s+)?{_LOW}\s*(?:-|–|~|to\b|到|至)\s*{_HIGH}",
        r"(?:\b(?:under|below|less\s+than|cheaper\s+than|up\s+to|at\s+most|no\s+more\s+than"
        r"|max(?:imum)?)\b|(?<!不)(?:低于|少于|小于)|不(?:超过|高于|大于|到)|最多|至多|便宜于"
        rf"|[<≤]=?)\s*{_HIGH}",
        r"(?:\b(?:over|above|more\s+than|at\s+least|starting\s+at|min(?:imum)?)\b"
        rf"|(?<!不)(?:高于|超过|大于|多于)|不(?:低于|少于|小于)|至少|最少|[>≥]=?)\s*{_LOW}",
        rf"{_HIGH}\s*(?:以下|以内|之内|之下|封顶|内{_END})",
        rf"{_LOW}\s*(?:以上|之上|起{_END})",
    )
)
_NEEDS_SIGN = (False, False, True, False, False, False, False)
"""Whether a pattern says a price only with a currency: ``36-40`` is a size."""

_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"两": 2}
_POWERS = {"十": 10, "百": 100, "千": 1_000, "万": 10_000}
_NUMERAL = re.compile(
    rf"(?:\d+(?:\.\d+)?)?[{''.join((*_DIGITS, *_POWERS))}]+"
    r"(?=\s*(?:元|块钱|块(?=[以之内到至])|圆|人民币|以[上下内]|之[上下内间]|[到至和与起]))"
)


def _in_digits(numeral: re.Match[str]) -> str:
    """Return ``1200`` for ``一千二百``, ``一千二`` and ``1.2千``."""
    total, value, power = 0.0, 0.0, 1
    for part in re.findall(r"[\d.]+|.", numeral[0]):
        if part == "万":
            total, value = (total + value or 1) * _POWERS[part], 0
        elif part in _POWERS:
            total, value = total + (value or 1) * _POWERS[part], 0
        else:
            value = _DIGITS[part] if part in _DIGITS else float(part)
        # A digit at the end counts the next lower power, unless a zero says otherwise.
        power = _POWERS.get(part, 10 if value == 0 else power)
    return f"{total + value * max(power // 10, 1):.2f}".removesuffix(".00")


def read_price(sentence: str) -> tuple[str, PriceRange | None]:
    """Return the sentence without its price phrase, and the price that it states.

    ``under``, ``below``, ``over``, ``between … and …``, and their kind, in English and Chinese;
    both ends belong to the range. Numbers with a unit of measurement are no prices.
    """
    plain = " ".join(unicodedata.normalize("NFKC", sentence).split())
    text = _NUMERAL.sub(_in_digits, plain)
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
    return plain, None


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
