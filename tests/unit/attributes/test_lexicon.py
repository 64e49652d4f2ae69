import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newshelf.attributes.lexicon import (
    Lexicon,
    PhraseBook,
    Word,
    packaged_lexicon,
    phrase_key,
    read_lexicon,
    tokens_of,
    type_names,
)
from newshelf.attributes.title_tagger import Span, span_problem
from newshelf.errors import WeightsError


def said(text: str) -> set[tuple[str, str]]:
    return {(mention.attribute, mention.value) for mention in packaged_lexicon().find(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red ring of jade", {("color", "red"), ("material", "jade")}),
        ("红色翡翠戒指", {("color", "red"), ("material", "jade")}),
        ("GREY or gray, 灰色", {("color", "grey")}),
        ("A minimalist navy-blue lamp", {("style", "minimal"), ("color", "navy")}),
        ("Rose gold watch", {("color", "rose gold")}),
        ("Bored of reddish shreds", set()),
        ("", set()),
        ("—", set()),
    ],
)
def test_words_say_what_a_product_is_like(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bag without leather", set()),
        ("non-leather bag", set()),
        ("leather-free bag", set()),
        ("faux leather bag", {("material", "faux leather")}),
        ("oak effect shelf", set()),
        ("gold-plated", set()),
        ("不含橡胶 无塑料袋", set()),
        ("不要红色，没有蕾丝的真皮包", {("material", "leather")}),
        ("no fuss, leather bag", {("material", "leather")}),
        ("Crystal-clear glass", {("material", "glass")}),
        ("Glasses on a yellow backdrop", set()),
    ],
)
def test_what_is_denied_or_only_looks_so_does_not_count(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("红皮鞋", {("color", "red"), ("material", "leather"), ("product_type", "Shoes")}),
        ("新款白棉衬衫", {("color", "white"), ("material", "cotton"), ("product_type", "Shirts")}),
        ("红木椅子", {("material", "mahogany"), ("product_type", "Chairs")}),
        ("不要黑鞋子", {("product_type", "Shoes")}),
        (
            "银鞋子",
            {("material", "silver"), ("color", "silver"), ("product_type", "Shoes")},
        ),
        ("红 鞋子", {("product_type", "Shoes")}),
        ("红包", set()),
        ("红酒衬衫", {("product_type", "Shirts")}),
    ],
)
def test_one_character_counts_before_a_type(text, expected):
    types = [("鞋", "Shoes"), ("鞋子", "Shoes"), ("衬衫", "Shirts"), ("椅子", "Chairs")]
    words = [Word(word, "product_type", value, 0.9) for word, value in types]
    found = Lexicon([*packaged_lexicon().words, *words]).find(text)
    assert {(mention.attribute, mention.value) for mention in found} == expected
    assert [mention.start for mention in found] == sorted(mention.start for mention in found)


def test_names_of_types_are_in_both_languages():
    groups = set(type_names().values())
    assert all(any(not name.isascii() for name in names) for names in groups)
    assert "戒指" in type_names()[phrase_key("Rings")]
    assert type_names()[phrase_key("沙发")] is type_names()[phrase_key("Couch")]
    assert not any(word.attribute == "product_type" for word in packaged_lexicon().words)


def test_values_have_one_name_in_both_languages():
    lexicon = packaged_lexicon()
    for word in ("Red", " 红色", "大红", "scarlet", "红"):
        assert lexicon.canonical("color", word) == "red"
    assert lexicon.canonical("color", "Navy Blue") == "navy"
    assert lexicon.canonical("color", "Blurple ") == "blurple"
    assert lexicon.canonical("brand", " Blue Note ") == "Blue Note"
    assert lexicon.canonical("style", "极简") == "minimal"


def test_a_value_implies_wider_ones():
    lexicon = packaged_lexicon()
    assert lexicon.implied("color", "navy") == ["blue"]
    assert lexicon.implied("color", "nude") == ["beige", "brown"]
    assert lexicon.implied("color", "blue") == []
    assert Lexicon((), {"color": {"a": "b", "b": "a"}}).implied("color", "a") == ["b", "a"]


