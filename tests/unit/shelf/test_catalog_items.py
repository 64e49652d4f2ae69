"""Products of a catalogue as products of the store."""

from pathlib import Path

import pandas as pd

from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.shelf.catalog_items import catalog_items
from newshelf.store.items import ItemWrite


def read(folder: Path, **columns: list[object]) -> Catalog:
    count = len(next(iter(columns.values())))
    ids = [f"i{number}" for number in range(count)]
    pd.DataFrame({"id": ids, **columns}).to_parquet(folder / "items.parquet")
    return read_catalog(folder)


def test_columns_pictures_and_further_columns_are_kept(tmp_path: Path, picture) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    catalog = read(
        tmp_path,
        title=["ring", "lamp"],
        image_link=["a.png", None],
        price=[3.5, None],
        created_at=[1_700_000_000, None],
        season=["summer", None],
        rating=[4, 5],
        new=[True, False],
        weight=[float("inf"), 2.5],
    )
    first, second = (one for one in catalog_items(catalog) if isinstance(one, ItemWrite))
    assert first.columns.model_dump(exclude_defaults=True) == {
        "id": "i0",
        "title": "ring",
        "price": 3.5,
        "created_at": 1_700_000_000,
        "attributes": {"season": "summer", "rating": 4, "new": "True"},
    }
    assert (first.picture, second.picture) == (tmp_path / "a.png", None)
    assert second.columns.attributes == {"rating": 5, "new": "False", "weight": 2.5}


def test_known_products_are_skipped(tmp_path: Path) -> None:
    catalog = read(tmp_path, title=["ring", "lamp", "shirt"])
    found = [one.columns.id for one in catalog_items(catalog, skip={"i1"})]
    assert found == ["i0", "i2"]


def test_what_the_store_cannot_hold_is_cut_or_told(tmp_path: Path) -> None:
    many = {f"column {number}": [number] for number in range(60)}
    catalog = read(tmp_path, title=["x" * 20_000], **many)
    (item,) = catalog_items(catalog)
    assert isinstance(item, ItemWrite)
    assert item.columns.title == "x" * 10_000
    assert len(item.columns.attributes) == 50
    ((item_id, reason),) = catalog_items(read(tmp_path, title=["ring"], **{"n" * 101: [1]}))
    assert item_id == "i0"
    assert "attributes" in reason
