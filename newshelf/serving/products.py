"""From a request to products that can be encoded, each checked on its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from newshelf.catalog.clean import clean_text
from newshelf.catalog.schema import Product
from newshelf.errors import InvalidField, RequestError, TooLarge
from newshelf.serving.base64_picture import check_size, picture_from_base64
from newshelf.serving.deadline import check_deadline
from newshelf.serving.envelope import FormBody, open_envelope
from newshelf.serving.limits import Limits
from newshelf.serving.protocol import RawRequest
from newshelf.serving.schemas import EncoderInstances, EncoderProduct
from newshelf.serving.validation import validate

__all__ = ["ProductInput", "check_product", "parse_products"]

_TEXT_FIELDS = tuple(name for name in Product.model_fields if name not in {"id", "price"})


@dataclass(frozen=True, slots=True)
class ProductInput:
    """A product, its picture, and where it stood in the request."""

    product: Product
    picture: bytes | bytearray | None
    """The bytes of its picture, not yet decoded."""
    at: str
    """Path within the request: ``history[2]``; empty for the request's only product."""
    deadline_ms: int | None = None
    """Milliseconds since the epoch after which nobody waits for it."""

    def field(self, name: str) -> str:
        """The path of one of its fields: ``history[2].image``."""
        return f"{self.at}.{name}" if self.at else name


def parse_products(
    raw: RawRequest, limits: Limits
) -> tuple[Sequence[ProductInput | RequestError], bool]:
    """The products of a request to the encoder.

    Returns:
        One entry per product (or why it is refused), and whether the request had
        ``instances`` and so wants a list.

    Raises:
        RequestError: the request as a whole is refused.
        DeadlineExceeded: it came too late.
    """
    deadline_ms = check_deadline(raw)
    envelope = open_envelope(raw, limits)
    if isinstance(envelope, FormBody):
        product = validate(EncoderProduct, dict(envelope.fields))
        if product.image is not None:
            raise InvalidField("send the picture as the body, or as a form's part", field="image")
        checked = check_product(product, limits, picture=envelope.image, deadline_ms=deadline_ms)
        return [checked], False
    if isinstance(envelope.value, dict) and "instances" in envelope.value:
        instances = validate(EncoderInstances, envelope.value).instances
        return _instances(instances, limits, deadline_ms), True
    product = validate(EncoderProduct, envelope.value)
    return [check_product(product, limits, deadline_ms=deadline_ms)], False


def check_product(
    product: EncoderProduct,
    limits: Limits,
    at: str = "",
    picture: bytes | bytearray | None = None,
    deadline_ms: int | None = None,
) -> ProductInput:
    """Check what the schema cannot: lengths, and that there is something to encode.

    Lengths are those of the texts as they were sent; what goes on is clean.

    Args:
        product: as the client sent it, perhaps with a picture in base64.
        limits: of one request.
        at: its path within the request.
        picture: the bytes of its picture, where they came beside the product.
        deadline_ms: of the request, in milliseconds since the epoch.

    Raises:
        TooLarge: a text field is too long, or the picture has too many bytes.
        InvalidField: neither title, description nor picture; or the latter is not base64.
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
    return ProductInput(cleaned, source, at, deadline_ms)


def _picture(
    product: EncoderProduct, picture: bytes | bytearray | None, max_bytes: int
) -> bytes | bytearray | None:
    if picture is not None:
        check_size(picture, max_bytes)
        return picture
    return None if product.image is None else picture_from_base64(product.image, max_bytes)


def _instances(
    instances: Sequence[object], limits: Limits, deadline_ms: int | None
) -> list[ProductInput | RequestError]:
    if len(instances) > limits.max_instances:
        raise TooLarge(
            f"{len(instances)} instances; at most {limits.max_instances} are accepted in one "
            "request: send several",
            field="instances",
        )
    return [
        _instance(value, limits, f"instances[{i}]", deadline_ms)
        for i, value in enumerate(instances)
    ]


def _instance(
    value: object, limits: Limits, at: str, deadline_ms: int | None
) -> ProductInput | RequestError:
    try:
        product = validate(EncoderProduct, value, at)
        return check_product(product, limits, at, deadline_ms=deadline_ms)
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
