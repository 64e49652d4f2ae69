import pytest

from newshelf.attributes.title_features import Span
from newshelf.attributes.title_tagger import span_scores


def test_only_exact_spans_with_their_label_are_found():
    true = [[Span(0, 2, "A"), Span(3, 5, "B")], [Span(0, 1, "A")], []]
    predicted = [
        [Span(0, 2, "A"), Span(3, 4, "B")],
        [Span(0, 1, "B")],
        [Span(2, 3, "A")],
    ]
    scores = span_scores(predicted, true)
    assert scores[""] == (1, 4, 3)
    assert scores["A"] == (1, 2, 2)
    assert scores["B"] == (0, 2, 1)
    assert scores[""].precision == 1 / 4
    assert scores[""].recall == 1 / 3
    assert scores[""].f1 == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))


def test_nothing_to_find_and_nothing_found_is_zero():
    score = span_scores([[]], [[]])[""]
    assert (score.precision, score.recall, score.f1) == (0, 0, 0)


def test_a_span_said_twice_counts_once():
    scores = span_scores([[Span(0, 1, "A"), Span(0, 1, "A")]], [[Span(0, 1, "A")]])
    assert scores["A"] == (1, 1, 1)


def test_the_titles_must_be_as_many():
    with pytest.raises(ValueError, match="zip"):
        span_scores([[]], [[], []])