def test_every_wider_value_is_a_value_itself():
    lexicon = packaged_lexicon()
    values = {(word.attribute, word.value) for word in lexicon.words}
    for attribute, wider in lexicon.broader.items():
        assert {(attribute, value) for pair in wider.items() for value in pair} <= values


def test_no_packaged_phrase_says_two_things_of_one_attribute():
    seen: dict[tuple[str, str], str] = {}
    for word in packaged_lexicon().words:
        assert seen.setdefault((word.attribute, word.phrase), word.value) == word.value


def test_what_is_written_is_read(tmp_path):
    packaged_lexicon().write(tmp_path / "lexicon.json")
    assert read_lexicon(tmp_path / "lexicon.json") == Lexicon(
        list(packaged_lexicon().words), packaged_lexicon().broader
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"format": 2, "words": [], "broader": {}}',
        b'{"format": 1, "words": [["red"]], "broader": {}}',
        b'{"format": 1, "words": [], "broader": []}',
        json.dumps({"format": 1, "words": [["a", "b", "c", "x", True]], "broader": {}}).encode(),
    ],
)
def test_a_damaged_lexicon_is_refused(tmp_path, body):
    path = tmp_path / "lexicon.json"
    path.write_bytes(body)
    with pytest.raises(WeightsError, match=r"lexicon\.json cannot be read"):
        read_lexicon(path)


def test_a_missing_lexicon_is_named(tmp_path):
    with pytest.raises(WeightsError, match="train again"):
        read_lexicon(tmp_path / "lexicon.json")


PIECES = st.sampled_from(["red", "rose gold", "红色", "no ", "-free", " ", ",", "jade", "皮", "İ"])


@given(st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join))
def test_mentions_are_inside_the_text_and_those_of_one_attribute_never_overlap(text):
    mentions = packaged_lexicon().find(text)
    for attribute in ("color", "material", "style"):
        spans = [Span(*item[:3]) for item in mentions if item.attribute == attribute]
        assert span_problem(text, spans) is None


def test_a_word_for_filters_only_is_not_looked_for():
    lexicon = Lexicon([Word("rose", "color", "rose", 0.8, in_text=False)])
    assert lexicon.find("rose") == []
    assert lexicon.canonical("color", "Rose") == "rose"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Rings", "ring"),
        ("T-Shirts", "tshirt"),
        ("T Shirt", "Tshirts"),
        ("Dresses", "dress"),
        ("watches", "Watch"),
        ("Accessories", "accessory"),
        ("pared-back", "Pared back"),
        ("V-Neck", "vneck"),
    ],
)
def test_spellings_of_one_phrase_have_one_key(one, other):
    assert phrase_key(one) == phrase_key(other) != ()


@pytest.mark.parametrize("word", ["glass", "bus", "gas", "tennis", "cactus", "tulle"])
def test_what_only_looks_like_a_plural_is_kept(word):
    assert phrase_key(word) == (word,)


def test_chinese_is_read_by_character_and_mixed_text_by_both():
    assert phrase_key("925银Ring") == ("925", "银", "ring")
    assert phrase_key("—!") == ()


def found(book, text):
    return [text[item.start : item.end] for item in book.find(text, tokens_of(text))]


def test_the_longest_phrase_wins_and_words_are_whole():
    book = PhraseBook({phrase_key(word): word for word in ["gold", "rose gold", "红", "酒红色"]})
    assert found(book, "Rose-Gold ring, golden, marigold, gold") == ["Rose-Gold", "gold"]
    assert found(book, "酒红色红") == ["酒红色", "红"]
    assert found(book, "a rose. Gold leaf") == ["Gold"]
    assert found(book, "") == []


WORDS = st.sampled_from(["red", "rose", "gold", "红", "色", ",", "rings", "-", " "])


@given(st.lists(WORDS, max_size=12))
def test_phrases_are_inside_the_text_in_order_and_as_long_as_can_be(words):
    text = " ".join(words)
    known = [("red",), ("rose", "gold"), ("gold",), ("红", "色"), ("ring",)]
    book = PhraseBook({key: key for key in known})
    tokens = tokens_of(text)
    end = 0
    for item in book.find(text, tokens):
        assert end <= item.start < item.end <= len(text)
        assert phrase_key(text[item.start : item.end]) == item.entry
        end = item.end
