"""Drawings written as tables."""

import numpy as np
import pytest
from jinja2 import UndefinedError

from newshelf.sample import drawing
from newshelf.sample.drawing import draw
from newshelf.sample.palette import STYLES, make_look
from newshelf.sample.pen import Pen
from newshelf.sample.products import PRODUCT_TYPES


def colored(monkeypatch, style: str = "minimal", **table) -> np.ndarray:
    """Return where a drawing in red is red."""
    monkeypatch.setitem(drawing._DRAWINGS, "test", table)
    look = make_look(style, "Red", "Cotton", np.random.default_rng(1))
    pen = Pen(look, floor=True, jewel=False)
    # Neither moved, turned nor scaled.
    pen._linear, pen._origin, pen._scale = np.eye(2), np.zeros(2), 1
    draw(pen, "test")
    pixels = np.asarray(pen.finished(), dtype=float)
    return pixels[..., 0] > pixels[..., 1:].max(axis=2) + 40


def ranges(shown: np.ndarray) -> list[int]:
    """Return left, top, right and bottom in the units of drawings."""
    rows, columns = np.nonzero(shown)
    edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return np.round(edges / 2.24).tolist()


def test_a_table_knows_its_values_and_draws_what_the_style_has(monkeypatch):
    table = {
        "wide": {"else": 10, "cb": 20},
        "left": "=50 - wide",
        "strokes": [
            ["mc", "shape", "box {left},40 {50 + wide},60", "red"],
            ["b", "shape", {"m": "unread", "b": "box 10,10 20,20"}, "red"],
        ],
    }
    assert ranges(colored(monkeypatch, "minimal", **table)) == [40, 40, 60, 60]
    assert ranges(colored(monkeypatch, "classic", **table)) == [30, 40, 70, 60]
    assert ranges(colored(monkeypatch, "boho", **table)) == [10, 10, 20, 20]


@pytest.mark.parametrize(
    ("modifiers", "box", "expected"),
    [
        (["if", "=variant < 0"], "0,0 90,90", [20, 20, 30, 30]),
        (["local", 50, 50, 20], "-1,-1 1,1", [20, 20, 70, 70]),
        (["mirror"], "{60 + 5 * side},20 70,30", [20, 20, 70, 30]),
        (["each", "20,50 60,70"], "{x},{y} {x + 10},{y + 10}", [20, 20, 70, 80]),
        (["along", "20,50 60,50", 10], "{x},50 {x + place},60", [20, 20, 64, 60]),
        (["mirror", "each", "20,50 30,50"], "{x},50 {x + 5},60", [20, 20, 80, 60]),
    ],
)
def test_a_stroke_is_modified_by_what_precedes_it(monkeypatch, modifiers, box, expected):
    plain = ["*", "shape", "box 20,20 30,30", "red"]
    modified = ["*", *modifiers, "shape", f"box {box}", "red"]
    assert ranges(colored(monkeypatch, strokes=[plain, modified])) == expected


def test_a_drawing_with_an_unknown_name_is_refused(monkeypatch):
    with pytest.raises(UndefinedError, match="'wide' is undefined"):
        colored(monkeypatch, strokes=[["*", "shape", "box {wide},40 60,60", "red"]])


def test_every_stroke_is_known_and_every_table_is_drawn():
    drawn = set(PRODUCT_TYPES)
    for table in drawing._DRAWINGS.values():
        for styles, *stroke in table["strokes"]:
            assert styles == "*" or {*styles} <= {style[0] for style in STYLES}
            operation, *arguments = stroke
            while operation in drawing._MODIFIERS:
                operation, *arguments = arguments[drawing._MODIFIERS[operation][0] :]
            assert operation == "draw" or operation in drawing._OPERATIONS
            drawn |= {arguments[0]} if operation == "draw" else set()
    assert drawn == set(drawing._DRAWINGS)
