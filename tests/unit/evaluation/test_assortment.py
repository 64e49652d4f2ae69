import numpy as np
import pandas as pd
import pytest

from newshelf.evaluation.assortment import (
    cluster_name,
    find_clusters,
    find_gaps,
    interest,
    main_values,
    nearest,
    weekly_shares,
)

TYPES = ("Home > Beds", "Home > Lamps", "Home > Chairs", "Home > Tables")
MATERIALS = ("oak", "pine", "steel", "glass")


def products(per_cell: int = 6) -> pd.DataFrame:
    rows = [(kind, made) for kind in TYPES for made in MATERIALS for _ in range(per_cell)]
    return pd.DataFrame(rows, columns=["product_type", "material"])


def wanted(values: pd.DataFrame, seed: int, *, planted: float = 1.0) -> np.ndarray:
    """Interest that differs by product more than by chance; ``planted`` times as much in a cell."""
    random = np.random.default_rng(seed)
    rates = 20 * random.gamma(4, 1 / 4, len(values))
    cell = values["product_type"].eq("Home > Lamps") & values["material"].eq("oak")
    return random.poisson(rates * np.where(cell, planted, 1))


def in_stock(values: pd.DataFrame, stocked: int) -> np.ndarray:
    """Whether each product is in stock; of oak lamps the first ``stocked``."""
    cell = values["product_type"].eq("Home > Lamps") & values["material"].eq("oak")
    return (~cell | (cell.cumsum() <= stocked)).to_numpy()


def test_a_combination_that_is_wanted_and_sold_out_is_a_gap() -> None:
    values = products()
    counts = wanted(values, 0, planted=5)
    found = find_gaps(values, "material", counts, in_stock(values, 1))
    assert found is not None
    [gap] = found[0].itertuples()
    assert (gap.product_type, gap.value) == ("Home > Lamps", "oak")
    assert (gap.products, gap.in_stock) == (6, 1)
    assert 1 < gap.low < gap.interest / gap.expected < gap.high


def test_a_wanted_combination_with_enough_in_stock_is_no_gap() -> None:
    values = products(12)
    found = find_gaps(values, "material", wanted(values, 0, planted=5), in_stock(values, 12))
    assert found is not None
    assert all(table.empty for table in found)


def test_popular_products_alone_make_no_gaps() -> None:
    values = products()
    none = np.zeros(len(values), dtype=bool)
    found = [find_gaps(values, "material", wanted(values, seed), none) for seed in range(20)]
    assert sum(len(both[0]) for both in found if both is not None) <= 2


def grid(left_out: set[tuple[int, int]], per_cell: int = 4) -> tuple[pd.DataFrame, np.ndarray]:
    """Eight types by eight materials, and interest that is the product of both, by chance."""
    random = np.random.default_rng(3)
    cells = [(a, b) for a in range(8) for b in range(8) if (a, b) not in left_out]
    rows = [cell for cell in cells for _ in range(per_cell)]
    values = pd.DataFrame(
        [(f"type {a}", f"m{b}") for a, b in rows], columns=["product_type", "material"]
    )
    return values, random.poisson([3 * 1.4**a * 1.3**b for a, b in rows])


def test_a_combination_that_was_never_offered_is_found_by_its_type_and_value() -> None:
    values, counts = grid({(7, 7), (6, 7), (0, 0), (0, 1)})
    found = find_gaps(values, "material", counts, np.ones(len(values), dtype=bool))
    assert found is not None
    never = found[1]
    assert never[["product_type", "value"]].to_numpy().tolist() == [
        ["type 7", "m7"],
        ["type 6", "m7"],
    ]
    assert never["each"].tolist() == pytest.approx(
        [3 * 1.4**7 * 1.3**7, 3 * 1.4**6 * 1.3**7], rel=0.15
    )
    assert (never["low"] < never["each"]).all()
    assert (never["each"] < never["high"]).all()


def test_a_value_that_one_combination_alone_knows_says_nothing_of_others() -> None:
    values, counts = grid({(a, 7) for a in range(7)})
    found = find_gaps(values, "material", counts, np.ones(len(values), dtype=bool))
    assert found is not None
    assert found[1].empty


