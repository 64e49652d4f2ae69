import zlib

import numpy as np
import pytest

from newshelf.catalog.schema import Product
from newshelf.nn.inputs import attribute_row, price_edges
from newshelf.nn.spec import ATTRIBUTE_COLUMNS, AttributeInput

SPEC = AttributeInput(buckets=4096, price_edges=(10.0, 20.0, 50.0))
WHOLE = Product(
    id="a",
    title="Ring",
    product_type="Jewellery > Rings",
    brand="Corvo",
    color="Green/Gold",
    material="Jade; Silver",
    size="52",
    price=15.0,
)


def column(product: Product, name: str, spec: AttributeInput = SPEC) -> int:
    return attribute_row(product, spec)[ATTRIBUTE_COLUMNS.index(name)]


def test_hashes_are_those_of_every_process_and_release():
    """Python's own hash differs in each process; a changed bucket makes old weights noise."""
    assert attribute_row(WHOLE, SPEC) == [2702, 628, 1911, 2656, 458, 1896, 1099, 2524, 2]


def test_a_bucket_is_the_checksum_of_column_and_value():
    assert column(WHOLE, "brand") == zlib.crc32(b"2=corvo") % 4095 + 1


def test_what_is_absent_is_zero():
    assert attribute_row(Product(), SPEC) == [0] * len(ATTRIBUTE_COLUMNS)
    blank = Product(product_type=" > ", brand="  ", color=",", material="", size="\t")
    assert attribute_row(blank, SPEC) == [0] * len(ATTRIBUTE_COLUMNS)


@pytest.mark.parametrize("name", ["product_type", "brand", "color", "material", "size", "price"])
def test_each_field_alone_fills_its_own_columns(name):
    row = attribute_row(Product(**{name: getattr(WHOLE, name)}), SPEC)
    own = {name, f"second_{name}"} | ({"top_type"} if name == "product_type" else set())
    whole = attribute_row(WHOLE, SPEC)
    for at, of in enumerate(ATTRIBUTE_COLUMNS):
        assert row[at] == (whole[at] if of in own else 0), of


def test_case_and_spaces_do_not_matter():
    loud = WHOLE.model_copy(
        update={
            "product_type": "  JEWELLERY >RINGS ",
            "brand": " CORVO\n",
            "color": "green , GOLD",
            "material": "jade;silver",
            "size": " 52",
        }
    )
    assert attribute_row(loud, SPEC) == attribute_row(WHOLE, SPEC)
    assert column(Product(brand="New  York"), "brand") == column(Product(brand="new york"), "brand")
    assert column(Product(brand="newyork"), "brand") != column(Product(brand="new york"), "brand")


def test_title_description_and_id_are_no_attributes():
    assert attribute_row(Product(id="x", title="Green", description="Jade"), SPEC) == [0] * 9


def test_one_value_in_two_columns_has_two_buckets():
    both = Product(color="ivory", material="ivory", brand="ivory")
    assert len({column(both, name) for name in ("color", "material", "brand")}) == 3


@pytest.mark.parametrize("buckets", [2, 3, 64])
def test_buckets_stay_in_their_table(buckets):
    spec = AttributeInput(buckets=buckets, price_edges=tuple(map(float, range(100))))
    rows = [
        attribute_row(Product(brand=f"brand {n}", color=f"{n},{n + 1}", price=float(n)), spec)
        for n in range(200)
    ]
    values = np.array(rows)[:, [2, 3, 4, 8]]
    assert values.min() == 1
    assert values.max() == buckets - 1


@pytest.mark.parametrize(
    ("price", "expected"),
    [(0.0, 1), (9.99, 1), (10.0, 2), (19.9, 2), (20.0, 3), (49.0, 3), (50.0, 4), (1e12, 4)],
)
def test_a_price_on_an_edge_belongs_to_the_bin_above(price, expected):
    assert column(Product(price=price), "price") == expected


def test_without_edges_a_known_price_is_one_bin():
    assert column(Product(price=3.0), "price", AttributeInput()) == 1


def test_price_edges_split_into_equal_counts():
    prices = np.arange(1, 1001, dtype=float)
    edges = price_edges([*prices, float("nan")], 4)
    assert len(edges) == 3
    spec = AttributeInput(price_edges=edges)
    bins = [column(Product(price=float(price)), "price", spec) for price in prices]
    assert np.bincount(bins)[1:].tolist() == [250] * 4


def test_price_edges_of_few_values_increase():
    edges = price_edges([5.0, 5.0, 5.0, 9.0], 8)
    assert edges[0] == 5.0
    assert list(edges) == sorted(set(edges))


@pytest.mark.parametrize("prices", [[], [float("nan")], [float("inf")]])
def test_no_known_price_gives_no_edges(prices):
    assert price_edges(prices, 16) == ()
