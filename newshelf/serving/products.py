"""Products of a request: bodies (JSON, forms, pictures) opened, and checked one by one."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import orjson
import pybase64
from PIL import Image

from newshelf.catalog.clean import clean_text
from newshelf.catalog.schema import READ_KINDS, Product, picture_kind
from newshelf.config import Limits
from newshelf.errors import InvalidField, NotJson, RequestError, TooLarge, UnsupportedMedia
from newshelf.serving.protocol import RawRequest, check_deadline
from newshelf.serving.schemas import EncoderInstances, EncoderProduct, validate

_UTF_8 = ("utf-8", "utf8", "us-ascii", "ascii")
PICTURE_TYPES = ("image/jpeg", "image/jpg", "image/png", "image/webp", "image/gif")
_PICTURE_NAMES = ("data", "file", "body", "picture", "photo", "img", "images")
_CHARSET = re.compile(r"charset *= *\"?([^\s;\"]+)", re.IGNORECASE)
_SERVED = f"application/json, multipart/form-data, {', '.join(PICTURE_TYPES)}"


@dataclass(frozen=True, slots=True)
class FormBody:
    """Parts and perhaps a picture: a multipart form, or a bare picture."""

    parts: Mapping[str, bytes | bytearray]
    """All but the picture; of several with one name, the later are called ``NAME[…]``."""
    image: bytes | bytearray | None


def open_envelope(request: RawRequest, limits: Limits) -> object:
    """Tell the form of a request and parse it: a ``FormBody``, or the value of its JSON.

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
        return read_json(body, request.content_type)
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


_BREAKS = "\n\r\t "
_TEXT_STARTS = (b"data:", b"/9j/", b"iVBORw", b"R0lGOD", b"UklGR")
"""Of a ``data:`` URL, and of JPEG, PNG, GIF and WebP in base64."""
_MEASURED = tuple(kind.upper() for kind in READ_KINDS)


def picture_from_base64(text: str, max_bytes: int) -> bytes:
    """The bytes of a picture in base64, perhaps with line breaks or as a ``data:`` URL."""
    if text[:8].lower().startswith(("http:", "https:")):
        raise InvalidField("URLs are not fetched; send the picture's bytes in base64")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    # Some encoders break lines; nothing else may stand between the digits.
    digits = "".join(text.split()) if any(line in text for line in _BREAKS) else text
    if len(digits) // 4 * 3 > max_bytes + 3:
        raise TooLarge(
            f"the picture has about {len(digits) // 4 * 3} bytes; at most {max_bytes} are accepted"
        )
    try:
        data = pybase64.b64decode(digits, validate=True)
    except ValueError as error:
        raise InvalidField("not base64: a character that is no digit, or a wrong length") from error
    check_size(data, max_bytes)
    return data


def check_size(data: bytes | bytearray, max_bytes: int) -> None:
    """Refuse a picture of too many bytes."""
    if len(data) > max_bytes:
        raise TooLarge(f"the picture has {len(data)} bytes; at most {max_bytes} are accepted")


def refuse_text(data: bytes | bytearray) -> None:
    """Refuse base64 where the bytes themselves belong."""
    if data[:16].lstrip().startswith(_TEXT_STARTS):
        raise InvalidField(
            "this is text in base64: send the picture's bytes (curl: -F image=@FILE)"
        )


def pixels_of(data: bytes | bytearray) -> int:
    """Width times height, by the header; 0 for what is no picture, which nobody decodes."""
    with suppress(Exception), Image.open(io.BytesIO(data), formats=_MEASURED) as picture:
        return picture.width * picture.height
    return 0


_TEXT_FIELDS = tuple(name for name in Product.model_fields if name not in {"id", "price"})


@dataclass(frozen=True, slots=True)
class ProductInput:
    """A product, its picture, and where it stood in the request."""

    product: Product
    picture: bytes | bytearray | None
    at: str
    """Path within the request: ``history[2]``; empty for the request's only product."""
    deadline_s: float | None = None
    """Of ``time.monotonic``: nobody waits for it afterwards."""

    def field(self, name: str) -> str:
        """The path of one of its fields: ``history[2].image``."""
        return f"{self.at}.{name}" if self.at else name


