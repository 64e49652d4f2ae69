"""Parsing and checking of requests for recommendations, and of the sentences of searches."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from newshelf.attributes.lexicon import Lexicon, Mention
from newshelf.catalog.clean import clean_text
from newshelf.config import Limits
from newshelf.errors import InvalidField, TooLarge, UnsupportedMedia
from newshelf.serving.products import (
    FormBody,
    ProductInput,
    check_pixels,
    check_product,
    open_envelope,
)
from newshelf.serving.protocol import RawRequest, check_deadline
from newshelf.serving.schemas import (
    EncoderProduct,
    Filters,
    Ids,
    Listing,
    PriceRange,
    RecommendRequest,
    Ref,
    SearchQuery,
    seen_as_ids,
    validate,
)

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


_Request = TypeVar("_Request", bound=RecommendRequest)


_Listing = TypeVar("_Listing", bound=Listing)


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A checked request. A reference is an id, or a product to encode."""

    request: RecommendRequest
    history: Sequence[str | ProductInput]
    candidates: Sequence[str | ProductInput] | None
    inline: Sequence[ProductInput]
    """The products to encode: those of the history, then the candidates, then ``query``."""
    deadline_s: float | None = None
    query: ProductInput | None = None
    """Sentence and picture that are searched for, as a product."""


def check_recommend(body: object, limits: Limits, schema: type[_Request]) -> _Request:
    """Check a request's JSON against a schema and the limits, but for its inline products."""
    if isinstance(body, dict):
        # Before the schema looks at each of a million references.
        _check_counts(body, limits)
        for name in ("history", "candidates"):
            if name in body:
                body[name] = seen_as_ids(body[name])
    return check_k(validate(schema, body), limits)


def check_k(request: _Listing, limits: Limits) -> _Listing:
    """Return the request, or refuse it for asking for too many products."""
    if request.k > limits.max_k:
        raise InvalidField(f"k is {request.k}; at most {limits.max_k} is answered", field="k")
    return request


def parse_recommend(raw: RawRequest, limits: Limits) -> ParsedRequest:
    """Parse and check a request to a worker."""
    deadline_s = check_deadline(raw, limits.timeout_ms)
    envelope = open_envelope(raw, limits)
    if isinstance(envelope, FormBody):
        raise UnsupportedMedia("recommendations are asked for in application/json")
    request = check_recommend(envelope, limits, RecommendRequest)
    history = _refs(request.history, limits, "history", deadline_s)
    candidates = None
    if request.candidates is not None:
        candidates = _refs(request.candidates, limits, "candidates", deadline_s)
    inline = [
        ref
        for sent, refs in ((request.history, history), (request.candidates, candidates))
        if refs is not sent
        for ref in refs or ()
        if isinstance(ref, ProductInput)
    ]
    query = searched_product(request.search, limits, deadline_s)
    inline += [] if query is None else [query]
    if len(inline) > limits.max_instances:
        raise TooLarge(
            f"{len(inline)} inline products; at most {limits.max_instances} are "
            "accepted: refer to products of the index by id"
        )
    check_pixels(inline, limits)
    return ParsedRequest(request, history, candidates, inline, deadline_s, query)


def searched_product(
    search: SearchQuery | None, limits: Limits, deadline_s: float | None = None
) -> ProductInput | None:
    """Return what is searched for as a product; None without a picture and words."""
    if search is None:
        return None
    text, _ = read_price(clean_text(search.text or ""))
    if not text and search.image is None:
        return None
    product = EncoderProduct(title=text or None, image=search.image)
    return check_product(product, limits, deadline_s=deadline_s)


def _check_counts(body: dict[str, object], limits: Limits) -> None:
    if (count := _count(body.get("history"))) > limits.max_history:
        raise TooLarge(f"{count} items; send the {limits.max_history} most recent", field="history")
    if (count := _count(body.get("candidates"))) > limits.max_candidates:
        raise TooLarge(
            f"{count} candidates; at most {limits.max_candidates} are "
            "ranked: leave them out to rank the whole index, or use filters",
            field="candidates",
        )


def _count(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


def _refs(
    refs: Sequence[Ref], limits: Limits, name: str, deadline_s: float
) -> Sequence[str | ProductInput]:
    if isinstance(refs, Ids):
        return refs
    return [_ref(ref, limits, f"{name}[{i}]", deadline_s) for i, ref in enumerate(refs)]


def _ref(
    ref: str | EncoderProduct, limits: Limits, at: str, deadline_s: float
) -> str | ProductInput:
    if isinstance(ref, str):
        return ref
    if at.startswith("candidates") and not ref.id:
        raise InvalidField("a candidate needs an id, to be found in the answer", field=f"{at}.id")
    return check_product(ref, limits, at, deadline_s=deadline_s)
