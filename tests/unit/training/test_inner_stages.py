"""Heads read inner stages of the image tower where validation says that they help."""

import json

import pytest
import timm
import torch

from newshelf.config import ImageTowerSettings, TrainingSettings
from newshelf.errors import TrainingError
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.training.choose import mean_recall
from newshelf.training.finetune import head_logits
from newshelf.training.inner_stages import add_inner_heads
from newshelf.training.run import Run
from newshelf.training.train import train
from tests.unit.training.conftest import shop_items
from tests.unit.training.synthetic import clusters, encoder_of, table_of

NAMES = ("Rings", "Lamps", "Shirts")
INNER = 40


@pytest.fixture
def run(said) -> Run:
    return Run(7, said.console)


def shelf(*, telling: bool):
    """An encoder, a table, and labels; only the inner stages tell the classes apart, if any do."""
    target = torch.arange(90) % 3
    encoder = encoder_of({"target_type": NAMES})
    image, text = clusters(target * 0, 48, 1.0, 1), clusters(target * 0, 32, 1.0, 2)
    table = table_of(image, text)
    inner = clusters(target if telling else target * 0, INNER, 0.5, 3)
    inner *= table.image_present.unsqueeze(1)
    table = table.__class__(**vars(table) | {"inner": inner})
    stages = {"stages": (-3,), "grids": (1,), "inner": INNER, "features": 48 + INNER}
    image_spec = encoder.spec.image.model_copy(update=stages)
    encoder.spec = encoder.spec.model_copy(update={"image": image_spec})
    encoder.image_tower.read_stages = lambda spec, stages, grids: spec.model_copy(
        update={"stages": stages, "grids": grids, "inner": 0}
    )
    return encoder, table, target


def add(encoder, table, target, method, run):
    learned = target.masked_fill(torch.arange(len(target)) >= 60, -1)
    start = torch.nn.functional.normalize(torch.cat([table.image, table.text], dim=1), dim=1)
    return add_inner_heads(
        encoder, table, {"target_type": learned}, {"target_type": start}, method, 300, run
    )


def recall(encoder, table, target, rows) -> float:
    logits = head_logits(encoder, table, "target_type", torch.zeros(len(target), 512))
    return mean_recall(logits.argmax(dim=1)[rows], target[rows])


def test_auto_adds_what_tells_the_classes_apart(run):
    encoder, table, target = shelf(telling=True)
    (choice,) = add(encoder, table, target, "auto", run)
    assert choice.name.startswith("inner-stages")
    assert encoder.spec.inner_heads["target_type"] > 0
    unseen = (torch.arange(90) >= 60) & table.image_present
    assert recall(encoder, table, target, unseen) > 0.9


def test_auto_keeps_the_pooled_features_otherwise(run):
    encoder, table, target = shelf(telling=False)
    (choice,) = add(encoder, table, target, "auto", run)
    assert choice.name == "pooled"
    assert encoder.spec.inner_heads == {}
    assert encoder.spec.image.stages == ()
    assert encoder.spec.image.inner == 0
    assert not encoder.inner_heads


def test_a_product_without_a_picture_is_classified_by_its_embedding(run):
    encoder, table, target = shelf(telling=True)
    add(encoder, table, target, "inner-stages", run)
    embeddings = torch.randn(90, 512, generator=torch.Generator().manual_seed(5))
    logits = head_logits(encoder, table, "target_type", embeddings)
    alone = encoder.heads["target_type"](embeddings)
    absent = ~table.image_present
    torch.testing.assert_close(logits[absent], alone[absent])
    assert not torch.allclose(logits[~absent], alone[~absent])


def test_a_class_without_pictures_keeps_the_pooled_features(run, said):
    encoder, table, target = shelf(telling=True)
    table.image_present[target == 2] = False
    add(encoder, table, target, "inner-stages", run)
    assert encoder.spec.inner_heads == {}
    assert "a class has no picture" in said.text


def test_too_few_labels_to_validate_keep_the_pooled_features(run, said):
    encoder, table, target = shelf(telling=True)
    target[6:] = -1
    (choice,) = add(encoder, table, target, "auto", run)
    assert choice.name == "pooled"
    assert "are too few to validate on" in said.text


@pytest.fixture
def trained(write_catalog, tiny_settings, tmp_path, said):
    def go(method: str, **changes: object):
        catalog = write_catalog(items=shop_items(48, tmp_path / "shop"))
        chosen = {"training": TrainingSettings(features=method), **changes}
        settings = tiny_settings.model_copy(update=chosen)
        train(catalog, settings, tmp_path / "out", tmp_path / "features", Run(7, said.console))
        return load_checkpoint(tmp_path / "out")

    return go


def test_the_checkpoints_encoder_reads_the_inner_stages(trained, tmp_path):
    loaded = trained("inner-stages")
    spec = loaded.spec.encoder
    assert spec.image.stages == (-4, -3)
    assert set(spec.inner_heads) == {"source_type", "color", "material"}
    assert loaded.encoder.image_tower(torch.zeros(1, 3, 32, 32)).shape == (1, spec.image.features)
    assert json.loads((tmp_path / "out/training.json").read_text())["choices"] == []


def test_auto_records_a_choice_for_each_head(trained, tmp_path, said):
    loaded = trained("auto")
    choices = json.loads((tmp_path / "out/training.json").read_text())["choices"]
    assert {choice["job"] for choice in choices} == {
        "features of source_type",
        "features of color",
        "features of material",
    }
    assert all(choice["table"][0]["name"] == "pooled" for choice in choices)
    chosen = {choice["job"].split()[-1] for choice in choices if choice["name"] != "pooled"}
    assert set(loaded.spec.encoder.inner_heads) == chosen
    assert "features of color, by validation" in said.text


@pytest.mark.parametrize("method", ["auto", "inner-stages"])
def test_a_tower_without_stages_is_refused(trained, tmp_path, method):
    torch.manual_seed(0)
    torch.save(timm.create_model("test_byobnet").state_dict(), tmp_path / "byob.pth")
    image = ImageTowerSettings(
        architecture="test_byobnet", weights=str(tmp_path / "byob.pth"), size=32
    )
    with pytest.raises(TrainingError, match="ByobNet cannot be read stage by stage"):
        trained(method, image=image)
