"""Parsing and checking of requests for recommendations, in the gateway and in the workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

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
from newshelf.serving.query import read_price
from newshelf.serving.schemas import (
    EncoderProduct,
    Ids,
    Listing,
    RecommendRequest,
    Ref,
    SearchQuery,
    seen_as_ids,
    validate,
)

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
    request_id: str
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
    request = check_recommend(envelope.value, limits, RecommendRequest)
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
    return ParsedRequest(request, history, candidates, inline, raw.request_id, deadline_s, query)


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
