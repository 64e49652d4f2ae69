"""Features from the multilingual tower: one row per character, and alike where words are."""

import numpy as np
import pytest

from newshelf.attributes.title_context import TitleContext

TITLES = ["红色双肩包", "黑色运动鞋", "NIKE 白色帽子", "翡翠戒指 18k"] * 3


@pytest.fixture(scope="module")
def context() -> TitleContext:
    return TitleContext(TITLES)


@pytest.mark.parametrize("title", ["红色双肩包", "NIKE 鞋", "", "  ", "𠮷", "a" * 3000])
def test_each_character_has_a_row_of_finite_numbers(context, title):
    rows = context.of(title)
    assert len(rows) == len(title)
    assert all(np.isfinite(list(row.values())).all() for row in rows)


def test_characters_of_one_token_differ_in_their_place_only(context):
    first, last = context.of("帽子")
    assert {name[0] for name in first} == {"B"}
    assert {name[0] for name in last} == {"E"}
    assert list(first.values()) == list(last.values())


def test_a_character_is_known_by_its_neighbours(context):
    (one, *_), (other, *_) = context.of("红色双肩包"), context.of("红酒")
    assert one != other
