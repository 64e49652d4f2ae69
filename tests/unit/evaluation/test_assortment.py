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
    gaps = find_gaps(values, "material", counts, in_stock(values, 1))
    assert gaps is not None
    [gap] = gaps.itertuples()
    assert (gap.product_type, gap.value) == ("Home > Lamps", "oak")
    assert (gap.products, gap.in_stock) == (6, 1)
    assert 1 < gap.low < gap.interest / gap.expected < gap.high


def test_a_wanted_combination_with_enough_in_stock_is_no_gap() -> None:
    values = products(12)
    gaps = find_gaps(values, "material", wanted(values, 0, planted=5), in_stock(values, 12))
    assert gaps is not None
    assert gaps.empty


def test_popular_products_alone_make_no_gaps() -> None:
    values = products()
    none = np.zeros(len(values), dtype=bool)
    found = [find_gaps(values, "material", wanted(values, seed), none) for seed in range(20)]
    assert sum(len(gaps) for gaps in found if gaps is not None) <= 2


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
