"""Opens a request's envelope: JSON, a form with a picture, or a bare picture."""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from newshelf.errors import InvalidField, NotJson, RequestError, TooLarge, UnsupportedMedia
from newshelf.serving.limits import Limits
from newshelf.serving.protocol import RawRequest

__all__ = ["FormBody", "JsonBody", "open_envelope"]

PICTURE_TYPES = ("image/jpeg", "image/jpg", "image/png", "image/webp", "image/gif")
_PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_SERVED = f"application/json, multipart/form-data, {', '.join(PICTURE_TYPES)}"


@dataclass(frozen=True, slots=True)
class JsonBody:
    """Parsed JSON of any kind."""

    value: object


@dataclass(frozen=True, slots=True)
class FormBody:
    """Text fields and perhaps a picture: a multipart form, or a bare picture."""

    fields: Mapping[str, object]
    """As JSON would give them: a number where the schema wants one."""
    image: bytes | bytearray | None


def open_envelope(request: RawRequest, limits: Limits) -> JsonBody | FormBody:
    """Tell the form of a request and parse it.

    The content type decides; without one (or with ``application/octet-stream``), the
    first bytes do. A plain body stands alone: TorchServe passes no query parameters on, so
    a part beside it comes from a server that does, and is refused.

    Raises:
        TooLarge: more bytes than ``limits.max_body_bytes``.
        UnsupportedMedia: a content type that is not served.
        NotJson: the body does not parse as JSON in UTF-8.
        RequestError: a form whose content type names no boundary.
        InvalidField: a form field is not text in UTF-8, or no number where one belongs;
            or there is a part beside a plain body.
    """
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
        return _form(request.parts)
    body = request.parts.get("body", b"")
    if media in ("", "application/octet-stream"):
        media = _sniff(body)
    if media == "application/json" or media.endswith("+json"):
        _refuse_further(request.parts)
        return _json(body)
    if media in PICTURE_TYPES:
        _refuse_further(request.parts)
        return FormBody({}, body)
    raise UnsupportedMedia(
        f"content type {media[:100]!r} is not served; send one of {_SERVED}"
        + (" (with curl: -H 'Content-Type: application/json')" if "urlencoded" in media else "")
    )


def _sniff(body: bytes | bytearray) -> str:
    webp = body[:4] == b"RIFF" and body[8:12] == b"WEBP"
    return "image/webp" if webp or body.startswith(_PICTURE_STARTS) else "application/json"


def _refuse_further(parts: Mapping[str, bytes | bytearray]) -> None:
    extra = [name for name in parts if name != "body"]
    if extra:
        raise InvalidField(
            "query parameters are not read; put the fields into JSON or a form",
            field=extra[0][:100],
        )


def _json(body: bytes | bytearray) -> JsonBody:
    if not body:
        raise NotJson("the body is empty; send a JSON object")
    try:
        return JsonBody(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        # The error holds the whole document, which must not reach the logs.
        raise NotJson(f"the body is not JSON: {error}") from None


def _form(parts: Mapping[str, bytes | bytearray]) -> FormBody:
    fields = {name: _field(name, value) for name, value in parts.items() if name != "image"}
    return FormBody(
        fields={name: value for name, value in fields.items() if value is not None},
        image=parts.get("image"),
    )


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
