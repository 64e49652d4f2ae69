import numpy as np
import pytest

from newshelf.catalog.schema import Product
from newshelf.serving.item_table import INDEX_COLUMNS, ItemTable, allowed_mask, in_categories
from newshelf.serving.schemas import Filters


@pytest.fixture(scope="module")
def table(frame) -> ItemTable:
    records = frame.astype(object).where(frame.notna(), None)
    return ItemTable.from_columns({name: records[name].tolist() for name in INDEX_COLUMNS})


def naive(frame, filters: Filters) -> list[str]:
    """Item by item, as the documentation words it."""
    return [row["id"] for row in frame.to_dict("records") if passes(row, filters)]


def passes(row: dict, filters: Filters) -> bool:
    def text(name: str) -> str:
        return row[name].lower() if isinstance(row[name], str) else ""

    def has_one_of(name: str, wanted) -> bool:
        parts = {part.strip() for part in text(name).replace("/", ",").split(",")} | {text(name)}
        return any(value.lower().strip() in parts for value in wanted)

    path = text("product_type").split(" > ")
    stock = text("availability") or "in_stock"
    price = filters.price
    checks = [
        stock in filters.availability if filters.availability else stock != "out_of_stock",
        not filters.brand or text("brand") in [value.lower() for value in filters.brand],
        not filters.color or has_one_of("color", filters.color),
        not filters.material or has_one_of("material", filters.material),
        not filters.product_type
        or any(
            path[: value.count(">") + 1] == [part.strip().lower() for part in value.split(">")]
            for value in filters.product_type
        ),
        price is None
        or (
            row["price"] == row["price"]
            and (price.min is None or row["price"] >= price.min)
            and (price.max is None or row["price"] <= price.max)
        ),
        filters.created_after is None
        or (row["created_at"] == row["created_at"] and row["created_at"] > filters.created_after),
    ]
    return all(checks)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"product_type": "Jewellery"},
        {"product_type": "home>LIGHTING"},
        {"product_type": "Home > Light"},
        {"product_type": ["Clothing > Shirts", "Home > Lighting > Lamps"]},
        {"brand": "aurora"},
        {"color": "GREEN"},
        {"color": ["red", "yellow"]},
        {"color": "red/white"},
        {"material": "glass"},
        {"material": ["jade", "brass"], "color": "green"},
        {"price": {"min": 25}},
        {"price": {"max": 25}},
        {"price": {"min": 25, "max": 100}, "brand": ["Fjord"]},
        {"price": {}},
        {"availability": "out_of_stock"},
        {"availability": ["preorder", "out_of_stock"]},
        {"availability": "in_stock", "created_after": 1_700_000_011},
        {"created_after": 1_700_000_011},
        {"created_after": -(10**30)},
        {"created_after": 10**30},
        {"brand": "nobody"},
    ],
    ids=str,
)
def test_the_mask_is_what_the_naive_loop_says(table, frame, given):
    filters = Filters.model_validate(given)
    mask = allowed_mask(table, filters)
    found = [table.id[row] for row in np.flatnonzero(mask)]
    assert found == naive(frame, filters)
    assert mask.dtype == np.bool_


def test_only_what_is_out_of_stock_hides_by_default(table):
    hidden = [table.id[row] for row in np.flatnonzero(~allowed_mask(table, Filters()))]
    assert hidden == ["i04", "i11"]


def test_categories_take_everything_below_them(table):
    assert in_categories(table, ["Home"]).sum() == 10
    assert in_categories(table, ["Home > Lighting > Lamps"]).sum() == 10
    assert in_categories(table, ["Home > Lamps"]).sum() == 0


def test_inline_products_are_new_and_in_stock():
    table = ItemTable.from_products([Product(id="n", title="a", color="Red", price=3)])
    for given, passed in [
        ({}, True),
        ({"created_after": 4_000_000_000}, True),
        ({"availability": "in_stock"}, True),
        ({"availability": "preorder"}, False),
        ({"color": "red", "price": {"max": 3}}, True),
        ({"color": "blue"}, False),
    ]:
        assert allowed_mask(table, Filters.model_validate(given)).tolist() == [passed], given


def test_a_table_may_be_empty():
    assert allowed_mask(ItemTable.from_products([]), Filters()).shape == (0,)
