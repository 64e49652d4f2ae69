"""Impressions, negatives and fields, beside what one would write by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.methods.ctr.fields import FIELDS, Vocabulary, field_table
from benchmarks.methods.ctr.impressions import Negatives, exposures, positives
from newshelf.catalog.schema import EventType
from newshelf.errors import TrainingError


def array(*values):
    return np.array(values, dtype=np.int64)


SEQUENCES = [array(4, 2, 4, 7), array(0), array(1, 2)]
TIMES = [array(10, 20, 30, 40), array(50), array(60, 70)]


def test_each_known_id_has_a_row_of_its_own_and_others_have_none():
    known = Vocabulary(["b", "a", "b"])
    assert known.size == 3
    assert known.rows(["a", "new", "b", ""]).tolist() == [2, 0, 1, 0]


def test_more_ids_than_rows_share_them_but_never_the_unknown_ones():
    ids = [f"u{number}" for number in range(100)]
    known = Vocabulary(ids, limit=8)
    rows = known.rows(ids)
    assert known.size == 8
    assert set(rows.tolist()) == set(range(1, 8))
    assert (Vocabulary(reversed(ids), limit=8).rows(ids) == rows).all()
    assert known.rows(["u100"]).tolist() == [0]


def test_a_positive_has_what_came_before_it_the_nearest_first():
    rows = positives(SEQUENCES, TIMES, 2, users=array(5, 6, 7))
    assert rows.item.tolist() == [4, 2, 7, 0, 1, 2]
    assert rows.history.tolist() == [[-1, -1], [4, -1], [4, 2], [-1, -1], [-1, -1], [1, -1]]
    assert rows.timestamp.tolist() == [10, 20, 40, 50, 60, 70]
    assert rows.sequence.tolist() == [0, 0, 0, 1, 2, 2]
    assert rows.user.tolist() == [5, 5, 5, 6, 7, 7]
    assert rows.label.tolist() == [1.0] * 6


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_in_a_basket_the_others_are_the_history(length):
    rows = positives([array(3, 5, 8)], None, length)
    for item, history in zip(rows.item, rows.history, strict=True):
        others = {3, 5, 8} - {int(item)}
        present = [int(value) for value in history if value >= 0]
        assert set(present) <= others
        assert len(present) == len(set(present)) == min(length, 2)
    assert rows.timestamp.tolist() == [-1] * 3


@pytest.mark.parametrize("sequences", [[], [array()]])
def test_no_events_are_named(sequences):
    with pytest.raises(TrainingError, match="no events"):
        positives(sequences, sequences, 3)


def events(*rows):
    return pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "timestamp"])


INDEX = {"a": 0, "b": 1, "c": 2}


def test_what_was_seen_and_left_is_a_negative():
    table = events(
        ("u", "a", "view", 1),
        ("v", "b", "view", 2),
        ("u", "b", "view", 3),
        ("u", "a", "purchase", 4),
        ("u", "unknown", "view", 5),
        ("v", "c", "cart", 6),
    )
    rows = exposures(table, INDEX, array(1, 2, 1, 1, 1, 2), 2)
    assert rows.item.tolist() == [0, 1, 1, 2]
    assert rows.user.tolist() == [1, 1, 2, 2]
    assert rows.label.tolist() == [1, 0, 0, 0]
    assert rows.history.tolist() == [[-1, -1], [0, -1], [-1, -1], [1, -1]]
    carts = exposures(table, INDEX, array(1, 2, 1, 1, 1, 2), 2, EventType.CART)
    assert carts.label.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("kind", ["view", "purchase"])
def test_exposures_of_one_outcome_are_refused(kind):
    with pytest.raises(TrainingError, match="same outcome"):
        exposures(events(("u", "a", kind, 1), ("u", "b", kind, 2)), INDEX, array(0, 0), 2)


def test_no_exposure_is_refused():
    with pytest.raises(TrainingError, match="no events"):
        exposures(events(), INDEX, array(), 2)


def test_negatives_are_known_items_that_the_sequence_did_not_take():
    sequences = [*SEQUENCES, array(9)]
    rows = positives(sequences, [*TIMES, array(80)], 2)
    drawn = Negatives(sequences, 20).draw(rows, 200, np.random.default_rng(0))
    assert drawn.shape == (7, 200)
    for row, sequence in enumerate(rows.sequence):
        expected = {0, 1, 2, 4, 7, 9} - set(sequences[sequence].tolist())
        assert set(drawn[row].tolist()) == expected


def test_labelled_rows_are_the_positives_and_then_their_negatives():
    rows = positives(SEQUENCES, TIMES, 2)
    found = Negatives(SEQUENCES, 20).labelled(rows, 3, np.random.default_rng(0))
    assert found.label.tolist() == [1.0] * 6 + [0.0] * 18
    assert found.item[:6].tolist() == rows.item.tolist()
    assert (found.history[6:] == np.repeat(rows.history, 3, axis=0)).all()
    assert (found.timestamp[6:] == np.repeat(rows.timestamp, 3)).all()


def test_who_took_everything_leaves_nothing_to_learn_against():
    with pytest.raises(TrainingError, match="taken all 3 items"):
        Negatives([array(0, 1, 2), array(1)], 5)


@pytest.fixture
def shop(write_catalog):
    return write_catalog(
        items=[
            {"id": "a", "title": "x", "product_type": "Rings", "color": "red", "price": 1.0},
            {"id": "b", "title": "x", "product_type": "Rings", "color": "blue", "price": 9.0},
            {"id": "c", "title": "x", "product_type": "Rings", "color": "green", "price": None},
            {"id": "d", "title": "x", "product_type": "Rings", "color": "RED", "price": 9.5},
        ]
    )


def asked(*sequence, at=0):
    times = np.arange(len(sequence), dtype=np.int64) + at
    return positives([array(*sequence)], [times], 3)


def test_a_table_has_the_fields_that_tell_something(shop):
    table = field_table(shop, array(0, 1))
    assert table.names == ("item", "color", "price", "hour", "weekday", "month", "history")
    named = field_table(shop, array(0, 1), names=["history", "product_type"], timed=False)
    assert named.names == ("product_type", "history")
    assert table.item_side.tolist() == [True, True, True, False, False, False, False]


def test_new_ids_and_new_values_are_unknown(shop):
    table = field_table(shop, array(0, 1), names=["item", "color", "price", "history"])
    categories, bags, dense = table.inputs(asked(0, 1, 2, 3))
    assert categories[:, 0].tolist() == [1, 2, 0, 0]
    red, blue, green, also_red = categories[:, 1].tolist()
    assert {red, blue} == {1, 2}
    assert (green, also_red) == (0, red)
    assert categories[:, 2].tolist() == [1, 2, 0, 2]
    assert bags.tolist() == [[[0, 0, 0]], [[1, 0, 0]], [[2, 1, 0]], [[0, 2, 1]]]
    assert dense.shape == (4, 0)
    sizes = {field.name: field.size for field in table.fields}
    assert sizes == {"item": 3, "color": 3, "price": 3, "history": 3}


def test_the_context_is_that_of_the_event_in_utc(shop):
    table = field_table(shop, array(0, 1), names=["hour", "weekday", "month"])
    for text in ("2011-10-31T23:59:59", "1970-01-01T00:00:00", "2024-02-29T12:00:00"):
        moment = pd.Timestamp(text, tz="UTC")
        rows = asked(0, at=int(moment.timestamp()))
        expected = [moment.hour + 1, moment.weekday() + 1, moment.month]
        assert table.inputs(rows).categories[0].tolist() == expected
    assert table.inputs(positives([array(0)], None, 3)).categories.tolist() == [[0, 0, 0]]


def test_embeddings_of_the_item_and_the_mean_of_its_history(shop):
    embeddings = torch.arange(8.0).view(4, 2)
    table = field_table(shop, array(0, 1), embeddings=embeddings, users=3)
    dense = table.inputs(asked(3, 1, 0)).dense
    assert dense.tolist() == [[6, 7, 0, 0], [2, 3, 6, 7], [0, 1, 4, 5]]
    assert table.names[0] == "user"
    assert table.names[-2:] == ("embedding", "history_embedding")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"names": ["item", "shelf"]}, f"unknown field shelf: the fields are {', '.join(FIELDS)}"),
        ({"names": ["brand"]}, "field brand"),
        ({"names": ["embedding"]}, "field embedding"),
        ({"names": ["hour"], "timed": False}, "field hour"),
        ({"embeddings": torch.zeros(3, 2)}, "but shop has 4 items"),
        ({"embeddings": torch.full((4, 2), torch.nan)}, "4 items are not finite, the first .* a:"),
    ],
)
def test_fields_that_cannot_be_are_named(shop, given, said):
    with pytest.raises(TrainingError, match=said):
        field_table(shop, array(0, 1), **given)
