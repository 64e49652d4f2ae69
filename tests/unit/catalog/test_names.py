"""Exports of shop systems: their columns, rows and words → ours."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.catalog.catalog import read_catalog
from newshelf.catalog.read import read_table
from newshelf.catalog.schema import EventType
from newshelf.errors import CatalogError


def write(path, rows, bom=""):
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(bom + buffer.getvalue(), encoding="utf-8", newline="")
    return path


def export(tmp_path, rows):
    return read_table(write(tmp_path / "products_export_1.csv", rows), "items")


def product(table, item):
    row = table.frame[table.frame["id"] == item].iloc[0]
    return row.where(row.notna(), None).to_dict()


SHOPIFY = [
    {
        "Handle": "oak-stool", "Title": "Oak stool", "Body (HTML)": "<p>Round</p>",
        "Vendor": "Fjord", "Product Category": "Furniture > Chairs", "Type": "Stool",
        "Published": "true", "Option1 Name": "Colour", "Option1 Value": "Oak",
        "Option2 Name": "Height", "Option2 Value": "45", "Variant SKU": "OS-1",
        "Variant Inventory Tracker": "shopify", "Variant Inventory Qty": "0",
        "Variant Inventory Policy": "deny", "Variant Price": "120.00",
        "Image Src": "pictures/stool-1.jpg", "Status": "active",
    },
    {
        "Handle": "oak-stool", "Option1 Value": "Black", "Option2 Value": "60",
        "Variant SKU": "OS-2", "Variant Inventory Tracker": "shopify",
        "Variant Inventory Qty": "4", "Variant Inventory Policy": "deny",
        "Variant Price": "130.00",
    },
    {"Handle": "oak-stool", "Image Src": "pictures/stool-2.jpg"},
    {
        "Handle": "rope-lamp", "Title": "Rope lamp", "Type": "Lamp", "Published": "true",
        "Variant Inventory Tracker": "shopify", "Variant Inventory Qty": "0",
        "Variant Inventory Policy": "deny", "Variant Price": "80", "Status": "active",
    },
    {
        "Handle": "tin-mug", "Title": "Tin mug", "Published": "true",
        "Variant Inventory Tracker": "shopify", "Variant Inventory Qty": "-2",
        "Variant Inventory Policy": "continue", "Variant Price": "9", "Status": "active",
    },
    {
        "Handle": "wax-coat", "Title": "Wax coat", "Published": "false",
        "Variant Inventory Tracker": "shopify", "Variant Inventory Qty": "7",
        "Variant Inventory Policy": "deny", "Variant Price": "300", "Status": "draft",
    },
    {"Handle": "", "Title": "No handle", "Variant Price": "1"},
]  # fmt: skip


def test_a_shopify_export_has_one_product_a_handle(tmp_path):
    table = export(tmp_path, SHOPIFY)
    assert table.frame["id"].tolist() == ["oak-stool", "rope-lamp", "tin-mug", "wax-coat"]
    assert table.rows.tolist() == [2, 5, 6, 7]
    stool = product(table, "oak-stool")
    expected = {
        "title": "Oak stool", "description": "<p>Round</p>", "brand": "Fjord",
        "product_type": "Furniture > Chairs", "price": "120.00", "color": "Oak,Black",
        "availability": "in_stock", "image_link": "pictures/stool-1.jpg",
    }  # fmt: skip
    assert stool.items() >= expected.items()
    assert product(table, "rope-lamp")["product_type"] == "Lamp"
    assert table.frame["availability"].tolist() == [
        "in_stock", "out_of_stock", "in_stock", "out_of_stock",
    ]  # fmt: skip
    assert [(problem.row, problem.field) for problem in table.problems] == [(8, "id")]
    assert table.rows_read == 5
    assert "7 rows" in table.notes[0]
    assert "further pictures left out: 1" in table.notes[0]
    mapped = dict(table.mapped)
    assert (mapped["Handle"], mapped["Body (HTML)"]) == ("id", "description")
    assert mapped["Variant Price"] == "price"
    assert mapped["Variant Inventory Qty"] == "availability"
    assert mapped["Option1 Value: Colour"] == "color"


WOO = [
    {
        "ID": "7", "Type": "variable", "SKU": "STOOL", "Name": "Oak stool", "Published": "1",
        "Short description": "Round.", "Description": r"<p>Round</p>\n<p>Oak</p>",
        "In stock?": "1", "Regular price": "", "Sale price": "",
        "Categories": "Furniture > Chairs, Sale", "Images": "stool-1.jpg, stool-2.jpg",
        "Attribute 1 name": "Color", "Attribute 1 value(s)": "Oak, Black",
    },
    {
        "ID": "8", "Type": "variation", "SKU": "STOOL-B", "Name": "Oak stool - Black",
        "Published": "1", "In stock?": "0", "Regular price": "130", "Parent": "STOOL",
        "Attribute 1 name": "Color", "Attribute 1 value(s)": "Black",
    },
    {
        "ID": "9", "Type": "simple", "SKU": "", "Name": "Rope lamp", "Published": "1",
        "Short description": "Warm light", "In stock?": "backorder", "Regular price": "99",
        "Sale price": "80",
    },
    {
        "ID": "10", "Type": "variation", "SKU": "", "Name": "Rope lamp - Long",
        "Published": "1", "Regular price": "110", "Parent": "id:9",
        "Attribute 1 name": "Size", "Attribute 1 value(s)": "Long",
    },
    {"ID": "11", "Type": "simple", "Name": "Secret", "Published": "-1", "In stock?": "1"},
    {"ID": "12", "Type": "variation", "Name": "Orphan", "Published": "1", "Parent": "GONE"},
]  # fmt: skip


def test_a_woocommerce_export_has_no_variations(tmp_path):
    path = write(tmp_path / "wc-product-export.csv", WOO, bom="\ufeff")
    table = read_table(path, "items")
    assert table.frame["id"].tolist() == ["7", "9", "11"]
    stool, lamp = product(table, "7"), product(table, "9")
    assert stool["title"] == "Oak stool"
    assert stool["description"] == "<p>Round</p>\n<p>Oak</p>"
    assert stool["product_type"] == "Furniture > Chairs"
    assert (stool["price"], stool["color"]) == ("130", "Oak,Black")
    assert stool["image_link"] == "stool-1.jpg"
    assert (lamp["description"], lamp["price"], lamp["size"]) == ("Warm light", "80", "Long")
    assert product(table, "11")["availability"] == "out_of_stock"
    assert [problem.row for problem in table.problems] == [7]
    (tmp_path / "stool-1.jpg").write_bytes(b"JPEG")
    catalog = read_catalog(path)
    assert catalog.folder == tmp_path
    assert catalog.items["availability"].tolist() == ["in_stock", "backorder", "out_of_stock"]
    assert catalog.image_path(0) == tmp_path / "stool-1.jpg"


@pytest.mark.parametrize(
    ("header", "ours"),
    [
        ("USER_ID,ITEM_ID,EVENT_TYPE,TIMESTAMP", {}),
        ("user_pseudo_id,item_id,event_name,event_timestamp", {"event_name": "event_type"}),
        (" User-ID , product_id,Event, timestamp", {"product_id": "item_id"}),
    ],
)
def test_events_of_other_systems(tmp_path, header, ours):
    (tmp_path / "items.csv").write_text("id,title\n1,Mug\n")
    words = ["View", "select_item", "add_to_wishlist", "Add to cart", "PURCHASE"]
    lines = [f"u1,1,{word},173586240{n}" for n, word in enumerate(words)]
    (tmp_path / "events.csv").write_text("\n".join([header, *lines]) + "\n")
    catalog = read_catalog(tmp_path, strict=True)
    assert catalog.events["event_type"].tolist() == list(EventType)
    mapped = dict(read_table(tmp_path / "events.csv", "events").mapped)
    assert mapped.items() >= ours.items()
    assert [name for name in mapped if name.endswith(": Add to cart")]


def test_the_visitor_stands_in_for_a_user_who_is_not_logged_in(tmp_path):
    path = write(
        tmp_path / "events.csv",
        [
            {"user_pseudo_id": "p1", "user_id": "", "item_id": "1", "event_name": "view_item"},
            {"user_pseudo_id": "p2", "user_id": "u2", "item_id": "1", "event_name": "zoom"},
        ],
    )
    frame = read_table(path, "events").frame
    assert frame["user_id"].tolist() == ["p1", "u2"]
    assert frame["event_type"].tolist() == ["view", "zoom"]


def test_a_name_of_ours_comes_before_another_systems(tmp_path):
    row = {"handle": "h", "ID": "1", "id": "2", "Name": "n", "title": "t", "sku": "s"}
    table = export(tmp_path, [row])
    assert table.mapped == ()
    assert table.frame.to_dict("records") == [row]


@pytest.mark.parametrize("id_", ["4.00638E+12", "1,74599812345679E+18", "-1.5e+03"])
def test_ids_that_a_spreadsheet_has_rounded_are_not_merged(tmp_path, id_):
    rows = [{"id": id_, "title": "a"}, {"id": id_, "title": "b"}, {"id": "12.5E+9x", "title": "c"}]
    table = export(tmp_path, rows)
    assert table.frame["title"].tolist() == ["c"]
    assert [problem.row for problem in table.problems] == [2, 3]
    assert all("has lost digits" in problem.reason for problem in table.problems)


def test_columns_without_a_name_or_with_one_again_and_rows_without_a_cell(tmp_path):
    text = "id,highlight,,,highlight\n1,Mug,,note,blue\n2,Vase,,,\n,,,,\n,,,,\n"
    (tmp_path / "items.csv").write_text(text)
    table = read_table(tmp_path / "items.csv", "items")
    assert table.frame.to_dict("list") == {"id": ["1", "2"], "highlight": ["Mug", "Vase"]}
    assert "column 4" in table.notes[0]
    assert "column 5" in table.notes[1]
    assert "'highlight'" in table.notes[1]


SHOPIFY_NAMES = sorted({name for row in SHOPIFY for name in row})
WOO_NAMES = sorted({name for row in WOO for name in row})
CELLS = st.sampled_from(["", "1", "variation", "true", "draft", "id:1", "STOOL", "Color", "a, b"])


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    names=st.sampled_from([SHOPIFY_NAMES, WOO_NAMES]),
    needed=st.sampled_from(
        [{"Handle", "Option1 Value", "ID", "Type", "SKU", "Name"}, {"Handle", "ID", "Title"}]
    ),
)
def test_any_cells_of_an_export_are_read(tmp_path_factory, data, names, needed):
    kept = [name for name in names if name in needed or data.draw(st.booleans())]
    row = st.fixed_dictionaries(dict.fromkeys(kept, CELLS))
    rows = data.draw(st.lists(row, min_size=1, max_size=6))
    table = read_table(write(tmp_path_factory.mktemp("any") / "x.csv", rows), "items")
    assert len(table.frame) == len(table.rows) <= table.rows_read <= len(rows)
    if len(needed) > 3:
        assert table.frame["id"].is_unique


def test_a_header_that_is_nearly_an_exports_is_read_as_it_is(tmp_path):
    row = {"MyHandle": "a", "Option1 Value": "b", "Type": "c", "SKU": "d", "Name": "e"}
    table = export(tmp_path, [row])
    assert table.frame.columns.tolist() == ["MyHandle", "Option1 Value", "Type", "SKU", "title"]


def test_a_file_that_is_no_catalogue_names_its_columns(tmp_path):
    with pytest.raises(CatalogError, match=r"no column 'id'.*it has a, b"):
        read_catalog(write(tmp_path / "x.csv", [{"a": "1", "b": "2"}]))
