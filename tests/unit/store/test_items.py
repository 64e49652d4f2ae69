"""Live products on both databases."""

import hashlib
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from newshelf.errors import InvalidField, UnknownItem
from newshelf.store.items import EncodedItem, ItemColumns, ItemState, ItemWrite, StoredItem
from newshelf.store.store import EventStore


def product(item_id: str = "ring", **fields: object) -> ItemWrite:
    return ItemWrite(ItemColumns.model_validate({"id": item_id, "title": "Jade ring", **fields}))


def put(store: EventStore, item_id: str = "ring", **fields: object) -> StoredItem:
    (stored,) = store.items.put([product(item_id, **fields)])
    return stored


def vectors(item: StoredItem, problem: str | None = None) -> EncodedItem:
    embedding = np.arange(512, dtype=np.float32)
    return EncodedItem(
        item.id, item.revision, item.seq, item.inputs, embedding, embedding[:3], problem
    )


def test_the_last_change_before_a_moment(store: EventStore) -> None:
    now = datetime.now(UTC)
    assert store.items.seq_before(now + timedelta(hours=1)) == 0
    put(store, "ring")
    put(store, "vase")
    assert store.items.seq_before(now - timedelta(hours=1)) == 0
    assert store.items.seq_before(now + timedelta(hours=1)) == 2


def test_a_product_is_returned_as_it_was_put(store: EventStore) -> None:
    fields = {"price": 12.5, "availability": "in_stock", "attributes": {"season": "summer", "n": 3}}
    stored = put(store, **fields, created_at=5)
    assert store.items.get(["ring", "other"]) == {"ring": stored}
    assert stored.columns == product(**fields, created_at=5).columns
    assert (stored.revision, stored.seq, stored.deleted) == (1, 1, False)


def test_texts_are_cleaned_and_blank_ones_are_absent(store: EventStore) -> None:
    columns = put(
        store, title="<b>Jade</b>&nbsp;ring", brand=" ", attributes={"a": "x<br>y"}
    ).columns
    assert (columns.title, columns.brand, columns.attributes) == ("Jade ring", None, {"a": "x y"})


def test_equal_content_is_no_change(store: EventStore) -> None:
    first, second = put(store, price=3), put(store, price=3)
    assert first == second
    assert store.items.last_seq() == 1


def test_each_change_grows_revision_and_seq(store: EventStore) -> None:
    put(store)
    put(store, "scarf")
    changed = put(store, price=4)
    assert (changed.revision, changed.seq) == (2, 3)
    assert [one.id for one in store.items.changes(0)] == ["scarf", "ring"]
    assert store.items.changes(3) == []


def test_one_batch_may_change_a_product_twice(store: EventStore) -> None:
    first, second = store.items.put([product(price=1), product(price=2)])
    assert (first.revision, second.revision, second.seq) == (1, 2, 2)
    assert store.items.get(["ring"])["ring"].columns.price == 2


def test_the_first_put_is_the_default_of_created_at(store: EventStore) -> None:
    first = put(store)
    assert first.columns.created_at is not None
    assert put(store, price=3).columns.created_at == first.columns.created_at


def test_a_product_without_text_and_picture_is_refused_with_its_batch(store: EventStore) -> None:
    bare = ItemWrite(ItemColumns(id="bare", brand="Acme"))
    with pytest.raises(InvalidField) as refused:
        store.items.put([product(), bare])
    assert refused.value.field == "items[1]"
    assert store.items.last_seq() == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"price": float("nan")},
        {"price": -1},
        {"id": "x" * 201},
        {"title": "x" * 10_001},
        {"colour": "red"},
        {"availability": "maybe"},
        {"attributes": {"price": 3}},
        {"attributes": {"": 3}},
        {"attributes": {"a": [1]}},
        {"attributes": {"a": float("inf")}},
        {"attributes": {str(number): 1 for number in range(51)}},
        {"created_at": -1},
    ],
)
def test_invalid_columns_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        product(**fields)


def test_a_picture_is_stored_once_and_removed_when_unused(store: EventStore) -> None:
    digest = hashlib.sha256(b"picture").hexdigest()
    ring, scarf = store.items.put(
        [ItemWrite(ItemColumns(id=name), b"picture") for name in ("ring", "scarf")]
    )
    assert ring.picture == scarf.picture == f"sha256:{digest}"
    assert store.items.picture(digest) == b"picture"
    put(store, "ring")
    assert store.items.remove_unused_pictures() == 0
    put(store, "scarf")
    assert store.items.remove_unused_pictures() == 1
    assert store.items.picture(digest) is None


def test_patch_changes_some_fields_and_null_removes_one(store: EventStore) -> None:
    put(store, price=3, brand="Acme", attributes={"a": 1, "b": 2})
    changed = store.items.patch("ring", {"brand": None, "price": 4, "attributes": {"a": None}})
    columns = changed.columns
    assert (columns.title, columns.price, columns.brand) == ("Jade ring", 4, None)
    assert columns.attributes == {"b": 2}
    assert changed.revision == 2


def test_patch_replaces_keeps_and_removes_the_picture(store: EventStore) -> None:
    put(store)
    with_picture = store.items.patch("ring", {}, b"picture")
    assert with_picture.picture == "sha256:" + hashlib.sha256(b"picture").hexdigest()
    assert store.items.patch("ring", {"price": 2}).picture == with_picture.picture
    assert store.items.patch("ring", {"image": None}).picture is None


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"price": float("nan")}, "price"),
        ({"title": None}, None),
        ({"colour": "red"}, "colour"),
        ({"id": "other"}, "id"),
        ({"attributes": {"price": 2}}, "attributes.price.[key]"),
        ({"attributes": 3}, "attributes"),
    ],
)
def test_an_invalid_patch_changes_nothing(
    store: EventStore, fields: dict[str, object], field: str | None
) -> None:
    before = put(store)
    with pytest.raises(InvalidField) as refused:
        store.items.patch("ring", fields)
    assert refused.value.field == field
    assert store.items.get(["ring"])["ring"] == before


