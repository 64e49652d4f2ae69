"""Text towers from a folder, and what is said of a folder that does not fit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertModel

from newshelf.config import TextTowerSettings
from newshelf.errors import WeightsError
from newshelf.nn.weights import load_text_tower
from tests.unit.nn.tiny_towers import save_text_tower


@pytest.fixture
def folder(tmp_path) -> Path:
    save_text_tower(tmp_path / "bert")
    return tmp_path / "bert"


def load(folder: Path):
    return load_text_tower(TextTowerSettings(weights=str(folder), max_tokens=20))


@torch.inference_mode()
def test_a_folder_with_a_model_is_a_text_tower(folder):
    loaded = load(folder)
    assert (loaded.spec.features, loaded.spec.max_tokens, loaded.spec.pad_token_id) == (32, 20, 0)
    ids = torch.randint(0, 12, (3, 6))
    mask = torch.ones_like(ids)
    hidden = BertModel.from_pretrained(folder).eval()(ids, mask).last_hidden_state
    torch.testing.assert_close(loaded.tower(ids, mask), hidden.mean(dim=1), atol=1e-5, rtol=1e-4)
    assert not loaded.tower.training
    assert json.loads(loaded.tokenizer_json)["model"]["vocab"]["jade"] == 4


def test_the_spec_says_nothing_of_where_it_came_from(folder, tmp_path):
    """Equal models have equal specs, and thus equal versions."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    here, there = load(folder).spec, load(moved).spec
    assert here == there
    assert str(tmp_path) not in here.model_dump_json()


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def shrink(folder: Path) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"hidden_size": 64}))


def forget_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def overgrow(folder: Path) -> None:
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["vocab"] |= {"silk": 12}
    file.write_text(json.dumps(tokenizer))


def pickle_instead(folder: Path) -> None:
    model = BertModel.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "cannot be loaded"),
        (shrink, "cannot be loaded"),
        (pickle_instead, "cannot be loaded"),
        (forget_tokenizer, "without a tokenizer"),
        (overgrow, "13 tokens, .* 12"),
    ],
)
def test_a_folder_that_is_not_whole_is_named(folder, damage, said):
    damage(folder)
    with pytest.raises(WeightsError, match=rf"bert.*{said}"):
        load(folder)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(WeightsError, match=tmp_path.name):
        load(tmp_path)


def test_a_hub_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = "newshelf/no-such-model"
    with pytest.raises(WeightsError, match=rf"'{name}' cannot be loaded"):
        load_text_tower(TextTowerSettings(weights=name))


def test_packaged_weights_that_were_changed_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    monkeypatch.setattr("newshelf.nn.weights.get_model_path", lambda: tmp_path)
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged: .*expected 53aa51172d"):
        load_text_tower(TextTowerSettings())
