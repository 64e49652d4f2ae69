"""Catalogues of the products of the tiny checkpoint."""

import numpy as np
import pandas as pd
from PIL import Image

from newshelf.catalog.catalog import read_catalog
from tests.unit.export.tiny_checkpoint import IDS, WORDS


def write_catalog(folder, ids=IDS, *, events=True, baskets=True):
    folder.mkdir()
    items = pd.DataFrame({"id": ids, "title": [f"lamp {item}" for item in ids], "price": 2.5})
    items.to_csv(folder / "items.csv", index=False)
    if events:
        pd.DataFrame(
            {
                "user_id": ["u", "u", "v"],
                "item_id": ["i1", "i1", "i4"],
                "event_type": ["view", "purchase", "view"],
                "timestamp": [1, 2, 3],
            }
        ).to_csv(folder / "events.csv", index=False)
    if baskets:
        pd.DataFrame({"basket_id": ["b", "b"], "item_id": ["i4", "i0"]}).to_csv(
            folder / "baskets.csv", index=False
        )
    return read_catalog(folder)


def write_pictured_catalog(folder, *, pictures=True, count=24):
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(4)
    ids = [*IDS, *(f"more{at}" for at in range(count - len(IDS)))]
    links = []
    for item in ids:
        pixels = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 40)).save(folder / "images" / f"{item}.png")
        links.append(f"images/{item}.png" if pictures else None)
    frame = pd.DataFrame(
        {
            "id": ids,
            "title": [f"{WORDS[at % 8]} {WORDS[(at * 3) % 8]}" for at in range(count)],
            "product_type": [("Rings", "Lamps", "Shirts")[at % 3] for at in range(count)],
            "color": [("green", "red", None)[at % 3] for at in range(count)],
            "image_link": links,
        }
    )
    frame.to_csv(folder / "items.csv", index=False)
    return read_catalog(folder)
