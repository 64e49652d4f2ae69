"""The recommender over HTTP: every part of a request shows in the answer."""

from collections.abc import Callable, Sequence
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from newshelf.catalog import Catalog
from newshelf.catalog.schema import split_values
from newshelf.files import read_json
from newshelf.pipeline.workspace import Workspace
from newshelf.serving.bundle import read_version
from tests.e2e.products import RECOMMENDER, base64_of, picture_of, product_of

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(http: httpx.Client) -> Ask:
    """Answer a request that must succeed."""

    def send(**body: object) -> dict[str, Any]:
        response = http.post(RECOMMENDER, json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        assert answer["request_id"] == response.headers["x-request-id"]
        return answer

    return send


@pytest.fixture(scope="module")
def items(catalog: Catalog) -> pd.DataFrame:
    return catalog.items.set_index("id", drop=False)


@pytest.fixture(scope="module")
def histories(catalog: Catalog) -> list[list[str]]:
    """The last few products of each shopper."""
    assert catalog.events is not None
    recent = catalog.events.drop_duplicates(["user_id", "item_id"], keep="last")
    return [list(group.tail(4)) for _, group in recent.groupby("user_id")["item_id"]]


@pytest.fixture(scope="module")
def history(histories: list[list[str]]) -> list[str]:
    return histories[0]


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["id"] for item in answer["items"]]


def sources(answer: dict[str, Any]) -> set[str]:
    return {item["source"] for item in answer["items"]}


def scores(answer: dict[str, Any]) -> dict[str, float]:
    return {item["id"]: item["score"] for item in answer["items"]}


def test_a_history_is_answered_by_the_model_best_first_and_never_with_itself(
    ask: Ask, histories: list[list[str]], items: pd.DataFrame, workspace: Workspace
) -> None:
    answers = [ask(history=history, k=20) for history in histories[:3]]
    for history, answer in zip(histories, answers, strict=False):
        assert len(set(ids(answer))) == 20
        assert sources(answer) == {"model"}
        assert not set(ids(answer)) & set(history)
        ranked = [item["score"] for item in answer["items"]]
        assert ranked == sorted(ranked, reverse=True)
        assert (items.loc[ids(answer), "availability"] != "out_of_stock").all()
        assert "ignored" not in answer
        assert answer["model_version"] == read_version(workspace.export)
        index = read_json(workspace.export / "index" / "index.json")
        assert answer["index_version"] == index["index_version"]
    assert len({tuple(ids(answer)) for answer in answers}) == 3
    assert len({answer["request_id"] for answer in answers}) == 3


def test_k_cuts_the_ranking_and_ten_is_the_default(ask: Ask, history: list[str]) -> None:
    assert ids(ask(history=history)) == ids(ask(history=history, k=30))[:10]
    assert len(ids(ask(history=history, k=1))) == 1


def test_a_user_changes_nothing(ask: Ask, history: list[str]) -> None:
    assert ids(ask(history=history, user_id="someone")) == ids(ask(history=history))


def test_an_inline_product_counts_as_the_indexs_own(
    ask: Ask, history: list[str], catalog: Catalog
) -> None:
    rows = [catalog.item_index[item] for item in history]
    inline = [
        {**product_of(catalog, row), "image": base64_of(picture_of(catalog, row))} for row in rows
    ]
    known, brought = (ask(history=past, k=100) for past in (history, inline))
    assert set(ids(brought)) == set(ids(known))
    assert scores(brought) == pytest.approx(scores(known), abs=5e-3)
    # Without its id, it may be recommended itself.
    nameless = {name: value for name, value in inline[-1].items() if name != "id"}
    again = ask(history=[*history[:-1], nameless], candidates=history)
    assert ids(again) == [history[-1]]


def test_candidates_are_ids_and_unseen_products(
    ask: Ask, history: list[str], catalog: Catalog
) -> None:
    known = ids(ask(history=history, k=5))
    twin = product_of(catalog, catalog.item_index[known[0]]) | {
        "id": "new-1",
        "image": base64_of(picture_of(catalog, catalog.item_index[known[0]])),
    }
    candidates = [known[0], twin, {"id": "new-2", "title": "Wooden toy train"}, *history[:1]]
    answer = ask(history=history, candidates=candidates)
    assert set(ids(answer)) == {known[0], "new-1", "new-2"}
    assert sources(answer) == {"model"}
    # Under another id nobody has taken it: it has the links of its neighbours, itself one.
    assert scores(answer)["new-1"] == pytest.approx(scores(answer)[known[0]], abs=1)
    assert scores(answer)["new-2"] < scores(answer)["new-1"]


FILTERS = {
    "category": {"product_type": "home"},
    "one category of two": {"product_type": ["Clothing > Hats", "Jewellery > Rings"]},
    "colour in capitals": {"color": "WHITE"},
    "materials": {"material": ["jade", "Silver", "wool"]},
    "brand": {"brand": ["galanthe", "Maren"]},
    "price": {"price": {"min": 30, "max": 90.5}},
    "all": {"product_type": "Jewellery", "price": {"max": 500}, "color": ["white", "grey"]},
    "out of stock": {"availability": "out_of_stock"},
}


KNOWN_BEYOND_COLUMNS = {"color", "material", "brand", "product_type"}
IN_STOCK = ["in_stock", "preorder", "backorder"]


