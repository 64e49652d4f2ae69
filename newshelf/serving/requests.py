"""Opens a request's envelope: JSON, a form with a picture, or a bare picture.

A request to the recommender, parsed and within the limits.

A picture as it came, before it is decoded: as text within JSON, or as bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from newshelf.config import Limits
from newshelf.errors import InvalidField, TooLarge, UnsupportedMedia
from newshelf.serving.deadline import check_deadline
from newshelf.serving.envelope import FormBody, open_envelope
from newshelf.serving.products import ProductInput, check_pixels, check_product
from newshelf.serving.protocol import RawRequest
from newshelf.serving.schemas import (
    EncoderProduct,
    Ids,
    RecommendRequest,
    Ref,
    seen_as_ids,
    validate,
)

_LISTS = ("history", "candidates")


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """What is asked. A reference is an id, or a product to be encoded."""

    request: RecommendRequest
    history: Sequence[str | ProductInput]
    candidates: Sequence[str | ProductInput] | None
    inline: Sequence[ProductInput]
    """The products to be encoded: those of the history, then the candidates."""
    request_id: str
    deadline_s: float | None = None
    """Of ``time.monotonic``."""


def parse_recommend(raw: RawRequest, limits: Limits) -> ParsedRequest:
    """Parse and check one request.

    Raises:
        RequestError: it is refused, see ``newshelf.errors``.
        DeadlineExceeded: it came too late.
    """
    deadline_s = check_deadline(raw, limits.timeout_ms)
    envelope = open_envelope(raw, limits)
    if isinstance(envelope, FormBody):
        raise UnsupportedMedia("recommendations are asked for in application/json")
    _check_counts(envelope.value, limits)
    request = validate(RecommendRequest, _seen(envelope.value))
    if request.k > limits.max_k:
        raise InvalidField(f"k is {request.k}; at most {limits.max_k} is answered", field="k")
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
    if len(inline) > limits.max_instances:
        raise TooLarge(
            f"{len(inline)} inline products; at most {limits.max_instances} are "
            "accepted: refer to products of the index by id"
        )
    check_pixels(inline, limits)
    return ParsedRequest(request, history, candidates, inline, raw.request_id, deadline_s)


def _check_counts(body: object, limits: Limits) -> None:
    # Before the schema looks at each of a million references.
    if _count(body, "history") > limits.max_history:
        raise TooLarge(
            f"{_count(body, 'history')} items; send the {limits.max_history} most recent",
            field="history",
        )
    if _count(body, "candidates") > limits.max_candidates:
        raise TooLarge(
            f"{_count(body, 'candidates')} candidates; at most {limits.max_candidates} are "
            "ranked: leave them out to rank the whole index, or use filters",
            field="candidates",
        )


def _count(body: object, name: str) -> int:
    value = body.get(name) if isinstance(body, dict) else None
    return len(value) if isinstance(value, list) else 0


def _seen(body: object) -> object:
    """The same with its lists of ids known as such."""
    if not isinstance(body, dict):
        return body
    return {**body, **{name: seen_as_ids(body[name]) for name in _LISTS if name in body}}


def _refs(
    refs: Sequence[Ref], limits: Limits, name: str, deadline_s: float
) -> Sequence[str | ProductInput]:
    """Each product checked; the very same list where there are only ids."""
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
