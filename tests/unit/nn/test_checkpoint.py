"""Checkpoints: what is saved is what is loaded, and a damaged one is named."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from newshelf.errors import WeightsError
from newshelf.nn.checkpoint import load_checkpoint, save_checkpoint
from newshelf.nn.encoder import Encoder
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import read_spec
from tests.unit.export.tiny_checkpoint import (
    IDS,
    same_blend,
    tiny_blend,
    tiny_spec,
    tokenizer_json,
    write_tiny_checkpoint,
)

FILES = {
    "model.json",
    "encoder.safetensors",
    "scorer.safetensors",
    "tokenizer.json",
    "embeddings.safetensors",
    "ids.json",
    "training.json",
}


@pytest.fixture
def folder(tmp_path):
    return write_tiny_checkpoint(tmp_path / "checkpoint")


def parts(seed: int = 3) -> dict[str, object]:
    spec = tiny_spec()
    torch.manual_seed(seed)
    return {
        "spec": spec,
        "encoder": Encoder(spec.encoder).eval(),
        "scorer": SiameseScorer(spec.scorer, 512).eval(),
        "blend": None,
        "tokenizer_json": tokenizer_json(),
        "ids": ["a", "b"],
        "embeddings": torch.eye(512)[:2],
        "training": {"seconds": 1.5},
    }


@torch.inference_mode()
def test_what_is_saved_is_what_is_loaded(tmp_path):
    saved = parts()
    save_checkpoint(tmp_path / "out", **saved)
    loaded = load_checkpoint(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert loaded.spec.model_dump(mode="json") == saved["spec"].model_dump(mode="json")
    generator = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(2, 3, 32, 32, generator=generator),
        torch.tensor([0, 2]),
        torch.randint(0, 12, (2, 5), generator=generator),
        torch.ones(2, 5, dtype=torch.int64),
        torch.tensor([0, 1]),
        torch.randint(0, 64, (2, 9), generator=generator),
    )
    for before, after in zip(saved["encoder"](*inputs), loaded.encoder(*inputs), strict=True):
        assert torch.equal(before, after)
    history, mask = torch.randn(2, 3, 512), torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(
        saved["scorer"](history, mask, history), loaded.scorer(history, mask, history)
    )
    ids, embeddings = loaded.embeddings()
    assert ids == saved["ids"]
    assert torch.equal(embeddings, saved["embeddings"])
    assert json.loads((tmp_path / "out" / "training.json").read_text()) == {"seconds": 1.5}


def test_a_loaded_model_is_ready_to_serve(folder):
    loaded = load_checkpoint(folder)
    modules = [*loaded.encoder.modules(), *loaded.scorer.modules()]
    assert not any(module.training for module in modules)
    parameters = [*loaded.encoder.parameters(), *loaded.scorer.parameters()]
    assert not any(parameter.requires_grad for parameter in parameters)


def test_the_signals_beside_the_scorer_are_kept(tmp_path):
    spec = tiny_spec(blend=True)
    folder = write_tiny_checkpoint(tmp_path / "blended", spec)
    assert {path.name for path in folder.iterdir()} == FILES | {"blend.safetensors"}
    loaded = load_checkpoint(folder).blend
    assert same_blend(loaded, tiny_blend(spec.blend))
    assert loaded.links.dtype == loaded.neighbours.dtype == loaded.prior.dtype == np.float32
    assert len(loaded) == len(IDS)


def test_a_changed_signal_changes_the_version(tmp_path):
    spec = tiny_spec(blend=True)
    folder = write_tiny_checkpoint(tmp_path / "blended", spec)
    versions = {load_checkpoint(folder).version}
    versions.add(load_checkpoint(write_tiny_checkpoint(tmp_path / "alone")).version)
    tiny_blend(spec.blend, seed=7).save(folder)
    versions.add(load_checkpoint(folder).version)
    model = folder / "model.json"
    model.write_text(model.read_text().replace('"siamese": 0.3', '"siamese": 0.4'))
    versions.add(load_checkpoint(folder).version)
    assert len(versions) == 4


@pytest.mark.parametrize("damage", ["missing", "cut", "link", "pointers", "size"])
def test_damaged_signals_are_named(tmp_path, damage):
    folder = write_tiny_checkpoint(tmp_path / "blended", tiny_spec(blend=True))
    path = folder / "blend.safetensors"
    data, arrays = path.read_bytes(), load_file(path)
    if damage == "link":
        del arrays["neighbours.values"]
    elif damage == "pointers":
        arrays["links.indptr"][-1] += 5
    elif damage == "size":
        arrays["prior"] = arrays["prior"][:-1].clone()
    save_file(arrays, path)
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-10])
    with pytest.raises(WeightsError, match=r"blend\.safetensors cannot be loaded"):
        load_checkpoint(folder)


def test_without_scorer_and_text(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "bare", tiny_spec(text=False, scorer=False))
    loaded = load_checkpoint(folder)
    assert loaded.scorer is None
    assert loaded.encoder.text_tower is None
    assert {path.name for path in folder.iterdir()} == FILES - {
        "scorer.safetensors",
        "tokenizer.json",
    }


def test_equal_parts_have_an_equal_version(folder, tmp_path):
    version = load_checkpoint(folder).version
    assert version == load_checkpoint(write_tiny_checkpoint(tmp_path / "again")).version
    assert len(version) == 12
    assert set(version) <= set("0123456789abcdef")


@pytest.mark.parametrize("name", ["encoder.safetensors", "scorer.safetensors"])
def test_any_changed_weight_changes_the_version(folder, name):
    version = load_checkpoint(folder).version
    state = load_file(folder / name)
    versions = {version}
    for key in list(state)[:: max(1, len(state) // 5)]:
        if not state[key].is_floating_point():
            continue
        changed = state[key].clone()
        changed.view(-1)[-1] += 1e-3
        save_file({**state, key: changed}, folder / name)
        versions.add(load_checkpoint(folder).version)
    assert len(versions) >= 5


def test_tokenizer_and_spec_are_of_the_version_and_the_catalogue_is_not(folder):
    version = load_checkpoint(folder).version
    (folder / "training.json").write_text("{}")
    (folder / "ids.json").write_text("[]")
    assert load_checkpoint(folder).version == version
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    other = load_checkpoint(folder).version
    model = folder / "model.json"
    model.write_text(model.read_text().replace('"max_history": 5', '"max_history": 6'))
    assert len({version, other, load_checkpoint(folder).version}) == 3


@pytest.mark.parametrize("name", ["encoder.safetensors", "scorer.safetensors", "model.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
def test_a_file_that_is_missing_or_damaged_is_named(folder, name, damage):
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    where = folder if (name, damage) == ("model.json", "missing") else path
    with pytest.raises(WeightsError, match=str(where)):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["embeddings.safetensors", "ids.json"])
@pytest.mark.parametrize("damage", [None, b"", b"{"])
def test_damaged_embeddings_are_named(folder, name, damage):
    loaded = load_checkpoint(folder)
    (folder / name).unlink()
    if damage is not None:
        (folder / name).write_bytes(damage)
    with pytest.raises(WeightsError, match=name):
        loaded.embeddings()


def test_embeddings_of_another_catalogue_are_refused(folder):
    (folder / "ids.json").write_text(json.dumps(IDS[1:]))
    with pytest.raises(WeightsError, match=r"6 rows.*ids\.json 5"):
        load_checkpoint(folder).embeddings()


def test_no_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match="is missing: train first"):
        read_spec(tmp_path / "nowhere")


@pytest.mark.parametrize("change", ["extra", "missing", "shape"])
def test_tensors_must_be_exactly_those_of_the_spec(folder, change):
    path = folder / "encoder.safetensors"
    state = load_file(path)
    key = "fusion.query"
    if change == "extra":
        state["fusion.surplus"] = torch.zeros(1)
        key = "fusion.surplus"
    elif change == "missing":
        del state[key]
    else:
        state[key] = torch.zeros(3)
    save_file(state, path)
    with pytest.raises(WeightsError, match=rf"(?s)encoder\.safetensors.*{key}"):
        load_checkpoint(folder)


@pytest.mark.parametrize(("old", "new"), [('"format": 2', '"format": 1'), ("{", '{"surplus": 1,')])
def test_a_spec_of_another_format_is_refused(folder, old, new):
    path = folder / "model.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(WeightsError, match=r"model\.json .*format"):
        read_spec(folder)


def test_a_tower_that_is_not_known_here_is_named(folder):
    path = folder / "model.json"
    path.write_text(
        re.sub(r'("architecture": )"[^"]+"', r'\1"resnet_of_tomorrow"', path.read_text())
    )
    with pytest.raises(WeightsError, match=r"model\.json .*resnet_of_tomorrow"):
        load_checkpoint(folder)


def test_a_writer_that_dies_leaves_the_old_checkpoint(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def die(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("newshelf.nn.checkpoint.write_json", die)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder, **parts(seed=4))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_new_checkpoint_replaces_all_of_the_old(folder):
    save_checkpoint(folder, **{**parts(), "scorer": None, "spec": tiny_spec(scorer=False)})
    assert {path.name for path in folder.iterdir()} == FILES - {"scorer.safetensors"}
    assert load_checkpoint(folder).embeddings()[0] == ["a", "b"]
