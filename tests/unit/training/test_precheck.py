"""What a catalogue lacks is said in a line, before any tower is run."""

import pytest

from newshelf.training.labels import choose_categories, label_notes
from newshelf.training.train import usable_interactions
from tests.unit.training.conftest import shop_events, shop_items, typed


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


def test_no_events_and_no_baskets(write_catalog):
    found, line = usable_interactions(write_catalog(items=shop_items()))
    assert found is None
    assert line.startswith("no events and no baskets")


def test_events_of_which_none_is_usable_say_why(write_catalog):
    events = [
        {"user_id": f"u{at}", "item_id": "i001", "event_type": "juggle", "timestamp": 1000}
        for at in range(300)
    ]
    found, line = usable_interactions(write_catalog(items=shop_items(), events=events))
    assert found is None
    assert "300 rows read, none usable: event_type: 300 rows left out" in line
    assert "'juggle'" in line
    assert line.endswith("content neighbours will be served")


def test_one_basket_only(write_catalog):
    baskets = [{"basket_id": "b", "item_id": f"i{at:03}"} for at in range(5)]
    found, line = usable_interactions(write_catalog(items=shop_items(), baskets=baskets))
    assert found is None
    assert line.startswith("1 of 1 baskets have two different products, and the scorer needs at")
    assert line.endswith("content neighbours will be served; bring more baskets")


def test_shoppers_who_took_one_product_each(write_catalog):
    events = [
        {"user_id": f"u{at}", "item_id": f"i{at:03}", "event_type": "view", "timestamp": 1000 + at}
        for at in range(20)
    ]
    found, line = usable_interactions(write_catalog(items=shop_items(), events=events))
    assert found is None
    assert line.startswith("0 of 20 shoppers have two different products")


@pytest.mark.parametrize("users", [2, 40])
def test_enough_events_are_used(write_catalog, users):
    found, line = usable_interactions(
        write_catalog(items=shop_items(), events=shop_events(users=users))
    )
    assert line == ""
    assert len(found.sequences) == users
