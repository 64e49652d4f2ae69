"""The card of a tiny model, read back."""

import json
import shutil
from dataclasses import asdict

import pandas as pd
import pytest

from export.model_card import CARD_PAGE, write_data, write_model_card
from newshelf.catalog.catalog import read_catalog
from newshelf.config import Settings
from newshelf.serving.settings import MODEL_CARD, read_version
from newshelf.training.choose import Choice
from tests.unit.export.tiny_checkpoint import shared_export

SEGMENT = {
    "split": "cold", "by": "category", "name": "Rings", "cases": 40, "recall": 0.5,
    "interval": [0.4, 0.6], "of_items": 0.25, "of_shown": 0.5,
}  # fmt: skip


def ranker(name, ndcg):
    values = {"recall": {"10": 0.3}, "gini": {"10": 0.7}, "coverage": {"10": 0.9}}
    return {
        "name": name,
        "ndcg": {"10": ndcg},
        "intervals_95": {"NDCG@10": [ndcg - 0.01, ndcg + 0.01]},
        **values,
    }


def report_of(version):
    split = {
        "name": "cold", "cases": 200, "k": [10], "model": "blend", "best_baseline": "content",
        "rankers": [ranker("content", 0.2), ranker("blend", 0.4)],
    }  # fmt: skip
    return {"model_version": version, "splits": [split], "segments": [SEGMENT]}


@pytest.fixture
def folders(tmp_path, tmp_path_factory, worker_id):
    """A copy of an export, a checkpoint, and the folder of an evaluation."""
    checkpoint, exported = shared_export(tmp_path_factory, worker_id)
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    out = tmp_path / "export"
    out.mkdir()
    for name in ("model.json", "tokenizer.json", "version.json"):
        shutil.copyfile(exported / name, out / name)
    shop = tmp_path / "shop"
    shop.mkdir()
    items = {
        "id": list("abcd"),
        "title": ["jade ring", "red lamp", "ทดสอบ", "翡翠戒指"],
        "product_type": ["Rings", "Home > Lamps", "Rings", None],
    }
    pd.DataFrame(items).to_csv(shop / "items.csv", index=False)
    events = {
        "user_id": ["u", "u", "v"],
        "item_id": ["a", "b", "a"],
        "event_type": ["view", "click", "view"],
        "timestamp": [86_400, 86_401, 864_000],
    }
    pd.DataFrame(events).to_csv(shop / "events.csv", index=False)
    write_data(out, read_catalog(shop))
    (tmp_path / "evaluation").mkdir()
    return out, tmp_path / "checkpoint", tmp_path / "evaluation"


def test_the_card_counts_what_the_model_was_trained_on(folders, tmp_path):
    card = write_model_card(tmp_path, *folders, Settings())
    assert card["data"] == {
        "items": 4,
        "without_picture": 4,
        "texts": 4,
        "unreadable_texts": 2,
        "categories": {"Rings": 2, "Home": 1, "none": 1},
        "scripts": {"Latin": 0.5, "Thai": 0.25, "Cjk": 0.25},
        "events": {"view": 2, "click": 1},
        "shoppers": 2,
        "period": ["1970-01-02", "1970-01-11"],
    }
    page = (tmp_path / CARD_PAGE).read_text()
    assert "| shoppers | 2 |" in page
    assert "| period | 1970-01-02 to 1970-01-11 |" in page
    assert "- Only 50% of the products have a readable text." in page
    assert "- Categories with fewer than 20 products: Home, Rings, none." in page


def test_a_version_without_evaluation_says_so(folders, tmp_path):
    card = write_model_card(tmp_path, *folders, Settings())
    assert card["evaluation"] is None
    assert "Not evaluated: run ./run evaluate" in (tmp_path / CARD_PAGE).read_text()
    # A report on another version tells nothing about this one.
    (folders[2] / "report.json").write_text(json.dumps(report_of("other")))
    assert write_model_card(tmp_path, *folders, Settings())["evaluation"] is None


def test_results_by_split_and_segment_are_on_the_card(folders, tmp_path):
    (folders[2] / "report.json").write_text(json.dumps(report_of(read_version(folders[0]))))
    card = write_model_card(tmp_path, *folders, Settings())
    assert json.loads((tmp_path / MODEL_CARD).read_text()) == card
    assert card["evaluation"]["segments"] == [SEGMENT]
    page = (tmp_path / CARD_PAGE).read_text()
    assert (
        "| cold | 200 | 0.300 | 0.400 (0.390 – 0.410) | 0.200 (0.190 – 0.210) | content |" in page
    )
    assert "| category: Rings | 40 | 0.500 (0.400 – 0.600) | 25.0% | 50.0% |" in page
    assert "Not evaluated" not in page


def test_method_changed_settings_and_choices_are_on_the_card(folders, tmp_path):
    measured = {"name": "pooled", "random": (0.5, 0.6), "grouped": (0.4, 0.5)}
    left = {"name": "inner-stages", "problem": "no pictures"}
    choice = Choice("features", "pooled", "no other method was measured", (measured, left))
    training = folders[1] / "training.json"
    training.write_text(json.dumps({"choices": [asdict(choice)]}))
    settings = Settings.model_validate({"finetune": {"epochs": 3}, "gateway": {"port": 9000}})
    card = write_model_card(tmp_path, *folders, settings)
    assert card["settings"] == {"finetune.epochs": 3}
    assert card["method"]["pictures"] == "test_byobnet"
    assert card["method"]["signals"].startswith("content 0.80, direct 0.50")
    page = (tmp_path / CARD_PAGE).read_text()
    assert "| finetune.epochs | 3 |" in page
    reason = "no other method was measured"
    assert f"| features | pooled | 55.0% | 45.0% | taken | {reason} |" in page
    assert "| features | inner-stages |  |  |  | no pictures |" in page


def test_a_tower_that_is_left_out_is_a_changed_setting(folders, tmp_path):
    settings = Settings.model_validate({"image": None})
    assert write_model_card(tmp_path, *folders, settings)["settings"] == {"image.enabled": False}
