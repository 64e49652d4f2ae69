"""Parsing of requests' bodies (JSON, forms, pictures) and checks, in the gateway and in workers."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import orjson

from newshelf.catalog.clean import clean_text
from newshelf.catalog.picture_kind import READ_KINDS, picture_kind
from newshelf.config import Limits
from newshelf.errors import InvalidField, NotJson, RequestError, TooLarge, UnsupportedMedia
from newshelf.serving.products import ProductInput, check_pixels, check_product
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

_UTF_8 = ("utf-8", "utf8", "us-ascii", "ascii")
PICTURE_TYPES = ("image/jpeg", "image/jpg", "image/png", "image/webp", "image/gif")
_PICTURE_NAMES = ("data", "file", "body", "picture", "photo", "img", "images")
_CHARSET = re.compile(r"charset *= *\"?([^\s;\"]+)", re.IGNORECASE)
_SERVED = f"application/json, multipart/form-data, {', '.join(PICTURE_TYPES)}"


@dataclass(frozen=True, slots=True)
class JsonBody:
    """Parsed JSON of any kind."""

    value: object


@dataclass(frozen=True, slots=True)
class FormBody:
    """Parts and perhaps a picture: a multipart form, or a bare picture."""

    parts: Mapping[str, bytes | bytearray]
    """All but the picture; of several with one name, the later are called ``NAME[…]``."""
    image: bytes | bytearray | None


def open_envelope(request: RawRequest, limits: Limits) -> JsonBody | FormBody:
    """Tell the form of a request and parse it.

    The content type decides; without one (or with ``application/octet-stream``), the first bytes
    do. A plain body stands alone: TorchServe passes no query parameters on, so another part comes
    from a server that does, and is refused.
    """
    refuse_coding(request.headers.get("content-encoding", ""))
    size = sum(len(part) for part in request.parts.values())
    if size > limits.max_body_bytes:
        raise TooLarge(
            f"the request has {size} bytes; at most {limits.max_body_bytes} are accepted"
        )
    media = request.content_type.partition(";")[0].strip().lower()
    if media == "multipart/form-data":
        if "body" in request.parts and "boundary=" not in request.content_type.lower():
            # The server could not take it apart.
            raise RequestError(
                "the form cannot be read: its content type must name the boundary between its "
                "parts, which the client's library does when it is not set by hand"
            )
        parts = {name: value for name, value in request.parts.items() if name != "image"}
        return FormBody(parts, request.parts.get("image"))
    body = request.parts.get("body", b"")
    if media in ("", "application/octet-stream"):
        # A picture that cannot be read too: the decoder names it.
        media = "application/json" if picture_kind(body) is None else PICTURE_TYPES[0]
    if media == "application/json" or media.endswith("+json"):
        _refuse_further(request.parts)
        return JsonBody(read_json(body, request.content_type))
    if media in PICTURE_TYPES:
        _refuse_further(request.parts)
        return FormBody({}, body)
    raise UnsupportedMedia(
        f"content type {media[:100]!r} is not served; send one of {_SERVED}"
        + (" (with curl: -H 'Content-Type: application/json')" if "urlencoded" in media else "")
    )


def _refuse_further(parts: Mapping[str, bytes | bytearray]) -> None:
    extra = [name for name in parts if name != "body"]
    if extra:
        raise InvalidField(
            "query parameters are not read; put the fields into JSON or a form",
            field=extra[0][:100],
        )


def refuse_coding(coding: str) -> None:
    """Refuse a body that is compressed."""
    if coding.strip().lower() not in ("", "identity"):
        raise UnsupportedMedia(
            f"the body's content coding {coding[:40]!r} is not served: send it as it is"
        )


def read_json(body: bytes | bytearray, content_type: str) -> object:
    """Parse JSON in UTF-8, with or without its byte order mark."""
    if not body:
        raise NotJson("the body is empty; send a JSON object")
    declared = _CHARSET.search(content_type) if ";" in content_type else None
    if declared and declared[1].lower() not in _UTF_8 and not body.isascii():
        raise NotJson(f"the body is in {declared[1][:40]}; send JSON in UTF-8")
    try:
        return orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        # The error holds the whole document, which must not reach the logs.
        raise NotJson(_another_charset(body) or f"the body is not JSON: {error}") from None


def _another_charset(body: bytes | bytearray) -> str | None:
    found = json.detect_encoding(body)
    if found.startswith(("utf-16", "utf-32")):
        return f"the body is in {found[:6].upper()}; send JSON in UTF-8"
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return (
            f"the body is not in UTF-8: byte {error.start} is {body[error.start]:#x}, as in "
            "ISO-8859-1 or Windows-1252; send JSON in UTF-8"
        )
    return None


def form_fields(form: FormBody) -> dict[str, object]:
    """The fields of a product as JSON would give them: a number where the schema wants one."""
    fields: dict[str, object] = {}
    for name, value in form.parts.items():
        first = name.rpartition("[")[0]
        if first in form.parts or (first == "image" and form.image is not None):
            raise InvalidField(
                "the form has several parts of this name; one product is read from a form, "
                "several from JSON with instances",
                field=first[:100],
            )
        if name not in EncoderProduct.model_fields and (
            name in _PICTURE_NAMES or picture_kind(value) in READ_KINDS
        ):
            raise InvalidField("the part with the picture is called 'image'", field=name[:100])
        if (field := _field(name, value)) is not None:
            fields[name] = field
    return fields


def _field(name: str, value: bytes | bytearray) -> object:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidField("the field is not text in UTF-8", field=name[:100]) from error
    if not text:
        return None
    if name != "price":
        return text
    try:
        return float(text)
    except ValueError as error:
        raise InvalidField(f"{text[:40]!r} is not a number", field=name) from error


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
