"""Plots: that they are drawn, and their size."""

import numpy as np
import pytest
from PIL import Image

from newshelf.report.plots import (
    Line,
    NeighbourRow,
    Tile,
    draw_lines,
    draw_map,
    draw_neighbours,
)


def size(path):
    with Image.open(path) as opened:
        assert opened.format == "PNG"
        return opened.size


def test_each_panel_takes_room(tmp_path):
    line = {"loss": Line([1, 2, 3], [3, 2, 1], [0.1, 0.1, 0.1])}
    draw_lines({"a": line}, tmp_path / "one.png", xlabel="epoch", ylabel="loss")
    draw_lines(dict.fromkeys("abcd", line), tmp_path / "four.png", xlabel="epoch", ylabel="loss")
    one, four = size(tmp_path / "one.png"), size(tmp_path / "four.png")
    assert four[0] > one[0]
    assert four[1] == 2 * one[1]


def test_a_line_without_a_shape_is_refused(tmp_path):
    for x, y, spread in (([], [], None), ([1], [1, 2], None), ([1, 2], [1, 2], [1])):
        with pytest.raises(ValueError, match="no shape"):
            Line(x, y, spread)
    with pytest.raises(ValueError, match="no panel"):
        draw_lines({}, tmp_path / "none.png", xlabel="", ylabel="")


def test_a_map_needs_a_label_per_place(tmp_path):
    with pytest.raises(ValueError, match="1 labels for"):
        draw_map({"x": np.zeros((2, 2), dtype=np.float32)}, ["a"], tmp_path / "map.png")


def test_neighbours_with_missing_and_broken_pictures(tmp_path):
    Image.new("RGB", (300, 100), "red").save(tmp_path / "red.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    tiles = [
        Tile(tmp_path / "red.png", "a red thing with a rather long title that is cut", same=True),
        Tile(tmp_path / "broken.png", "Überlänge" * 9),
        Tile(None, ""),
    ]
    row = NeighbourRow("before", tiles[0], tiles)
    draw_neighbours([row, row], tmp_path / "grid.png")
    width, height = size(tmp_path / "grid.png")
    assert width > 4 * 132
    assert height > 2 * 132
    with Image.open(tmp_path / "grid.png") as grid:
        colours = {colour for _, colour in grid.convert("RGB").getcolors(100_000)}
    assert {(255, 0, 0), (0, 158, 115)} <= colours  # the picture, and a green frame
    with pytest.raises(ValueError, match="no row"):
        draw_neighbours([], tmp_path / "none.png")
