"""What a training writes down about the products, and a tower that is tuned first."""

import json

import pytest
import torch

from newshelf.attributes.build import FACTS_FILE, read_facts
from newshelf.config import KnowledgeSettings, TowerTuningSettings
from newshelf.errors import NewshelfError
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.training.run import Run
from newshelf.training.train import train
from tests.unit.training.conftest import shop_items


@pytest.fixture
def shop(write_catalog, tmp_path):
    items = shop_items(48, tmp_path / "shop")
    # Three products do not state their colour; the titles do.
    for item in items[:3]:
        item["color"] = None
    return write_catalog(items=items)


@pytest.fixture
def go(shop, tiny_settings, tmp_path, said):
    def run(name: str, **sections):
        settings = tiny_settings.model_copy(update=sections)
        train(shop, settings, tmp_path / name, tmp_path / "features", Run(7, said.console))
        return tmp_path / name

    return run


def test_what_is_known_of_the_products_is_written_down(go, shop, said):
    folder = go("plain")
    facts = read_facts(folder / "knowledge" / FACTS_FILE).to_pylist()
    colors = {
        (fact["item_id"], fact["value"]): fact for fact in facts if fact["attribute"] == "color"
    }
    assert colors["i003", "red"]["source"] == "stated"
    assert colors["i003", "red"]["confidence"] == 1
    # The first products are green, as their titles say.
    for item in ("i000", "i001", "i002"):
        assert colors[item, "green"]["source"] in {"title", "picture+text model"}
        assert 0.5 < colors[item, "green"]["confidence"] < 1
    assert f"{len(facts)} statements" in said.text


def test_a_head_names_nothing_of_another_category(go, shop):
    folder = go("plain")
    target = set(shop.items["id"][shop.items["product_type"].str.startswith("Jewellery")])
    for fact in read_facts(folder / "knowledge" / FACTS_FILE).to_pylist():
        if fact["source"] == "picture+text model" and fact["attribute"] == "product_type":
            assert fact["item_id"] not in target


def test_titles_are_tagged_where_spans_were_given(go, tmp_path):
    titles = [
        {"title": f"{color} {stone} ring", "entities": [[0, len(color), "MISC"]]}
        for color in ("green", "red", "gold")
        for stone in ("jade", "linen", "opal", "agate", "ruby", "onyx", "pearl")
    ]
    path = tmp_path / "titles.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in titles))
    folder = go("tagged", knowledge=KnowledgeSettings(tagger_data=path))
    sources = {f["source"] for f in read_facts(folder / "knowledge" / FACTS_FILE).to_pylist()}
    assert "tagger" in sources


def test_a_bad_line_of_spans_is_told_before_the_training(go, tmp_path, said):
    path = tmp_path / "titles.jsonl"
    path.write_text('{"title": "jade", "entities": [[0, 99, "MISC"]]}\n')
    with pytest.raises(NewshelfError, match=r"titles\.jsonl.*1"):
        go("broken", knowledge=KnowledgeSettings(tagger_data=path))
    assert "fine-tuning" not in said.text
    assert not (tmp_path / "broken").exists()


def test_a_tuned_tower_is_kept_with_its_features(write_catalog, tiny_settings, tmp_path, said):
    # With eight pictures of a type, none is spared to stop early, so the tower does change.
    catalog = write_catalog(name="small", items=shop_items(24, tmp_path / "small"))
    tuning = TowerTuningSettings(mode="full", size=32, epochs=3, bf16=False)
    towers, embeddings = [], []
    for name, tower in (("plain", TowerTuningSettings()), ("tuned", tuning)):
        settings = tiny_settings.model_copy(update={"tower": tower})
        train(catalog, settings, tmp_path / name, tmp_path / "features", Run(7, said.console))
        loaded = load_checkpoint(tmp_path / name)
        towers.append(torch.cat([p.flatten() for p in loaded.encoder.image_tower.parameters()]))
        embeddings.append(loaded.embeddings()[1])
    assert not torch.equal(*towers)
    assert (embeddings[0] * embeddings[1]).sum(dim=1).min() < 0.999


def test_without_source_types_the_tower_stays(write_catalog, tiny_settings, tmp_path, said):
    items = shop_items(24, tmp_path / "untyped")
    for item in items:
        item["product_type"] = None
    catalog = write_catalog(name="untyped", items=items)
    settings = tiny_settings.model_copy(update={"tower": TowerTuningSettings(mode="last-stage")})
    train(catalog, settings, tmp_path / "out", tmp_path / "features", Run(7, said.console))
    assert "no source types" in said.text
    assert load_checkpoint(tmp_path / "out").encoder.image_tower is not None


def test_a_group_of_the_same_types_is_a_target_of_its_own(
    write_catalog, tiny_settings, tmp_path, said
):
    items = [
        item | {"group": "outlet" if at < 18 else "shop"} for at, item in enumerate(shop_items(60))
    ]
    finetune = tiny_settings.finetune.model_copy(update={"target_group": "outlet"})
    settings = tiny_settings.model_copy(update={"finetune": finetune, "image": None})
    catalog = write_catalog(items=items)
    train(catalog, settings, tmp_path / "out", tmp_path / "features", Run(7, said.console))
    assert "target: group outlet (18)" in said.text
    labels = load_checkpoint(tmp_path / "out").spec.encoder.labels
    assert len(labels["target_type"]) == 3
    assert labels["target_type"] == labels["source_type"]
