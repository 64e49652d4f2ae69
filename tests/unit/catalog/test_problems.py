"""Each kind of problem is reported with its file, row, field and reason."""

import pandas as pd
import pytest

from newshelf.catalog.catalog import read_catalog
from newshelf.catalog.report import Problem
from newshelf.errors import CatalogError

# table, position, field, new value → reason; the row is left out.
BAD_ROWS = [
    ("items", 1, "id", "00123", "'00123' is the id of an earlier row too"),
    ("items", 1, "id", "", "the id is missing"),
    ("items", 1, "id", "  ", "the id is missing"),
    ("items", 1, "id", "a\x00b", r"'a\x00b' must have no control characters"),
    ("items", 1, "title", "", "there is neither a title nor an image_link"),
    (
        "items", 2, "image_link", "images/gone.jpg",
        "there is no file 'images/gone.jpg' in the catalogue's folder, and there is no title",
    ),
    ("events", 1, "user_id", "", "the user_id is missing"),
    ("events", 1, "user_id", "u\x1f7", r"'u\x1f7' must have no control characters"),
    ("events", 1, "item_id", "", "the item_id is missing"),
    ("events", 1, "item_id", "x9", "there is no item 'x9' in the items"),
    ("events", 1, "event_type", "", "the event_type is missing"),
    ("events", 1, "event_type", "juggle", "'juggle' is not view, click"),
    ("events", 1, "timestamp", "", "the timestamp is missing"),
    ("events", 1, "timestamp", "9999999999", "'9999999999' is after the year 2099"),
    ("events", 1, "timestamp", "-5", "'-5' is too early for a shop"),
    ("events", 1, "timestamp", "45000.5", "'45000.5' is too early for a shop"),
    ("events", 1, "timestamp", "noon", "'noon' is not a time: give epoch seconds"),
    ("events", 1, "timestamp", "now", "'now' is not a time"),
    ("events", 1, "timestamp", "0000-00-00 00:00:00", "is not a time"),
    ("events", 1, "timestamp", "01/05/2025", "could have its day or its month first"),
    ("baskets", 0, "item_id", "x9", "there is no item 'x9' in the items"),
    ("baskets", 0, "basket_id", "", "the basket_id is missing"),
]  # fmt: skip
BAD_CELLS = [
    ("price", "-3", "'-3' is negative"),
    ("price", "cheap", "'cheap' is not one amount"),
    ("price", "inf", "'inf' is not one amount"),
    ("price", "1e400", "'1e400' is more than any product costs"),
    ("price", "1,299", "'1,299' is either 1.299 or 1299"),
    ("price", "19.99 - 29.99", "is not one amount"),
    ("availability", "maybe", "'maybe' is not in_stock, out_of_stock, preorder, backorder"),
    ("created_at", "noon", "'noon' is not a time"),
    ("created_at", "9999-12-31", "is after the year 2099"),
]


@pytest.mark.parametrize(("table", "place", "field", "value", "reason"), BAD_ROWS)
@pytest.mark.parametrize("extension", [".csv", ".tsv"])
def test_a_row_without_what_it_needs_is_left_out(
    shop, save, table, place, field, value, reason, extension
):
    shop[table][place][field] = value
    if table == "items":  # so that nothing else refers to the row
        for other in ("events", "baskets"):
            shop[other] = [row for row in shop[other] if row["item_id"] == "00123"]
    folder = save(shop, extension)
    catalog = read_catalog(folder)
    [problem] = catalog.report.problems
    file = f"{table}{extension}"
    assert (problem.file, problem.row, problem.field) == (file, place + 2, field)
    assert problem.lost == "row"
    assert reason in problem.reason
    frame = getattr(catalog, table)
    assert len(frame) == len(shop[table]) - 1
    assert catalog.report.rows_kept[f"{table}{extension}"] == len(frame)
    with pytest.raises(CatalogError, match="refused") as caught:
        read_catalog(folder, strict=True)
    assert reason in caught.value.message


