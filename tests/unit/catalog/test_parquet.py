"""Every type of a Parquet column, with and without missing values."""

import datetime
import decimal
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.catalog.catalog import read_catalog
from newshelf.catalog.columns import parse_text
from newshelf.catalog.read import read_table
from newshelf.errors import CatalogError

BIG = [1745998123456789013, 1745998123456789014, 1745998123456789015]


def read(folder, columns, name="items"):
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return read_table(folder / f"{name}.parquet", name)


@pytest.mark.parametrize(
    "kind",
    [pa.int64(), pa.uint64(), pa.decimal128(38, 0), pa.string(), pa.large_string(),
     pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.int64()),
     pa.dictionary(pa.int8(), pa.string()), pa.binary(19)],
)  # fmt: skip
@pytest.mark.parametrize("missing", [False, True])
def test_ids_are_what_the_file_has(tmp_path, kind, missing):
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    numbers = pa.types.is_integer(value) or pa.types.is_decimal(value)
    ids = [id_ if numbers else str(id_) for id_ in BIG]
    if pa.types.is_binary(value) or pa.types.is_fixed_size_binary(value):
        ids = [id_.encode() for id_ in ids]
    ids[1:1] = [None] * missing
    array = pa.array(ids, value)
    array = array.dictionary_encode() if value != kind else array
    table = read(tmp_path, {"id": array})
    assert parse_text(table.frame["id"]).dropna().tolist() == list(map(str, BIG))
    assert parse_text(table.frame["id"]).isna().tolist() == [id_ is None for id_ in ids]


@pytest.mark.parametrize("kind", [pa.binary(16), pa.uuid()])
def test_uuids_are_text(tmp_path, kind):
    ids = [uuid.UUID(int=2**127 + 255), None]
    cells = [id_ and id_.bytes for id_ in ids]
    array = pa.array(cells, pa.binary(16))
    if kind != array.type:
        array = pa.ExtensionArray.from_storage(kind, array)
    frame = read(tmp_path, {"id": array}).frame
    assert frame["id"].dropna().tolist() == [str(ids[0])]


def test_floats_that_cannot_hold_their_ids_are_not_merged(tmp_path):
    table = read(tmp_path, {"id": [float(id_) for id_ in BIG] + [7.0], "title": list("abcd")})
    assert table.frame["title"].tolist() == ["d"]
    assert [problem.row for problem in table.problems] == [1, 2, 3]


def test_events_of_large_ids_find_their_items(tmp_path):
    read(tmp_path, {"id": BIG, "title": ["a", "b", "c"]})
    read(
        tmp_path,
        {
            "user_id": ["u", "u", "u"],
            "item_id": pa.array([BIG[0], None, BIG[2]], pa.int64()),
            "event_type": pa.array(["view", "view", "cart"]).dictionary_encode(),
            "timestamp": pa.array([1735862400] * 3, pa.timestamp("s", "Europe/Paris")),
        },
        "events",
    )
    catalog = read_catalog(tmp_path)
    assert catalog.events["item_id"].tolist() == [str(BIG[0]), str(BIG[2])]
    assert catalog.events["timestamp"].tolist() == [1735862400] * 2
    assert len(catalog.report.problems) == 1


def test_lists_become_several_values(tmp_path):
    table = read(
        tmp_path,
        {
            "id": [["1"], ["2"], ["3"]],
            "title": [["Oak", "stool"], ["Lamp"], None],
            "color": [["green", "gold"], [], [None, "sage"]],
            "size": pa.array([[38, 39], None, [40]], pa.large_list(pa.int32())),
            "product_type": [["Home", "Chairs"], ["Home"], []],
            "image_link": [["a.jpg", "b.jpg"], [], None],
        },
    )
    cells = table.frame.fillna("").to_dict("list")
    assert cells["id"] == ["1", "2", "3"]
    assert cells["title"] == ["Oak stool", "Lamp", ""]
    assert cells["color"] == ["green,gold", "", "sage"]
    assert cells["size"] == ["38,39", "", "40"]
    assert cells["product_type"] == ["Home > Chairs", "Home", ""]
    assert cells["image_link"] == ["a.jpg", "", ""]
    assert table.problems == ()


PICTURE = b"\xff\xd8\xff" * 100_000


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ({"a": 1}, "objects"),
        ({"bytes": PICTURE}, "objects"),
        ([{"a": 1}], "objects"),
        ([["a"]], "lists of lists"),
        ([PICTURE], "bytes"),
        (PICTURE, "bytes"),
    ],
)
def test_what_is_no_value_is_left_out_by_column(tmp_path, cell, says):
    table = read(tmp_path, {"id": ["1"], "title": ["a"], "color": [cell]})
    assert table.frame.columns.tolist() == ["id", "title"]
    (problem,) = table.problems
    assert (problem.row, problem.field) == (None, "color")
    assert says in problem.reason
    assert len(problem.reason) < 200


def test_a_map_and_several_ids_in_a_cell_are_left_out_by_column(tmp_path):
    kind = pa.map_(pa.string(), pa.string())
    table = read(
        tmp_path, {"id": ["1"], "brand": pa.array([[("a", "b")]], kind), "price": [[1, 2]]}
    )
    assert [problem.field for problem in table.problems] == ["brand", "price"]


def test_the_path_of_a_picture_with_its_bytes_is_taken(tmp_path):
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pictures = pa.array(
        [{"bytes": PICTURE, "path": "a.jpg"}, {"bytes": b"", "path": None}, None], kind
    )
    table = read(tmp_path, {"id": ["1", "2", "3"], "image": pictures})
    assert table.frame["image_link"].fillna("").tolist() == ["a.jpg", "", ""]
    assert table.mapped == (("image", "image_link"),)


@settings(max_examples=100, deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=3)), min_size=1, max_size=4)
)
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, places):
    folder = tmp_path_factory.mktemp("damaged")
    read(folder, {"id": [1, None], "title": ["a", None], "color": [["a"], None]})
    data = bytearray((folder / "items.parquet").read_bytes())
    for place, new in places:
        at = place % len(data)
        data[at : at + len(new)] = new
    (folder / "items.parquet").write_bytes(data)
    try:
        table = read_table(folder / "items.parquet", "items")
    except CatalogError:
        return
    assert len(table.frame) == len(table.rows) <= table.rows_read


def test_dates_numbers_and_flags_are_handed_on(tmp_path):
    day = datetime.date(2025, 1, 5)
    table = read(
        tmp_path,
        {
            "id": ["1", "2"],
            "title": ["a", "b"],
            "created_at": [day, None],
            "price": [decimal.Decimal("420.00"), None],
            "on_sale": [True, None],
            "stock": [3, None],
            "opens": [datetime.time(9, 30), None],
            "nothing": pa.nulls(2),
        },
    )
    assert table.frame["price"].dropna().tolist() == ["420.00"]
    assert [str(cell) for cell in table.frame["stock"]] == ["3", "<NA>"]
    assert [str(cell) for cell in table.frame["on_sale"]] == ["True", "<NA>"]
    catalog = read_catalog(tmp_path, strict=True)
    assert catalog.items["created_at"].dropna().tolist() == [1736035200]
    assert catalog.items["price"].dropna().tolist() == [420.0]
