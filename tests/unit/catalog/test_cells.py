"""Cells as shops, databases and spreadsheets write them."""

import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.catalog.catalog import read_catalog
from newshelf.catalog.checks import PictureFolder
from newshelf.catalog.columns import (
    parse_availability,
    parse_id,
    parse_price,
    parse_seconds,
    parse_text,
)
from newshelf.catalog.schema import split_values

NEW_YEAR = 1735689600


def read_one(parse, cell, dtype=object):
    values, reasons = parse(pd.Series([cell], dtype=dtype))
    return tuple(None if pd.isna(found[0]) else found[0] for found in (values, reasons))


@pytest.mark.parametrize(
    "cell",
    [
        "1735689600", "1735689600.9", "1735689600000", "1735689600000000", "1735689600000000000",
        "1.7356896e9", "2025-01-01", "20250101", "2025-01-01 00:00:00", "2025-01-01T00:00:00Z",
        "2025-01-01T02:00:00+02:00", "2024-12-31 19:00:00 -0500", "2025-01-01 00:00:00 UTC",
        "2025-01-01T00:00:00.123456Z", "2025-01-01T00:00:00,5Z", "2025/01/01 00:00", "2025-1-1",
        "01.01.2025 00:00:00", "1.1.2025", " 2025-01-01T00:00Z ", NEW_YEAR, float(NEW_YEAR),
        Decimal(NEW_YEAR), datetime.date(2025, 1, 1), datetime.datetime(2025, 1, 1),
        datetime.datetime(2025, 1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
        pd.Timestamp("2025-01-01"), np.datetime64("2025-01-01T00:00:00"), b"2025-01-01",
    ],
)  # fmt: skip
def test_times_are_read(cell):
    assert read_one(parse_seconds, cell) == (NEW_YEAR, None)


@pytest.mark.parametrize(
    "cell",
    [
        "noon", "now", "today", "0000-00-00", "2025-13-01", "2025-02-30", "0001-01-01", "nan",
        "inf", "1e400", "9999-12-31", "5e12", "01/05/2025", "5-1-2025", True, "1_735_689_600",
        [NEW_YEAR], datetime.timedelta(days=1), 10**30, -1,
    ],
)  # fmt: skip
def test_what_is_no_time_says_so(cell):
    value, reason = read_one(parse_seconds, cell)
    assert value is None
    assert "time" in reason or "day" in reason or "2099" in reason or "early" in reason


def test_columns_of_times_are_read_whole():
    naive = pd.Series(pd.to_datetime(["2025-01-01", None]))
    for column in (naive, naive.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")):
        values, reasons = parse_seconds(column)
        assert values.tolist() == [NEW_YEAR, pd.NA]
        assert reasons.isna().all()
    days = pd.Series([20250101, 20250102])
    assert parse_seconds(days).values.tolist() == [NEW_YEAR, NEW_YEAR + 86_400]
    # Unlike days, these are not all dates.
    assert parse_seconds(pd.Series([20250101, 20250199])).values.tolist() == [20250101, 20250199]


def test_an_early_time_is_a_mistake_among_later_ones_only():
    values, reasons = parse_seconds(pd.Series([0, NEW_YEAR, NEW_YEAR]))
    assert values.isna().tolist() == [True, False, False]
    assert "too early" in reasons[0]
    assert parse_seconds(pd.Series([0, 1, 2])).values.tolist() == [0, 1, 2]


def test_events_that_are_all_early_are_noted(shop, save):
    for row in shop["events"]:
        row["timestamp"] = "45000"
    catalog = read_catalog(save(shop))
    assert len(catalog.events) == 4
    assert any("before 1990" in note for note in catalog.report.notes)


@pytest.mark.parametrize(
    ("cell", "amount"),
    [
        ("19.99", 19.99), ("19.99 usd", 19.99), ("USD 19.99", 19.99), ("$19.99", 19.99),
        ("€19,99", 19.99), ("19,99 €", 19.99), ("19.99EUR", 19.99), ("1,299.00 USD", 1299),
        ("1.299,00 €", 1299), ("1 299,00", 1299), ("1\u202f299,00 €", 1299), ("1'299.00 CHF", 1299),
        ("1’299.–", 1299), ("19,- kr.", 19), ("￥199", 199), ("１９.９９", 19.99), ("Rs. 499", 499),
        ("1,49,999.00", 149999), ("1,299,000", 1299000), ("¥1,299", 1299), ("0,125", 0.125),
        ("US$ 5", 5), ("$5 CAD", 5), ("+5", 5), (".99", 0.99), ("19.", 19), ("1e3", 1000), ("0", 0),
        ("1234.567", 1234.567), (Decimal("1.299"), 1.299), (3, 3), (np.float32(0.5), 0.5),
        (b"7.50", 7.5),
    ],
)  # fmt: skip
def test_prices_are_read_where_they_can_mean_one_amount(cell, amount):
    assert read_one(parse_price, cell) == (pytest.approx(amount), None)


@pytest.mark.parametrize(
    "cell",
    [
        "1,299", "1.299", "1,299 EUR", "19.99 - 29.99", "From 19.99", "free", "N/A", "nan", "-",
        "TBD", "inf", "-inf", "1e400", "-3", "-$3", "$-3", "(3.00)", "19.99-", "5 pcs", "€5 USD",
        "1.2.3", "1_000", "19€99", "19⁹⁹", "3 for 10", "5 %", "9" * 80, float("inf"), -0.01, True,
        10**400, [5], "12:50",
    ],
)  # fmt: skip
def test_what_is_no_single_amount_costs_the_cell(cell):
    value, reason = read_one(parse_price, cell)
    assert value is None
    assert reason


@pytest.mark.parametrize(
    ("others", "amounts"),
    [
        (["19.99"], [1299, 1.299]),
        (["19,99"], [1.299, 1299]),
        (["1.299,00 €"], [1.299, 1299]),
        (["19.99", "19,99"], [None, None]),
        (["20", "1 299"], [None, None]),
    ],
)
def test_other_cells_say_what_the_decimal_mark_is(others, amounts):
    values, reasons = parse_price(pd.Series(["1,299", "1.299", *others]))
    assert [None if pd.isna(value) else value for value in values[:2]] == amounts
    assert reasons.isna().tolist()[:2] == [amount is not None for amount in amounts]


def test_the_most_frequent_currency_counts():
    cells = ["5 CAD", "$6", "CA$7", "8", "9 EUR", "9 EUR"]
    values, reasons = parse_price(pd.Series(cells))
    assert values.fillna(0).tolist() == [5, 6, 7, 8, 0, 0]
    assert "EUR" in reasons[4]
    assert "CAD" in reasons[4]


@pytest.mark.parametrize(
    ("word", "cells"),
    [
        (
            "in_stock",
            [
                "in stock", "In_Stock", "instock", "InStock", "https://schema.org/InStock",
                "http://schema.org/LimitedAvailability", "available", "limited availability",
                "true", True, np.True_, 1, 1.0, "1", "1.0", "yes", "Y", "12", 12, " in stock\u00a0",
            ],
        ),
        (
            "out_of_stock",
            [
                "out of stock", "OutOfStock", "outofstock", "https://schema.org/SoldOut",
                "sold out", "Sold-Out", "discontinued", "unavailable",
                False, 0, "0", "no", "false", -2,
            ],
        ),
        ("preorder", ["preorder", "pre-order", "Pre Order", "PreSale", "https://schema.org/PreOrder"]),
        (
            "backorder",
            ["backorder", "on backorder", "onbackorder", "available for order", "BackOrder"],
        ),
    ],
)  # fmt: skip
def test_stock_words_are_understood(word, cells):
    for cell in cells:
        assert read_one(parse_availability, cell) == (word, None), cell


def test_a_column_of_flags_is_understood():
    assert parse_availability(pd.Series([True, False])).values.tolist() == [
        "in_stock",
        "out_of_stock",
    ]
    assert parse_availability(pd.Series([3.0, np.nan, 0.0])).values.isna().tolist() == [0, 1, 0]


@pytest.mark.parametrize("cell", ["maybe", "???", "https://schema.org/", "nan", "inf", [1], "-"])
def test_an_unknown_stock_word_costs_the_cell(cell):
    value, reason = read_one(parse_availability, cell)
    assert value is None
    assert "in_stock" in reason


@pytest.mark.parametrize(
    ("cell", "text"),
    [(7, "7"), (7.0, "7"), (b"7", "7"), (np.int64(7), "7"), ("007 ", "007"), (Decimal(7), "7")],
)
def test_ids_of_any_type_are_the_same_text(cell, text):
    assert read_one(parse_id, cell) == (text, None)


def test_ids_that_cannot_be_decoded_stay_apart():
    values, reasons = parse_id(pd.Series([b"\xff\x01", b"\xfe\x01", "a\ud800", "a\ud801"]))
    assert values.nunique() + reasons.notna().sum() == 4


@pytest.mark.parametrize(
    ("known", "asked"),
    [("108775015", "0108775015"), ("sku-1", "SKU-1"), ("123", "123.0"), ("00123", "123")],
)
def test_an_id_that_is_nearly_there_gets_a_hint(tmp_path, known, asked):
    (tmp_path / "items.csv").write_text(f"id,title\n{known},Mug\n")
    (tmp_path / "baskets.csv").write_text(f"basket_id,item_id\n1,{asked}\n1,{known}\n2,other\n")
    report = read_catalog(tmp_path).report
    assert report.rows_kept["baskets.csv"] == 1
    hints = [problem.reason for problem in report.problems]
    assert f"but there is '{known}'" in hints[0]
    assert "but there is" not in hints[1]


def test_padded_ids_and_both_unicode_forms_meet(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bague-\xe9te\u0301.jpg").write_bytes(b"x")
    items = "id,title,image_link\nSKU-1,Ring,\nSKU-2 ,Dress,\n\xa0SKU-3,Vase,\nbague-\xe9,Bague,"
    (tmp_path / "items.csv").write_text(f"{items}images/bague-e\u0301t\xe9.jpg\n")
    (tmp_path / "events.csv").write_text(
        "user_id,item_id,event_type,timestamp\n"
        "u1 ,SKU-1     ,view ,1735862400\nu1,SKU-2     ,Purchase,1735862401\n"
        "u1,SKU-3,click,1735862402\nu1,bague-e\u0301,view,1735862403\n"
    )
    catalog = read_catalog(tmp_path, strict=True)
    assert catalog.items["id"].tolist() == ["SKU-1", "SKU-2", "SKU-3", "bague-\xe9"]
    assert catalog.events["item_id"].tolist() == catalog.items["id"].tolist()
    assert catalog.events["user_id"].unique().tolist() == ["u1"]
    assert catalog.events["event_type"].tolist() == ["view", "purchase", "click", "view"]
    assert catalog.image_path(3).is_file()


ANY = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=20),
    st.text(st.characters()), st.decimals(), st.dates(), st.datetimes(), st.timedeltas(),
    st.uuids(), st.lists(st.integers(), max_size=2), st.dictionaries(st.text(), st.integers()),
    st.complex_numbers(), st.just(pd.NaT), st.just(pd.NA),
    st.text("0123456789.,-+eE' €$:/TZ ", max_size=20),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    cells=st.lists(ANY, min_size=1, max_size=4),
    folder=st.just(PictureFolder(Path(__file__).parent)),
)
def test_no_cell_of_any_type_raises(cells, folder):
    column = pd.Series(cells, dtype=object)
    text = parse_text(column)
    text.dropna().str.encode("utf-8")
    for parse in (parse_id, parse_price, parse_availability, parse_seconds):
        values, reasons = parse(column)
        assert values[reasons.notna()].isna().all()
        assert (values.notna() | reasons.notna() | text.isna()).all()
    for link in text.dropna():
        found, reason = folder.find(link)
        assert (found is None) != (reason is None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats() | st.none(), max_size=4), st.sampled_from(["float64", "float32", "object"])
)
def test_no_column_of_numbers_raises(cells, dtype):
    column = pd.Series(cells, dtype=dtype)
    for parse in (parse_id, parse_price, parse_availability, parse_seconds):
        parse(column)


@pytest.mark.parametrize(
    "cell", ["Red,blue", "red / BLUE", "red;blue;", "红色、蓝色", "红色，蓝色", "红色； 蓝色"]
)
def test_several_values_of_a_cell(cell):
    values = split_values(cell)
    assert values in (("red", "blue"), ("红色", "蓝色"))
