"""Draws products as the tables of ``drawings.toml`` say, and the surfaces that these name.

Jinja evaluates the expressions in the tables. Surfaces are patterns and trims, which each style has
in its own way, folds, and stones.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from jinja2.environment import TemplateExpression

from newshelf.sample.palette import METALS, RGB, STONES, Metal, Stone, Tone, darker, lighter, mixed
from newshelf.sample.pen import Path, Pen, Points, around, moved, ngon, points, spaced

Box = tuple[float, float, float, float]
_PEARL = Metal((164, 146, 132), *STONES["Pearl"][1:3])


def piece(pen: Pen, path: Path, size: float = 1.0, *, plain: bool = False) -> None:
    """Draw a piece in the product's colour, with the style's pattern and a seam around it."""
    pen.shape(path, "rgb")
    if pen.look.style != "minimal" and not plain:
        outline = points(path)
        (left, top), (right, bottom) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
        cover = pen.by(_tailored, b=_woven, d=_geometric, r=_floral, u=_blocks)
        with pen.clipped(outline):
            cover(pen, (left, top, right, bottom), size)
    pen.line(path, "seam", 0.45, closed=True)


def trim(pen: Pen, path: Path, size: float = 1.0) -> None:
    """Finish an edge with a seam, piping, fringe, steps, lace or tape along a path."""
    pen.on("m", pen.line, path, "seam", 0.3 * size, solid=False)
    width = size * pen.by(1.3, b=1, du=2.6)
    pen.on("cbdu", pen.line, path, pen.by("accent", u="second"), width)
    pen.on("c", pen.line, moved(path, 0, -1.8 * size), "accent", 0.35 * size, solid=False)
    pen.on("d", pen.line, moved(path, 0, -2.1 * size), "second", 0.9 * size, solid=False)
    pen.on("u", pen.line, path, "accent", 0.9 * size)
    if pen.by(True, mcu=False):
        for place, (x, y) in enumerate(spaced(path, size * pen.by(1.5, d=3.4, r=2.6))):
            with pen.local(x, y, size):
                tone = ("accent", "second", "rgb")[place % 3]
                pen.on("b", pen.line, f"0,0 .3,{4.4 + 0.6 * (place * 7 % 3 - 1)}", tone, 0.6)
                pen.on("b" if place % 4 == 0 else "", pen.shape, "disc 0,.6 1.15", "second")
                pen.on("d", pen.shape, "-1.2,1.2 0,-1 1.2,1.2", "accent-45")
                pen.on("r", pen.shape, "disc 0,0 1.7", "accent")
                pen.on("r", pen.shape, "disc 0,.5 .5", "accent-28")


def flower(
    pen: Pen, x: float, y: float, radius: float, petal: Tone, heart: Tone = "goldenrod+30"
) -> None:
    """Draw five petals around a heart."""
    with pen.local(x, y, radius):
        for px, py in ngon(0, 0, 0.62, 5, x * 7.3 + y * 3.1):
            pen.shape(ngon(px, py, 0.5, 12), petal)
        pen.shape(ngon(0, 0, 0.34, 12), heart)


def bow(pen: Pen, x: float, y: float, size: float, tone: str = "accent") -> None:
    """Draw a ribbon tied to a bow."""
    with pen.local(x, y, size):
        for _ in pen.sides():
            pen.shape("0,0 .35,1 .75,.85", f"{tone}-12")
            pen.shape("0,0 1,-.55 1,.5", tone, f"{tone}-30", 0.05)
        pen.shape("disc 0,0 .22", f"{tone}-20")


def _grid(box: Box, across: float, down: float) -> Iterator[tuple[int, int, float, float]]:
    """Yield row, column, x and y of a pattern whose odd rows are shifted by half a step."""
    left, top, right, bottom = box
    for row, y in enumerate(np.arange(top, bottom + down, down)):
        for column, x in enumerate(np.arange(left + row % 2 * across / 2, right + across, across)):
            yield row, column, float(x), float(y)


def _tailored(pen: Pen, box: Box, size: float) -> None:
    """Draw pinstripes, a tartan or an argyle."""
    left, top, right, bottom = box
    variant = pen.look.variant % 3
    soft = mixed(pen.look.tones["rgb"], pen.look.tones["accent"], 0.7)
    if variant == 0:
        for x in np.arange(left, right, 3.2 * size):
            pen.line([(x, top), (x, bottom)], soft, 0.5 * size)
    elif variant == 1:
        gap = 9 * size
        for width, start, opacity in ((3.2 * size, 0, 0.34), (0.7 * size, gap / 2, 0.8)):
            for x in np.arange(left + start, right, gap):
                pen.tint(f"box {x},{top} {x + width},{bottom}", "accent", opacity)
            for y in np.arange(top + start, bottom, gap):
                pen.tint(f"box {left},{y} {right},{y + width}", "accent", opacity)
    else:
        step = 7 * size
        for row, _, x, y in _grid(box, step, step):
            diamond = [(x, y - step), (x + step / 2, y), (x, y + step), (x - step / 2, y)]
            if row % 2:
                pen.tint(diamond, "accent", 0.55)
            pen.line(diamond, soft, 0.3 * size)


def _woven(pen: Pen, box: Box, size: float) -> None:
    """Draw bands of zigzags, lozenges and beads."""
    left, top, right, bottom = box
    accent, second = pen.look.tones["accent"], pen.look.tones["second"]
    step, every = 3.6 * size, 2 + pen.look.variant % 2
    for row, y in enumerate(np.arange(top + step, bottom, step * 1.7)):
        tone = (accent, second, mixed(accent, second, 0.45))[row % 3]
        if row % every == every - 1:
            zigzag = [
                (x, y + step * (place % 2 - 0.5))
                for place, x in enumerate(np.arange(left - step, right + step, step))
            ]
            pen.line(zigzag, tone, 1.1 * size)
            pen.line(moved(zigzag, 0, 1.6 * size), second, 0.5 * size)
        elif row % 2:
            for x in np.arange(left, right + step, step * 1.5):
                pen.shape(f"ngon {x},{y} {step * 0.62} 4", tone)
                pen.shape(f"ngon {x},{y} {step * 0.26} 4", "rgb")
        else:
            pen.line([(left, y), (right, y)], tone, 0.6 * size)
            for x in np.arange(left, right, step * 0.8):
                pen.shape(ngon(x, y + 1.5 * size, 0.6 * size, 8), second)


def _geometric(pen: Pen, box: Box, size: float) -> None:
    """Draw fans, chevrons or a sunburst."""
    left, top, right, bottom = box
    variant = pen.look.variant % 3
    middle, reach = (left + right) / 2, (right - left) / 2
    if variant == 0:
        step = 9 * size
        ground = "rgb-30" if sum(pen.look.tones["rgb"]) > 200 else "rgb+10"
        for _, _, x, y in _grid(box, step, step / 2):
            for share, tone in ((0.5, "accent"), (0.45, "rgb"), (0.3, "accent"), (0.25, ground)):
                pen.shape(ngon(x, y, step * share, 18), tone)
    elif variant == 1:
        for y in np.arange(top - reach, bottom + 6.5 * size, 6.5 * size):
            peak = [(left, y + reach), (middle, y), (right, y + reach)]
            pen.line(peak, "accent", 1.6 * size)
            pen.line(moved(peak, 0, 2.2 * size), "second", 0.9 * size)
    else:
        long = 2 * max(right - left, bottom - top)
        for turn in range(182, 359, 22):
            ray = around(middle, bottom, long, long, (turn - 2.6, turn + 2.6))
            pen.tint([(middle, bottom), *ray], "accent", 0.9)
        for near in (0.16 * long, 0.2 * long):
            pen.line(f"arc {middle},{bottom} {near},{near} 180,360", "second", size)


def _floral(pen: Pen, box: Box, size: float) -> None:
    rng, tones = pen.look.rng, pen.look.tones
    step = (6.5 + rng.uniform(0, 3)) * size
    leaf = mixed((92, 138, 84), tones["rgb"], 0.15)
    petals = ("accent", "accent+30", mixed(tones["accent"], (214, 84, 120), 0.5))
    for row, column, x, y in _grid(box, step, step):
        across, down = x + rng.uniform(-size, size), y + rng.uniform(-size, size)
        pen.line([(across - 2 * size, down + 2 * size), (across, down)], leaf, 0.8 * size)
        radius = (1.7 + 0.6 * (column % 2)) * size
        flower(pen, across, down, radius, petals[(row + 2 * column) % 3])


def _blocks(pen: Pen, box: Box, size: float) -> None:
    """Draw colour blocks or racing stripes."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    variant = pen.look.variant % 3
    if variant == 0:
        slope = [(left, top + height * 0.62), (right, top + height * 0.4)]
        pen.shape([*slope, (right, bottom), (left, bottom)], "second")
        pen.line(slope, "accent", 2.4 * size)
    elif variant == 1:
        for share, wide, tone in (
            (0.66, 2.6, "accent"),
            (0.76, 2.6, "accent"),
            (0.71, 1.6, "second"),
        ):
            x = left + width * share
            pen.shape(f"box {x},{top} {x + wide * size},{bottom}", tone)
    else:
        waist, hem = top + height * 0.36, bottom - 4 * size
        for y, high, tone in ((waist, 9.4, "accent"), (waist, 7, "second"), (hem, 4, "second")):
            pen.shape(f"box {left},{y} {right},{y + high * size}", tone)


