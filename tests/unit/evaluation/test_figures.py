"""Pictures cannot be compared by numbers; that they are drawn, and of what size, can."""

import numpy as np
import pytest
from PIL import Image

from newshelf.evaluation.plots import learning_curves, project
from newshelf.report.plots import (
    Line,
    NeighbourRow,
    Tile,
    draw_confusion,
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


def test_a_map_keeps_groups_together(tmp_path):
    generator = np.random.default_rng(0)
    rows = np.repeat(np.eye(3, 10) * 20, 15, axis=0) + generator.normal(size=(45, 10))
    places = project(rows.astype(np.float32))
    assert places.shape == (45, 2)
    centres = places.reshape(3, 15, 2).mean(axis=1)
    nearest = np.linalg.norm(places[:, None] - centres, axis=2).argmin(axis=1)
    assert nearest.tolist() == sorted([0, 1, 2] * 15)
    np.testing.assert_array_equal(places, project(rows.astype(np.float32)))
    labels = [f"type {number % 14}" for number in range(45)]
    draw_map({"before": places, "after": places}, labels, tmp_path / "map.png")
    assert size(tmp_path / "map.png")[0] > 1000


@pytest.mark.parametrize("count", [3, 2001])
def test_a_map_of_too_few_or_too_many_is_refused(count):
    with pytest.raises(ValueError, match="4 to 2000"):
        project(np.zeros((count, 4), dtype=np.float32))


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


def test_curves_are_found_wherever_a_training_put_them():
    panels = learning_curves(
        {
            "seconds": 3.5,
            "finetune": [
                {"losses": [3, 2], "accuracy": {"color": 0.5}, "tested": {"color": 9}},
                {"name": "target", "losses": [1.0], "validation": [0.5, 0.6]},
            ],
            "scorer_losses": [9, 8, 7],
            "dann": {"losses": [{"loss": 2.0, "domain": 0.7}, {"loss": 1.0, "domain": 0.6}]},
            "versions": ["a", "b"],
        }
    )
    shown = {title: {name: line.y for name, line in ls.items()} for title, ls in panels.items()}
    assert shown == {
        "finetune 1": {"loss": [3, 2]},
        "target": {"validation": [0.5, 0.6]},
        "scorer": {"loss": [9, 8, 7]},
        "dann": {"loss": [2.0, 1.0], "domain": [0.7, 0.6]},
    }
    assert panels["scorer"]["loss"].x == [1, 2, 3]


def test_no_curve_is_no_panel():
    assert learning_curves({"scorer_losses": [], "note": "x"}) == {}
