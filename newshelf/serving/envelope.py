"""Request bodies: JSON, a form with a picture, or a bare picture."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from newshelf.catalog.picture_kind import READ_KINDS, picture_kind
from newshelf.config import Limits
from newshelf.errors import InvalidField, NotJson, RequestError, TooLarge, UnsupportedMedia
from newshelf.serving.protocol import RawRequest
from newshelf.serving.schemas import EncoderProduct

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
