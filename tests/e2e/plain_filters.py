"""Which items pass the filters of docs/api.md, worked out from the tables alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from newshelf.catalog.schema import split_values

SURE = 0.6
"""``archive.recommender.min_confidence``: attributes below it do not count."""
IN_STOCK = ["in_stock", "preorder", "backorder"]

Said = dict[tuple[str, str], set[str]]


def read_said(checkpoint: Path) -> Said:
    """What is known beyond the columns, lower-cased: by item and attribute."""
    table = pd.read_parquet(checkpoint / "knowledge" / "knowledge.parquet")
    sure = table[table["confidence"] >= SURE]
    groups = sure["value"].str.lower().groupby([sure["item_id"], sure["attribute"]])
    return {key: set(values) for key, values in groups}


def passing(items: pd.DataFrame, said: Said, filters: Mapping[str, Any]) -> set[str]:
    """The ids of the items that pass every filter."""
    asked = {"availability": IN_STOCK, **filters}
    return {
        item["id"]
        for _, item in items.iterrows()
        if all(
            _passes(item, said.get((item["id"], name), set()), name, wanted)
            for name, wanted in asked.items()
        )
    }


def _passes(item: pd.Series, beyond: set[str], name: str, wanted: Any) -> bool:
    if name == "price":
        return bool(wanted.get("min", 0) <= item["price"] <= wanted.get("max", np.inf))
    asked = [value.lower() for value in ([wanted] if isinstance(wanted, str) else wanted)]
    cell = item[name].lower() if isinstance(item.get(name), str) else ""
    if name == "product_type":
        paths = [f"{path} > " for path in (cell, *beyond)]
        return any(path.startswith(f"{value} > ") for path in paths for value in asked)
    return not {cell, *split_values(cell), *beyond}.isdisjoint(asked)
