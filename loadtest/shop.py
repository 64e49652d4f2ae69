"""What the scenarios send: histories, pictures and titles of the catalogue that is served."""

import base64
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newshelf.catalog import Catalog, read_catalog

__all__ = ["Shop"]

_LONGEST_HISTORY = 20


@dataclass(frozen=True)
class Shop:
    """Draws requests from a catalogue; every draw is another one."""

    catalog: Catalog
    random: random.Random

    @classmethod
    def open(cls, folder: Path, seed: int) -> "Shop":
        """Read the catalogue; equal seeds draw equal requests in the same order."""
        return cls(read_catalog(folder), random.Random(seed))  # noqa: S311 - no secret

    def recommendation(self) -> dict[str, Any]:
        """A shopper with 1 to 20 products in the history."""
        ids = self.catalog.items["id"]
        length = self.random.randint(1, min(_LONGEST_HISTORY, len(ids)))
        return {"history": [ids.iloc[row] for row in self._rows(length)], "k": 10}

    def recommendation_from_unseen(self) -> dict[str, Any]:
        """A history of one product that the index is not told the id of."""
        return {"history": [self.product()], "k": 10}

    def product(self) -> dict[str, Any]:
        """A product as it would be put up: its title, and its picture when it has one."""
        (row,) = self._rows(1)
        title = self.catalog.items["title"].iloc[row]
        product: dict[str, Any] = {"title": title} if isinstance(title, str) else {}
        path = self.catalog.image_path(row)
        if path is not None:
            product["image"] = base64.b64encode(path.read_bytes()).decode()
        return product

    def _rows(self, count: int) -> list[int]:
        return self.random.sample(range(len(self.catalog.items)), count)
