"""Products of a request, checked one by one, with their pictures decoded from base64."""

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import pybase64
from PIL import Image

from newshelf.catalog.clean import clean_text
from newshelf.catalog.picture_kind import READ_KINDS
from newshelf.catalog.schema import Product
from newshelf.config import Limits
from newshelf.errors import InvalidField, RequestError, TooLarge
from newshelf.serving.protocol import RawRequest, check_deadline
from newshelf.serving.requests import FormBody, form_fields, open_envelope
from newshelf.serving.schemas import EncoderInstances, EncoderProduct, validate

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
    elif isinstance(envelope.value, dict) and "instances" in envelope.value:
        instances = validate(EncoderInstances, envelope.value).instances
        return _instances(instances, limits, deadline_s), True
    else:
        product, picture = validate(EncoderProduct, envelope.value), None
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
