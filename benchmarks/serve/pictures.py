"""Pictures for the requests: distinct ones, of one exact size, as JPEG files.

They are a catalogue's own pictures, cut and scaled to the size. One that was smaller would be
smooth, and so quicker to decode than a photograph of that size: each gets the grain of one.
"""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from benchmarks.serve.errors import BenchmarkError
from newshelf.catalog import read_catalog
from newshelf.files import directory_aside
from newshelf.sample.build import draw_sample

__all__ = ["LARGE", "SMALL", "Size", "make_pictures", "small_catalog"]

Size = tuple[int, int]
SMALL: Size = (400, 300)
LARGE: Size = (1200, 900)
_SENT = 128
"""Different pictures, so that nothing that was kept of one answers the next."""
_PRODUCTS = 328
"""As many as an export asks for, to judge int8 by 200 and to calibrate it on others."""
_SEED = 7
_QUALITY = 85
_GRAIN = 5.0
"""Standard deviation, of 255 levels."""


def make_pictures(work: Path, size: Size, catalog: Path | None) -> list[Path]:
    """Write ``_SENT`` pictures of ``size`` (width, height), unless they are there.

    Args:
        work: the benchmark's own folder.
        size: in pixels.
        catalog: whose pictures; None draws a shop.

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
    """A catalogue of ``_PRODUCTS`` products with pictures and without events.

    The towers come trained, and a forward takes as long whatever was learned on top of them:
    the encoders of this benchmark need no more to be trained, calibrated and gated on.

    Args:
        work: the benchmark's own folder.
        catalog: whose products, of which a sample is taken; None draws a shop.

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
