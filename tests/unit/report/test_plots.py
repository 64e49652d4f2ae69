"""Plots: that they are drawn, and their size."""

import numpy as np
import pytest
from PIL import Image

from newshelf.report.plots import (
    Line,
    Tile,
    draw_confusion,
    draw_lines,
    draw_map,
    draw_tiles,
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


def test_a_confusion_matrix_grows_with_its_classes(tmp_path):
    for count in (2, 20):
        matrix = np.eye(count, dtype=np.int64)
        names = [f"a class with a name of some length {n}" for n in range(count)]
        draw_confusion(matrix, names, tmp_path / f"{count}.png", "t")
    assert size(tmp_path / "20.png")[1] > 2 * size(tmp_path / "2.png")[1]
    # Of more classes, the 20 mistaken most.
    draw_confusion(np.eye(90, dtype=np.int64), ["c"] * 90, tmp_path / "90.png", "t")
    assert size(tmp_path / "90.png")[1] < 1.2 * size(tmp_path / "20.png")[1]
    with pytest.raises(ValueError, match="for 3 classes"):
        draw_confusion(np.eye(2, dtype=np.int64), ["a", "b", "c"], tmp_path / "x.png", "t")


def test_tiles_with_missing_and_broken_pictures(tmp_path):
    Image.new("RGB", (300, 100), "red").save(tmp_path / "red.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    tiles = [
        Tile(tmp_path / "red.png", "a red thing with a rather long title that is cut", "#009e73"),
        Tile(tmp_path / "broken.png", "Überlänge" * 9),
        Tile(None),
    ]
    draw_tiles([tiles, tiles[:2]], tmp_path / "grid.png")
    width, height = size(tmp_path / "grid.png")
    assert width == 3 * 132
    assert height > 2 * 132
    with Image.open(tmp_path / "grid.png") as grid:
        colours = {colour for _, colour in grid.convert("RGB").getcolors(100_000)}
    assert {(255, 0, 0), (0, 158, 115)} <= colours  # the picture, and a green frame