def folds(pen: Pen, top: float, bottom: float, spread: float, count: int) -> None:
    """Draw soft vertical creases that fan out from the waist."""
    for share in np.linspace(-spread, spread, count):
        x, low = 50 + share * 0.45, 50 + share + pen.look.rng.uniform(-1, 1)
        pen.fold([(x, top), (low, bottom)], 2.4, -0.3)
        pen.fold([(x + 1.6, top), (low + 2.4, bottom)], 1.6, 0.16)


def sleeves(pen: Pen, outline: str, patterned: str = "mcbdru") -> None:
    """Draw two sleeves; the cuff is between the third and the fourth corner."""
    for _ in pen.sides():
        piece(pen, outline, 0.8, plain=pen.look.style[0] not in patterned)
        pen.fold(points(outline)[[0, 3]], 2, -0.2)
        trim(pen, points(outline)[[3, 2]], 0.7)


def turned(pen: Pen, outline: str, top: float, bottom: float) -> None:
    """Shade a turned body: a bright streak on the left, a dark right side."""
    left, right = points(outline)[:, 0].min(), points(outline)[:, 0].max()
    width = right - left
    lit, dark = left + width * 0.28, right - width * 0.1
    pen.fold(f"{lit},{top} {lit},{bottom}", width * 0.13, 0.34)
    pen.fold(f"{dark},{top} {dark},{bottom}", width * 0.2, -0.34)


