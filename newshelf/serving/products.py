"""From a request to products that can be encoded, each checked on its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from newshelf.catalog.schema import Product
from newshelf.errors import InvalidField, RequestError, TooLarge
from newshelf.serving.deadline import check_deadline
from newshelf.serving.envelope import FormBody, open_envelope
from newshelf.serving.limits import Limits
from newshelf.serving.protocol import RawRequest
from newshelf.serving.schemas import EncoderInstances, EncoderProduct
from newshelf.serving.validation import validate

__all__ = ["Picture", "ProductInput", "check_product", "parse_products"]

Picture = bytes | bytearray | str
"""Encoded bytes, or those in base64."""

_TEXT_FIELDS = tuple(name for name in Product.model_fields if name != "price")


@dataclass(frozen=True, slots=True)
class ProductInput:
    """A product, its picture, and where it stood in the request."""

    product: Product
    picture: Picture | None
    at: str
    """Path within the request: ``history[2]``; empty for the request's only product."""

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
    check_deadline(raw)
    envelope = open_envelope(raw, limits)
    if isinstance(envelope, FormBody):
        product = validate(EncoderProduct, dict(envelope.fields))
        if product.image is not None:
            raise InvalidField("send the picture as the body, or as a form's part", field="image")
        return [check_product(product, limits, picture=envelope.image)], False
    if isinstance(envelope.value, dict) and "instances" in envelope.value:
        return _instances(validate(EncoderInstances, envelope.value).instances, limits), True
    return [check_product(validate(EncoderProduct, envelope.value), limits)], False


def check_product(
    product: EncoderProduct, limits: Limits, at: str = "", picture: Picture | None = None
) -> ProductInput:
    """Check what the schema cannot: lengths, and that there is something to encode.

    Raises:
        TooLarge: a text field is too long.
        InvalidField: neither title, description nor picture.
    """
    source = picture if picture is not None else product.image
    checked = ProductInput(_without_picture(product), source, at)
    for name in _TEXT_FIELDS:
        value = getattr(product, name)
        if value is not None and len(value) > limits.max_text_chars:
            raise TooLarge(
                f"{name} has {len(value)} characters; at most {limits.max_text_chars} are accepted",
                field=checked.field(name),
            )
    if source is None and not product.text():
        raise InvalidField("a product needs a title, a description or an image", field=at or None)
    return checked


def _instances(instances: Sequence[object], limits: Limits) -> list[ProductInput | RequestError]:
    if len(instances) > limits.max_instances:
        raise TooLarge(
            f"{len(instances)} instances; at most {limits.max_instances} are accepted in one "
            "request: send several",
            field="instances",
        )
    return [_instance(value, limits, f"instances[{i}]") for i, value in enumerate(instances)]


def _instance(value: object, limits: Limits, at: str) -> ProductInput | RequestError:
    try:
        return check_product(validate(EncoderProduct, value, at), limits, at)
    except RequestError as error:
        return error


def _without_picture(product: EncoderProduct) -> Product:
    # No copy of a picture's megabytes is kept beside the decoded one.
    return Product.model_construct(
        **{name: getattr(product, name) for name in Product.model_fields}
    )
