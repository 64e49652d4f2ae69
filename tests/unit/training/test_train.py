"""From a small catalogue to a checkpoint and a report, with every part that may lack."""

import json

import numpy as np
import pytest
import torch

from newshelf.attributes.build import head_facts
from newshelf.config import Settings
from newshelf.errors import TrainingError
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.nn.inputs import Tokenizer
from newshelf.training.evaluate import evaluate_checkpoint
from newshelf.training.features import feature_table
from newshelf.training.finetune import embed
from newshelf.training.labels import UNLABELLED, Categories, HeadLabels
from newshelf.training.run import Run
from newshelf.training.train import head_predictions, train, usable_interactions
from tests.unit.training.conftest import shop_events, shop_items


def run_of(settings: Settings, said) -> Run:
    return Run(settings.seed, said.console)


@pytest.fixture
def run(tiny_settings, tmp_path, said):
    """Train, and load what was written."""

    def go(catalog, settings=tiny_settings, out="checkpoint"):
        train(catalog, settings, tmp_path / out, tmp_path / "features", run_of(settings, said))
        return load_checkpoint(tmp_path / out)

    return go


@pytest.fixture
def shop(write_catalog, tmp_path):
    return write_catalog(items=shop_items(48, tmp_path / "shop"), events=shop_events())


def test_a_catalogue_becomes_a_checkpoint_and_a_report(shop, run, tiny_settings, tmp_path, said):
    loaded = run(shop)
    assert loaded.spec.catalog_name == "shop"
    assert loaded.spec.encoder.image.architecture == "test_resnet"
    assert set(loaded.spec.encoder.labels) == {"source_type", "color", "material"}
    assert loaded.spec.encoder.labels["color"] == ("green", "red")
    assert len(loaded.spec.encoder.attributes.price_edges) == 15
    ids, embeddings = loaded.embeddings()
    assert ids == list(shop.items["id"])
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(48))
    training = json.loads((tmp_path / "checkpoint/training.json").read_text())
    assert [len(stage["losses"]) for stage in training["finetune"]] == [3]
    assert len(training["scorer_losses"]) == 3
    assert training["seconds"] > 0
    assert "source category: Home (32 products); target: Jewellery (16)" in said.text

    out = tmp_path / "evaluation"
    report = evaluate_checkpoint(
        shop, tiny_settings, tmp_path / "checkpoint", tmp_path / "features", out, said.console
    )
    written = json.loads((out / "report.json").read_text())
    assert written["model_version"] == report.model_version == loaded.version
    assert "newshelf" in (out / "report.md").read_text()
    assert {comparison.model.ranker for comparison in report.comparisons} == {"newshelf"}


def test_the_checkpoints_embeddings_are_what_its_encoder_says(shop, run, tmp_path, said):
    loaded = run(shop)
    tokenizer = Tokenizer(loaded.directory / "tokenizer.json", loaded.spec.encoder.text.max_tokens)
    table = feature_table(shop, loaded.encoder, tokenizer, tmp_path / "other", said.console)
    torch.testing.assert_close(
        embed(loaded.encoder, table), loaded.embeddings()[1], atol=1e-5, rtol=1e-4
    )


def test_the_same_catalogue_and_settings_give_the_same_version(shop, run, tiny_settings):
    version = run(shop).version
    again = run(shop, out="again")
    assert again.version == version
    for path in (again.directory.parent / "checkpoint").glob("*.safetensors"):
        assert path.read_bytes() == (again.directory / path.name).read_bytes(), path.name
    other = tiny_settings.model_copy(update={"seed": 8})
    assert run(shop, other, out="other").version != version