@pytest.mark.parametrize(("field", "value", "reason"), BAD_CELLS)
def test_an_optional_cell_costs_no_product(shop, save, field, value, reason):
    shop["items"][0][field] = value
    catalog = read_catalog(save(shop))
    [problem] = catalog.report.problems
    assert (problem.row, problem.field, problem.lost) == (2, field, "cell")
    assert reason in problem.reason
    assert len(catalog.items) == 3
    assert pd.isna(catalog.items[field][0])
    assert len(catalog.events) == 4


def test_rows_of_parquet_are_counted_from_one(shop, save):
    shop["events"][3]["item_id"] = "x9"
    problem = read_catalog(save(shop, ".parquet")).report.problems[0]
    assert (problem.file, problem.row, problem.field) == ("events.parquet", 4, "item_id")


def test_numbers_of_parquet_are_checked_too(tmp_path):
    frame = {"id": ["1", "2"], "title": ["a", "b"], "price": [-1.0, float("inf")]}
    pd.DataFrame(frame).to_parquet(tmp_path / "items.parquet")
    catalog = read_catalog(tmp_path)
    assert catalog.items["price"].isna().all()
    assert [str(problem) for problem in catalog.report.problems] == [
        "items.parquet row 1, price: '-1.0' is negative",
        "items.parquet row 2, price: 'inf' is more than any product costs",
    ]


def test_no_usable_item_says_why_in_every_file(tmp_path):
    (tmp_path / "items.csv").write_text("id,title\n,Mug\n1,\n")
    (tmp_path / "baskets.csv").write_text("basket_id,item_id\nb,1\n")
    with pytest.raises(CatalogError, match="no usable item") as caught:
        read_catalog(tmp_path)
    assert "the id is missing" in caught.value.message
    assert "image_link" in caught.value.message
    assert "the item '1'" in caught.value.message


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("images/gone.jpg", "no file 'images/gone.jpg'"),
        ("images", "'images' is not a file"),
        ("images/void.jpg", "'images/void.jpg' is an empty file"),
        ("images/way-out.jpg", "'images/way-out.jpg' leads out of"),
        ("elsewhere/secret.jpg", "'elsewhere/secret.jpg' leads out of"),
        ("../secret.jpg", "'../secret.jpg' must be a path relative"),
        ("/etc/hostname", "'/etc/hostname' must be a path relative"),
        ("https://shop.example/1.jpg", "'https://shop.example/1.jpg' is a URL"),
    ],
)
def test_a_bad_picture_is_dropped_and_its_titled_row_kept(shop, save, link, reason):
    shop["items"][0]["image_link"] = link
    folder = save(shop)
    (folder.parent / "secret.jpg").write_bytes(b"not yours")
    (folder / "images" / "void.jpg").touch()
    (folder / "images" / "way-out.jpg").symlink_to(folder.parent / "secret.jpg")
    (folder / "elsewhere").symlink_to(folder.parent, target_is_directory=True)
    catalog = read_catalog(folder)
    [problem] = catalog.report.problems
    assert problem == Problem("items.csv", 2, "image_link", problem.reason, "cell")
    assert reason in problem.reason
    assert len(catalog.items) == 3
    assert catalog.image_path(0) is None


def test_a_symlink_inside_the_folder_is_fine(shop, save):
    folder = save(shop)
    (folder / "images" / "same.jpg").symlink_to("ring.jpg")
    shop["items"][0]["image_link"] = "images/same.jpg"
    catalog = read_catalog(save(shop), strict=True)
    assert catalog.image_path(0) == folder / "images" / "same.jpg"


def test_ragged_rows_are_left_out(tmp_path):
    (tmp_path / "items.csv").write_text("id,title\n1,Mug\n2\n3,Vase,blue\n4,Lamp\n")
    report = read_catalog(tmp_path).report
    short, long = report.problems
    assert (short.file, short.row, short.field) == ("items.csv", 3, None)
    assert short.reason.startswith("1 fields")
    assert (long.file, long.row, long.field) == ("items.csv", 4, None)
    assert long.reason.startswith("3 fields")
    assert (report.rows_read, report.rows_kept) == ({"items.csv": 4}, {"items.csv": 2})


