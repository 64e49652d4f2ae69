"""Each kind of problem is reported with its file, row, field and reason."""

import pandas as pd
import pytest

from newshelf.catalog import Problem, read_catalog
from newshelf.errors import CatalogError

# table, position, field, new value → reason; the row is left out unless kept.
BAD_CELLS = [
    ("items", 1, "id", "00123", "'00123' is the id of an earlier row too"),
    ("items", 1, "id", "", "the id is missing"),
    ("items", 1, "id", "  ", "the id is missing"),
    ("items", 1, "title", "", "there is neither a title nor an image_link"),
    ("items", 1, "price", "-3", "'-3' is negative"),
    ("items", 1, "price", "cheap", "'cheap' is not a number: write the amount, such as 19.99"),
    ("items", 1, "price", "inf", "'inf' is not a number: write the amount, such as 19.99"),
    (
        "items", 1, "price", "12,50",
        "'12,50' is not a number: write it with a decimal point, such as 1299.50",
    ),
    (
        "items", 1, "availability", "maybe",
        "'maybe' is not in_stock, out_of_stock, preorder or backorder",
    ),
    (
        "items", 1, "created_at", "2025-01-01",
        "'2025-01-01' is not a time in epoch seconds, such as 1735689600",
    ),
    (
        "items", 2, "image_link", "images/gone.jpg",
        "there is no file 'images/gone.jpg' in the catalogue's folder, and there is no title",
    ),
    ("events", 1, "user_id", "", "the user_id is missing"),
    ("events", 1, "item_id", "", "the item_id is missing"),
    ("events", 1, "item_id", "x9", "there is no item 'x9' in the items"),
    ("events", 1, "event_type", "", "the event_type is missing"),
    (
        "events", 1, "event_type", "buy",
        "'buy' is not view, click, favourite, cart or purchase",
    ),
    ("events", 1, "timestamp", "", "the timestamp is missing"),
    (
        "events", 1, "timestamp", "1735689600000",
        "1735689600000 looks like milliseconds: give epoch seconds, such as 1735689600",
    ),
    (
        "events", 1, "timestamp", "1735689600000000",
        "1735689600000000 looks like microseconds: give epoch seconds, such as 1735689600",
    ),
    (
        "events", 1, "timestamp", "9999999999",
        "9999999999 is after the year 2099: give epoch seconds, such as 1735689600",
    ),
    ("events", 1, "timestamp", "-5", "-5 is before 1970: give epoch seconds, such as 1735689600"),
    (
        "events", 1, "timestamp", "noon",
        "'noon' is not a time in epoch seconds, such as 1735689600",
    ),
    ("baskets", 0, "item_id", "x9", "there is no item 'x9' in the items"),
    ("baskets", 0, "basket_id", "", "the basket_id is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "place", "field", "value", "reason"), BAD_CELLS)
@pytest.mark.parametrize("extension", [".csv", ".tsv"])
def test_a_bad_cell(shop, save, table, place, field, value, reason, extension):
    shop[table][place][field] = value
    if table == "items":  # so that nothing else refers to the row
        for other in ("events", "baskets"):
            shop[other] = [row for row in shop[other] if row["item_id"] == "00123"]
    folder = save(shop, extension)
    catalog = read_catalog(folder)
    expected = Problem(f"{table}{extension}", place + 2, field, reason)
    assert catalog.report.problems == (expected,)
    frame = getattr(catalog, table)
    assert len(frame) == len(shop[table]) - 1
    assert catalog.report.rows_kept[f"{table}{extension}"] == len(frame)
    with pytest.raises(CatalogError, match="refused") as caught:
        read_catalog(folder, strict=True)
    assert str(expected) in str(caught.value)


def test_rows_of_parquet_are_counted_from_one(shop, save):
    shop["events"][3]["item_id"] = "x9"
    problem = read_catalog(save(shop, ".parquet")).report.problems[0]
    assert (problem.file, problem.row, problem.field) == ("events.parquet", 4, "item_id")


def test_numbers_of_parquet_are_checked_too(tmp_path):
    frame = {"id": ["1", "2"], "title": ["a", "b"], "price": [-1.0, float("inf")]}
    pd.DataFrame(frame).to_parquet(tmp_path / "items.parquet")
    pd.DataFrame({"basket_id": ["1"], "item_id": ["1"]}).to_parquet(tmp_path / "baskets.parquet")
    with pytest.raises(CatalogError, match="no usable item") as caught:
        read_catalog(tmp_path)
    assert "items.parquet row 1, price: '-1.0' is negative" in str(caught.value)
    assert "items.parquet row 2, price: 'inf' is not a number" in str(caught.value)
    assert "baskets.parquet row 1, item_id: the item '1' was left out" in str(caught.value)


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("images/gone.jpg", "there is no file 'images/gone.jpg' in the catalogue's folder"),
        ("images", "'images' is not a file"),
        ("images/void.jpg", "'images/void.jpg' is an empty file"),
        ("images/way-out.jpg", "'images/way-out.jpg' leads out of the catalogue's folder"),
        ("elsewhere/secret.jpg", "'elsewhere/secret.jpg' leads out of the catalogue's folder"),
        (
            "../secret.jpg",
            "'../secret.jpg' must be a path relative to the catalogue's folder, without '..'",
        ),
        (
            "/etc/hostname",
            "'/etc/hostname' must be a path relative to the catalogue's folder, without '..'",
        ),
        (
            "https://shop.example/1.jpg",
            "'https://shop.example/1.jpg' is a URL:"
            " put the picture into the folder and give its path",
        ),
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
    assert catalog.report.problems == (Problem("items.csv", 2, "image_link", reason),)
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
    assert report.problems == (
        Problem("items.csv", 3, None, "1 fields where the header has 2"),
        Problem("items.csv", 4, None, "3 fields where the header has 2"),
    )
    assert (report.rows_read, report.rows_kept) == ({"items.csv": 4}, {"items.csv": 2})


def rename(rows, old, new):
    return [{new if name == old else name: cell for name, cell in row.items()} for row in rows]


def drop(rows, *names):
    return [{name: cell for name, cell in row.items() if name not in names} for row in rows]


def test_a_missing_column_names_the_nearest(shop, save):
    shop["events"] = rename(shop["events"], "item_id", "itemID")
    with pytest.raises(CatalogError, match="no column 'item_id'") as caught:
        read_catalog(save(shop))
    assert "it has user_id, itemID, event_type, timestamp" in caught.value.message
    assert "Is 'itemID' the one to rename?" in caught.value.message


def test_a_missing_event_type_says_what_to_add(shop, save):
    shop["events"] = drop(shop["events"], "event_type")
    with pytest.raises(CatalogError, match=r"with one of view, click.*write purchase"):
        read_catalog(save(shop))


def test_neither_title_nor_picture_column(shop, save):
    shop["items"] = drop(shop["items"], "title", "image_link")
    with pytest.raises(CatalogError, match="neither a column 'title' nor 'image_link'"):
        read_catalog(save(shop))


def test_a_nearly_known_column_is_kept_and_mentioned(shop, save):
    shop["items"] = rename(shop["items"], "color", "Colour")
    catalog = read_catalog(save(shop), strict=True)
    assert catalog.items.loc[0, "Colour"] == "Green"
    assert catalog.report.notes == (
        "items.csv: the column 'Colour' is kept as it is; rename it if 'color' is meant",
    )


def test_strict_shows_the_first_ten_and_the_count(tmp_path):
    rows = "".join(f"{number},Mug,-1\n" for number in range(23))
    (tmp_path / "items.csv").write_text(f"id,title,price\nx,Vase,2\n{rows}")
    assert len(read_catalog(tmp_path).items) == 1
    with pytest.raises(CatalogError) as caught:
        read_catalog(tmp_path, strict=True)
    message = caught.value.message
    assert "23 problems:" in message
    assert message.count("is negative") == 10
    assert "… and 13 more" in message


def test_events_without_a_usable_row_are_none(shop, save):
    shop["events"] = [dict(shop["events"][0], item_id="x9")]
    catalog = read_catalog(save(shop))
    assert catalog.events is None
    assert catalog.report.rows_kept["events.csv"] == 0
