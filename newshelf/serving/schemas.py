"""Requests and answers of the two models, as data. Imports no torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from newshelf.catalog.schema import Id, Product, clean_ids

__all__ = [
    "TAGS",
    "EncoderAnswer",
    "EncoderInstances",
    "EncoderProduct",
    "ErrorBody",
    "FailedInstance",
    "Filters",
    "Ids",
    "InstanceError",
    "InstancesAnswer",
    "Label",
    "PriceRange",
    "RecommendAnswer",
    "RecommendRequest",
    "RecommendedItem",
    "Ref",
    "Source",
    "seen_as_ids",
]

TAGS = ("<id>", "<product>")
"""Names of a reference's two forms in pydantic's paths; no field can be called so."""


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderProduct(Product):
    """A product with its picture. It needs a title, a description or a picture."""

    image: str | None = None
    """The bytes of a JPEG, PNG, WebP or GIF in base64. URLs are never fetched."""


class EncoderInstances(_Request):
    """Several products in one request. Each is checked, and may fail, on its own."""

    instances: Annotated[list[object], Field(min_length=1)]


def _form(value: object) -> str | None:
    if isinstance(value, str):
        return TAGS[0]
    if isinstance(value, dict | EncoderProduct):
        return TAGS[1]
    return None


Ref = Annotated[
    Annotated[Id, Tag(TAGS[0])] | Annotated[EncoderProduct, Tag(TAGS[1])],
    Discriminator(
        _form,
        custom_error_type="ref",
        custom_error_message="must be a product id (a string) or a product (an object)",
    ),
]
"""A product of the index by its id, or a product that the index need not know."""


class Ids(list[str]):
    """Ids alone, at least one and all of them clean: no reader has to check each again."""


def seen_as_ids(refs: object) -> object:
    """Return ``refs`` as ``Ids`` where it is a list of ids; else as it is."""
    # One pass in C each: a call per reference costs more than ranking the item.
    if type(refs) is list and {*map(type, refs)} == {str}:
        try:
            return Ids(clean_ids(refs))
        except ValueError:
            return refs  # the schema says which one it is
    return refs


def _ids_at_once(value: object, check: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, Ids) else check(value)


_Refs = Annotated[list[Ref], Field(fail_fast=True)]
_IdsAtOnce = WrapValidator(_ids_at_once)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


_Values = Annotated[list[str], Field(min_length=1, fail_fast=True), BeforeValidator(_listed)]
_Stock = Literal["in_stock", "out_of_stock", "preorder", "backorder"]


class PriceRange(_Request):
    """Both ends belong to the range; a product without a price is in none."""

    min: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be above max")
        return self


class Filters(_Request):
    """Only products that pass every given filter are answered.

    Text is matched in any case, with what the columns state and with what is known beyond
    them. A single value may stand for a list of one.
    """

    product_type: _Values | None = None
    """A path such as ``Home > Beds``, which takes everything below it, or several."""
    brand: _Values | None = None
    color: _Values | None = None
    material: _Values | None = None
    style: _Values | None = None
    """What the texts say, such as ``minimal``: there is no such column."""
    price: PriceRange | None = None
    availability: Annotated[list[_Stock], BeforeValidator(_listed), Field(min_length=1)] | None = (
        None
    )
    """Without it, all but ``out_of_stock``. A product that does not say is in stock."""
    created_after: int | None = None
    """Epoch seconds, itself not included."""


class RecommendRequest(_Request):
    """What to recommend, to whom, and what to leave out."""

    user_id: str | None = None
    """Accepted and not used: the history says all."""
    history: Annotated[_Refs, _IdsAtOnce] = []
    """Oldest first."""
    candidates: Annotated[_Refs, Field(min_length=1), _IdsAtOnce] | None = None
    """Rank these only; without it, the whole index."""
    k: Annotated[int, Field(ge=1)] = 10
    filters: Filters = Filters()
    exclude: Annotated[list[Id], Field(fail_fast=True)] = []
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    explain: bool = False


class Label(_Answer):
    """The likeliest class of one head, and its probability."""

    value: str
    score: float


class EncoderAnswer(_Answer):
    """One encoded product."""

    embedding: list[float]
    """512 numbers of unit length."""
    labels: dict[str, Label]
    model_version: str
    warnings: list[str] = []
    """What of the product could not be read; left out when empty."""


class ErrorBody(_Answer):
    """Why a request, or one of its instances, was not answered."""

    code: str
    message: str
    field: str | None


class InstanceError(ErrorBody):
    """An error of one instance, with the status it would have had alone."""

    status: int


class FailedInstance(_Answer):
    """Stands where the instance's answer would."""

    error: InstanceError


class InstancesAnswer(_Answer):
    """One entry per instance, in the same order."""

    predictions: list[EncoderAnswer | FailedInstance]
    model_version: str


Source = Literal["model", "similar", "popular_in_category", "popular"]
"""Which ranking an item came from, best first."""


class RecommendedItem(_Answer):
    """One recommended product."""

    id: str
    score: float
    """Comparable within one source only."""
    source: Source
    reason: str | None = None
    """Only when the request asks to explain."""


class RecommendAnswer(_Answer):
    """At most ``k`` products, best first."""

    items: list[RecommendedItem]
    model_version: str
    index_version: str
    request_id: str
    ignored: list[str] = []
    """Ids of history or candidates that the index does not know; left out when empty."""
