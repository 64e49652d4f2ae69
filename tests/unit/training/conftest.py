"""A small shop whose titles and pictures say what things are, and tiny towers."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console

from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.config import FinetuneSettings, ScorerSettings, Settings
from tests.unit.nn.tiny_towers import save_image_tower, save_text_tower

COLORS = {"green": (40, 160, 60), "red": (200, 30, 40)}
MATERIALS = {"Rings": "jade", "Lamps": "gold", "Shirts": "linen"}
TOPS = {"Rings": "Jewellery", "Lamps": "Home", "Shirts": "Home"}


class Said:
    """A console, and what was printed on it."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.console = Console(file=self._stream, width=200)

    @property
    def text(self) -> str:
        return self._stream.getvalue()


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def write_catalog(tmp_path) -> Callable[..., Catalog]:
    """Write tables (lists of rows) to a folder, and read it as a catalogue."""

    def write(name: str = "shop", **tables: list[dict[str, object]]) -> Catalog:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for table, rows in tables.items():
            pd.DataFrame(rows).to_csv(folder / f"{table}.csv", index=False)
        return read_catalog(folder)

    return write


def typed(*types: str | None) -> list[dict[str, object]]:
    """Items of these types and nothing else worth knowing."""
    return [
        {"id": f"i{at}", "title": "a thing", "product_type": kind} for at, kind in enumerate(types)
    ]


def shop_items(count: int = 48, folder: Path | None = None) -> list[dict[str, object]]:
    """Rings, lamps and shirts in two colours; pictures are written when there is a folder."""
    rng = np.random.default_rng(0)
    items = []
    for at in range(count):
        kind = list(TOPS)[at % 3]
        color = list(COLORS)[at // 3 % 2]
        item: dict[str, object] = {
            "id": f"i{at:03}",
            "title": f"{color} {MATERIALS[kind]} {kind[:-1].lower()}" + " jade" * (at // 6),
            "product_type": f"{TOPS[kind]} > {kind}",
            "color": color,
            "material": MATERIALS[kind],
            "price": 10.0 + at,
        }
        if folder is not None:
            (folder / "images").mkdir(parents=True, exist_ok=True)
            noise = rng.integers(-30, 30, (24, 20, 3)) + np.array(COLORS[color])
            picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
            picture.save(folder / "images" / f"{at}.png")
            item["image_link"] = f"images/{at}.png"
        items.append(item)
    return items


def shop_events(count: int = 48, users: int = 40) -> list[dict[str, object]]:
    """Each shopper takes things of one colour, one after the other."""
    rng = np.random.default_rng(1)
    events = []
    for user in range(users):
        liked = [at for at in range(count) if at // 3 % 2 == user % 2]
        for at, item in enumerate(rng.permutation(liked)[:6]):
            events.append(
                {
                    "user_id": f"u{user}",
                    "item_id": f"i{item:03}",
                    "event_type": "view",
                    "timestamp": 1_700_000_000 + 100_000 * at + user,
                }
            )
    return events


@pytest.fixture(scope="session")
def tiny_settings(tmp_path_factory) -> Settings:
    folder = tmp_path_factory.mktemp("towers")
    return Settings(
        threads=1,
        image=save_image_tower(folder / "resnet.pth"),
        text=save_text_tower(folder / "bert"),
        finetune=FinetuneSettings(epochs=3, batch_size=16),
        scorer=ScorerSettings(width=16, epochs=3, batch_size=32),
    )


@pytest.fixture(autouse=True)
def keep_threads():
    """Training sets the number of threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