def test_types_that_share_no_value_say_nothing_of_each_other() -> None:
    values, counts = grid({(a, b) for a in range(8) for b in range(8) if (a < 4) != (b < 4)})
    found = find_gaps(values, "material", 9 * counts, np.ones(len(values), dtype=bool))
    assert found is not None
    assert found[1].empty


def week(number: int, wanted: dict[str, int]) -> list[tuple[str, str, int]]:
    """Events of different shoppers in one week, each twice."""
    at = 1_700_000_000 + number * 7 * 86_400
    return [
        (f"{number}-{item}-{n}", item, at + n % 500)
        for item, count in wanted.items()
        for n in range(count)
    ] * 2


def test_shares_of_a_week_count_a_shopper_once() -> None:
    rows = [
        *week(0, {"a": 40, "b": 40}), *week(1, {"a": 60, "b": 30, "unknown": 50}),
        *week(2, {"a": 3}), *week(3, {"a": 90, "b": 10, "c": 20}),
    ]  # fmt: skip
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    values = pd.Series({"a": "oak", "b": "pine", "c": "oak", "unused": "teak"})
    found = weekly_shares(events, values)
    assert found is not None
    shares, interests = found
    assert interests.to_dict() == {-3: 80, -2: 90, 0: 120}
    assert shares["oak"].tolist() == pytest.approx([1 / 2, 2 / 3, 11 / 12])
    assert [*shares] == ["oak", "pine"]
    assert weekly_shares(events[events["timestamp"] > 1_700_604_000], values) is None


@pytest.mark.parametrize("case", ["no interest", "no shared combination", "no values"])
def test_gaps_are_unknown_with_too_little_data(case: str) -> None:
    values = products(1) if case == "no shared combination" else products()
    if case == "no values":
        values["material"] = np.nan
    counts = np.full(len(values), 0 if case == "no interest" else 50)
    assert find_gaps(values, "material", counts, np.zeros(len(values), dtype=bool)) is None


def test_planted_clusters_are_found_and_named_by_what_they_share() -> None:
    random = np.random.default_rng(0)
    values = products(12)[:96].assign(color="red", style=np.nan)
    group = np.arange(96) // 48
    rows = (8 * np.eye(16)[group] + random.normal(size=(96, 16))).astype(np.float32)
    found = find_clusters(rows)
    assert found is not None
    assert found.clear
    assert len(np.unique(found.labels)) == 2
    inside = found.labels == found.labels[0]
    assert inside.tolist() == (group == 0).tolist()
    assert cluster_name(values, inside) == "Home > Beds"
    assert cluster_name(values, group < 2) == "mixed"


def test_one_cloud_has_no_clear_clusters() -> None:
    rows = np.random.default_rng(1).normal(size=(200, 16)).astype(np.float32)
    found = find_clusters(rows)
    assert found is not None
    assert not found.clear
    assert find_clusters(rows[:19]) is None


def test_the_most_certain_value_counts_and_products_without_facts_have_none() -> None:
    facts = pd.DataFrame(
        [("b", "color", "red", 0.9), ("b", "color", "wine", 1.0), ("b", "brand", "x", 1.0)],
        columns=["item_id", "attribute", "value", "confidence"],
    )
    values = main_values(facts, ["a", "b"])
    assert values["color"].tolist()[1] == "wine"
    assert values.notna().sum().sum() == 1


def test_a_shopper_counts_once_per_product() -> None:
    events = pd.DataFrame(
        [("u", "a", "view"), ("u", "a", "view"), ("u", "a", "purchase"), ("v", "a", "click")],
        columns=["user_id", "item_id", "event_type"],
    )
    counts = interest(events, ["b", "a"])
    assert counts[["view", "purchase", "shoppers"]].to_numpy().tolist() == [[0, 0, 0], [2, 1, 2]]


def test_nearest_goes_by_cosine_and_bears_a_row_of_zeros() -> None:
    rows = np.array([[0, 0], [0, 3], [2, 2], [-1, 0]], dtype=np.float32)
    places, cosines = nearest(rows, np.array([0, 2], dtype=np.float32), 2)
    assert places.tolist() == [1, 2]
    assert cosines == pytest.approx([1, 0.5**0.5])
