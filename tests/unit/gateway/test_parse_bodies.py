"""Any body at all: either it is understood, or it is told what is wrong with it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.catalog.schema import clean_id
from newshelf.config import Limits
from newshelf.errors import InvalidField, NotJson, RequestError, UnsupportedMedia
from newshelf.gateway.schemas import (
    Invalid,
    RecommendQuery,
    parse_feedback_body,
    parse_recommend_body,
    parse_similar_body,
)
from newshelf.serving.schemas import RecommendRequest
from newshelf.store.records import Feedback

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "unit", "history", "candidates", "k", "filters", "exclude", "diversity", "explain",
        "kind", "placement", "items", "cursor", "item", "user_id", "event_id", "event_type",
        "item_id", "at", "request_id", "value", "events",
    ]
)  # fmt: skip
LIMITS = Limits()
PARSERS: list[Callable[[bytes, str], Any]] = [
    partial(parse_recommend_body, limits=LIMITS),
    partial(parse_similar_body, limits=LIMITS),
    parse_feedback_body,
]


@pytest.mark.parametrize("parse", PARSERS)
@settings(deadline=None)
@given(body=st.binary() | st.dictionaries(FIELDS, JSON).map(orjson.dumps) | JSON.map(orjson.dumps))
def test_any_body_is_understood_or_refused(parse: Callable[[bytes, str], Any], body: bytes) -> None:
    try:
        parsed = parse(body, "application/json")
    except RequestError as error:
        parsed = error
    if isinstance(parsed, RequestError):
        assert 400 <= parsed.http_status < 500
        assert orjson.loads(orjson.dumps(parsed.body()))["message"]
    else:
        assert isinstance(parsed, RecommendQuery) or all(
            isinstance(one, Feedback | Invalid) for one in parsed
        )


def is_id(text: str) -> bool:
    try:
        return bool(clean_id(text))
    except ValueError:
        return False


IDS = st.text(min_size=1, max_size=200).filter(is_id)


@settings(deadline=None)
@given(unit=IDS, history=st.lists(IDS, max_size=5), k=st.integers(1, 100))
def test_what_is_asked_reaches_the_model_with_clean_ids(
    unit: str, history: list[str], k: int
) -> None:
    body = orjson.dumps({"unit": unit, "history": history, "k": k})
    asked = parse_recommend_body(body, "application/json; charset=utf-8", LIMITS)
    assert asked.unit == clean_id(unit)
    assert orjson.loads(asked.body) == {"history": [*map(clean_id, history)], "k": k}


def test_ids_meet_those_of_the_catalogue() -> None:
    event = {
        "event_id": " e1\n",
        "event_type": "view",
        "item_id": "bague-e\u0301 ",
        "unit": "\ufeffu",
    }
    [read] = parse_feedback_body(orjson.dumps(event), "application/json")
    assert (read.event_id, read.item_id, read.unit) == ("e1", "bague-\xe9", "u")
    asked = parse_recommend_body(
        orjson.dumps({"unit": "u\xa0", "history": ["bague-e\u0301", " 7"], "exclude": ["8 "]}),
        "",
        LIMITS,
    )
    assert (asked.unit, asked.request.history) == ("u", ["bague-\xe9", "7"])
    assert asked.request.exclude == ["8"]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({}, "unit", "required"),
        ({"unit": " "}, "unit", "must not be blank"),
        ({"unit": "u" * 201}, "unit", "at most 200"),
        ({"unit": "a\0b"}, "unit", "control characters"),
        ({"unit": "u", "history": ["a", "b\x1fc"]}, "history[1]", "control characters"),
        ({"unit": "u", "exclude": ["a", "b" * 201]}, "exclude[1]", "at most 200"),
        ({"unit": 7}, "unit", "string"),
        ({"unit": "u", "histroy": []}, "histroy", "did you mean 'history'"),
        ({"unit": "u", "history": ["a", 3]}, "history[1]", "product id"),
        ({"unit": "u", "k": 0}, "k", "greater than or equal to 1"),
        ({"unit": "u", "filters": {"price": {"min": -1}}}, "filters.price.min", "greater"),
        ({"unit": "u", "diversity": 2}, "diversity", "less than or equal to 1"),
        ({"unit": "u", "k": LIMITS.max_k + 1}, "k", "at most"),
        ({"unit": "u", "history": ["a"] * (LIMITS.max_history + 1)}, "history", "most recent"),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        parse_recommend_body(orjson.dumps(body), "application/json", LIMITS)
    assert caught.value.field == field


def test_a_body_of_another_kind() -> None:
    with pytest.raises(UnsupportedMedia, match="application/json"):
        parse_recommend_body(b"unit=u", "application/x-www-form-urlencoded", LIMITS)
    with pytest.raises(NotJson, match="empty"):
        parse_recommend_body(b"", "", LIMITS)
    with pytest.raises(NotJson) as caught:
        parse_recommend_body(b'{"unit": "ada"', "application/json", LIMITS)
    assert "ada" not in caught.value.message
    with pytest.raises(InvalidField, match="JSON object"):
        parse_recommend_body(b"[]", "application/json", LIMITS)


def test_similar_names_its_own_fields() -> None:
    with pytest.raises(InvalidField) as caught:
        parse_similar_body(b'{"unit": "u"}', "application/json", LIMITS)
    assert caught.value.field == "item"
    with pytest.raises(InvalidField) as caught:
        parse_similar_body(b'{"unit": "u", "item": {"title": 3}}', "application/json", LIMITS)
    assert caught.value.field == "item.title"
    with pytest.raises(InvalidField) as caught:
        parse_similar_body(b'{"unit": "u", "item": "a", "k": 101}', "application/json", LIMITS)
    assert caught.value.field == "k"


def test_similar_is_a_kind_that_starts_from_one_product() -> None:
    body = b'{"unit": "u", "item": "a", "k": 3, "filters": {"brand": "b"}}'
    query = parse_similar_body(body, "application/json", LIMITS)
    assert orjson.loads(query.body) == {
        "kind": "similar",
        "history": ["a"],
        "k": 3,
        "filters": {"brand": "b"},
    }
    assert query.request == RecommendRequest.model_validate(orjson.loads(query.body))
