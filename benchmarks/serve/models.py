"""The two encoders of the comparison, made by the same stages as any other model.

Both have an image tower and no text tower, since the requests hold pictures alone.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.serve.errors import BenchmarkError
from benchmarks.serve.pictures import small_catalog
from newshelf.config import FinetuneSettings, ImageTowerSettings, ScorerSettings, Settings
from newshelf.pipeline.workspace import ROOT, Workspace, open_workspace

__all__ = [
    "CROP",
    "MODELS",
    "SHOP",
    "Model",
    "make_model",
    "make_shop",
    "settings_of",
    "workspace_of",
]

MODELS: Mapping[str, str] = {"resnet50": "resnet50", "lite0": "tf_efficientnet_lite0"}
"""Name → the image tower's, as timm calls it."""
SHOP = "shop"
"""The drawn shop with the packaged towers, for the recommender."""
CROP = 0.875
"""As in the production settings, and as TorchServe's own picture handler crops."""


@dataclass(frozen=True)
class Model:
    """One exported encoder."""

    name: str
    workspace: Workspace
    settings: Settings
    classifier: Path
    """The same tower with its 1,000 classes, as a TorchScript file for the stock handler."""


def make_model(name: str, work: Path, catalog: Path | None, console: Console) -> Model:
    """Train and export, unless that was done; see ``benchmarks.serve.towers``.

    Args:
        name: a key of ``MODELS``, or ``SHOP``.
        work: the benchmark's own folder.
        catalog: what it is trained and calibrated on; None draws a shop.
        console: told that it takes a while.

    Raises:
        BenchmarkError: a stage failed.
    """
    command = [sys.executable, "-P", "-m", "benchmarks.serve.towers", name, str(work)]
    command += [str(catalog)] if catalog is not None else []
    console.print(f"{name}: bringing the model up to date …", markup=False)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{name} could not be made: {done.stderr.strip()[-1500:]}")
    workspace = workspace_of(name, work, catalog)
    return Model(name, workspace, settings_of(name, work), work / name / "classifier.pt")


def make_shop(work: Path, console: Console) -> Model:
    """The drawn shop with everything the recommender has: scorer, links, texts and pictures.

    Raises:
        BenchmarkError: a stage failed.
    """
    return make_model(SHOP, work, None, console)


def workspace_of(name: str, work: Path, catalog: Path | None) -> Workspace:
    """Where the stages of a model work."""
    folder = work / name
    return open_workspace(
        None if name == SHOP else small_catalog(work, catalog),
        override=folder / "workspace",
        model_store=folder / "store",
    )


def settings_of(name: str, work: Path) -> Settings:
    """Little training: a forward takes as long whatever was learned."""
    if name == SHOP:
        return Settings(
            finetune=FinetuneSettings(epochs=2, target_epochs=2), scorer=ScorerSettings(epochs=2)
        )
    return Settings(
        image=ImageTowerSettings(
            architecture=MODELS[name], weights=str(work / name / "tower.pt"), crop=CROP
        ),
        text=None,
        finetune=FinetuneSettings(epochs=2, target_epochs=2),
    )
