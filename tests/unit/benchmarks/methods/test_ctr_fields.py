"""Impressions, negatives and fields, beside what one would write by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.methods.ctr.fields import Vocabulary, field_table
from benchmarks.methods.ctr.impressions import Negatives, positives
from newshelf.errors import TrainingError


def array(*values):
    return np.array(values, dtype=np.int64)


SEQUENCES = [array(4, 2, 4, 7), array(0), array(1, 2)]
TIMES = [array(10, 20, 30, 40), array(50), array(60, 70)]


def test_each_known_id_has_a_row_of_its_own_and_others_have_none():
    known = Vocabulary(["b", "a", "b"])
    assert known.size == 3
    assert known.rows(["a", "new", "b", ""]).tolist() == [2, 0, 1, 0]


def test_a_positive_has_what_came_before_it_the_nearest_first():
    rows = positives(SEQUENCES, TIMES, 2, users=array(5, 6, 7))
    assert rows.item.tolist() == [4, 2, 7, 0, 1, 2]
    assert rows.history.tolist() == [[-1, -1], [4, -1], [4, 2], [-1, -1], [-1, -1], [1, -1]]
    assert rows.timestamp.tolist() == [10, 20, 40, 50, 60, 70]
    assert rows.sequence.tolist() == [0, 0, 0, 1, 2, 2]
    assert rows.user.tolist() == [5, 5, 5, 6, 7, 7]
    assert rows.label.tolist() == [1.0] * 6


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


def test_a_table_has_the_named_fields(shop):
    names = ("item", "color", "price", "hour", "weekday", "month", "history")
    table = field_table(shop, array(0, 1), names)
    assert table.names == names
    assert table.item_side.tolist() == [True, True, True, False, False, False, False]


def test_new_ids_and_new_values_are_unknown(shop):
    table = field_table(shop, array(0, 1), ["item", "color", "price", "history"])
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
    table = field_table(shop, array(0, 1), ["hour", "weekday", "month"])
    for text in ("2011-10-31T23:59:59", "1970-01-01T00:00:00", "2024-02-29T12:00:00"):
        moment = pd.Timestamp(text, tz="UTC")
        rows = asked(0, at=int(moment.timestamp()))
        expected = [moment.hour + 1, moment.weekday() + 1, moment.month]
        assert table.inputs(rows).categories[0].tolist() == expected


def test_embeddings_of_the_item_and_the_mean_of_its_history(shop):
    embeddings = torch.arange(8.0).view(4, 2)
    names = ("user", "embedding", "history_embedding")
    table = field_table(shop, array(0, 1), names, embeddings=embeddings, users=3)
    dense = table.inputs(asked(3, 1, 0)).dense
    assert dense.tolist() == [[6, 7, 0, 0], [2, 3, 6, 7], [0, 1, 4, 5]]
    assert [field.size for field in table.fields] == [3, 2, 2]
