import numpy as np
import pandas as pd
import pytest

from newshelf.catalog.catalog import read_catalog
from newshelf.evaluation.evaluate import evaluate
from newshelf.evaluation.segments import segment_results


class Fixed:
    name = "fixed"

    def __init__(self, row):
        self.row = np.array(row, dtype=np.float32)

    def scores(self, histories):
        return np.tile(self.row, (len(histories), 1))


@pytest.fixture
def catalog(tmp_path):
    pd.DataFrame(
        {
            "id": list("abcdef"),
            "title": "ring",
            "product_type": ["Rings", "Rings", "Lamps", "Lamps", "Lamps", None],
            "price": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        }
    ).to_csv(tmp_path / "items.csv", index=False)
    return read_catalog(tmp_path)


def results(split, catalog, row, k=(2,)):
    found = segment_results(split, evaluate(Fixed(row), split, k), catalog)
    return {(one.by, one.name): one for one in found}


def test_recall_and_exposure_of_each_segment(make_split, catalog):
    # b and c are listed for everybody whose history is a; a and c after b.
    cases = [([0], [1, 3]), ([0], [2]), ([1], [0, 2, 4])]
    found = results(make_split([[0]], 6, cases), catalog, [5, 4, 3, 0, 0, 0])
    rings, lamps = found["category", "Rings"], found["category", "Lamps"]
    assert (rings.cases, rings.recall) == (2, 1.0)
    assert (lamps.cases, lamps.recall) == (3, pytest.approx((0 + 1 + 1 / 2) / 3))
    assert (rings.of_items, rings.of_shown) == (pytest.approx(1 / 3), 0.5)
    assert (lamps.of_items, lamps.of_shown) == (0.5, 0.5)
    # Nobody was asked for the product without a type.
    assert ("category", "none") not in found
    assert found["price", "up to 2.66667"].of_shown == 0.5
    assert found["price", "above 4.33333"].of_shown == 0.0
    assert found["price", "above 4.33333"].recall == 0.0
    assert rings.interval is None


def test_newcomers_are_told_from_shoppers_with_a_history(make_split, catalog):
    cases = [([0], [1]), ([0, 1, 2], [4])]
    found = results(make_split([[0]], 6, cases), catalog, [0, 9, 0, 0, 0, 1])
    assert (found["shopper", "newcomers"].cases, found["shopper", "newcomers"].recall) == (1, 1.0)
    assert (found["shopper", "known"].cases, found["shopper", "known"].recall) == (1, 0.0)
    assert found["shopper", "known"].of_items is None


def test_segments_have_intervals_with_enough_cases(make_split, catalog):
    cases = [([0], [1]), ([0], [5])] * 20
    found = results(make_split([[0]], 6, cases), catalog, [0, 9, 0, 0, 0, 1], (1,))
    low, high = found["shopper", "newcomers"].interval
    assert low < 0.5 < high
    assert found["category", "Rings"].interval == (1.0, 1.0)


def test_a_catalogue_of_one_category_is_split_by_its_last_level(make_split, tmp_path):
    kinds = ["Home > Beds", "Home > Lamps"]
    table = pd.DataFrame({"id": ["a", "b"], "title": "x", "product_type": kinds})
    table.to_csv(tmp_path / "items.csv", index=False)
    found = results(make_split([[0]], 2, [([0], [1])]), read_catalog(tmp_path), [0, 1], (1,))
    assert {name for by, name in found if by == "category"} == {"Lamps"}
    assert {by for by, _ in found} == {"category", "shopper"}
