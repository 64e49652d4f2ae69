"""Posting lists and lookups of a table, built in memory or stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.catalog.schema import category_path, split_values
from newshelf.serving import item_table
from newshelf.serving.item_table import ItemTable, KnownValues, TextReader

QUICK = settings(max_examples=80, deadline=None, derandomize=True)
NAMES = ["Red", "red / White", "", "  ", "红色", "a > b", "A>B > c", "c", "out_of_stock"]
cells = st.none() | st.sampled_from(NAMES)
confidences = st.sampled_from([0.3, 0.6, 0.7, 0.9, 1.0])
ATTRIBUTES = ("product_type", "brand", "color", "material", "style")
LEAST = 0.6


@st.composite
def tables(draw):
    """Cells by column, and statements about them."""
    count = draw(st.integers(0, 12))
    rows = st.lists(cells, min_size=count, max_size=count)
    texts = {name: draw(rows) for name in ("brand", "color", "material", "product_type")}
    columns = {
        **texts,
        "id": [f"i{row}" for row in range(count)],
        "title": draw(rows),
        "availability": draw(rows),
        "price": draw(st.lists(st.none() | st.floats(0, 9), min_size=count, max_size=count)),
        "created_at": draw(st.lists(st.none() | st.integers(0, 9), min_size=count, max_size=count)),
        "popularity": draw(st.lists(st.floats(0, 9), min_size=count, max_size=count)),
        "season": draw(rows),
    }
    statement = st.tuples(
        st.integers(0, max(count - 1, 0)),
        st.sampled_from(ATTRIBUTES),
        st.sampled_from([name for name in NAMES if name.strip()]),
        confidences,
    )
    return columns, draw(st.lists(statement, max_size=20)) if count else []


def built(columns, statements) -> ItemTable:
    known = KnownValues.from_rows(statements, TextReader(least=LEAST))
    return ItemTable.from_columns(columns, known)


def stored(columns, statements) -> ItemTable:
    arrays = built(columns, statements).arrays()
    return ItemTable.stored(arrays, ["season"], TextReader(least=LEAST))


def naive(columns, statements, attribute: str) -> dict[str, list[int]]:
    """Row by row, as the documentation of filters words it."""

    def folded(value):
        return value.strip().lower()

    def paths(value):
        levels = category_path(value)
        return [" > ".join(levels[: depth + 1]) for depth in range(len(levels))]

    def stated(value):
        if attribute == "product_type":
            return paths(value)
        if attribute == "availability":
            return [value or "in_stock"]
        if not value:
            return []
        return [folded(value)] if attribute == "brand" else [*split_values(value), folded(value)]

    postings: dict[str, set[int]] = {}
    for row, value in enumerate(columns.get(attribute, ())):
        for key in stated(value):
            postings.setdefault(key, set()).add(row)
    for row, name, value, confidence in statements:
        if name == attribute and confidence >= LEAST:
            for key in paths(value) if name == "product_type" else [folded(value)]:
                postings.setdefault(key, set()).add(row)
    return {key: sorted(rows) for key, rows in postings.items()}


@pytest.mark.parametrize("make", [built, stored])
@QUICK
@given(tables())
def test_postings_are_those_of_a_loop_over_the_rows(make, drawn):
    table = make(*drawn)
    for attribute in ("product_type", "brand", "color", "material", "style", "availability"):
        postings, expected = table.by(attribute), naive(*drawn, attribute)
        for key in {*expected, *postings.keys, "nothing"}:
            found = postings.get(key)
            assert sorted([] if found is None else found.tolist()) == expected.get(key, [])
    gone = naive(*drawn, "availability").get("out_of_stock", [])
    assert np.flatnonzero(~table.in_stock).tolist() == gone


@QUICK
@given(tables())
def test_a_stored_table_is_the_one_that_was_built(drawn):
    columns, statements = drawn
    table, again = built(columns, statements), stored(columns, statements)
    assert again.known.statements() == table.known.statements()
    for name in columns:
        first, second = table.column(name), again.column(name)
        np.testing.assert_array_equal(first, second, strict=isinstance(first, np.ndarray))
    for name in ("popular_first", "newest_first"):
        assert getattr(again, name).tolist() == getattr(table, name).tolist()
    for row in range(len(table)):
        assert again.known.at(row) == table.known.at(row)
        for attribute in ATTRIBUTES:
            values = [
                (value, sure)
                for at, name, value, sure in statements
                if (at, name) == (row, attribute) and sure >= LEAST
            ]
            expected = [value for value, _ in sorted(values, key=lambda one: -one[1])]
            assert list(table.known.at(row).get(attribute, ())) == expected


@QUICK
@given(tables(), st.integers(0, 20))
def test_ids_are_looked_up_in_either_way(drawn, asked):
    ids = [f"i{asked}", None, "i0", "other"]
    expected = [asked if asked < len(drawn[0]["id"]) else -1, -1]
    expected += [0 if drawn[0]["id"] else -1, -1]
    with pytest.MonkeyPatch.context() as patch:
        assert stored(*drawn).rows(ids).tolist() == expected
        patch.setattr(item_table, "_DICTIONARY_IDS", 0)
        hashed = stored(*drawn)
        assert hashed.rows(ids).tolist() == expected
        assert "row_of" not in vars(hashed) or not len(hashed)


def test_another_popularity_keeps_what_was_stored():
    columns = {
        "id": ["a", "b", "c"],
        "price": [1.0, 2.0, None],
        "created_at": [None] * 3,
        "popularity": [1.0, 2.0, 2.0],
        "brand": ["x", "y", "x"],
        "season": [None] * 3,
    }
    table = stored(columns, [])
    assert table.popular_first.tolist() == [1, 2, 0]
    assert table.interest == 5
    other = table.with_popularity(np.array([9.0, 0.0, 1.0]))
    assert other.popular_first.tolist() == [0, 2, 1]
    assert other.interest == 10
    assert other.by("brand") is table.by("brand")
    assert table.popularity.tolist() == [1, 2, 2]
