import functools
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pycrfsuite
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.attributes import title_tagger
from newshelf.attributes.title_tagger import (
    Span,
    TaggedTitle,
    TitleContext,
    TitleTagger,
    items_of,
    read_tagged,
    span_problem,
    spans_of,
    tags_of,
    train_tagger,
)
from newshelf.errors import TrainingError

# Most brands come once or twice, so that it is their place that tells them.
BRANDS = ["小米", "KATO", *(chr(0x4E10 + 7 * at) + chr(0x5E10 + 5 * at) for at in range(5))]
COLORS = ["红色", "黑色", "白色"]
THINGS = ["双肩包", "运动鞋", "帽子", "手机壳", "连衣裙"]


def titles() -> list[TaggedTitle]:
    made = []
    for brand in BRANDS:
        for color in COLORS:
            for thing in THINGS:
                parts = [(brand, "HPPX"), ("新款", None), (color, "MISC"), (thing, "HCCX")]
                made.append(tagged(parts if len(made) % 2 else [parts[3], parts[1], parts[0]]))
    return made


def tagged(parts) -> TaggedTitle:
    text, spans = "", []
    for part, label in parts:
        if label:
            spans.append(Span(len(text), len(text) + len(part), label))
        text += part
    return TaggedTitle(text, tuple(spans))


def tag(tagger: TitleTagger, title: str) -> list[Span]:
    return [found.span for found in tagger.find(title)]


States = dict[str, tuple[Any, Any]]


@pytest.fixture(scope="module", autouse=True)
def one_tower() -> Iterator[States]:
    """Each training would load it again, and let it read the same titles twice."""
    compute, known = TitleContext._states, States()

    def states(context: TitleContext, title: str) -> tuple[Any, Any]:
        if title not in known:
            known[title] = compute(context, title)
        return known[title]

    with pytest.MonkeyPatch.context() as patch:
        load = title_tagger.load_text_tower
        patch.setattr(title_tagger, "load_text_tower", functools.cache(load))
        patch.setattr(TitleContext, "_states", states)
        yield known


@pytest.fixture(scope="module")
def tagger(one_tower: States) -> TitleTagger:
    return train_tagger(titles(), 0, iterations=40)


def test_what_is_regular_is_learned(tagger):
    assert tag(tagger, "小米新款白色帽子") == [
        Span(0, 2, "HPPX"),
        Span(4, 6, "MISC"),
        Span(6, 8, "HCCX"),
    ]
    # A brand that was never seen, in a brand's place.
    assert Span(0, 2, "HPPX") in tag(tagger, "安踏新款红色运动鞋")


def test_confidence_is_a_probability_and_lower_where_it_is_guessing(tagger):
    sure = tagger.find("小米新款白色帽子")
    assert all(0 <= found.confidence <= 1 + 1e-9 for found in sure)
    assert min(found.confidence for found in sure) > 0.8
    guessed = tagger.find("床白")
    assert all(found.confidence < 0.99 for found in guessed)


def test_the_confidence_is_crfsuites_marginal(tagger):
    title = "小米新款白色帽子"
    plain = pycrfsuite.Tagger()
    plain.open_inmemory(tagger.model)
    tags = plain.tag(items_of(title, tagger.names, tagger.context))
    found = tagger.find(title)[0]
    expected = min(plain.marginal(tags[at], at) for at in range(found.span.start, found.span.end))
    assert math.isclose(found.confidence, expected)


def test_equal_seeds_make_equal_taggers(tagger, one_tower):
    one_tower.clear()
    again = train_tagger(titles(), 0, iterations=40)
    assert again.model == tagger.model


@given(st.text(max_size=60) | st.text("耐克小米红色双肩包KATO 15.6寸/İß", max_size=40))
@settings(max_examples=60, deadline=None)
def test_spans_are_inside_the_title_and_never_overlap(tagger, title):
    assert span_problem(title, tag(tagger, title)) is None


TAG = st.sampled_from([f"{place}-{label}" for place in "BIES" for label in "AB"] + ["O"])


@given(st.lists(TAG, max_size=30))
def test_spans_of_any_tags_never_overlap(tags):
    spans = spans_of(tags)
    assert span_problem("x" * len(tags), spans) is None
    inside = {at for span in spans for at in range(span.start, span.end)}
    assert inside == {at for at, tag in enumerate(tags) if tag != "O"}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from("AB"))))
def test_tags_and_spans_are_the_same_thing(gaps):
    spans, at = [], 0
    for gap, length, label in gaps:
        spans.append(Span(at + gap, at + gap + length, label))
        at += gap + length
    assert spans_of(tags_of(TaggedTitle("字" * at, tuple(spans)))) == spans


def test_a_users_own_titles_train_one(tmp_path):
    lines = [{"title": item.title, "entities": item.spans} for item in titles()[:60]]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    tagger = train_tagger(read_tagged(path), 0, iterations=20)
    assert Span(6, 8, "HCCX") in tag(tagger, "小米新款白色帽子")
    path.write_text('{"title": "ab", "entities": [[0, 9, "X"]]}', encoding="utf-8")
    with pytest.raises(TrainingError, match=r"own\.jsonl line 1"):
        train_tagger(read_tagged(path), 0)


def test_an_empty_title_has_no_spans(tagger):
    assert tag(tagger, "") == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (titles()[:5], "5 tagged titles"),
        ([TaggedTitle(f"标题{at}", ()) for at in range(30)], "no title has a span"),
        (
            [TaggedTitle(f"标题{at}", (Span(0, 2 + len(str(at)), "P"),)) for at in range(30)],
            "whole title",
        ),
    ],
    ids=["few", "nothing marked", "everything marked"],
)
def test_what_cannot_be_learned_from_is_refused(bad, reason):
    with pytest.raises(TrainingError, match=reason):
        train_tagger(bad, 0)


def test_one_class_can_be_learned():
    one = [
        TaggedTitle(title.title, tuple(span for span in title.spans if span.label == "HCCX"))
        for title in titles()[:60]
    ]
    tagger = train_tagger(one, 0, iterations=30)
    assert tag(tagger, "小米新款白色帽子") == [Span(6, 8, "HCCX")]


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
