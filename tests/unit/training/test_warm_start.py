"""A training that starts from an earlier version's weights, where they fit."""

from pathlib import Path

import pytest
import timm
import torch

from newshelf.config import Settings
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.training.run import Run
from newshelf.training.train import train
from tests.said import Said
from tests.unit.training.conftest import shop_events, shop_items


@pytest.fixture
def trained(write_catalog, tmp_path: Path, tiny_settings: Settings, said: Said):
    """Train on a catalogue of the given size, from a checkpoint or from scratch."""

    def go(name: str, items: list[dict[str, object]], start: Path | None, settings=tiny_settings):
        catalog = write_catalog("shop", items=items, events=shop_events())
        run = Run(settings.seed, said.console)
        train(catalog, settings, tmp_path / name, tmp_path / "features", run, start=start)
        return load_checkpoint(tmp_path / name)

    return go


def distance(first, second) -> float:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return sum(float((one - other).square().sum()) for one, other in pairs)


def test_a_version_starts_where_the_last_one_ended(
    trained, tmp_path: Path, tiny_settings: Settings, said: Said
) -> None:
    items = shop_items(48, tmp_path / "shop")
    first = trained("first", items, None)
    slow = tiny_settings.model_dump(mode="json")
    for section in ("finetune", "scorer"):
        slow[section]["learning_rate"] = 1e-9
    slow["scorer"]["weight_decay"] = 0
    second = trained("second", items, first.directory, Settings.model_validate(slow))
    # So slow a training leaves the weights where they were.
    assert distance(first.encoder.fusion, second.encoder.fusion) < 1e-6
    assert distance(first.scorer, second.scorer) < 1e-6
    assert f"training starts from version {first.version}" in said.text
    cold = trained("cold", items, None, Settings.model_validate(slow))
    assert distance(first.scorer, cold.scorer) > 1e-2


def test_heads_of_other_classes_start_from_scratch(trained, tmp_path: Path, said: Said) -> None:
    items = shop_items(48, tmp_path / "shop")
    first = trained("first", items, None)
    for item in items[:18]:
        item["color"] = "mauve"
    second = trained("second", items, first.directory)
    assert "mauve" in second.spec.encoder.labels["color"]
    assert "heads with other classes start from scratch: color" in " ".join(said.text.split())


def test_other_features_are_a_reason_to_start_from_scratch(
    trained, tmp_path: Path, tiny_settings: Settings, said: Said
) -> None:
    items = shop_items(48, tmp_path / "shop")
    first = trained("first", items, None)
    torch.manual_seed(1)
    path = tmp_path / "other.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    other = tiny_settings.image.model_copy(update={"weights": str(path)})
    settings = tiny_settings.model_copy(update={"image": other})
    second = trained("second", items, first.directory, settings)
    assert "not from version" in " ".join(said.text.split())
    again = trained("again", items, None, settings)
    assert distance(second.encoder.fusion, again.encoder.fusion) == 0
