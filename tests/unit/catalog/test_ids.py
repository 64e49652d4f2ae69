"""One rule for ids: in the catalogue, in requests, and in the event store."""

import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from newshelf.catalog.schema import MAX_ID_CHARS, clean_id, clean_ids
from newshelf.serving.schemas import Ids, seen_as_ids
from newshelf.store.records import Feedback

BLANKS = [" ", "\t", "\r\n", "\xa0", "\u2003", "\u3000", "\u200b", "\ufeff", "\u200e", " \ufeff "]


def refused(text: str) -> str | None:
    try:
        clean_id(text)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("blank", BLANKS)
def test_blanks_at_both_ends_do_not_count(blank):
    assert clean_id(f"{blank}SKU 1{blank}") == "SKU 1"
    assert "blank" in refused(blank)


def test_both_unicode_forms_are_one_id():
    assert clean_id("bague-e\u0301") == clean_id("bague-\xe9") == "bague-\xe9"


@pytest.mark.parametrize("text", ["a\x00b", "2\x00", "a\x1fb", "a\nb", "a\x7fb", "a\x85b"])
def test_control_characters_are_refused(text):
    assert "control characters" in refused(text)


def test_the_longest_id_fits_and_padding_does_not_count():
    assert clean_id("x" * MAX_ID_CHARS + " ") == "x" * MAX_ID_CHARS
    assert "at most 200" in refused("x" * (MAX_ID_CHARS + 1))


@given(st.text(max_size=12))
def test_a_clean_id_stays_as_it_is(text):
    if refused(text) is None:
        cleaned = clean_id(text)
        assert clean_id(cleaned) == cleaned
        assert unicodedata.is_normalized("NFC", cleaned)


@given(st.lists(st.text(st.sampled_from("aé \t\x00\u0301\ufeff"), max_size=4), min_size=1))
def test_many_at_once_are_cleaned_as_one_is(ids):
    seen = seen_as_ids(ids)
    if any(map(refused, ids)):
        assert seen == ids
        assert not isinstance(seen, Ids)
        with pytest.raises(ValueError, match="must"):
            clean_ids(ids)
    else:
        assert seen == clean_ids(ids) == [*map(clean_id, ids)]


def test_the_event_store_keeps_the_same_form():
    made = {"event_type": "view", "at": datetime.now(UTC)}
    assert Feedback(event_id="e ", item_id="e\u0301", unit="\tu", **made).item_id == "\xe9"
    with pytest.raises(ValidationError, match="control characters"):
        Feedback(event_id="e", item_id="a\x00b", **made)
