"""From pydantic's errors to one ``InvalidField`` that tells the client what to mend."""

import difflib
from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from newshelf.errors import InvalidField
from newshelf.serving.schemas import (
    TAGS,
    EncoderInstances,
    EncoderProduct,
    Filters,
    Ids,
    PriceRange,
    RecommendRequest,
)

__all__ = ["validate"]

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
    """Check ``value`` against ``model``.

    Args:
        model: a strict request model.
        value: parsed JSON.
        at: the path of ``value`` within the request, such as ``instances[2]``.

    Raises:
        InvalidField: the first problem, with its path (``history[2].price``).
    """
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
        raise InvalidField(message, field=_path(problems[0]["loc"], at) or None) from error


def _refuse_many_fields(value: object, at: str) -> None:
    """Refuse objects of so many fields that a list of the unknown ones would take seconds."""
    level = [value]
    # No request nests objects deeper than this; the schema refuses those that do.
    for _ in range(_MAX_DEPTH):
        for item in level:
            if isinstance(item, dict) and len(item) > _MAX_FIELDS:
                raise InvalidField(
                    f"an object with {len(item)} fields; none of a request has so many",
                    field=at or None,
                )
        level = [inner for item in level for inner in _nesting(item)]


def _nesting(item: object) -> Iterable[object]:
    """What is inside, where objects or arrays are among it."""
    if not isinstance(item, dict | list) or isinstance(item, Ids):
        return ()
    inner = item.values() if isinstance(item, dict) else item
    # Hundreds of values are passed over at once.
    return inner if {dict, list} & {*map(type, inner)} else ()


def _path(loc: tuple[int | str, ...], at: str) -> str:
    path = at
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in TAGS:
            path += f".{part}" if path else part
    # An unknown field's name may be as long as the whole body.
    return path[:_MAX_PATH]


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


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
