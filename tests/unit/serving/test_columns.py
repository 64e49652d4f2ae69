"""Columns as arrays: what is stored is what was given, and lookups find it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.serving.columns import IdHashes, Strings, TextColumn, typed_column

QUICK = settings(max_examples=100, deadline=None, derandomize=True)
texts = st.text(st.characters(codec="utf-8"), max_size=8)


@QUICK
@given(st.lists(texts))
def test_texts_are_kept(values):
    strings = Strings.stored(Strings.of(values).arrays("x"), "x")
    assert len(strings) == len(values)
    assert list(strings) == [strings[at] for at in range(len(values))] == values
    assert strings[1:3] == values[1:3]
    with pytest.raises(IndexError):
        strings[len(values)]


@QUICK
@given(st.lists(st.none() | texts))
def test_cells_are_kept(values):
    column = TextColumn.stored(TextColumn.of(values).arrays("x"), "x")
    assert list(column) == [column[at] for at in range(len(values))] == values
    assert column[:2] == values[:2]
    assert len(column.texts) == len({*values} - {None})
    assert list(TextColumn.of(column)) == values


def test_the_last_cell_can_be_counted_from_the_end():
    assert Strings.of(["a", "b"])[-1] == "b"
    assert TextColumn.of(["a", None])[-2] == "a"


# The first two have one hash.
ids = st.sampled_from(["plumless", "buckeroo", "红", "a" * 200]) | st.text(
    st.characters(codec="utf-8"), min_size=1, max_size=6
)


@QUICK
@given(st.lists(ids, unique=True), st.lists(st.none() | ids, max_size=9), st.data())
def test_ids_are_found_and_no_others(known, others, data):
    asked = data.draw(st.permutations([*known, *others]))
    row_of = {item: row for row, item in enumerate(known)}
    strings = Strings.of(known)
    hashes = IdHashes.of(strings)
    again = IdHashes(strings, *hashes.arrays().values())
    expected = [row_of.get(item, -1) for item in asked]
    assert hashes.rows(asked).tolist() == again.rows(asked).tolist() == expected


def test_an_id_that_is_no_text_is_not_found():
    assert IdHashes.of(Strings.of(["a"])).rows(["\ud800", "a"]).tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        ([1, 2.5, None], [1, 2.5, math.nan]),
        (["1", "-2.5e3", "", " 4 "], [1, -2500, math.nan, 4]),
        (["0", "0.5"], [0, 0.5]),
        ([], []),
        ([None], [math.nan]),
    ],
)
def test_a_column_of_numbers(cells, numbers):
    np.testing.assert_array_equal(typed_column(cells), numbers)


@pytest.mark.parametrize(
    "cells",
    [
        ["007", "12"],
        ["1", "x"],
        [True, False],
        ["nan"],
        ["inf", "1"],
        [10**400],
        [[1, 2], None],
        ["1_000"],
        ["٣"],
    ],
    ids=str,
)
def test_a_column_of_texts(cells):
    expected = [None if cell is None else str(cell) for cell in cells]
    assert list(typed_column(cells)) == expected
