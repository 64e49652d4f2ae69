"""Folding of a base and its segments into a new base."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save_file

from newshelf.files import directory_aside
from newshelf.serving.index import IndexKnowledge, IndexManifest
from newshelf.serving.index_write import write_index
from newshelf.serving.item_table import INDEX_COLUMNS
from newshelf.serving.live import LiveIndex
from newshelf.serving.search.build import ANN_ITEMS
from newshelf.serving.segments import Current
from newshelf.serving.shelf_reader import LINKS, open_live


def fold(
    folder: Path, current: Current, name: str, archive: LiveIndex, *, ann_items: int = ANN_ITEMS
) -> IndexManifest:
    """Write a new base: the products of a publication that are alive, in their order.

    Links stay those of the archive; ``links.safetensors`` says which each product has. Recommending
    from the new base gives the answers that its parts gave. Popularity is added by ``CURRENT``, so
    the column has what the parts' columns have.
    """
    live = open_live(folder, current.model_copy(update={"popularity": None}), archive)
    positions = np.flatnonzero(live.alive)
    with directory_aside(folder / name) as out:
        manifest = write_index(
            out,
            encoder_version=live.archive.manifest.encoder_version,
            items=_frame(live),
            embeddings=live.positions.embeddings(positions),
            vectors=None if live.archive.vectors is None else live.positions.vectors(positions),
            knowledge=_knowledge(live),
            pooling=live.archive.manifest.pooling,
            ann_items=ann_items,
        )
        origin = live.positions.origin(positions)
        new = np.flatnonzero(origin < 0)
        nearest = np.zeros((len(positions), live.shape.nearest), dtype=np.int64)
        shares = np.zeros(nearest.shape, dtype=np.float32)
        nearest[new], shares[new] = live.positions.neighbours(positions[new])
        unchanged = live.positions.unchanged(positions)
        links: dict[str, NDArray[Any]] = {
            "origin": origin,
            "unchanged": unchanged,
            "nearest": nearest,
            "shares": shares,
        }
        save_file(links, out / LINKS)
        for path in out.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    return manifest


def _frame(live: LiveIndex) -> pd.DataFrame:
    names = dict.fromkeys(
        [*INDEX_COLUMNS, *(name for _, table in live.positions.tables for name in table.extras)]
    )
    parts = [
        pd.DataFrame({name: table.cells(name) for name in names}, dtype=object)[
            live.alive[start : start + len(table)]
        ]
        for start, table in live.positions.tables
    ]
    return pd.concat(parts, ignore_index=True)


def _knowledge(live: LiveIndex) -> IndexKnowledge | None:
    if live.archive.manifest.knowledge is None:
        return None
    row_of = np.cumsum(live.alive) - 1
    rows = [
        (int(row_of[start + row]), attribute, value, confidence)
        for start, table in live.positions.tables
        for row, attribute, value, confidence in table.known.statements()
        if live.alive[start + row]
    ]
    return IndexKnowledge(rows, live.base.table.known.reader.lexicon)
