import functools
import json
from collections.abc import Iterator

import pytest
from rich.console import Console

from benchmarks.transfer.command import TransferContext
from benchmarks.transfer.titles import (
    ALL,
    UNSEEN,
    _inside,
    _leaf,
    _off,
    _rates,
    _type,
    measure_chinese,
    span_scores,
)
from newshelf.attributes import title_tagger
from newshelf.attributes.lexicon import Lexicon, Texts, Word, packaged_lexicon
from newshelf.attributes.title_tagger import Span
from newshelf.config import Settings

THINGS = ["双肩包", "运动鞋", "帽子", "手机壳", "连衣裙"]


def lines(places: range) -> str:
    rows = []
    for at in places:
        brand, thing = chr(0x4E10 + 7 * at) + chr(0x5E10 + 5 * at), THINGS[at % 5]
        spans = [[0, 2, "HPPX"], [4, 4 + len(thing), "HCCX"]]
        rows.append({"title": f"{brand}新款{thing}", "entities": spans})
    return "\n".join(map(json.dumps, rows))


@pytest.fixture(scope="module", autouse=True)
def one_tower() -> Iterator[None]:
    """Each training would load it again."""
    with pytest.MonkeyPatch.context() as patch:
        load = title_tagger.load_text_tower
        patch.setattr(title_tagger, "load_text_tower", functools.cache(load))
        yield


@pytest.fixture
def context(tmp_path):
    folder = tmp_path / "data" / "titles-zh"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(lines(range(40)), encoding="utf-8")
    (folder / "dev.jsonl").write_text(lines(range(30, 50)), encoding="utf-8")
    return lambda kept=None, seeds=(0, 1): TransferContext(
        tmp_path / "data", kept, tmp_path, tmp_path, seeds, Console(), Settings(threads=1)
    )


def test_repeated_titles_are_counted_and_measured_apart(context):
    result = measure_chinese(context())
    assert (result.trained_on, result.tested_on, result.seen) == (40, 20, 10)
    values = {(row.measure, row.method): list(row.values) for row in result.rows}
    assert len(values[ALL, "CRF"]) == 2
    # Of a new title the names' list knows the thing, and not the brand: F1 2/3.
    assert values[UNSEEN, "longest name known"] == pytest.approx([2 / 3] * 2)
    assert values[ALL, "longest name known"] == pytest.approx([60 / 70] * 2)
    assert min(values[UNSEEN, "CRF"]) > 0.9
    assert {row.method for row in result.rows if row.baseline} == set(result.by_type) - {"CRF"}


def test_what_was_kept_back_is_the_test(context, tmp_path):
    kept = tmp_path / "kept" / "titles-zh"
    kept.mkdir(parents=True)
    (kept / "test.jsonl").write_text(lines(range(60, 65)), encoding="utf-8")
    result = measure_chinese(context(tmp_path / "kept", seeds=(0,)))
    assert (result.trained_on, result.tested_on, result.seen) == (60, 5, 0)


def test_rates_are_micro_averages_over_what_is_stated():
    said = [{"red"}, {"red", "blue"}, set(), {"red"}]
    truth = [{"red"}, {"blue"}, {"green"}, set()]
    assert _rates(said, truth) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert _rates([set()], [{"red"}]) == (0, 0, 0)


def test_confidences_are_off_by_what_they_promise_too_much():
    sure = [{"red": 0.75}] * 4 + [{"red": 0.1}]
    assert _off(sure, [{"blue"}] * 4 + [set()]) == pytest.approx(0.75)
    assert _off(sure, [{"red"}] * 4 + [set()]) == pytest.approx(0.25)


def test_the_baselines_look_for_letters():
    assert _inside("Reddish NAVY blue bag", {"red", "navy blue", "green"}, packaged_lexicon()) == {
        "red",
        "navy",
    }
    assert _leaf("Nike casual shoe", {"shoes": "a > shoes", "casual shoes": "a > b"}) == {"a > b"}
    assert _leaf("Nike", {"shoes": "a > shoes"}) == set()


def test_only_the_surest_stated_type_is_the_answer():
    words = [
        Word("shoe", "product_type", "Shoes", 0.9),
        Word("shoe", "product_type", "Shoes > Casual", 0.7),
        Word("shoe", "product_type", "Shoes > Sports", 0.2),
        Word("boot", "product_type", "Shoes > Boots", 0.5),
    ]
    types = {"Shoes > Casual", "Shoes > Sports", "Shoes > Boots"}
    assert _type(Lexicon(words), Texts("A shoe"), types) == {"shoes > casual"}
    assert _type(Lexicon(words), Texts("A boot"), types) == set()


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
    assert scores[""].f1 == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))


def test_nothing_to_find_and_nothing_found_is_zero():
    score = span_scores([[]], [[]])[""]
    assert score.f1 == 0


def test_a_span_said_twice_counts_once():
    scores = span_scores([[Span(0, 1, "A"), Span(0, 1, "A")]], [[Span(0, 1, "A")]])
    assert scores["A"] == (1, 1, 1)


def test_the_titles_must_be_as_many():
    with pytest.raises(ValueError, match="zip"):
        span_scores([[]], [[], []])
