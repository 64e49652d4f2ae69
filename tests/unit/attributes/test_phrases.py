import pytest
from hypothesis import given
from hypothesis import strategies as st

from newshelf.attributes.lexicon import PhraseBook, phrase_key, tokens_of


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
