"""Which products share a forward."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newshelf.serving.encode import FORWARD, plan_forwards

ROWS = st.lists(st.tuples(st.integers(0, 64), st.booleans()), max_size=7)


def cost(groups, lengths):
    return sum(
        FORWARD + max(lengths[row] for row in group) * sum(lengths[row] > 0 for row in group)
        for group in groups
    )


def splits(rows):
    """Every way to divide ``rows`` into groups."""
    if not rows:
        yield []
        return
    first, *rest = rows
    for groups in splits(rest):
        yield [[first], *groups]
        for at, group in enumerate(groups):
            yield [*groups[:at], [first, *group], *groups[at + 1 :]]


@given(ROWS, st.integers(1, 8), st.integers(1, 8))
def test_every_row_is_in_one_forward_within_its_limits(rows, max_rows, max_pictures):
    lengths, pictured = [row[0] for row in rows], [row[1] for row in rows]
    groups = plan_forwards(lengths, pictured, max_rows=max_rows, max_pictures=max_pictures)
    assert sorted(row for group in groups for row in group) == list(range(len(rows)))
    for group in groups:
        assert 0 < len(group) <= max_rows
        assert sum(pictured[row] for row in group) <= max_pictures


@given(st.lists(st.integers(0, 64), max_size=6))
def test_no_split_is_cheaper(lengths):
    plan = plan_forwards(lengths, [False] * len(lengths), max_rows=64, max_pictures=64)
    best = min(cost(groups, lengths) for groups in splits(list(range(len(lengths)))))
    assert cost(plan, lengths) == best


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([9], [[0]]),
        ([9, 8, 10, 9], [[1, 0, 3, 2]]),
        ([9, 64, 8, 10, 9], [[2, 0, 4, 3], [1]]),
        ([0, 0, 64], [[0, 1, 2]]),
    ],
)
def test_a_long_text_goes_alone_when_that_is_cheaper(lengths, expected):
    assert plan_forwards(lengths, [False] * len(lengths), max_rows=64, max_pictures=64) == expected


def test_what_needs_no_decoding_goes_first():
    groups = plan_forwards([5] * 6, [True, False] * 3, max_rows=64, max_pictures=2)
    assert groups[0] == [1, 3, 5]
    assert sorted(map(len, groups[1:])) == [1, 2]


def test_a_gpu_computes_a_batch_at_once():
    pictured = [True, False] * 3
    groups = plan_forwards([5] * 6, pictured, max_rows=64, max_pictures=64, on_gpu=True)
    assert groups == [[0, 1, 2, 3, 4, 5]]


def test_a_gpu_splits_where_padding_costs_more_than_a_forward():
    lengths = [8] * 30 + [512]
    groups = plan_forwards(lengths, [False] * 31, max_rows=64, max_pictures=64, on_gpu=True)
    assert groups == [[*range(30)], [30]]


@pytest.mark.parametrize("limits", [(2, 64), (64, 2)])
def test_limits_hold_on_a_gpu(limits):
    rows, pictures = limits
    groups = plan_forwards([5] * 5, [True] * 5, max_rows=rows, max_pictures=pictures, on_gpu=True)
    assert sorted(map(len, groups)) == [1, 2, 2]
