"""Encoding of changed products with a version's encoder, and their segments."""

from pathlib import Path

import numpy as np
import pytest

from newshelf.errors import BadPicture, SetupError
from newshelf.rollout.versions import unpack
from newshelf.serving.encode import ProductEncoder
from newshelf.shelf.model import ShelfModel
from newshelf.store.items import EncodedItem, StoredItem
from newshelf.store.store import EventStore
from tests.served_model import VERSION
from tests.unit.shelf.helpers import product


def put(
    store: EventStore, item_id: str, picture: bytes | None = None, **fields: object
) -> StoredItem:
    (stored,) = store.items.put([product(item_id, picture, **fields)])
    return stored


def encode(model: ShelfModel, *items: StoredItem, picture: bytes = b"") -> list[EncodedItem]:
    return model.encode(items, lambda _: picture)


def test_an_archive_is_unpacked_once_and_without_its_code(
    model_store: Path, tmp_path: Path
) -> None:
    archive = model_store / f"recommender-{VERSION}.mar"
    folder = unpack(archive, tmp_path / "unpacked")
    assert (folder / "index" / "index.json").exists()
    assert not (folder / "newshelf").exists()
    (folder / "model.json").write_text("mine")
    assert (unpack(archive, folder) / "model.json").read_text() == "mine"


def test_a_damaged_archive_is_a_setup_error(tmp_path: Path) -> None:
    (tmp_path / "bad.mar").write_bytes(b"PK no archive")
    with pytest.raises(SetupError):
        unpack(tmp_path / "bad.mar", tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def test_products_are_encoded_with_vectors(model: ShelfModel, store: EventStore, picture) -> None:
    ring, lamp = put(store, "ring"), put(store, "lamp", b"picture", title="red lamp")
    first, second = encode(model, ring, lamp, picture=picture())
    for item, row in ((ring, first), (lamp, second)):
        assert (row.item_id, row.seq, row.problem) == (item.id, item.seq, None)
        assert row.embedding is not None
        assert row.vector is not None
        assert np.linalg.norm(row.embedding) == pytest.approx(1, abs=1e-5)
        assert row.vector.shape == (model.shape.vector,)


def test_a_bad_picture_is_the_problem_of_its_product_only(
    model: ShelfModel, store: EventStore
) -> None:
    good = put(store, "good")
    with_text = put(store, "with-text", b"no picture", title="red lamp")
    without = store.items.patch(put(store, "bare", b"no picture").id, {"title": None})
    rows = encode(model, good, with_text, without, picture=b"no picture")
    assert [row.embedding is None for row in rows] == [False, False, True]
    assert [row.problem is None for row in rows] == [True, False, False]
    (text_only,) = encode(model, put(store, "same", title="red lamp"))
    assert np.allclose(rows[1].embedding, text_only.embedding, atol=1e-5)


def test_a_picture_that_cannot_be_read_is_a_problem(model: ShelfModel, store: EventStore) -> None:
    def missing(_reference: str) -> bytes:
        raise BadPicture("it is gone")

    (row,) = model.encode([put(store, "ring", b"picture")], missing)
    assert (row.embedding is None, row.problem) == (False, "it is gone")


def test_a_failure_of_the_code_is_the_problem_of_its_product_only(
    unpacked: Path, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ShelfModel(unpacked)
    encode = ProductEncoder.encode

    def failing(self, inputs, stages):
        if any(one.product.id == "bad" for one in inputs):
            raise RuntimeError
        return encode(self, inputs, stages)

    monkeypatch.setattr(ProductEncoder, "encode", failing)
    rows = model.encode([put(store, name) for name in ("a", "bad", "b")], lambda _: b"")
    assert [row.embedding is None for row in rows] == [False, True, False]


def test_only_what_the_encoder_reads_needs_encoding(model: ShelfModel, store: EventStore) -> None:
    ring = put(store, "ring", price=12)
    (row,) = encode(model, ring)
    for fields in ({"availability": "out_of_stock"}, {"price": 20}, {"attributes": {"a": 1}}):
        found = model.known_vectors(store.items.patch("ring", fields), row)
        assert found is not None
        assert found.embedding is row.embedding
    # Another bin of prices, and another text.
    assert model.known_vectors(store.items.patch("ring", {"price": 90}), row) is None
    renamed = store.items.patch("ring", {"price": 20, "title": "gold ring"})
    assert model.known_vectors(renamed, row) is None


def test_seeded_products_keep_the_vectors_of_the_index(
    model: ShelfModel, store: EventStore
) -> None:
    # i03 costs 15 in the index.
    store.items.seed([product("i03", price=15), product("new", price=15)])
    sold_out = store.items.patch("i03", {"availability": "out_of_stock", "price": 16})
    found = model.known_vectors(sold_out, None)
    assert found is not None
    assert np.array_equal(found.embedding, model.index.embeddings[3])
    assert model.known_vectors(store.items.patch("i03", {"price": 90}), None) is None
    assert model.known_vectors(store.items.patch("new", {"price": 15.5}), None) is None


def test_a_segment_refers_to_the_trained_index(model: ShelfModel, store: EventStore) -> None:
    items = [put(store, "i03", price=2, attributes={"n": 1}), put(store, "new")]
    segment = model.segment([*zip(items, encode(model, *items), strict=True)], ["gone"])
    segment.check(model.shape)
    assert segment.origin.tolist() == [3, -1]
    assert segment.columns["price"] == [2, None]
    assert segment.columns["popularity"] == [21, 0]
    assert segment.extras == [{"n": 1}, {}]
    assert segment.removed == ["gone"]
    assert segment.shares[1].sum() == pytest.approx(1, abs=1e-5)
    nearest = np.argsort(-(model.index.embeddings @ segment.embeddings[1]))
    assert {*segment.nearest[1]} == {*nearest[: model.shape.nearest]}
