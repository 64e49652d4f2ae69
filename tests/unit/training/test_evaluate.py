"""What a report shows of a model, drawn from a small trained one."""

import json

import numpy as np
import torch

from newshelf.training.evaluate import evaluate_checkpoint, portray
from newshelf.training.features import FeatureTable
from newshelf.training.run import Run
from newshelf.training.train import train
from tests.unit.training.conftest import shop_events, shop_items


def test_the_report_of_a_trained_model_has_all_its_parts(
    write_catalog, tiny_settings, tmp_path, said
):
    items = shop_items(60, tmp_path / "shop")
    for at, item in enumerate(items):
        if item["product_type"].startswith("Jewellery"):
            item["product_type"] += " > " + ("Wide", "Thin")[at // 3 % 2]
    catalog = write_catalog(items=items, events=shop_events())
    run = Run(tiny_settings.seed, said.console)
    train(catalog, tiny_settings, tmp_path / "checkpoint", tmp_path / "features", run)
    out = tmp_path / "evaluation"
    report = evaluate_checkpoint(
        catalog, tiny_settings, tmp_path / "checkpoint", tmp_path / "features", out, said.console
    )
    assert {path.name for path in out.iterdir()} == {
        "report.json",
        "report.md",
        "report.html",
        "cases.npz",
        "ndcg.png",
        "learning.png",
        "shots.png",
        "confusion.png",
        "map.png",
        "neighbours.png",
    }
    assert report.shots.classes == ("Jewellery > Rings > Thin", "Jewellery > Rings > Wide")
    kept = json.loads((out / "report.json").read_text())
    assert kept["funnel"]["total"]["views"] == len(catalog.events)
    assert "there are no clicks." in (out / "report.md").read_text()
    assert (out / "report.html").read_text().count("data:image/png;base64,") == 6


def table(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return FeatureTable(
        image=torch.zeros(count, 1),
        image_present=torch.zeros(count, dtype=torch.bool),
        text=torch.rand(count, 8, generator=generator),
        text_present=torch.ones(count, dtype=torch.bool),
        attributes=torch.zeros(count, 9, dtype=torch.int64),
    )


class Kept:
    """As much of a checkpoint as is looked at."""

    def __init__(self, directory):
        self.directory = directory
        (directory / "training.json").write_text('{"scorer_losses": []}')


def test_without_types_there_is_no_accuracy_over_shots(write_catalog, tiny_settings, tmp_path):
    catalog = write_catalog(items=[{"id": f"i{n}", "title": f"thing {n}"} for n in range(9)])
    parts = table(9), torch.rand(9, 512), tmp_path
    shots, pictures = portray(catalog, tiny_settings, Kept(tmp_path), *parts)
    assert shots is None
    assert [picture.file for picture in pictures] == ["map.png", "neighbours.png"]


def test_a_handful_of_products_is_not_drawn(write_catalog, tiny_settings, tmp_path):
    catalog = write_catalog(items=[{"id": f"i{n}", "title": f"thing {n}"} for n in range(3)])
    parts = table(3), torch.rand(3, 512), tmp_path
    assert portray(catalog, tiny_settings, Kept(tmp_path), *parts) == (None, [])


def test_types_of_the_source_are_never_asked_for(write_catalog, tiny_settings, tmp_path):
    kinds = (
        ["Home > Lamps"] * 30 + ["Home > Beds"] * 20 + ["Hats > Felt"] * 8 + ["Hats > Straw"] * 8
    )
    items = [{"id": f"i{n}", "title": "x", "product_type": kind} for n, kind in enumerate(kinds)]
    catalog = write_catalog(items=items)
    embeddings = torch.from_numpy(np.eye(66, 512, dtype=np.float32))
    shots, _ = portray(catalog, tiny_settings, Kept(tmp_path), table(66), embeddings, tmp_path)
    assert shots.classes == ("Hats > Felt", "Hats > Straw")
