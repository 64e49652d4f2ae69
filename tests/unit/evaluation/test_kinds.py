"""Every kind and its baseline on a split with known answers: after item 2 comes item 3."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from newshelf.evaluation.kinds import KindResult, evaluate_kinds
from newshelf.evaluation.types import FloatArray, IntArray, Split
from newshelf.nn.blend import LINKS, Blend
from newshelf.nn.spec import BlendSpec
from tests.unit.evaluation.conftest import MakeSplit, Tables

DAY = 86_400
CUT = 100 * DAY
N = 12
SECOND = 1 / np.log2(3)
"""NDCG of one product in the second place."""


class Model:
    """Likes item 4 best, then 3."""

    name = "model"

    def scores(self, histories: list[IntArray]) -> FloatArray:
        scores = np.zeros(N, dtype=np.float32)
        scores[[4, 3]] = [-1, -2]
        scores[[0, 1]] = -9
        scores[5:] = -5
        return np.tile(scores, (len(histories), 1))


@pytest.fixture
def shop() -> Tables:
    """Even items are lamps, odd ones hats; item 3 is the newest, item 11 comes after the cut."""
    items = pd.DataFrame(
        {
            "id": [f"i{number}" for number in range(N)],
            "product_type": ["Home > Lamps", "Clothing > Hats"] * (N // 2),
            "created_at": [*range(N - 1), CUT + DAY],
        }
    )
    items.loc[3, "created_at"] = CUT - 1
    rows = []
    for user in range(40):
        for item, at in ((5, -11), (5, -10), (6, -1), (5, 3), (7, 4)):
            rows.append((f"u{user}", f"i{item}", "purchase", CUT + at * DAY))
        rows.append((f"u{user}", "i6", "view", CUT + DAY))
    columns = ["user_id", "item_id", "event_type", "timestamp"]
    return Tables(items, pd.DataFrame(rows, columns=columns))


@pytest.fixture
def split(make_split: MakeSplit) -> Split:
    """Item 0 was always popular, item 3 only of late."""
    train = [[0, 1]] * 30 + [[0, 3]] * 10
    stamps = [[DAY, 2 * DAY]] * 30 + [[DAY, CUT]] * 10
    return make_split(train, N, [([4, 2], [3])] * 40, stamps)


def blend() -> Blend:
    links = np.zeros((N, N), dtype=np.float32)
    links[2, 3] = 0.5
    links[2, 5] = 0.2
    weights = {**dict.fromkeys(LINKS, 1.0), "siamese": 1.0, "content": 1.0}
    return Blend(
        BlendSpec(weights=weights),
        sparse.csr_array(links),
        sparse.csr_array(np.eye(N, dtype=np.float32)),
        np.zeros(N, dtype=np.float32),
    )


def embeddings() -> FloatArray:
    vectors = np.eye(N, 16, dtype=np.float32)
    vectors[3] = vectors[2]
    return vectors


def measured(split: Split, shop: Any, links: Blend | None) -> dict[str, KindResult]:
    found = evaluate_kinds(split, shop, model=Model(), blend=links, embeddings=embeddings())
    return {one.kind: one for one in found}


def test_kinds_find_what_they_are_for(split: Split, shop: Tables) -> None:
    found = measured(split, shop, blend())
    assert set(found) == {
        "similar", "bought_together", "cart", "trending", "popular", "new", "buy_again"
    }  # fmt: skip
    for kind in ("similar", "bought_together", "cart", "trending", "buy_again", "new"):
        assert found[kind].ndcg == pytest.approx(1), kind
    # Items 0, 1 and 3 by number of sequences; the case's history has none of them.
    assert found["popular"].ndcg == pytest.approx(1 / np.log2(4))
    assert found["trending"].baseline_ndcg == pytest.approx(1 / np.log2(4))
    assert found["buy_again"].baseline_ndcg == pytest.approx(SECOND)
    assert {one.cases for one in found.values()} == {40}
    assert found["buy_again"].baseline == "most recent"


def test_a_cart_and_its_baselines_rank_other_types_only(
    make_split: MakeSplit, shop: Tables
) -> None:
    cases = [([4, 2], [3, 6])] * 40
    split = make_split([[0, 1]] * 30, N, cases, [[0, CUT]] * 30)
    found = measured(split, shop, None)
    # Item 6 is a lamp as well, so it is not asked for; item 4 of the history neither.
    assert found["cart"].ndcg == pytest.approx(1)
    assert "bought_together" not in found


def test_baskets_have_no_periods_and_few_cases_no_result(
    make_split: MakeSplit, shop: Tables
) -> None:
    baskets = make_split([[2, 3]] * 5, N, [([2], [3])] * 40)
    assert set(measured(baskets, shop, blend())) == {"similar", "bought_together", "cart"}
    few = make_split([[2, 3]] * 5, N, [([2], [3])] * 10, [[0, CUT]] * 5)
    assert set(measured(few, shop, blend())) == {"buy_again"}
    shop.events = None
    assert measured(few, shop, blend()) == {}