def rename(rows, old, new):
    return [{new if name == old else name: cell for name, cell in row.items()} for row in rows]


def drop(rows, *names):
    return [{name: cell for name, cell in row.items() if name not in names} for row in rows]


def test_a_missing_column_names_the_nearest(shop, save):
    shop["events"] = rename(shop["events"], "item_id", "itemID")
    with pytest.raises(CatalogError, match="no column 'item_id'") as caught:
        read_catalog(save(shop))
    assert "user_id, itemID, event_type, timestamp" in caught.value.message
    assert "'itemID'" in caught.value.message


def test_a_missing_event_type_says_what_to_add(shop, save):
    shop["events"] = drop(shop["events"], "event_type")
    with pytest.raises(CatalogError, match=r"event_type.*view, click.*purchase"):
        read_catalog(save(shop))


def test_neither_title_nor_picture_column(shop, save):
    shop["items"] = drop(shop["items"], "title", "image_link")
    with pytest.raises(CatalogError, match="'title' nor 'image_link'"):
        read_catalog(save(shop))


def test_a_nearly_known_column_is_kept_and_mentioned(shop, save):
    shop["items"] = rename(shop["items"], "color", "Colour")
    catalog = read_catalog(save(shop), strict=True)
    assert catalog.items.loc[0, "Colour"] == "Green"
    assert catalog.report.notes == (
        "items.csv: the column 'Colour' is kept as it is; rename it if 'color' is meant",
    )


def test_no_kind_of_problem_hides_another(shop, save):
    shop["items"] = [dict(shop["items"][1], id=f"i{n}", price="cheap") for n in range(30)]
    shop["events"] = [
        dict(shop["events"][0], item_id=f"i{n % 30}", event_type="juggle") for n in range(100)
    ]
    del shop["baskets"]
    folder = save(shop)
    report = read_catalog(folder).report
    groups = [
        (one.first.file, one.first.field, len(one.rows), one.first.row) for one in report.groups()
    ]
    assert groups == [("items.csv", "price", 30, 2), ("events.csv", "event_type", 100, 2)]
    with pytest.raises(CatalogError) as caught:
        read_catalog(folder, strict=True)
    for message in (report.summary(), caught.value.message):
        assert "price: 30 cells left out, such as row 2: 'cheap'" in message
        assert "event_type: 100 rows left out, such as row 2: 'juggle'" in message
        assert "100 rows read" in message
    assert report.unusable()[0].startswith("events.csv: 100 rows read, none usable: event_type")


def test_a_report_shows_cells_short_and_without_control_characters(shop, save):
    shop["items"][0]["price"] = "\x1b[31m" + "9" * 5000
    shop["items"][1]["availability"] = "so\nso\u202e"
    summary = read_catalog(save(shop)).report.summary()
    assert len(summary) < 800
    assert r"\x1b[31m999" in summary
    assert r"so\nso\u202e" in summary


def test_as_json_a_report_has_counts_examples_and_rows(shop, save):
    shop["events"][1]["event_type"] = shop["events"][3]["event_type"] = "juggle"
    found = read_catalog(save(shop)).report.as_json()
    assert found["files"]["events.csv"] == {"rows_read": 4, "rows_kept": 2, "mapped": {}}
    [problem] = found["problems"]
    assert problem["reason"].startswith("'juggle'")
    assert {**problem, "reason": ""} == {
        "file": "events.csv", "field": "event_type", "lost": "row", "count": 2, "reason": "",
        "rows": [3, 5],
    }  # fmt: skip
    assert found["notes"] == []


def test_events_without_a_usable_row_are_none(shop, save):
    shop["events"] = [dict(shop["events"][0], item_id="x9")]
    catalog = read_catalog(save(shop))
    assert catalog.events is None
    assert catalog.report.rows_kept["events.csv"] == 0