def test_unknown_and_deleted_products_are_not_patched(store: EventStore) -> None:
    with pytest.raises(UnknownItem):
        store.items.patch("ring", {"price": 1})
    with pytest.raises(UnknownItem):
        store.items.delete("ring")
    put(store)
    store.items.delete("ring")
    with pytest.raises(UnknownItem):
        store.items.patch("ring", {"price": 1})


def test_delete_is_a_change_once_and_put_brings_the_product_back(store: EventStore) -> None:
    put(store)
    deleted = store.items.delete("ring")
    assert (deleted.deleted, deleted.seq) == (True, 2)
    assert store.items.delete("ring") == deleted
    assert store.items.changes(1) == [deleted]
    assert store.items.page() == []
    back = put(store)
    assert (back.deleted, back.revision, back.seq) == (False, 3, 3)


def test_pages_are_in_the_order_of_ids(store: EventStore) -> None:
    store.items.put([product(f"item-{number}") for number in range(5)])
    first = store.items.page(limit=3)
    rest = store.items.page(after_id=first[-1].id, limit=3)
    assert [one.id for one in first + rest] == [f"item-{number}" for number in range(5)]


def test_seeding_adds_absent_products_only_and_is_no_change(store: EventStore) -> None:
    mine = put(store, "item-1", price=9)
    seeds = [product(f"item-{number}", created_at=None) for number in range(200)]
    assert store.items.seed(seeds) == 199
    assert store.items.seed(seeds) == 0
    assert store.items.get(["item-1"])["item-1"] == mine
    assert (store.items.last_seq(), len(store.items.changes(0))) == (1, 1)
    assert len(store.items.ids()) == 200
    assert len(store.items.ids(unchanged=True)) == 199
    assert store.items.count_after(0) == 1


def test_a_seeded_product_knows_whether_the_encoder_would_read_the_same(store: EventStore) -> None:
    store.items.seed([ItemWrite(product().columns, Path("/shop/ring.jpg"))])
    sold_out = store.items.patch("ring", {"availability": "out_of_stock", "price": 2})
    assert (sold_out.picture, sold_out.seq) == ("file:/shop/ring.jpg", 1)
    assert sold_out.inputs == sold_out.seeded
    renamed = store.items.patch("ring", {"title": "Amber ring"})
    assert renamed.inputs != renamed.seeded


def test_vectors_belong_to_a_version_and_a_change(store: EventStore) -> None:
    ring, scarf = put(store), put(store, "scarf")
    row = vectors(ring, problem="no picture")
    store.items.put_encoded("2.0", [row])
    (one, found), (other, missing) = store.items.encoded("2.0", 0)
    assert found is not None
    assert (one, other, missing) == (ring, scarf, None)
    assert (found.inputs, found.problem) == (row.inputs, row.problem)
    assert np.array_equal(found.embedding, row.embedding)
    assert [item.id for item, _ in store.items.encoded("2.0", ids=["scarf"])] == ["scarf"]
    assert [vector for _, vector in store.items.encoded("3.0", 0)] == [None, None]


def test_vectors_of_an_earlier_change_do_not_replace_later_ones(store: EventStore) -> None:
    old, new = put(store), put(store, price=4)
    store.items.put_encoded("2.0", [vectors(new)])
    store.items.put_encoded("2.0", [vectors(old)])
    ((_, found),) = store.items.encoded("2.0")
    assert found is not None
    assert found.seq == new.seq


def test_states_say_what_is_encoded_and_visible_on_every_host(store: EventStore) -> None:
    ring = put(store)
    assert store.items.states("ring") == []
    store.items.published("a", "2.0", 0)
    assert store.items.states("ring") == [
        ItemState("2.0", encoded=False, visible=False, problem=None)
    ]
    store.items.put_encoded("2.0", [vectors(ring, problem="damaged")])
    store.items.published("a", "2.0", ring.seq)
    store.items.published("b", "2.0", 0)
    assert store.items.states("ring") == [
        ItemState("2.0", encoded=True, visible=False, problem="damaged")
    ]
    store.items.published("b", "2.0", ring.seq)
    assert [state.visible for state in store.items.states("ring")] == [True]
    assert {one.host for one in store.items.hosts()} == {"a", "b"}
    store.items.forget_version("2.0")
    assert store.items.states("ring") == []
    with pytest.raises(UnknownItem):
        store.items.states("scarf")


def test_changes_become_visible_in_their_order(store: EventStore) -> None:
    """A reader that follows ``last_seq`` sees each change of four concurrent writers once."""
    writers, rounds = 4, 25
    ended = threading.Event()
    seen: list[int] = []

    def write(number: int) -> None:
        for turn in range(rounds):
            store.items.put([product(f"{number}-{turn}-{part}") for part in range(3)])

    def follow() -> None:
        while True:
            last_round = ended.is_set()
            seen.extend(one.seq for one in store.items.changes(seen[-1] if seen else 0))
            if last_round:
                return

    reader = threading.Thread(target=follow)
    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    reader.join()
    assert seen == list(range(1, writers * rounds * 3 + 1))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(title=TEXTS, values=st.dictionaries(TEXTS, TEXTS | st.integers() | st.floats(), max_size=4))
def test_validated_columns_stay_as_they_are(title: str, values: dict[str, object]) -> None:
    try:
        columns = ItemColumns.model_validate({"id": "a", "title": title, "attributes": values})
    except ValidationError:
        return
    assert ItemColumns.model_validate(columns.model_dump()) == columns