def stone(pen: Pen, path: Path) -> None:
    """Fill an outline with the product's stone, or with its metal."""
    kind, outline = STONES[pen.look.material], points(path)
    x, y = outline.mean(axis=0)
    with pen.local(x, y, 1):
        if kind.cut == "facet":
            _facets(pen, outline - (x, y), kind)
        elif kind.cut == "dome":
            pen.dome(outline - (x, y), METALS.get(pen.look.material, _PEARL))
        else:
            _cabochon(pen, outline - (x, y), kind)


def _facets(pen: Pen, outline: Points, stone: Stone) -> None:
    rng, reach = pen.look.rng, np.ptp(outline, axis=0).max() / 2
    girdle = outline[:: max(1, len(outline) // 12)]
    table = (np.roll(girdle, 1, axis=0) + girdle) * 0.29
    pen.shape(outline, darker(stone.rgb, 0.4))
    for place, here in enumerate(girdle):
        there, high, low = girdle[place - 1], table[place], table[(place + 1) % len(table)]
        light = -0.17 * (here + there).sum() / reach + rng.uniform(-0.3, 0.3)
        pen.shape(np.array([here, there, high]), _lit(stone, light + 0.12))
        pen.shape(np.array([here, high, low]), _lit(stone, light - 0.2))
    pen.shape(table, _lit(stone, 0.1))
    for place in range(0, len(table), 2):
        flash = _lit(stone, rng.uniform(-0.25, 0.6))
        pen.shape(np.array([(0, 0), table[place], table[place - 1]]), flash)
    x, y = table[len(table) * 5 // 8] * 0.6
    pen.shape(f"ngon {x},{y} {reach * 0.14} 4", "white")


def _lit(stone: Stone, light: float) -> RGB:
    if light > 0:
        return mixed(stone.rgb, stone.vein, min(light, 1))
    return darker(stone.rgb, min(-light, 0.75))


def _cabochon(pen: Pen, outline: Points, stone: Stone) -> None:
    rx, ry = reach = np.ptp(outline, axis=0) / 2
    matrix = stone.cut == "matrix"
    pen.shape(outline, darker(stone.rgb, 0.4))
    with pen.clipped(outline):
        for share in np.linspace(0.95, 0.2, 7):
            body = mixed(darker(stone.rgb, 0.3), lighter(stone.rgb, 0.14), 1 - share)
            pen.shape(outline * share - reach * 0.14 * (1 - share), body)
        for place, y in enumerate(np.linspace(-0.9, 0.9, 6)):
            drift = pen.look.rng.uniform(-0.3, 0.3, 5)
            knots = zip(np.linspace(-1.1, 1.1, 5) * rx, (y + drift) * ry, strict=True)
            vein = points("curve " + " ".join(f"{across},{down}" for across, down in knots))
            tone = stone.vein if matrix or place % 2 else darker(stone.rgb, 0.35)
            pen.line(vein, mixed(stone.rgb, tone, 0.6), reach.max() * (0.05 if matrix else 0.08))
        # Light that enters above leaves below: the glow of a translucent stone.
        pen.tint(outline * 0.48 + reach * 0.34, stone.vein, 0 if matrix else 0.26)
        pen.tint(outline * 0.3 + reach * 0.42, stone.vein, 0.2)
        pen.tint(f"disc {-rx * 0.34},{-ry * 0.42} {rx * 0.3},{ry * 0.17}", "white", 0.72)


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