def test_the_target_gets_a_head_where_it_has_types(write_catalog, run, tmp_path):
    items = shop_items(48)
    for at, item in enumerate(items):
        if item["product_type"].startswith("Jewellery"):
            item["product_type"] += " > " + ("Wide", "Thin")[at // 3 % 2]
    loaded = run(write_catalog(items=items))
    assert loaded.spec.encoder.labels["target_type"] == (
        "Jewellery > Rings > Thin",
        "Jewellery > Rings > Wide",
    )
    training = json.loads((tmp_path / "checkpoint/training.json").read_text())
    assert [len(stage["losses"]) for stage in training["finetune"]] == [3, 0]
    assert set(training["finetune"][1]["accuracy"]) == {"target_type"}


def test_without_pictures_there_is_no_image_tower(write_catalog, run):
    loaded = run(write_catalog(items=shop_items(), events=shop_events()))
    assert loaded.spec.encoder.image is None
    assert loaded.encoder.image_tower is None
    assert loaded.scorer is not None


def test_without_texts_there_is_no_text_tower(write_catalog, run, tmp_path):
    items = [{**item, "title": None} for item in shop_items(48, tmp_path / "shop")]
    loaded = run(write_catalog(items=items))
    assert loaded.spec.encoder.text is None
    assert not (loaded.directory / "tokenizer.json").exists()


def test_without_events_and_baskets_there_is_no_scorer(
    write_catalog, run, tiny_settings, tmp_path, said
):
    catalog = write_catalog(items=shop_items())
    assert run(catalog).scorer is None
    assert "content neighbours will be served" in said.text
    with pytest.raises(TrainingError, match="no events and no baskets"):
        evaluate_checkpoint(
            catalog,
            tiny_settings,
            tmp_path / "checkpoint",
            tmp_path / "features",
            tmp_path / "evaluation",
            said.console,
        )
    assert not (tmp_path / "evaluation").exists()


def test_baskets_train_a_scorer(write_catalog, run):
    baskets = [
        {"basket_id": at // 4, "item_id": item["id"]} for at, item in enumerate(shop_items())
    ]
    assert run(write_catalog(items=shop_items(), baskets=baskets)).scorer is not None


def test_pictures_that_are_all_damaged_leave_a_model_of_texts(write_catalog, run, tmp_path, said):
    items = shop_items(48, tmp_path / "shop")
    for at in range(48):
        (tmp_path / f"shop/images/{at}.png").write_bytes(b"damaged %d" % at)
    loaded = run(write_catalog(items=items))
    assert torch.isfinite(loaded.embeddings()[1]).all()
    assert "left out a picture" in said.text


def test_some_damaged_pictures_are_left_out_and_the_training_goes_on(
    write_catalog, run, tmp_path, said
):
    items = shop_items(48, tmp_path / "shop")
    for at in (5, 17, 40):
        path = tmp_path / f"shop/images/{at}.png"
        path.write_bytes(path.read_bytes()[:60])
    loaded = run(write_catalog(items=items))
    assert torch.isfinite(loaded.embeddings()[1]).all()
    assert said.text.count("left out a picture") == 3
    assert "left out a picture 17.png: " in said.text


@pytest.mark.parametrize("kind", ["early", "late"])
def test_the_fusion_is_the_settings(shop, run, tiny_settings, kind):
    fusion = tiny_settings.fusion.model_copy(update={"kind": kind})
    loaded = run(shop, tiny_settings.model_copy(update={"fusion": fusion}))
    assert loaded.spec.encoder.fusion.kind == kind
    assert type(loaded.encoder.fusion).__name__ == f"{kind.title()}Fusion"


def test_nothing_to_read_is_refused(shop, run, tiny_settings):
    blind = tiny_settings.model_copy(update={"image": None, "text": None})
    with pytest.raises(TrainingError, match="neither pictures nor texts"):
        run(shop, blind)


def test_an_unknown_source_category_is_refused_before_any_work(shop, run, tiny_settings, tmp_path):
    finetune = tiny_settings.finetune.model_copy(update={"source": "Cars"})
    with pytest.raises(TrainingError, match=r"'Cars': .*Home, Jewellery"):
        run(shop, tiny_settings.model_copy(update={"finetune": finetune}))
    assert not (tmp_path / "features").exists()
    assert not (tmp_path / "checkpoint").exists()


THAI = "\u0e40\u0e14\u0e23\u0e2a"


def test_texts_that_the_tower_cannot_read_are_absent_and_named(write_catalog, run, tmp_path, said):
    items = shop_items(48, tmp_path / "shop")
    for at, item in enumerate(items[:18]):
        item["title"] = f"{THAI} {at}!" if at < 12 else f"{THAI} {THAI} jade"
    loaded = run(write_catalog(items=items))
    assert loaded.spec.encoder.text is not None
    assert "cannot read 12 of 48 texts (25%)" in said.text
    assert "[text] weights" in said.text


def test_a_tower_that_can_read_no_text_is_left_out(write_catalog, run, tmp_path, said):
    items = [{**item, "title": THAI} for item in shop_items(48, tmp_path / "shop")]
    loaded = run(write_catalog(items=items))
    assert loaded.spec.encoder.text is None
    assert "cannot read 48 of 48 texts (100%)" in said.text


def test_no_events_and_no_baskets(write_catalog):
    found, line = usable_interactions(write_catalog(items=shop_items()), Settings())
    assert found is None
    assert line.startswith("no events and no baskets")


def test_events_of_which_none_is_usable_say_why(write_catalog):
    events = [
        {"user_id": f"u{at}", "item_id": "i001", "event_type": "juggle", "timestamp": 1000}
        for at in range(300)
    ]
    found, line = usable_interactions(write_catalog(items=shop_items(), events=events), Settings())
    assert found is None
    assert "300 rows read, none usable: event_type: 300 rows left out" in line
    assert "'juggle'" in line
    assert line.endswith("content neighbours will be served")


def test_one_basket_only(write_catalog):
    baskets = [{"basket_id": "b", "item_id": f"i{at:03}"} for at in range(5)]
    found, line = usable_interactions(
        write_catalog(items=shop_items(), baskets=baskets), Settings()
    )
    assert found is None
    assert line.startswith("1 of 1 baskets have two different products, and the scorer needs at")
    assert line.endswith("content neighbours will be served; bring more baskets")


def test_shoppers_who_took_one_product_each(write_catalog):
    events = [
        {"user_id": f"u{at}", "item_id": f"i{at:03}", "event_type": "view", "timestamp": 1000 + at}
        for at in range(20)
    ]
    found, line = usable_interactions(write_catalog(items=shop_items(), events=events), Settings())
    assert found is None
    assert line.startswith("0 of 20 shoppers have two different products")


@pytest.mark.parametrize("users", [2, 40])
def test_enough_events_are_used(write_catalog, users):
    found, line = usable_interactions(
        write_catalog(items=shop_items(), events=shop_events(users=users)), Settings()
    )
    assert line == ""
    assert len(found.sequences) == users


def test_a_type_head_is_for_its_own_category_and_for_untyped_products():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    source, target = torch.tensor([False, True, False, False, True]), torch.zeros(5).bool()
    target[[0, 2]] = True
    categories = Categories("Clothing", source, "Jewellery", target)
    types = HeadLabels(("Rings", "Lamps"), torch.tensor([0, -1, 1, -1, -1]))
    shades = HeadLabels(("green", "red", "blue"), torch.tensor([0, -1, 2, -1, 1]))
    kinds = head_predictions("target_type", types, logits[:, :2], categories, Settings())
    colors = head_predictions("color", shades, logits, categories, Settings())
    assert (kinds.attribute, colors.attribute) == ("product_type", "color")
    assert kinds.classes == ("Rings", "Lamps")
    np.testing.assert_array_equal(colors.logits, logits.numpy())
    assert colors.applies_to.all()
    # A quarter of each class is tested, one product at least.
    assert kinds.held_out.tolist() == [0, UNLABELLED, 1, UNLABELLED, UNLABELLED]
    assert {fact.item_id for fact in head_facts(list("abcde"), kinds, 0.0)} == {"a", "c", "d"}
