"""Files, live products and recorded feedback, as one catalogue."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.files import read_json
from newshelf.pipeline.merged_catalog import COUNTS, catalog_items, write_merged
from newshelf.pipeline.stages import catalog_files
from newshelf.store.items import ItemColumns, ItemWrite
from newshelf.store.records import Feedback
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
START_S = int(BEGIN.timestamp())


def picture(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shop(tmp_path: Path) -> Catalog:
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "ring.png").write_bytes(picture("red"))
    (folder / "images" / "lamp.png").write_bytes(picture("blue"))
    pd.DataFrame(
        [
            ("ring", "Jade ring", 10.0, "images/ring.png", "spring", 1),
            ("lamp", "Lamp", 20.0, "images/lamp.png", None, 2),
            ("vase", "Vase", None, None, "autumn", 3),
        ],
        columns=["id", "title", "price", "image_link", "season", "shelf"],
    ).to_parquet(folder / "items.parquet")
    pd.DataFrame(
        [("ann", "ring", "view", START_S - 9), ("bob", "lamp", "cart", START_S - 5)],
        columns=["user_id", "item_id", "event_type", "timestamp"],
    ).to_parquet(folder / "events.parquet")
    return read_catalog(folder, strict=True)


@pytest.fixture
def store(store_url: str, shop: Catalog) -> Iterator[EventStore]:
    """With the shop's products, as a server's start leaves them."""
    with EventStore.open(store_url) as opened:
        opened.items.seed(one for one in catalog_items(shop) if isinstance(one, ItemWrite))
        yield opened


def did(unit: str, item: str, at_s: float, event_id: str = "") -> Feedback:
    return Feedback(
        event_id=event_id or f"{unit}-{item}-{at_s}",
        event_type="view",
        item_id=item,
        at=BEGIN + timedelta(seconds=at_s),
        unit=unit,
    )


def merge(catalog: Catalog, store: EventStore, out: Path) -> list[int]:
    """Numbers of products, live changes, deleted products and recorded events."""
    write_merged(catalog, store, out)
    counts = read_json(out / COUNTS)
    names = ("products", "live changes", "deleted products", "recorded events")
    return [counts[name] for name in names]


def test_live_products_win_and_deleted_ones_leave(
    shop: Catalog, store: EventStore, tmp_path: Path
) -> None:
    store.items.patch("ring", {"title": "Gold ring", "attributes": {"season": "winter"}})
    store.items.delete("lamp")
    new = ItemColumns(id="bowl", title="Bowl", price=5, attributes={"maker": "Ann", "shelf": 9})
    store.items.put([ItemWrite(new, picture("green"))])
    store.items.put([ItemWrite(ItemColumns(id="cup", title="Cup"))])
    store.items.delete("cup")
    before = catalog_files(shop.folder)
    assert merge(shop, store, tmp_path / "merged") == [3, 2, 2, 0]
    merged = read_catalog(tmp_path / "merged", strict=True)
    items = merged.items.set_index("id")
    assert set(items.index) == {"ring", "vase", "bowl"}
    assert items.loc["ring", "title"] == "Gold ring"
    assert items["season"].fillna("").to_dict() == {"ring": "winter", "vase": "autumn", "bowl": ""}
    assert items["price"].dropna().to_dict() == {"ring": 10, "bowl": 5}
    assert items.loc["bowl", "maker"] == "Ann"
    pictures = [merged.image_path(merged.item_index[name]) for name in ("ring", "bowl")]
    assert [path.read_bytes() for path in pictures if path] == [picture("red"), picture("green")]
    # The event of the product that left is gone; the shop's own files are as they were.
    assert merged.events is not None
    assert merged.events["item_id"].tolist() == ["ring"]
    assert catalog_files(shop.folder) == before


def test_recorded_feedback_counts_once_and_not_of_erased_units(
    shop: Catalog, store: EventStore, tmp_path: Path
) -> None:
    store.write(
        WriteBatch(
            feedback=[
                # As if it had been exported into the shop's own file.
                did("ann", "ring", -9),
                did("ann", "vase", 1, "a"),
                did("ann", "vase", 1, "b"),
                did("eve", "vase", 2),
                did("ann", "unheard-of", 3),
            ]
        )
    )
    store.units.erase("eve", settle_s=0)
    store.units.erase("bob", settle_s=0)
    assert merge(shop, store, tmp_path / "merged") == [3, 0, 0, 2]
    events = read_catalog(tmp_path / "merged", strict=True).events
    assert events is not None
    assert events[["user_id", "item_id"]].to_numpy().tolist() == [
        ["ann", "ring"], ["ann", "vase"], ["ann", "vase"],
    ]  # fmt: skip
    # A merge of a merge adds nothing.
    again = read_catalog(tmp_path / "merged")
    assert merge(again, store, tmp_path / "twice") == [3, 0, 0, 0]


def test_a_merge_without_changes_is_the_same_catalogue(
    shop: Catalog, store: EventStore, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        write_merged(shop, store, tmp_path / name)
    assert catalog_files(tmp_path / "first") == catalog_files(tmp_path / "second")
    merged = read_catalog(tmp_path / "first", strict=True)
    pd.testing.assert_frame_equal(merged.items, shop.items)
    pd.testing.assert_frame_equal(merged.events, shop.events)


def test_of_a_catalogue_of_baskets_a_units_day_is_a_basket(
    shop: Catalog, store: EventStore, tmp_path: Path
) -> None:
    (shop.folder / "events.parquet").unlink()
    rows = [("b1", "ring"), ("b1", "lamp")]
    pd.DataFrame(rows, columns=["basket_id", "item_id"]).to_parquet(shop.folder / "baskets.parquet")
    day_s = 86_400
    done = [
        did("ann", "ring", 0), did("ann", "vase", 9), did("ann", "vase", 10),
        did("ann", "lamp", day_s),
    ]  # fmt: skip
    store.write(WriteBatch(feedback=done))
    write_merged(read_catalog(shop.folder), store, tmp_path / "merged")
    merged = read_catalog(tmp_path / "merged", strict=True)
    assert merged.events is None
    assert merged.baskets is not None
    sizes = merged.baskets.groupby("basket_id").size()
    assert sorted(sizes.tolist()) == [1, 2, 2]


def test_a_catalogue_without_events_gets_the_recorded_ones(
    shop: Catalog, store: EventStore, tmp_path: Path
) -> None:
    (shop.folder / "events.parquet").unlink()
    bare = read_catalog(shop.folder)
    write_merged(bare, store, tmp_path / "nothing")
    assert read_catalog(tmp_path / "nothing", strict=True).events is None
    store.write(WriteBatch(feedback=[did("ann", "ring", 0)]))
    write_merged(bare, store, tmp_path / "one")
    events = read_catalog(tmp_path / "one", strict=True).events
    assert events is not None
    assert events["user_id"].tolist() == ["ann"]


def read(folder: Path, **columns: list[object]) -> Catalog:
    count = len(next(iter(columns.values())))
    ids = [f"i{number}" for number in range(count)]
    pd.DataFrame({"id": ids, **columns}).to_parquet(folder / "items.parquet")
    return read_catalog(folder)


def test_columns_pictures_and_further_columns_are_kept(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
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
