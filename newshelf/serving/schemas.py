"""Schemas of the requests to both models and of their answers, and validation, without torch."""

import difflib
from collections.abc import Iterable
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails

from newshelf.catalog.schema import Id, Product, clean_ids
from newshelf.errors import InvalidField
from newshelf.files import field_path

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


_Refs = Annotated[list[Ref], Field(fail_fast=True)]
_IdsAtOnce = WrapValidator(lambda value, check: value if isinstance(value, Ids) else check(value))


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


Kind = Literal[
    "for_you", "similar", "bought_together", "cart", "trending", "popular", "new", "buy_again"
]
"""Kinds of recommendations; see ``newshelf.serving.kinds``."""
STARTING_KINDS: frozenset[Kind] = frozenset({"similar", "bought_together", "cart"})
"""Kinds that start from given products: to a worker, those are the history."""


class Listing(_Request):
    """The fields that every request for products has."""

    placement: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Name of the place where the answer is shown; its rules apply."""
    k: Annotated[int, Field(ge=1)] = 10
    filters: Filters = Filters()
    exclude: Annotated[list[Id], Field(fail_fast=True)] = []


class Selection(Listing):
    """The fields that every request for a ranking has."""

    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    explain: bool = False


class _References(_Request):
    user_id: str | None = None
    """Accepted and not used; the history is enough."""
    history: Annotated[_Refs, _IdsAtOnce] = []
    """Oldest first."""
    candidates: Annotated[_Refs, Field(min_length=1), _IdsAtOnce] | None = None
    """Rank these only; without it, the whole index."""


class SearchQuery(_Request):
    """Query of a search: a sentence, a picture, or both."""

    text: str | None = None
    image: str | None = None
    """As of a product."""
    hits: list[Id] = []
    """Products whose texts match the sentence, best first."""


class RecommendRequest(Selection, _References):
    """A request for recommendations."""

    kind: Kind = "for_you"
    search: SearchQuery | None = None
    """Search instead; the history then only reranks what is found."""


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
    """The reason why a request, or one of its instances, was not answered."""

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


Source = Literal[
    "model",
    "similar",
    "bought_together",
    "cart",
    "trending",
    "new",
    "buy_again",
    "search",
    "popular_in_category",
    "popular",
    "pinned",
]
"""Ranking that an item came from; ``pinned`` if a rule put it there."""


class RecommendedItem(_Answer):
    """One recommended product."""

    id: str
    score: float
    """Comparable within one source only, before boosts; 0 for a pinned product."""
    source: Source
    reason: str | None = None
    """Only when the request asks to explain."""
    rules: list[str] = []
    """Rules that boosted, buried or pinned it; left out when empty."""


class Understood(_Answer):
    """The reading of a sentence."""

    filters: Filters
    """Filters that the sentence states, and that the answer's products pass."""
    relaxed: list[str] = []
    """Further filters of it that no product passed, and that were dropped; omitted if empty."""


Model = TypeVar("Model", bound=BaseModel)

_MAX_PATH = 200
_MAX_FIELDS = 100
_MAX_DEPTH = 4

_NAMES = sorted(
    name
    for model in (EncoderInstances, EncoderProduct, Filters, PriceRange, RecommendRequest)
    for name in model.model_fields
)


def validate(model: type[Model], value: object, at: str = "") -> Model:
    """Check ``value``, at a path like ``instances[2]``, or raise ``InvalidField`` with its path."""
    if not isinstance(value, dict):
        raise InvalidField(f"expected a JSON object, not {_kind(value)}", field=at or None)
    _refuse_many_fields(value, at)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        message = _message(problems[0])
        if len(problems) > 1:
            message += f" (and {len(problems) - 1} more)"
        place: list[int | str] = [at] if at else []
        place += [part for part in problems[0]["loc"] if part not in TAGS]
        # An unknown field's name may be as long as the whole body.
        raise InvalidField(message, field=field_path(place)[:_MAX_PATH] or None) from error


def _refuse_many_fields(value: object, at: str) -> None:
    """Refuse objects with too many fields: a list of the unknown ones would take seconds."""
    level = [value]
    # No request nests objects deeper than this; the schema refuses those that do.
    for _ in range(_MAX_DEPTH):
        for item in level:
            if isinstance(item, dict) and len(item) > _MAX_FIELDS:
                raise InvalidField(
                    f"an object with {len(item)} fields; no object of a request has that many",
                    field=at or None,
                )
        level = [inner for item in level for inner in _nesting(item)]


def _nesting(item: object) -> Iterable[object]:
    """Return the contents, where objects or arrays are among them."""
    if not isinstance(item, dict | list) or isinstance(item, Ids):
        return ()
    inner = item.values() if isinstance(item, dict) else item
    # Hundreds of values are passed over at once.
    return inner if {dict, list} & {*map(type, inner)} else ()


def _message(problem: ErrorDetails) -> str:
    said = problem["msg"].replace("Input should be", "must be")
    match problem["type"]:
        case "extra_forbidden":
            name = str(problem["loc"][-1])[:100]
            if name in _NAMES:
                return f"the field {name!r} does not belong here"
            close = difflib.get_close_matches(name, _NAMES, n=1)
            return f"unknown field {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
        case "missing":
            return "this field is required"
        case "value_error":
            return said.removeprefix("Value error, ")
        case kind if kind.endswith("_type"):
            return f"{said}, not {_kind(problem['input'])}"
        case _:
            return said


_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "an object")
