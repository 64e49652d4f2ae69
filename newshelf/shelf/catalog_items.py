"""Products of a catalogue as products of the store."""

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import ITEM_COLUMNS
from newshelf.files import problems
from newshelf.store.items import MAX_ATTRIBUTES, MAX_TEXT_CHARS, ItemColumns, ItemWrite

_COLUMNS = tuple(name for name in ITEM_COLUMNS if name != "image_link")


def catalog_items(
    catalog: Catalog, *, skip: Collection[str] = ()
) -> Iterator[ItemWrite | tuple[str, str]]:
    """Yield each product but those to ``skip``, or its id and why it cannot be stored.

    Texts are cut at 10,000 characters, and at most 50 further columns are kept: no model reads
    more.
    """
    further = [name for name in catalog.items if name not in ITEM_COLUMNS]
    rows = np.flatnonzero(~catalog.items["id"].isin([*skip]).to_numpy())
    frame = catalog.items.iloc[rows]
    cells = {name: frame[name].astype(object).where(frame[name].notna(), None) for name in frame}
    for place, row in enumerate(rows.tolist()):
        fields = {name: _cell(cells[name].iat[place]) for name in _COLUMNS}
        values = {name: _cell(cells[name].iat[place]) for name in further}
        kept = [(name, value) for name, value in values.items() if value is not None]
        try:
            columns = ItemColumns.model_validate(
                {**fields, "attributes": dict(kept[:MAX_ATTRIBUTES])}
            )
        except ValidationError as error:
            yield str(fields["id"]), problems(error)
        else:
            yield ItemWrite(columns, _picture(catalog, row))


def _picture(catalog: Catalog, row: int) -> Path | None:
    path = catalog.image_path(row)
    return None if path is None else path.absolute()


def _cell(value: Any) -> str | int | float | None:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or value is pd.NaT:
        return None
    return value if type(value) is int else str(value)[:MAX_TEXT_CHARS]