def passes(item: pd.Series, filters: dict[str, Any]) -> bool:
    """The filters of docs/api.md, for one item, in the plainest way."""
    return all(
        passes_one(item, name, [wanted] if isinstance(wanted, str) else wanted)
        for name, wanted in {"availability": IN_STOCK, **filters}.items()
    )


def passes_one(item: pd.Series, name: str, wanted: Any) -> bool:
    if name == "price":
        return bool(wanted.get("min", 0) <= item["price"] <= wanted.get("max", np.inf))
    if name == "product_type":
        path = item["product_type"].lower() + " > "
        return any(path.startswith(value.lower() + " > ") for value in wanted)
    cell = item[name].lower() if isinstance(item[name], str) else ""
    return any(value.lower() in (cell, *split_values(cell)) for value in wanted)


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
def test_filters_let_through_exactly_what_they_say(
    ask: Ask, history: list[str], items: pd.DataFrame, filters: dict[str, Any]
) -> None:
    wanted = {item["id"] for _, item in items.iterrows() if passes(item, filters)} - set(history)
    assert wanted, "this filter would test nothing"
    answer = ask(history=history, k=100, filters=filters)
    assert wanted <= set(ids(answer))
    # What titles and pictures say passes too, where the shop states no such value.
    stated = {key: value for key, value in filters.items() if key not in KNOWN_BEYOND_COLUMNS}
    for item in set(ids(answer)) - wanted:
        assert stated != filters
        assert passes(items.loc[item], stated)
    wanted = set(ids(answer))
    # Leaving items out does not change the order of the others.
    unfiltered = ids(ask(history=history, k=100))
    expected = [item for item in unfiltered if item in wanted]
    assert [item for item in ids(answer) if item in expected] == expected


def test_a_filter_that_nothing_passes_is_an_empty_answer(ask: Ask, history: list[str]) -> None:
    assert ask(history=history, filters={"brand": "no such brand"})["items"] == []


def test_excluded_items_make_room_for_the_next(ask: Ask, history: list[str]) -> None:
    ranked = ids(ask(history=history, k=12))
    answer = ask(history=history, k=10, exclude=[ranked[0], ranked[3], "unheard of"])
    assert ids(answer) == ranked[1:3] + ranked[4:12]


def likeness(chosen: Sequence[str], embeddings: dict[str, np.ndarray]) -> float:
    """The mean cosine of all pairs."""
    rows = np.array([embeddings[item] for item in chosen])
    return float((rows @ rows.T)[np.triu_indices(len(rows), 1)].mean())


def test_diversity_spreads_the_answer_and_keeps_the_best(
    ask: Ask, histories: list[list[str]], embeddings: dict[str, np.ndarray]
) -> None:
    closer = []
    for history in histories[:8]:
        plain, spread = (ask(history=history, diversity=much) for much in (0, 0.8))
        assert ids(spread)[0] == ids(plain)[0]
        closer.append(likeness(ids(plain), embeddings) - likeness(ids(spread), embeddings))
    assert np.mean(closer) > 0


def test_reasons_only_when_asked(ask: Ask, history: list[str], items: pd.DataFrame) -> None:
    plain, explained = (ask(history=history, explain=wanted) for wanted in (False, True))
    assert ids(plain) == ids(explained)
    assert all("reason" not in item for item in plain["items"])
    titles = list(items.loc[history, "title"])
    for item in explained["items"]:
        assert any(f"like ‘{title}’ in your history" in item["reason"] for title in titles)


def test_without_a_history_what_is_popular_comes_first(
    ask: Ask, catalog: Catalog, items: pd.DataFrame
) -> None:
    assert catalog.events is not None
    counts = catalog.events["item_id"].value_counts()
    answer = ask(history=[], k=5, explain=True)
    assert sources(answer) == {"popular"}
    assert all(item["reason"] for item in answer["items"])
    sold_out = set(items.index[items["availability"] == "out_of_stock"])
    best = [counts[item] for item in counts.index if item not in sold_out][:5]
    assert [counts[item] for item in ids(answer)] == best
    assert [item["score"] for item in answer["items"]] == pytest.approx(
        [count / len(catalog.events) for count in best]
    )
    lamps = ask(k=100, filters={"product_type": "Home > Lamps"})
    assert sources(lamps) == {"popular_in_category"}
    assert set(items.loc[ids(lamps), "product_type"]) == {"Home > Lamps"}


def test_unknown_ids_are_ignored_and_listed(ask: Ask, history: list[str]) -> None:
    strange = ["../../etc/passwd", "DROP TABLE items", "gone"]
    answer = ask(history=[*strange, *history, "gone"])
    assert answer["ignored"] == strange
    assert ids(answer) == ids(ask(history=history))
    some = ask(history=history, candidates=["gone", *ids(answer)[:2]])
    assert (some["ignored"], ids(some)) == (["gone"], ids(answer)[:2])
    nobody = ask(history=["gone"])
    assert (nobody["ignored"], sources(nobody)) == (["gone"], {"popular"})


def test_products_without_any_event_are_recommended_by_the_model(
    ask: Ask, catalog: Catalog, histories: list[list[str]]
) -> None:
    assert catalog.events is not None
    new = set(catalog.items["id"]) - set(catalog.events["item_id"])
    assert new
    # Trained on eighty shoppers, the model is not sure enough of them for the first ten.
    answers = [ask(history=history, k=50) for history in histories[:15]]
    found = [item for answer in answers for item in answer["items"] if item["id"] in new]
    assert found
    assert {item["source"] for item in found} == {"model"}
