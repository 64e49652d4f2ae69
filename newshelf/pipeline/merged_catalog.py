"""The catalogue that a retraining learns from: files, live products and recorded feedback.

And the other way round: products of a catalogue as products of the store.
"""

import hashlib
import math
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from newshelf.catalog.catalog import Catalog, write_tables
from newshelf.catalog.interactions import WEIGHT
from newshelf.catalog.schema import BASKET_COLUMNS, EVENT_COLUMNS, ITEM_COLUMNS, picture_kind
from newshelf.config import Settings
from newshelf.files import directory_aside, problems, write_json
from newshelf.pipeline.position_bias import position_weights
from newshelf.store.export import EVENT_ID, new_events, recorded_events
from newshelf.store.items import MAX_ATTRIBUTES, MAX_TEXT_CHARS, ItemColumns, ItemWrite, StoredItem
from newshelf.store.store import EventStore

COUNTS = "merged.json"
"""File of the merge's counts and notes, next to the tables."""
_PAGE = 1_000
_DAY_S = 86_400


def write_merged(
    catalog: Catalog, store: EventStore, out: Path, settings: Settings | None = None
) -> None:
    """Write a catalogue with the store's changes to the new folder ``out``, atomically.

    A product that changed while it was served replaces the catalogue's, and a deleted one leaves
    with its events. Recorded feedback is added to the events, once; of a catalogue that has
    baskets and no events, each unit's products of a day are a basket. Erased units are left out.
    Nothing of ``catalog`` changes. Without ``settings``, events have no bounds and no weights by
    position.
    """
    changed = {item.id: item for item in _changes(store)}
    live = [item for item in changed.values() if not item.deleted]
    with directory_aside(out) as aside:
        items = catalog.items[~catalog.items["id"].isin(list(changed))]
        for link in items["image_link"].dropna().unique():
            _link(catalog.folder / link, aside / link)
        if live:
            rows = pd.DataFrame([_row(item, store, aside) for item in live])
            items = pd.concat([items, rows], ignore_index=True)
        items = items.astype({"price": "float64", "created_at": "Int64"})
        merged, recorded, notes = _with_feedback(replace(catalog, items=items), store, settings)
        write_tables(merged, aside)
        counts = {
            "products": len(items),
            "live changes": len(live),
            "deleted products": len(changed) - len(live),
            "recorded events": recorded,
        }
        write_json(aside / COUNTS, {**counts, "notes": notes})


def _changes(store: EventStore) -> Iterator[StoredItem]:
    seq = 0
    while page := store.items.changes(seq, _PAGE):
        yield from page
        seq = page[-1].seq


def _row(item: StoredItem, store: EventStore, folder: Path) -> dict[str, object]:
    """Return a product's cells by column; its picture is written to ``folder``."""
    columns = item.columns.model_dump(exclude={"attributes"})
    link = _picture(item.picture or "", store, folder)
    return {**item.columns.attributes, **columns, "image_link": link}


def _picture(reference: str, store: EventStore, folder: Path) -> str | None:
    """Write a stored picture, and return its link; None if there is none any more."""
    kind, _, name = reference.partition(":")
    stem = "live-pictures/" + hashlib.sha256(reference.encode()).hexdigest()
    if kind == "file" and Path(name).is_file():
        _link(Path(name), folder / (link := stem + Path(name).suffix))
        return link
    data = store.items.picture(name) if kind == "sha256" else None
    if data is None:
        return None
    link = f"{stem}.{(picture_kind(data) or 'jpeg').lower()}"
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).write_bytes(data)
    return link


def _link(source: Path, target: Path) -> None:
    """Link a picture, or copy it to another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)


def _with_feedback(
    catalog: Catalog, store: EventStore, settings: Settings | None
) -> tuple[Catalog, int, list[str]]:
    """Return the catalogue with the recorded feedback on its products, its size, and notes."""
    names = [*EVENT_COLUMNS, EVENT_ID]
    events, baskets = catalog.events, catalog.baskets
    products = set(catalog.items["id"])
    old = pd.DataFrame(columns=names) if events is None else events.reindex(columns=names)
    known = old.astype({EVENT_ID: object}).fillna({EVENT_ID: ""}).itertuples(index=False, name=None)
    recorded = list(recorded_events(store, settings.robots if settings else None))
    most = settings.retrain.most_position_weight if settings else 1.0
    weights, notes = position_weights(store, recorded, most)
    new = [row for row in new_events(recorded, known) if row[1] in products]
    if events is None and baskets is not None:
        visits = {(f"{unit} {time // _DAY_S}", item) for unit, item, _, time, _ in new}
        more = pd.DataFrame(sorted(visits), columns=list(BASKET_COLUMNS))
        baskets = pd.concat([baskets, more], ignore_index=True)
    elif new:
        events = pd.concat([events, pd.DataFrame(new, columns=names)], ignore_index=True)
    if events is not None:
        erased = store.units.erased(events["user_id"].unique())
        events = events[~events["user_id"].isin(erased) & events["item_id"].isin(products)]
        events = events.sort_values("timestamp", kind="stable", ignore_index=True)
        if weights and EVENT_ID in events:
            given = events.get(WEIGHT, 1.0)
            events[WEIGHT] = events[EVENT_ID].map(weights).fillna(given)
    if baskets is not None:
        baskets = baskets[baskets["item_id"].isin(products)].reset_index(drop=True)
    return replace(catalog, events=events, baskets=baskets), len(new), notes


_COLUMNS = tuple(name for name in ITEM_COLUMNS if name != "image_link")


def catalog_items(
    catalog: Catalog, *, skip: Collection[str] = ()
) -> Iterator[ItemWrite | tuple[str, str]]:
    """Yield each product but those to ``skip``, or its id and why it cannot be stored.

    Texts are cut at 10,000 characters, and at most 50 further columns are kept: no model reads
    more.
    """
    further = [name for name in catalog.items if name not in ITEM_COLUMNS]
    chosen = ~catalog.items["id"].isin([*skip])
    found = replace(catalog, items=catalog.items[chosen]).rows([*catalog.items])
    for row, cells in zip(np.flatnonzero(chosen).tolist(), found, strict=True):
        values = {name: _cell(cell) for name, cell in cells.items()}
        kept = [(name, values[name]) for name in further if values[name] is not None]
        fields = {name: values[name] for name in _COLUMNS}
        try:
            columns = ItemColumns.model_validate(
                {**fields, "attributes": dict(kept[:MAX_ATTRIBUTES])}
            )
        except ValidationError as error:
            yield str(fields["id"]), problems(error)
        else:
            path = catalog.image_path(row)
            yield ItemWrite(columns, path and path.absolute())


def _cell(value: Any) -> str | int | float | None:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or type(value) is int else str(value)[:MAX_TEXT_CHARS]
