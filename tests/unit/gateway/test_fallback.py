"""Popular products in the model's place, with the request's own conditions kept."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.errors import SettingsError
from newshelf.gateway.fallback import Fallback, PopularItem, read_popular, write_popular
from newshelf.serving.schemas import RecommendRequest


@pytest.fixture
def fallback(popular: Path) -> Fallback:
    return Fallback(read_popular(popular))


def ids(fallback: Fallback, **fields: Any) -> list[str]:
    request = RecommendRequest.model_validate({"k": 3, **fields})
    return [item.id for item in fallback.recommend(request)]


def test_without_anything_known_the_most_popular_in_stock(fallback: Fallback) -> None:
    assert ids(fallback) == ["item-198", "item-197", "item-196"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # By the history's category, without the history itself.
        ({"history": ["item-197"]}, ["item-194", "item-191", "item-188"]),
        ({"history": [{"product_type": "home >Lighting", "title": "x"}]}, ["item-197", "item-194"]),
        ({"filters": {"product_type": "Jewellery"}}, ["item-198", "item-196", "item-195"]),
        ({"filters": {"brand": "ACME "}}, ["item-197", "item-195", "item-193"]),
        ({"filters": {"color": "Green"}}, ["item-195", "item-190", "item-185"]),
        ({"filters": {"color": ["white"]}}, ["item-195", "item-190", "item-185"]),
        ({"filters": {"material": "jade"}}, []),
        ({"filters": {"style": "minimal"}}, []),
        ({"filters": {"price": {"max": 2}}}, ["item-002", "item-001"]),
        ({"filters": {"price": {"min": 198}}}, ["item-198"]),
        ({"filters": {"availability": "out_of_stock"}}, ["item-199"]),
        ({"filters": {"created_after": 1_700_000_195}}, ["item-197"]),
        ({"exclude": ["item-198", "item-196"]}, ["item-197", "item-195", "item-194"]),
        ({"candidates": ["item-004", "item-009", "nobody"]}, ["item-009", "item-004"]),
        ({"candidates": ["item-004", {"id": "new", "title": "x"}]}, ["item-004", "new"]),
        ({"candidates": [{"id": "new", "title": "x"}], "filters": {"brand": "acme"}}, []),
        ({"candidates": ["item-004", "item-004"], "exclude": ["item-004"]}, []),
    ],
)
def test_the_requests_conditions_are_kept(
    fallback: Fallback, fields: dict[str, Any], expected: list[str]
) -> None:
    assert ids(fallback, **fields)[: len(expected) or None] == expected


def test_what_the_category_lacks_others_fill_and_sources_tell(fallback: Fallback) -> None:
    request = RecommendRequest.model_validate(
        {"k": 4, "history": ["item-004"], "candidates": ["item-001", "item-002", "item-007"]}
    )
    answered = [(item.id, item.source) for item in fallback.recommend(request)]
    assert answered == [
        ("item-007", "popular_in_category"),
        ("item-001", "popular_in_category"),
        ("item-002", "popular"),
    ]


def test_k_is_kept_and_never_more_than_a_hundred(fallback: Fallback) -> None:
    assert len(ids(fallback, k=7)) == 7
    assert len(ids(fallback, k=10**9)) == 100


NAMES = st.sampled_from([f"item-{number:03}" for number in range(0, 200, 9)] + ["nobody"])


@settings(deadline=None)
@given(
    history=st.lists(NAMES, max_size=6),
    exclude=st.lists(NAMES, max_size=6),
    k=st.integers(1, 50),
    low=st.integers(0, 200),
)
def test_whatever_is_asked_the_answer_keeps_to_it(
    history: list[str], exclude: list[str], k: int, low: int
) -> None:
    items = [
        PopularItem(id=f"item-{n:03}", share=n / 200, product_type=f"T > {n % 4}", price=n)
        for n in reversed(range(200))
    ]
    fields = {"history": history, "exclude": exclude, "filters": {"price": {"min": low}}}
    answered = ids(Fallback(items), k=k, **fields)
    assert len(set(answered)) == len(answered) <= k
    assert not {*answered} & {*history, *exclude}
    assert all(int(name[-3:]) >= low for name in answered)
    left = {item.id for item in items if item.price is not None and item.price >= low}
    assert len(answered) == min(k, len(left - {*history, *exclude}))


def test_the_file_keeps_the_most_popular_and_some_of_every_category(tmp_path: Path) -> None:
    count = 6_000
    columns: dict[str, list[Any]] = {
        name: [None] * count
        for name in ("brand", "color", "material", "price", "availability", "created_at")
    }
    columns["id"] = [f"i{row}" for row in range(count)]
    columns["product_type"] = ["rare" if row < 50 else "usual" for row in range(count)]
    columns["popularity"] = [None if row == 0 else float(row) for row in range(count)]
    assert write_popular(columns, tmp_path / "popular.json") == 5_020
    items = read_popular(tmp_path / "popular.json")
    assert [item.id for item in items[:2]] == ["i5999", "i5998"]
    assert sum(item.product_type == "rare" for item in items) == 20
    assert items[0].share == pytest.approx(5999 / sum(range(count)))


def test_a_missing_or_damaged_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        read_popular(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('[{"id": 3}]')
    with pytest.raises(SettingsError, match="popular products"):
        read_popular(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # The newest with a date; every second one has none.
        ({"kind": "new"}, [("item-197", "new"), ("item-195", "new"), ("item-193", "new")]),
        (
            {"kind": "new", "candidates": ["item-005", "item-100", "item-009"]},
            [("item-009", "new"), ("item-005", "new"), ("item-100", "popular")],
        ),
        (
            {"kind": "popular", "history": ["item-197"]},
            [("item-198", "popular"), ("item-196", "popular"), ("item-195", "popular")],
        ),
        (
            {"kind": "trending", "k": 1, "filters": {"brand": "Acme"}},
            [("item-197", "popular")],
        ),
        ({"kind": "cart", "history": ["item-197"], "k": 1}, [("item-194", "popular_in_category")]),
        ({"kind": "buy_again"}, []),
        (
            {"kind": "buy_again", "candidates": ["item-007", "nobody", "item-150"]},
            [("item-007", "buy_again"), ("item-150", "buy_again")],
        ),
    ],
)
def test_a_kind_without_the_model_says_what_it_is(
    fallback: Fallback, fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    request = RecommendRequest.model_validate({"k": 3, **fields})
    assert [(item.id, item.source) for item in fallback.recommend(request)] == expected


def test_the_file_keeps_the_newest_too(tmp_path: Path) -> None:
    count = 6_000
    columns: dict[str, list[Any]] = {
        name: [None] * count for name in ("brand", "color", "material", "price", "availability")
    }
    columns["id"] = [f"i{row}" for row in range(count)]
    columns["product_type"] = ["usual"] * count
    columns["popularity"] = [float(row) for row in range(count)]
    columns["created_at"] = [count - row if row < 30 else None for row in range(count)]
    assert write_popular(columns, tmp_path / "popular.json") == 5_030
    items = Fallback(read_popular(tmp_path / "popular.json"))
    assert ids(items, kind="new") == ["i0", "i1", "i2"]
