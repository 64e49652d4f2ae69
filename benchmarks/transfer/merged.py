"""A data set together with what was kept back of it, as one catalogue."""

import os
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmarks.transfer.context import Context
from newshelf.catalog import Catalog
from newshelf.evaluation.types import BoolArray

__all__ = ["Merged", "merged"]


@dataclass(frozen=True, eq=False)
class Merged:
    """All items; events and baskets of both parts, and which rows were kept back."""

    catalog: Catalog
    kept_back_events: BoolArray
    """``(events,)``."""
    kept_back_baskets: BoolArray
    """``(baskets,)``."""
    has_kept_back: bool


def merged(context: Context, name: str) -> Merged:
    """``data/NAME``, and ``kept-back/NAME`` where there is one: its unknown items come last."""
    catalog = context.catalog(name)
    other = context.kept_back_catalog(name)
    if other is None:
        nothing = [
            np.zeros(0 if table is None else len(table), dtype=np.bool_)
            for table in (catalog.events, catalog.baskets)
        ]
        return Merged(catalog, nothing[0], nothing[1], has_kept_back=False)
    new = other.items[~other.items["id"].isin(catalog.items["id"])].copy()
    away = os.path.relpath(other.folder, catalog.folder)
    new["image_link"] = [None if link is None else f"{away}/{link}" for link in new["image_link"]]
    items = pd.concat([catalog.items, new], ignore_index=True)
    events, later_events = _joined(catalog.events, other.events)
    baskets, later_baskets = _joined(catalog.baskets, other.baskets)
    joined = replace(catalog, items=items, events=events, baskets=baskets)
    return Merged(joined, later_events, later_baskets, has_kept_back=True)


def _joined(
    first: pd.DataFrame | None, second: pd.DataFrame | None
) -> tuple[pd.DataFrame | None, BoolArray]:
    """Both tables in one, and which rows are the second's."""
    parts = [part for part in (first, second) if part is not None]
    if not parts:
        return None, np.zeros(0, dtype=np.bool_)
    size = 0 if second is None else len(second)
    joined = pd.concat(parts, ignore_index=True)
    later: BoolArray = np.arange(len(joined)) >= len(joined) - size
    return joined, later
