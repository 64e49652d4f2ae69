"""Draw the sample catalogue into a folder; nothing is downloaded."""

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from newshelf.config import Language
from newshelf.errors import SettingsError
from newshelf.files import directory_aside
from newshelf.sample.palette import make_look
from newshelf.sample.pen import Pen
from newshelf.sample.products import Blueprint, item_frame, plan_products
from newshelf.sample.shoppers import simulate_events

_QUALITY = 88
_MOST_WORKERS = 8
_CHUNK = 16


def draw_sample(
    folder: Path,
    *,
    seed: int = 7,
    products: int = 1300,
    shoppers: int = 1100,
    language: Language = "en",
) -> None:
    """Write the sample: ``items.parquet``, ``events.parquet`` and ``images/``.

    The same arguments give the same bytes in the same environment. ``folder`` is replaced whole.
    """
    if products < 60 or shoppers < 1:
        raise SettingsError("the sample needs at least 60 products and 1 shopper")
    blueprints = plan_products(products, seed)
    # Not forked: the caller may have threads (torch's), whose locks a fork would copy.
    workers = min(_cores(), _MOST_WORKERS)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    with directory_aside(Path(folder)) as aside, pool:
        (aside / "images").mkdir()
        draw = partial(draw_product, folder=aside, seed=seed)
        alone = workers == 1 or products <= 4 * _CHUNK
        drawn: Iterable[str] = (
            map(draw, blueprints) if alone else pool.map(draw, blueprints, chunksize=_CHUNK)
        )
        title, console = "Drawing the sample catalogue", Console(stderr=True)
        metals = list(track(drawn, title, total=products, console=console))
        items = item_frame(blueprints, metals, seed, language)
        items.to_parquet(aside / "items.parquet", index=False)
        events = simulate_events(blueprints, shoppers, seed)
        events.to_parquet(aside / "events.parquet", index=False)


def _cores() -> int:
    """Return the cores that this process may use; not every system can say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def draw_product(blueprint: Blueprint, folder: Path, seed: int) -> str:
    """Draw one product's picture under ``folder``; return the name of its metal."""
    rng = np.random.default_rng([seed, 5, blueprint.number])
    look = make_look(blueprint.style, blueprint.color, blueprint.material, rng)
    pen = Pen(look, floor=blueprint.type.floor, jewel=blueprint.category == "Jewellery")
    blueprint.type.draw(pen)
    pen.finished().save(folder / blueprint.image_link, "JPEG", quality=_QUALITY)
    return look.metal_name
