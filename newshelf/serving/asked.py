"""A request to the recommender, parsed and within the limits."""

from collections.abc import Sequence
from dataclasses import dataclass

from newshelf.errors import InvalidField, TooLarge, UnsupportedMedia
from newshelf.serving.deadline import check_deadline
from newshelf.serving.envelope import FormBody, open_envelope
from newshelf.serving.limits import Limits
from newshelf.serving.products import ProductInput, check_product
from newshelf.serving.protocol import RawRequest
from newshelf.serving.schemas import EncoderProduct, RecommendRequest, Ref
from newshelf.serving.validation import validate

__all__ = ["Asked", "parse_recommend"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked. A reference is an id, or a product to be encoded."""

    request: RecommendRequest
    history: Sequence[str | ProductInput]
    candidates: Sequence[str | ProductInput] | None
    request_id: str

    def inline(self) -> list[ProductInput]:
        """The products to be encoded: those of the history, then the candidates."""
        refs = [*self.history, *(self.candidates or ())]
        return [ref for ref in refs if isinstance(ref, ProductInput)]


def parse_recommend(raw: RawRequest, limits: Limits) -> Asked:
    """Parse and check one request.

    Raises:
        RequestError: it is refused, see ``newshelf.errors``.
        DeadlineExceeded: it came too late.
    """
    check_deadline(raw)
    envelope = open_envelope(raw, limits)
    if isinstance(envelope, FormBody):
        raise UnsupportedMedia("recommendations are asked for in application/json")
    _check_counts(envelope.value, limits)
    request = validate(RecommendRequest, envelope.value)
    if request.k > limits.max_k:
        raise InvalidField(f"k is {request.k}; at most {limits.max_k} is answered", field="k")
    asked = Asked(
        request=request,
        history=_refs(request.history, limits, "history"),
        candidates=None
        if request.candidates is None
        else _refs(request.candidates, limits, "candidates"),
        request_id=raw.request_id,
    )
    if len(asked.inline()) > limits.max_instances:
        raise TooLarge(
            f"{len(asked.inline())} inline products; at most {limits.max_instances} are "
            "accepted: refer to products of the index by id"
        )
    return asked


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


def _refs(refs: Sequence[Ref], limits: Limits, name: str) -> list[str | ProductInput]:
    return [_ref(ref, limits, name, f"{name}[{i}]") for i, ref in enumerate(refs)]


def _ref(ref: str | EncoderProduct, limits: Limits, name: str, at: str) -> str | ProductInput:
    if isinstance(ref, str):
        return ref
    if name == "candidates" and not ref.id:
        raise InvalidField("a candidate needs an id, to be found in the answer", field=f"{at}.id")
    return check_product(ref, limits, at)
