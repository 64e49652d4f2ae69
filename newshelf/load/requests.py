"""Requests to a model, drawn from the catalogue that it was trained on."""

import base64
import json
import random
from typing import Any, Literal

from newshelf.catalog import Catalog
from newshelf.errors import CatalogError
from newshelf.load.run import LoadRequest

__all__ = ["ModelName", "draw_requests"]

ModelName = Literal["encoder", "recommender"]

_LONGEST_HISTORY = 20
_K = 10


def draw_requests(
    model: ModelName, catalog: Catalog, count: int, *, seed: int = 7
) -> list[LoadRequest]:
    """Draw ``count`` requests, no two of which are equal.

    The encoder is sent products as they would be put up, with title and picture; the
    recommender histories of 1 to 20 ids.

    Args:
        model: whom they are for.
        catalog: what they are drawn from.
        count: how many.
        seed: equal seeds draw equal requests.

    Raises:
        CatalogError: no product has a title or a picture.
    """
    drawn = random.Random(seed)  # noqa: S311 - no secret
    if model == "recommender":
        bodies = [_history(catalog, drawn) for _ in range(count)]
    else:
        rows = [row for row in range(len(catalog.items)) if _has_content(catalog, row)]
        if not rows:
            raise CatalogError("no product of the catalogue has a title or a readable picture")
        bodies = [_product(catalog, drawn.choice(rows), drawn) for _ in range(count)]
    return [
        LoadRequest(f"/predictions/{model}", "application/json", json.dumps(body).encode())
        for body in bodies
    ]


def _history(catalog: Catalog, drawn: random.Random) -> dict[str, Any]:
    ids = catalog.items["id"]
    length = drawn.randint(1, min(_LONGEST_HISTORY, len(ids)))
    rows = drawn.sample(range(len(ids)), length)
    return {"history": [str(ids.iloc[row]) for row in rows], "k": _K}


def _has_content(catalog: Catalog, row: int) -> bool:
    return isinstance(catalog.items["title"].iloc[row], str) or bool(catalog.image_path(row))


def _product(catalog: Catalog, row: int, drawn: random.Random) -> dict[str, Any]:
    """A product that no worker has kept the embedding of."""
    product: dict[str, Any] = {}
    title = catalog.items["title"].iloc[row]
    if isinstance(title, str):
        product["title"] = f"{title} {drawn.randrange(10**9)}"
    path = catalog.image_path(row)
    if path is not None:
        # Picture formats end by themselves: what follows is not decoded.
        picture = path.read_bytes() + drawn.randbytes(8)
        product["image"] = base64.b64encode(picture).decode("ascii")
    return product
