"""Following of the store's changes."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newshelf.serving.live import LiveIndex
from newshelf.serving.shelf_reader import open_live
from newshelf.shelf import follow, publish
from newshelf.shelf.follow import VersionShelf
from newshelf.shelf.model import ShelfModel
from newshelf.shelf.publish import Publisher
from newshelf.store.items import StoredItem
from newshelf.store.store import EventStore
from tests.unit.shelf.helpers import product, published


@pytest.fixture(autouse=True)
def published_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_SEGMENT_S", 0.0)


def open_shelf(
    store: EventStore,
    model: ShelfModel,
    folder: Path,
    host: str = "here",
    fold_rows: int = 100,
    **values: int,
) -> VersionShelf:
    publisher = Publisher(
        folder, model.shape, fold=model.fold, executor=ThreadPoolExecutor(1), fold_rows=fold_rows
    )
    encoder = ThreadPoolExecutor(1)
    given = {"max_picture_bytes": 1_000_000, **values}
    return VersionShelf(store.items, model, publisher, encoder=encoder, host=host, **given)


def run(shelf: VersionShelf, *, encodes: bool = True) -> None:
    """Step until nothing is left to do."""
    while shelf.step(encodes=encodes):
        pass


def ids(folder: Path, model: ShelfModel) -> set[str]:
    return {*published(folder, model.shape)[0]}


def test_changes_are_published_and_recorded(store: EventStore, model: ShelfModel, tmp_path) -> None:
    store.items.put([product("ring", price=3), product("lamp", title="red lamp")])
    store.items.delete("lamp")
    shelf = open_shelf(store, model, tmp_path)
    run(shelf)
    products, removed = published(tmp_path, model.shape)
    assert {item: row["price"] for item, row in products.items()} == {"ring": 3}
    assert removed == {"lamp"}
    (state,) = store.items.states("ring")
    assert (state.version, state.encoded, state.visible) == (model.version, True, True)
    assert shelf.publisher.current.seq == store.items.last_seq() == 3


def test_nothing_is_written_without_a_change(
    store: EventStore, model: ShelfModel, tmp_path
) -> None:
    shelf = open_shelf(store, model, tmp_path)
    run(shelf)
    assert [*tmp_path.glob("seg-*")] == []
    store.items.put([product("ring")])
    run(shelf)
    before = shelf.publisher.current
    store.items.put([product("ring")])
    run(shelf)
    assert shelf.publisher.current == before


def test_a_change_of_stock_overtakes_products_that_wait(
    store: EventStore, model: ShelfModel, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_ENCODED_AT_ONCE", 2)
    store.items.put([product("known")])
    shelf = open_shelf(store, model, tmp_path)
    run(shelf)
    store.items.put([product(f"new-{number}") for number in range(6)])
    store.items.patch("known", {"availability": "out_of_stock"})
    while "new-1" not in ids(tmp_path, model):
        shelf.step(encodes=True)
    products = published(tmp_path, model.shape)[0]
    assert products["known"]["availability"] == "out_of_stock"
    assert {*products} == {"known", "new-0", "new-1"}
    # What is published is not yet all up to the last change.
    assert shelf.publisher.current.seq == 3
    again = open_shelf(store, model, tmp_path)
    run(again)
    assert ids(tmp_path, model) == {"known", *(f"new-{number}" for number in range(6))}
    assert again.publisher.current.seq == store.items.last_seq()


def waiting_encoder(shelf: VersionShelf) -> list[tuple[list[str], Future[object]]]:
    """Let an encoder take batches and finish none; return what it has taken."""
    taken: list[tuple[list[str], Future[object]]] = []

    def submit(_encode: object, work: list[StoredItem], _read: object) -> Future[object]:
        taken.append(([f"{item.id}: {item.columns.title}" for item in work], Future()))
        return taken[-1][1]

    shelf.encoder = Mock(submit=submit)
    return taken


def test_the_encoder_has_more_to_do_while_a_segment_is_made(
    store: EventStore, model: ShelfModel, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_ENCODED_AT_ONCE", 2)
    store.items.put([product(str(number), title="ring") for number in range(10)])
    shelf = open_shelf(store, model, tmp_path)
    taken = waiting_encoder(shelf)
    shelf.step(encodes=True)
    pairs = [[f"{at}: ring", f"{at + 1}: ring"] for at in range(0, 10, 2)]
    assert [work for work, _ in taken] == pairs


def test_a_product_that_cannot_be_encoded_is_not_shown(
    store: EventStore, model: ShelfModel, tmp_path
) -> None:
    store.items.put([product("ring"), product("lamp")])
    shelf = open_shelf(store, model, tmp_path)
    run(shelf)
    store.items.patch("ring", {"title": None}, b"no picture")
    run(shelf)
    assert ids(tmp_path, model) == {"lamp"}
    (state,) = store.items.states("ring")
    assert state.visible
    assert state.problem is not None


def test_pictures_come_from_the_store_and_from_files(
    store: EventStore, model: ShelfModel, tmp_path, picture
) -> None:
    file, large = tmp_path / "ring.png", tmp_path / "large.png"
    file.write_bytes(picture())
    large.write_bytes(picture() + b" " * 10_000)
    items = [
        product("stored", picture()),
        product("file", file),
        product("large", large),
        product("missing", tmp_path / "missing.png"),
    ]
    store.items.put(items)
    run(open_shelf(store, model, tmp_path / "shelf", max_picture_bytes=5_000))
    problems = {item.columns.id: store.items.states(item.columns.id)[0].problem for item in items}
    assert {item for item, problem in problems.items() if problem} == {"large", "missing"}
    assert ids(tmp_path / "shelf", model) == {*problems}


def test_one_host_encodes_and_all_publish(store: EventStore, model: ShelfModel, tmp_path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    first, second = (open_shelf(store, model, path, host=path.name) for path in folders)
    store.items.put([product("ring")])
    run(second, encodes=False)
    assert ids(folders[1], model) == set()
    run(first)
    assert not store.items.states("ring")[0].visible
    run(second, encodes=False)
    assert ids(folders[1], model) == {"ring"}
    assert store.items.states("ring")[0].visible


def test_seeded_products_are_published_if_the_version_lacks_them(
    store: EventStore, model: ShelfModel, tmp_path
) -> None:
    store.items.seed([product("i03"), product("later")])
    run(open_shelf(store, model, tmp_path))
    assert ids(tmp_path, model) == {"later"}


def test_another_store_is_published_anew(store: EventStore, model: ShelfModel, tmp_path) -> None:
    store.items.put([product("ring"), product("lamp")])
    run(open_shelf(store, model, tmp_path / "shelf"))
    with EventStore.open(f"sqlite:///{tmp_path}/other.db") as other:
        other.items.put([product("shirt")])
        run(open_shelf(other, model, tmp_path / "shelf"))
    assert ids(tmp_path / "shelf", model) == {"shirt"}


def test_a_folded_shelf_goes_on(store: EventStore, model: ShelfModel, tmp_path) -> None:
    shelf = open_shelf(store, model, tmp_path, fold_rows=3)
    store.items.put([product(f"new-{number}") for number in range(4)])
    store.items.put([product("i03", price=1)])
    run(shelf)
    shelf.publisher.fold_if_large()
    _, _, folding = shelf.publisher._folding
    assert folding.exception() is None
    store.items.delete("new-0")
    run(shelf)
    shelf.publisher.fold_if_large()
    current = shelf.publisher.current
    assert (current.base, len(current.segments)) == ("base-5", 1)
    live = open_live(tmp_path, current, LiveIndex.of(model.index))
    rows = np.flatnonzero(live.alive).tolist()
    ids = {table.id[row] for table, row in map(live.positions.at, rows)}
    assert ids == {*(f"i{number:02}" for number in range(30)), "new-1", "new-2", "new-3"}


def test_what_could_not_be_written_is_published_after_a_restart(
    store: EventStore, model: ShelfModel, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = open_shelf(store, model, tmp_path)
    store.items.put([product("ring")])
    with monkeypatch.context() as broken:
        broken.setattr(publish, "write_segment", Mock(side_effect=OSError("the disk is full")))
        with pytest.raises(OSError, match="full"):
            run(shelf)
    shelf.restart()
    run(shelf)
    assert ids(tmp_path, model) == {"ring"}


def test_changes_that_follow_each_other_closely_are_one_segment(
    store: EventStore, model: ShelfModel, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = open_shelf(store, model, tmp_path)
    store.items.put([product("ring", price=1)])
    run(shelf)
    monkeypatch.setattr(follow, "_SEGMENT_S", 1e9)
    for price in (2, 3):
        store.items.put([product("ring", price=price), product(f"lamp-{price}")])
        run(shelf)
    assert ids(tmp_path, model) == {"ring"}
    monkeypatch.setattr(follow, "_SEGMENT_S", 0.0)
    run(shelf)
    assert ids(tmp_path, model) == {"ring", "lamp-2", "lamp-3"}
    assert len(shelf.publisher.current.segments) == 2
    assert published(tmp_path, model.shape)[0]["ring"]["price"] == 3


def test_a_product_that_changes_while_it_is_encoded_is_not_set_back(
    store: EventStore, model: ShelfModel, tmp_path
) -> None:
    shelf = open_shelf(store, model, tmp_path)
    store.items.put([product("ring"), product("lamp")])
    shelf.step(encodes=True)
    store.items.delete("ring")
    store.items.put([product("lamp", title="gold lamp")])
    run(shelf)
    products, removed = published(tmp_path, model.shape)
    assert {item: row["title"] for item, row in products.items()} == {"lamp": "gold lamp"}
    assert removed == {"ring"}


PRODUCTS = st.sampled_from(["a", "b", "c", "i03"])
CHANGE = st.one_of(
    st.tuples(st.just("put"), PRODUCTS, st.sampled_from([1.0, 2.0, 99.0])),
    st.tuples(st.just("delete"), PRODUCTS, st.none()),
    st.tuples(st.just("step"), st.none(), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
)


@given(changes=st.lists(CHANGE, max_size=14))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_the_shelf_is_the_store_whenever_it_is_restarted(
    tmp_path_factory: pytest.TempPathFactory, model: ShelfModel, changes
) -> None:
    folder = tmp_path_factory.mktemp("shelf")
    with EventStore.open(f"sqlite:///{folder}/events.db") as store:
        shelf = open_shelf(store, model, folder / "shelf")
        for change, item, price in changes:
            if change == "put":
                store.items.put([product(item, price=price)])
            elif change == "delete" and store.items.get([item]):
                store.items.delete(item)
            elif change == "step":
                shelf.step(encodes=True)
            elif change == "restart":
                shelf = open_shelf(store, model, folder / "shelf")
        run(shelf)
        products, removed = published(folder / "shelf", model.shape)
        stored = store.items.get(["a", "b", "c", "i03"]).values()
        assert {item: row["price"] for item, row in products.items()} == {
            one.id: one.columns.price for one in stored if not one.deleted
        }
        assert removed == {one.id for one in stored if one.deleted}
