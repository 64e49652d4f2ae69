"""Draw the sample catalogue into a folder."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from newshelf.errors import SettingsError
from newshelf.files import directory_aside
from newshelf.sample.canvas import Canvas, Pose, Studio
from newshelf.sample.look import Look, make_look
from newshelf.sample.palette import RGB
from newshelf.sample.plan import Blueprint, item_frame, plan_products
from newshelf.sample.shelves import DRAWINGS
from newshelf.sample.shoppers import simulate_events

__all__ = ["draw_product", "draw_sample"]

_QUALITY = 88
_MOST_WORKERS = 8
_CHUNK = 16
_BACKDROPS: tuple[RGB, ...] = (
    (238, 237, 235),
    (228, 230, 234),
    (236, 229, 220),
    (224, 231, 230),
    (235, 226, 228),
)
_DIM_BACKDROPS: tuple[RGB, ...] = ((176, 180, 188), (190, 182, 172), (168, 182, 186))
"""For pale products, which would be lost on white."""
_PALE = 200


def draw_sample(folder: Path, *, seed: int = 7, products: int = 1300, shoppers: int = 1100) -> None:
    """Write the sample: ``items.parquet``, ``events.parquet`` and ``images/``.

    The same arguments give the same bytes in the same environment. ``folder`` is replaced
    as a whole when everything is drawn, and left alone when that fails.

    Args:
        folder: where the catalogue goes.
        seed: decides products, pictures, words and shoppers.
        products: how many products; at least 60, so that each type has some.
        shoppers: how many simulated shoppers.

    Raises:
        SettingsError: fewer than 60 products, or no shopper.
    """
    if products < 60 or shoppers < 1:
        raise SettingsError("the sample needs at least 60 products and 1 shopper")
    blueprints = plan_products(products, seed)
    with directory_aside(Path(folder)) as aside, _progress() as progress:
        (aside / "images").mkdir()
        task = progress.add_task("Drawing the sample catalogue", total=products)
        metals: list[str] = []
        for drawn in _draw_all(blueprints, aside, seed):
            metals += drawn
            progress.advance(task, len(drawn))
        item_frame(blueprints, metals, seed).to_parquet(aside / "items.parquet", index=False)
        events = simulate_events(blueprints, shoppers, seed)
        events.to_parquet(aside / "events.parquet", index=False)


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


def _draw_all(blueprints: list[Blueprint], folder: Path, seed: int) -> Iterator[list[str]]:
    chunks = [blueprints[at : at + _CHUNK] for at in range(0, len(blueprints), _CHUNK)]
    draw = partial(_draw_chunk, folder=folder, seed=seed)
    workers = min(_cores(), _MOST_WORKERS)
    if workers == 1 or len(chunks) <= 4:
        yield from map(draw, chunks)
        return
    # Not forked: the caller may have threads (torch's), whose locks a fork would copy.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(draw, chunks)


def _cores() -> int:
    """Cores that this process may use; not every system can say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _draw_chunk(blueprints: list[Blueprint], folder: Path, seed: int) -> list[str]:
    """Draw some products; returns the metal of each."""
    return [draw_product(blueprint, folder, seed) for blueprint in blueprints]


def draw_product(blueprint: Blueprint, folder: Path, seed: int) -> str:
    """Draw one product's picture under ``folder``; returns the name of its metal."""
    rng = np.random.default_rng([seed, 5, blueprint.number])
    look = make_look(blueprint.style, blueprint.color, blueprint.material, rng)
    shelf = blueprint.shelf
    jewel = shelf.category == "Jewellery"
    canvas = Canvas(_pose(floor=shelf.floor, jewel=jewel, rng=rng))
    DRAWINGS[blueprint.kind](canvas, look)
    picture = canvas.finished(_studio(look, floor=shelf.floor, jewel=jewel), rng)
    picture.save(folder / blueprint.image_link, "JPEG", quality=_QUALITY)
    return look.metal_name


def _pose(*, floor: bool, jewel: bool, rng: np.random.Generator) -> Pose:
    scale = rng.uniform(0.92, 1.02) * (1.08 if jewel else 1.0)
    return Pose(
        turn=0.0 if floor else rng.normal(0, 2.6),
        scale=scale,
        shift=(rng.normal(0, 1.2), rng.normal(0, 1.0)),
        flip=bool(rng.random() < 0.5) and not jewel,
    )


def _studio(look: Look, *, floor: bool, jewel: bool) -> Studio:
    pale = min(look.rgb) > _PALE or look.material in {"Diamond", "Silver", "Pearl"}
    backdrops = _DIM_BACKDROPS if pale else _BACKDROPS
    return Studio(
        backdrop=backdrops[int(look.rng.integers(len(backdrops)))],
        floor=floor,
        relief=0.8 if jewel else 1.0,
        finish="plain" if jewel else look.finish,
    )
