"""Draws products as the tables of ``drawings.toml`` say.

Jinja evaluates the expressions in these tables.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from jinja2.environment import TemplateExpression

from newshelf.sample.palette import Metal, darker, lighter, mixed
from newshelf.sample.pen import Path, Pen, points, spaced
from newshelf.sample.surfaces import bow, flower, folds, piece, sleeves, stone, trim, turned

Values = Mapping[str, Any]

_DRAWINGS: dict[str, dict[str, Any]] = tomllib.loads(
    (files("newshelf.sample") / "drawings.toml").read_text(encoding="utf-8")
)
_EXPRESSIONS = Environment(undefined=StrictUndefined, autoescape=True)
_EXPRESSIONS.globals.update(Metal=Metal, darker=darker, lighter=lighter, mixed=mixed)

_OPERATIONS: dict[str, Callable[..., None]] = {
    "shape": Pen.shape,
    "line": Pen.line,
    "outline": partial(Pen.line, closed=True),
    "inlay": partial(Pen.line, solid=False),
    "tube": Pen.tube,
    "hoop": partial(Pen.tube, closed=True),
    "ball": Pen.ball,
    "hole": Pen.hole,
    "shade": Pen.shade,
    "fold": Pen.fold,
    "piece": piece,
    "trim": trim,
    "bow": bow,
    "flower": flower,
    "folds": folds,
    "sleeves": sleeves,
    "turned": turned,
    "stone": stone,
}


def draw(pen: Pen, table: str, inherited: Values | None = None) -> None:
    """Draw the strokes of a table, which knows the values of the table that draws it."""
    values = {"look": pen.look, "variant": pen.look.variant, **(inherited or {})}
    for name, value in _DRAWINGS[table].items():
        if name != "strokes":
            values[name] = _evaluated(pen, value, values)
    for styles, *stroke in _DRAWINGS[table]["strokes"]:
        if styles == "*" or pen.look.style[0] in styles:
            _draw_stroke(pen, values, *stroke)


def _draw_stroke(pen: Pen, values: Values, operation: str, *arguments: Any) -> None:
    count, modify = _MODIFIERS.get(operation, (len(arguments), None))
    given = [_evaluated(pen, argument, values) for argument in arguments[:count]]
    if modify is not None:
        for known in modify(pen, *given):
            _draw_stroke(pen, {**values, **known}, *arguments[count:])
    elif operation == "draw":
        table, *path = given
        draw(pen, table, {**values, "path": path[0]} if path else values)
    else:
        _OPERATIONS[operation](pen, *given)


def _evaluated(pen: Pen, argument: Any, values: Values) -> Any:
    if isinstance(argument, dict):
        argument = pen.by(argument.get("else"), **argument)
    if not isinstance(argument, str):
        return argument
    if argument.startswith("="):
        return _expression(argument[1:])(values)
    return re.sub("{(.+?)}", lambda found: str(_expression(found[1])(values)), argument)


@cache
def _expression(text: str) -> TemplateExpression:
    return _EXPRESSIONS.compile_expression(text, undefined_to_none=False)


def _if(_: Pen, condition: object) -> Iterator[Values]:
    if condition:
        yield {}


def _local(pen: Pen, x: float, y: float, size: float) -> Iterator[Values]:
    with pen.local(x, y, size):
        yield {}


def _mirror(pen: Pen) -> Iterator[Values]:
    return ({"side": side} for side in pen.sides())


def _each(_: Pen, path: Path) -> Iterator[Values]:
    return ({"place": place, "x": x, "y": y} for place, (x, y) in enumerate(points(path)))


def _along(pen: Pen, path: Path, step: float) -> Iterator[Values]:
    return _each(pen, spaced(path, step))


_MODIFIERS: dict[str, tuple[int, Callable[..., Iterator[Values]]]] = {
    "if": (1, _if),
    "local": (3, _local),
    "mirror": (0, _mirror),
    "each": (1, _each),
    "along": (2, _along),
}
"""How many arguments they have before the stroke, and what they do."""
