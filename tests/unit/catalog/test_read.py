"""The same shop in every format, and files that cannot be read."""

import csv
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.catalog.catalog import read_catalog
from newshelf.catalog.read import read_table
from newshelf.catalog.schema import BASKET_COLUMNS, EVENT_COLUMNS, ITEM_COLUMNS, unguard_formula
from newshelf.errors import CatalogError


def test_every_format_gives_the_same_catalogue(shop, save, tmp_path):
    catalogs = []
    for extension in (".parquet", ".csv", ".tsv"):
        folder = save(shop, extension)
        catalogs.append(read_catalog(folder, strict=True))
        for path in folder.glob(f"*{extension}"):
            path.unlink()
    first = catalogs[0]
    for other in catalogs[1:]:
        for name in ("events", "baskets"):
            pd.testing.assert_frame_equal(getattr(first, name), getattr(other, name))
        known = list(ITEM_COLUMNS)
        pd.testing.assert_frame_equal(first.items[known], other.items[known])
        assert first.products() == other.products()
        assert first.items["mood"].fillna("").tolist() == other.items["mood"].fillna("").tolist()


def test_types_and_order(shop, save):
    catalog = read_catalog(save(shop))
    assert catalog.name == "shop"
    assert tuple(catalog.items.columns) == (*ITEM_COLUMNS, "mood")
    assert catalog.items["id"].tolist() == ["00123", "b-2", "NA"]
    assert catalog.item_index == {"00123": 0, "b-2": 1, "NA": 2}
    assert catalog.items["description"].tolist() == ["Green, with veins", None, None]
    assert catalog.items["price"].dtype == np.float64
    np.testing.assert_array_equal(catalog.items["price"], [199.5, np.nan, 0])
    assert catalog.items["created_at"].tolist()[0] == 1735689600
    assert catalog.items["created_at"].isna().tolist() == [False, True, True]
    assert tuple(catalog.events.columns) == EVENT_COLUMNS
    assert catalog.events["item_id"].tolist() == ["00123", "NA", "b-2", "NA"]
    assert catalog.events["user_id"].tolist() == ["7", "7", "7", "008"]
    assert tuple(catalog.baskets.columns) == BASKET_COLUMNS
    assert catalog.image_path(0).is_file()
    assert catalog.image_path(1) is None
    assert catalog.products()[1].price is None
    assert catalog.report.rows_read == {"items.csv": 3, "events.csv": 4, "baskets.csv": 2}


def test_absent_columns_are_there_and_empty(tmp_path):
    (tmp_path / "items.csv").write_text("id,title\n1,Mug\n")
    catalog = read_catalog(tmp_path, strict=True)
    assert set(ITEM_COLUMNS) <= set(catalog.items.columns)
    assert catalog.items.loc[0, "brand"] is None
    assert catalog.events is None
    assert catalog.baskets is None


def test_parquet_ids_that_are_numbers_become_text(tmp_path):
    pd.DataFrame({"id": [1.0, 20.0], "title": ["Mug", "Vase"]}).to_parquet(
        tmp_path / "items.parquet"
    )
    events = {"user_id": [5], "item_id": [20], "event_type": ["view"]}
    at = pd.Timestamp("2025-01-01T01:00:00+01:00")
    pd.DataFrame({**events, "timestamp": [at]}).to_parquet(tmp_path / "events.parquet")
    catalog = read_catalog(tmp_path, strict=True)
    assert catalog.items["id"].tolist() == ["1", "20"]
    assert catalog.events.loc[0].tolist() == ["5", "20", "view", 1735689600]


def test_merchant_feed_spellings_are_read(tmp_path):
    (tmp_path / "items.csv").write_text(
        "id,title,price,availability\n1,Mug,12.50 EUR,in stock\n2,Vase,7 EUR,Out Of Stock\n"
        "3,Lamp,9 USD,preorder\n"
    )
    catalog = read_catalog(tmp_path)
    np.testing.assert_array_equal(catalog.items["price"], [12.5, 7.0, np.nan])
    assert catalog.items["availability"].tolist() == ["in_stock", "out_of_stock", "preorder"]
    assert [str(problem) for problem in catalog.report.problems] == [
        "items.csv row 4, price: '9 USD' is in USD, and most of the prices are in EUR"
    ]


def test_a_byte_order_mark_and_blank_lines_are_no_problem(tmp_path):
    (tmp_path / "items.csv").write_bytes("\ufeffid,title\n\n1,Mug\n\n".encode())
    assert read_catalog(tmp_path, strict=True).items["id"].tolist() == ["1"]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("items.csv", b"", "is empty"),
        ("items.csv", b"\n\n", "blank lines only"),
        ("items.csv", b"id,title,id\n1,Mug,2\n", "column 'id'"),
        ("items.csv", b'id,title\n1,"Mug\n', "no usable item"),
        ("items.parquet", b"PAR1 or so", "not a parquet file"),
        ("items.csv", b"id,title\n", "no usable item"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CatalogError, match=says):
        read_catalog(tmp_path)


def test_two_files_of_one_table_are_refused(shop, save):
    save(shop, ".csv")
    with pytest.raises(CatalogError, match=r"items\.parquet and items\.csv"):
        read_catalog(save(shop, ".parquet"))


def test_a_folder_without_items_says_what_it_holds(tmp_path):
    (tmp_path / "products.csv").write_text("id,title\n")
    with pytest.raises(CatalogError, match=r"items\.csv.*it holds products\.csv"):
        read_catalog(tmp_path)
    with pytest.raises(CatalogError, match="there is no folder"):
        read_catalog(tmp_path / "nowhere")


CELLS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\t\n\r;'), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5),
    extension=st.sampled_from([".csv", ".tsv"]),
)
def test_odd_text_survives(tmp_path_factory, rows, extension):
    path = tmp_path_factory.mktemp("odd") / f"items{extension}"
    starts = []
    with path.open("w+", encoding="utf-8", newline="") as handle:
        delimiter = "," if extension == ".csv" else "\t"
        writer = csv.writer(handle, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerow(["id", "title"])
        for row in rows:
            handle.seek(0)
            starts.append(len(re.findall(r"\r\n|\r|\n", handle.read())) + 1)
            writer.writerow(row)
    table = read_table(path, "items")
    assert list(table.frame.itertuples(index=False, name=None)) == [
        (unguard_formula(item_id), title) for item_id, title in rows
    ]
    assert table.rows.tolist() == starts


def test_rows_are_numbered_by_line_after_a_line_break_in_a_cell(tmp_path):
    (tmp_path / "items.csv").write_text('id,title\n1,"two\nlines"\n2,Mug\n2,Vase\n')
    problem = read_catalog(tmp_path).report.problems[0]
    assert (problem.row, problem.field) == (5, "id")
