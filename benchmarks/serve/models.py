"""Encoders that every contender serves, and the pictures that are sent.

Both encoders have an image tower and no text tower, since the requests hold pictures alone.
The pictures are a catalogue's own, cut and scaled to one exact size. A picture scaled up would
be smooth, and quicker to decode than a photograph of that size: each gets the grain of one.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console

from benchmarks.processes import run_module
from benchmarks.results import BenchmarkError
from newshelf.catalog.catalog import read_catalog
from newshelf.config import FinetuneSettings, ImageTowerSettings, ScorerSettings, Settings
from newshelf.files import directory_aside
from newshelf.pipeline.workspace import Workspace, open_workspace
from newshelf.sample.build import draw_sample

Size = tuple[int, int]
SMALL: Size = (400, 300)
LARGE: Size = (1200, 900)
_SENT = 128
"""Different pictures, so that no cache answers."""
_PRODUCTS = 328
"""Enough for the export to calibrate int8 and to judge it by 200 others."""
_SEED = 7
_QUALITY = 85
_GRAIN = 5.0
"""Standard deviation in levels of 0 to 255."""


def make_pictures(work: Path, size: Size, catalog: Path | None) -> list[Path]:
    """Return ``_SENT`` pictures of ``size`` (width, height); write them if they are missing.

    Raises:
        BenchmarkError: the catalogue has too few pictures.
    """
    shop = small_catalog(work, catalog)
    folder = work / "pictures" / f"{shop.name}-{size[0]}x{size[1]}"
    if not folder.is_dir():
        links = read_catalog(shop).items["image_link"].dropna().unique()[:_SENT]
        with directory_aside(folder) as aside:
            for number, link in enumerate(links):
                _write(shop / link, size, aside / f"{number:03d}.jpg", seed=number)
    return sorted(folder.glob("*.jpg"))


def small_catalog(work: Path, catalog: Path | None) -> Path:
    """Return a catalogue of ``_PRODUCTS`` products with pictures and without events.

    It suffices to train, calibrate and gate the encoders: the towers are trained already, and a
    forward takes as long whatever was learned on top of them.

    Raises:
        BenchmarkError: it has too few pictures.
    """
    if catalog is None:
        folder = work / "catalogs" / f"drawn-{_PRODUCTS}"
        if not folder.is_dir():
            draw_sample(folder, products=_PRODUCTS, shoppers=50)
        return folder
    folder = work / "catalogs" / f"{catalog.resolve().name}-{_PRODUCTS}"
    if folder.is_dir():
        return folder
    items = read_catalog(catalog).items
    pictured = items[items["image_link"].notna()].drop_duplicates("image_link")
    if len(pictured) < _PRODUCTS:
        raise BenchmarkError(
            f"{catalog} has {len(pictured)} different pictures, and {_PRODUCTS} are needed: name a "
            "larger catalogue with --data"
        )
    chosen = pictured.sample(_PRODUCTS, random_state=_SEED)
    with directory_aside(folder) as aside:
        for link in chosen["image_link"]:
            (aside / link).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(catalog / link, aside / link)
        chosen.to_parquet(aside / "items.parquet", index=False)
    return folder


def _write(path: Path, size: Size, out: Path, seed: int) -> None:
    with Image.open(path) as picture:
        fitted = ImageOps.fit(picture.convert("RGB"), size, Image.Resampling.BICUBIC)
    width, height = size
    grain = np.random.default_rng(seed).normal(0.0, _GRAIN, (height, width, 1))
    grainy = (np.asarray(fitted, dtype=np.float64) + grain).clip(0, 255).astype(np.uint8)
    Image.fromarray(grainy).save(out, "JPEG", quality=_QUALITY)


MODELS: Mapping[str, str] = {"resnet50": "resnet50", "lite0": "tf_efficientnet_lite0"}
"""Name → timm's name of the image tower."""
SHOP = "shop"
"""Name of the drawn shop with the packaged towers, for the recommender."""
CROP = 0.875
"""As in the production settings and in TorchServe's own picture handler."""


@dataclass(frozen=True)
class Model:
    """One exported encoder."""

    name: str
    workspace: Workspace
    settings: Settings
    classifier: Path
    """The same tower with its 1,000 classes, as a TorchScript file for the stock handler."""


def make_model(name: str, work: Path, catalog: Path | None, console: Console) -> Model:
    """Return a trained and exported model, from ``benchmarks.serve.build_models``.

    Args:
        name: a key of ``MODELS``, or ``SHOP``.
        work: the benchmark's folder.
        catalog: for training and calibration; None draws a shop.
        console: receives a message, since it may take a while.

    Raises:
        BenchmarkError: a stage failed.
    """
    console.print(f"{name}: bringing the model up to date …", markup=False)
    words = [str(catalog)] if catalog is not None else []
    run_module("benchmarks.serve.build_models", "model", name, str(work), *words)
    workspace = workspace_of(name, work, catalog)
    return Model(name, workspace, settings_of(name, work), work / name / "classifier.pt")


def make_shop(work: Path, console: Console) -> Model:
    """Return the drawn shop with scorer, links, texts and pictures.

    Raises:
        BenchmarkError: a stage failed.
    """
    return make_model(SHOP, work, None, console)


def workspace_of(name: str, work: Path, catalog: Path | None) -> Workspace:
    """Return the workspace of a model."""
    folder = work / name
    return open_workspace(
        None if name == SHOP else small_catalog(work, catalog),
        override=folder / "workspace",
        model_store=folder / "store",
    )


def settings_of(name: str, work: Path) -> Settings:
    """Return settings with little training: a forward takes as long whatever was learned."""
    if name == SHOP:
        return Settings(finetune=FinetuneSettings(epochs=2), scorer=ScorerSettings(epochs=2))
    return Settings(
        image=ImageTowerSettings(
            architecture=MODELS[name], weights=str(work / name / "tower.pt"), crop=CROP
        ),
        text=None,
        finetune=FinetuneSettings(epochs=2),
    )
