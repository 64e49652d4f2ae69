import numpy as np
import pytest
import torch

from newshelf.errors import TrainingError
from newshelf.training.labels import (
    choose_categories,
    few_shots,
    head_labels,
    label_notes,
)
from tests.unit.training.conftest import typed


def test_auto_takes_the_richest_first_level(write_catalog):
    types = ["Home > Beds"] * 3 + ["Jewellery > Rings"] * 2 + ["Clothing"] + [None]
    chosen = choose_categories(write_catalog(items=typed(*types)), "auto")
    assert chosen.source_name == "Home"
    assert chosen.source.tolist() == [True] * 3 + [False] * 4
    assert chosen.target_name == "Clothing, Jewellery"
    assert chosen.target.tolist() == [False] * 3 + [True] * 3 + [False]


def test_a_source_by_name(write_catalog):
    types = ["Home > Beds", "Home", "Jewellery > Rings"]
    chosen = choose_categories(write_catalog(items=typed(*types)), "Jewellery")
    assert (chosen.source_name, chosen.target_name) == ("Jewellery", "Home")
    assert chosen.source.tolist() == [False, False, True]
    assert chosen.target.tolist() == [True, True, False]


def test_several_sources_are_learned_from_together(write_catalog):
    types = ["Home > Beds", "Hats", "Jewellery > Rings", None]
    chosen = choose_categories(write_catalog(items=typed(*types)), ("Jewellery", "Home"))
    assert (chosen.source_name, chosen.target_name) == ("Home, Jewellery", "Hats")
    assert chosen.source.tolist() == [True, False, True, False]
    assert chosen.target.tolist() == [False, True, False, False]


def grouped(write_catalog, *groups):
    items = typed("Home > Beds", "Home > Beds", "Hats", None)
    values = [{"group": group} for group in groups] or [{}] * 4
    return write_catalog(items=[a | b for a, b in zip(items, values, strict=True)])


def test_the_target_may_be_a_group_of_the_same_types(write_catalog):
    catalog = grouped(write_catalog, "spring", "autumn", "autumn", "spring")
    chosen = choose_categories(catalog, "auto", "spring")
    assert (chosen.source_name, chosen.target_name) == ("other groups", "group spring")
    assert chosen.source.tolist() == [False, True, True, False]
    assert chosen.target.tolist() == [True, False, False, False]


@pytest.mark.parametrize("groups", [(), ("a", "a", "b", "c"), ("x", "x", "x", None)])
def test_a_group_must_have_products_and_leave_some(write_catalog, groups):
    catalog = grouped(write_catalog, *groups)
    with pytest.raises(TrainingError, match="column group"):
        choose_categories(catalog, "auto", "x")


@pytest.mark.parametrize("source", [("Home", "Hats"), (), ("Home", "Beds")])
def test_sources_must_exist_and_leave_a_target(write_catalog, source):
    catalog = write_catalog(items=typed("Home > Beds", "Hats"))
    with pytest.raises(TrainingError, match="Hats, Home, of which one at least must remain"):
        choose_categories(catalog, source)


def test_a_source_that_is_no_first_level_lists_those_that_are(write_catalog):
    catalog = write_catalog(items=typed("Home > Beds", "Clothing > Hats"))
    with pytest.raises(TrainingError, match=r"'Beds': .*Clothing, Home"):
        choose_categories(catalog, "Beds")


def test_one_first_level_is_split_into_rich_and_poor_types(write_catalog):
    types = ["Home > Beds"] * 12 + ["Home > Lamps"] * 11 + [None]
    for source in ("auto", "Home"):
        chosen = choose_categories(write_catalog(items=typed(*types)), source)
        assert (chosen.source_name, chosen.target_name) == ("rich types", "poor types")
        assert chosen.source.tolist() == [True] * 12 + [False] * 12
        assert chosen.target.tolist() == [False] * 12 + [True] * 11 + [False]


def test_without_types_there_are_no_categories(write_catalog):
    catalog = write_catalog(items=typed(None, None))
    assert choose_categories(catalog, "auto") is None
    assert head_labels(catalog, None) == {}


def test_a_class_needs_four_products_and_a_head_two_classes(write_catalog):
    types = ["A > x"] * 5 + ["A > y"] * 4 + ["A > z"] * 3 + ["B > v"] * 4 + ["B > w"] * 3
    items = typed(*types)
    for at, item in enumerate(items):
        item["color"] = ("Red/blue", "GREEN", "green", "red", None)[at % 5]
        item["material"] = "jade"
    catalog = write_catalog(items=items)
    labels = head_labels(catalog, choose_categories(catalog, "A"))
    # "material" and "target_type" have one class each.
    assert set(labels) == {"source_type", "color"}
    assert labels["source_type"].classes == ("A > x", "A > y")
    assert labels["source_type"].target.tolist() == [0] * 5 + [1] * 4 + [-1] * 10
    assert labels["color"].classes == ("green", "red")
    assert labels["color"].target.tolist() == [(1, 0, 0, 1, -1)[at % 5] for at in range(19)]


@pytest.mark.parametrize("shots", [1, 5, 100])
def test_few_shots_keep_a_quarter_apart(shots):
    sizes = [4, 8, 41]
    target = torch.tensor([n for n, size in enumerate(sizes) for _ in range(size)] + [-1] * 9)
    train, test = few_shots(target, shots, np.random.default_rng(0))
    assert not set(train.tolist()) & set(test.tolist())
    assert len(set(train.tolist())) == len(train)
    for value, held in enumerate([1, 2, 10]):
        assert int((target[test] == value).sum()) == held
        assert int((target[train] == value).sum()) == min(shots, sizes[value] - held)
    assert (target[train] >= 0).all()
    assert (target[test] >= 0).all()


def test_few_shots_follow_their_generator():
    target = torch.arange(60) % 3
    first, again, other = (few_shots(target, 5, np.random.default_rng(s))[0] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def notes(catalog, shots=20):
    return label_notes(catalog, choose_categories(catalog, "auto"), shots)


def test_one_class_only(write_catalog):
    (one, none) = notes(write_catalog(items=typed(*["Home > Lamps"] * 20)))
    assert one.startswith("product_type: all labelled products are 'Home > Lamps', and one class")
    assert "at least two" in one
    assert none.startswith("no column has two classes to learn from")


def test_no_class_at_all(write_catalog):
    (none,) = notes(write_catalog(items=typed(None, None, None)))
    assert none.startswith("no column has two classes to learn from")


def test_enough_of_everything_needs_no_word(write_catalog):
    assert (
        notes(write_catalog(items=typed(*["A > x", "A > y"] * 8, *["B > v", "B > w"] * 6)), 4) == []
    )


def test_fewer_labels_than_shots(write_catalog):
    types = ["A > x", "A > y"] * 40 + ["B > v"] * 4 + ["B > w"] * 9 + ["B > u"] * 40
    (line,) = notes(write_catalog(items=typed(*types)), shots=10)
    # A quarter of each is tested on: 3 of 4, 7 of 9 and 30 of 40 are left.
    assert line.startswith(
        "product_type of the target: 2 of 3 classes have fewer labelled products to learn from "
        "than [finetune] target_shots = 10; the fewest, 3, has 'B > v'"
    )
