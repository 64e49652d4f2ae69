"""The shared classes of studio and wild pictures, the probe, and the pictures drawn."""

import torch
from PIL import Image

from benchmarks.results import Row
from benchmarks.transfer.domains import draw_domains, draw_rows, draw_table, linear_probe
from benchmarks.transfer.wild import SOURCE_CLASSES, TARGET_CLASSES


def test_both_sides_have_the_same_classes_in_the_same_order():
    assert list(SOURCE_CLASSES) == list(TARGET_CLASSES)


def test_no_type_is_of_two_classes():
    for classes in (SOURCE_CLASSES, TARGET_CLASSES):
        types = [name for names in classes.values() for name in names]
        assert len(types) == len(set(types))


def test_the_probe_reads_directions_not_lengths():
    features = torch.tensor([[1.0, 0.1], [2.0, 0.1], [0.1, 1.0], [0.2, 3.0]])
    target = torch.tensor([0, 0, 1, 1])
    asked = torch.tensor([[90.0, 1.0], [0.001, 0.1]])
    assert linear_probe(features, target, asked).tolist() == [0, 1]


def test_the_figures_are_pictures(tmp_path):
    rows = [Row("accuracy", "probe", [0.8, 0.9], baseline=True), Row("accuracy", "MCC", [0.9])]
    draw_rows(rows, tmp_path / "rows", "title", goal=0.95)
    draw_table({"probe": {"a→b": 0.8, "b→a": 0.9}}, tmp_path / "table", "title")
    label = torch.arange(8) % 2
    both = torch.randn(8, 4), torch.randn(8, 4)
    panels = {"before": both, "after": both}
    draw_domains(panels, (label, label), ["x", "y"], ("a", "b"), tmp_path / "map")
    for name in ("rows", "table", "map"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            assert len(picture.convert("RGB").getcolors(maxcolors=1_000_000)) > 2
