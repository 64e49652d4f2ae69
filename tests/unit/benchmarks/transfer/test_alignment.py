"""Choices and measures of the alignment's benchmark."""

from dataclasses import replace

import pytest
import torch

from benchmarks.transfer import alignment
from tests.unit.training.synthetic import table_of


def test_the_recall_counts_products_among_the_nearest_ten() -> None:
    products = torch.eye(30)
    queries = products.clone()
    assert alignment._recall(queries, products) == 1
    queries[0] = products[1:12].sum(dim=0)
    assert alignment._recall(queries, products) == pytest.approx(29 / 30)


def test_the_weight_with_the_largest_recall_at_no_cost_is_chosen() -> None:
    tried = {
        weight: {alignment._FOUND: recall, "color, accuracy": accuracy}
        for weight, recall, accuracy in ((0.0, 0.5, 0.8), (1.0, 0.7, 0.797), (3.0, 0.9, 0.79))
    }
    assert alignment._chosen(tried) == 1.0


def test_a_view_has_nothing_but_what_is_named() -> None:
    table = table_of(torch.ones(20, 4), torch.ones(20, 3))
    table = replace(table, attributes=table.attributes + 1)
    view = alignment._only(table, picture=True)
    assert torch.equal(view.image_present, table.image_present)
    assert not view.text_present.any()
    assert not view.attributes.any()


def test_splits_are_disjoint_and_differ_by_seed() -> None:
    rows = torch.arange(1000)
    new, old = alignment._drawn(rows, 0)
    assert sorted([*new.tolist(), *old.tolist()]) == rows.tolist()
    assert 100 < len(new) < 300
    assert not torch.equal(new, alignment._drawn(rows, 1)[0])