def parse_products(
    raw: RawRequest, limits: Limits
) -> tuple[Sequence[ProductInput | RequestError], bool]:
    """Each product, or why it is refused; and whether the request had ``instances``."""
    deadline_s = check_deadline(raw, limits.timeout_ms)
    envelope = open_envelope(raw, limits)
    if isinstance(envelope, FormBody):
        product, picture = validate(EncoderProduct, form_fields(envelope)), envelope.image
    elif isinstance(envelope, dict) and "instances" in envelope:
        instances = validate(EncoderInstances, envelope).instances
        return _instances(instances, limits, deadline_s), True
    else:
        product, picture = validate(EncoderProduct, envelope), None
    return [check_product(product, limits, picture=picture, deadline_s=deadline_s)], False


def check_pixels(inputs: Sequence[ProductInput | RequestError], limits: Limits) -> None:
    """Refuse pictures that together take too long to decode; one too large is refused alone."""
    pictures = [item.picture for item in inputs if isinstance(item, ProductInput) and item.picture]
    if len(pictures) < 2:  # noqa: PLR2004 - one has a limit of its own
        return
    total = sum(size for size in map(pixels_of, pictures) if size <= limits.max_pixels)
    if total > limits.max_request_pixels:
        raise TooLarge(
            f"the {len(pictures)} pictures have {total} pixels together; at most "
            f"{limits.max_request_pixels} are accepted in one request: send several, or smaller "
            "pictures"
        )


def check_product(
    product: EncoderProduct,
    limits: Limits,
    at: str = "",
    picture: bytes | bytearray | None = None,
    deadline_s: float | None = None,
) -> ProductInput:
    """Check what the schema cannot: lengths, and that there is something to encode.

    Lengths are those of the texts as they were sent; what goes on is clean. ``picture`` came next
    to the product, ``at`` is its path within the request.
    """
    for name in _TEXT_FIELDS:
        value = getattr(product, name)
        if value is not None and len(value) > limits.max_text_chars:
            raise TooLarge(
                f"{name} has {len(value)} characters; at most {limits.max_text_chars} are accepted",
                field=f"{at}.{name}" if at else name,
            )
    try:
        source = _picture(product, picture, limits.max_picture_bytes)
    except RequestError as error:
        error.field = f"{at}.image" if at else "image"
        raise
    cleaned = _cleaned(product)
    if source is None and not cleaned.text():
        raise InvalidField("a product needs a title, a description or an image", field=at or None)
    return ProductInput(cleaned, source, at, deadline_s)


def _picture(
    product: EncoderProduct, picture: bytes | bytearray | None, max_bytes: int
) -> bytes | bytearray | None:
    if picture is not None:
        check_size(picture, max_bytes)
        refuse_text(picture)
        return picture
    return None if product.image is None else picture_from_base64(product.image, max_bytes)


def _instances(
    instances: Sequence[object], limits: Limits, deadline_s: float
) -> list[ProductInput | RequestError]:
    if len(instances) > limits.max_instances:
        raise TooLarge(
            f"{len(instances)} instances; at most {limits.max_instances} are accepted in one "
            "request: send several",
            field="instances",
        )
    inputs = [
        _instance(value, limits, f"instances[{i}]", deadline_s) for i, value in enumerate(instances)
    ]
    check_pixels(inputs, limits)
    return inputs


def _instance(
    value: object, limits: Limits, at: str, deadline_s: float
) -> ProductInput | RequestError:
    try:
        product = validate(EncoderProduct, value, at)
        return check_product(product, limits, at, deadline_s=deadline_s)
    except RequestError as error:
        return error


def _cleaned(product: EncoderProduct) -> Product:
    """The product as the models read it: its texts without markup, as in the catalogue."""
    # Without its picture: no copy of megabytes is kept next to the decoded one.
    fields = {name: getattr(product, name) for name in Product.model_fields}
    for name in _TEXT_FIELDS:
        if fields[name]:
            fields[name] = clean_text(fields[name]) or None
    return Product.model_construct(**fields)
