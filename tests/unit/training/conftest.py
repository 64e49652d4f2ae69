"""A small shop whose titles and pictures say what things are."""

from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"green": (40, 160, 60), "red": (200, 30, 40)}
MATERIALS = {"Rings": "jade", "Lamps": "gold", "Shirts": "linen"}
TOPS = {"Rings": "Jewellery", "Lamps": "Home", "Shirts": "Home"}


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
