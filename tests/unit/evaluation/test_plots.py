import numpy as np
import pytest
from PIL import Image

from newshelf.evaluation.plots import learning_curves, project
from newshelf.report.plots import draw_map


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
    with Image.open(tmp_path / "map.png") as opened:
        assert opened.width > 1000


@pytest.mark.parametrize("count", [3, 2001])
def test_a_map_of_too_few_or_too_many_is_refused(count):
    with pytest.raises(ValueError, match="4 to 2000"):
        project(np.zeros((count, 4), dtype=np.float32))


def test_curves_are_the_losses_of_loops_of_several_epochs():
    panels = learning_curves(
        {
            "seconds": 3.5,
            "finetune": [
                {"losses": [3.0, 2.0], "accuracy": {"color": 0.5}, "tested": {"color": 9}},
                {"losses": [1.0], "accuracy": {}, "tested": {}},
            ],
            "scorer_losses": [9.0, 8.0, 7.0],
        }
    )
    shown = {title: {name: line.y for name, line in ls.items()} for title, ls in panels.items()}
    assert shown == {
        "finetune 1": {"loss": [3.0, 2.0]},
        "scorer": {"loss": [9.0, 8.0, 7.0]},
    }
    assert list(panels["scorer"]["loss"].x) == [1, 2, 3]


def test_no_curve_is_no_panel():
    assert learning_curves({"finetune": [], "scorer_losses": []}) == {}
