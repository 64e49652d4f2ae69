"""The recommender over HTTP: every part of a request shows in the answer."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from newshelf.catalog.catalog import Catalog
from newshelf.config import Settings
from newshelf.files import read_json
from newshelf.pipeline.workspace import Workspace
from newshelf.serving.settings import read_version
from newshelf.store.store import EventStore
from tests.e2e.formula import parts_of_scores
from tests.e2e.plain_filters import passing, read_said
from tests.e2e.products import ENCODER, RECOMMENDER, base64_of, picture_of, product_of

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


def everything(ask: Ask, history: list[str]) -> dict[str, Any]:
    """An answer with all that may be answered, in two parts since ``k`` has a limit."""
    first = ask(history=history, k=100)
    rest = ask(history=history, k=100, exclude=ids(first))
    assert len(ids(rest)) < 100
    return first | {"items": first["items"] + rest["items"]}


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
        # Behind a "+" is the live shelf's last change.
        assert answer["index_version"].partition("+")[0] == index["index_version"]
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
    ask: Ask, http: httpx.Client, history: list[str], catalog: Catalog, workspace: Workspace
) -> None:
    known = ids(ask(history=history, k=5))
    rows = [catalog.item_index[item] for item in known]
    twins = {
        item: product_of(catalog, row)
        | {"id": f"twin of {item}", "image": base64_of(picture_of(catalog, row))}
        for item, row in zip(known, rows, strict=True)
    }
    train = {"id": "train", "title": "Wooden toy train"}
    answer = ask(history=history, candidates=[*known, *twins.values(), train, *history[:1]], k=20)
    score = scores(answer)
    assert set(score) == {*known, *(twin["id"] for twin in twins.values()), "train"}
    assert sources(answer) == {"model"}
    # Nobody has taken the twins: their neighbours' links and popularity count, and nothing
    # else tells them from what they look like.
    brought = {"train": http.post(ENCODER, json=train).json()["embedding"]}
    parts = parts_of_scores(workspace.checkpoint, workspace.export / "index", history, brought)
    for item, twin in twins.items():
        assert score[item] == pytest.approx(parts.looks[item] + parts.behaviour[item], abs=5e-4)
        unseen = parts.looks[item] + parts.unseen[item]
        assert score[twin["id"]] == pytest.approx(unseen, abs=5e-4)
    assert score["train"] == pytest.approx(parts.looks["train"] + parts.unseen["train"], abs=5e-4)


FILTERS = {
    "category": {"product_type": "home"},
    "one category of two": {"product_type": ["Clothing > Hats", "Jewellery > Rings"]},
    "colour in capitals": {"color": "WHITE"},
    "materials": {"material": ["jade", "Silver", "wool"]},
    "brand": {"brand": ["galanthe", "Maren"]},
    "style, of which there is no column": {"style": "Minimal"},
    "price": {"price": {"min": 30, "max": 90.5}},
    "all": {"product_type": "Jewellery", "price": {"max": 500}, "color": ["white", "grey"]},
    "out of stock": {"availability": "out_of_stock"},
}


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
def test_filters_let_through_exactly_what_they_say(
    ask: Ask,
    history: list[str],
    items: pd.DataFrame,
    filters: dict[str, Any],
    workspace: Workspace,
) -> None:
    wanted = passing(items, read_said(workspace.checkpoint), filters) - set(history)
    assert 0 < len(wanted) < 100, "this filter would test nothing"
    answer = ask(history=history, k=100, filters=filters)
    assert set(ids(answer)) == wanted
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


def likeness(item: str, chosen: Sequence[str], embeddings: dict[str, np.ndarray]) -> float:
    """The highest cosine to a chosen one."""
    return float(max(embeddings[other] @ embeddings[item] for other in chosen))


@pytest.mark.parametrize("diversity", [0.3, 0.8])
def test_diversity_spreads_every_answer_and_keeps_the_best(
    ask: Ask, histories: list[list[str]], embeddings: dict[str, np.ndarray], diversity: float
) -> None:
    changed = 0
    for history in histories[:8]:
        score = scores(everything(ask, history))
        plain, spread = (ids(ask(history=history, diversity=much)) for much in (0, diversity))
        assert spread[0] == plain[0]
        # Each next one has the best of (1 - diversity) · relevance - diversity · likeness.
        low, high = min(score.values()), max(score.values())
        for at in range(1, 10):
            marginal = {
                item: (1 - diversity) * (value - low) / (high - low)
                - diversity * likeness(item, spread[:at], embeddings)
                for item, value in score.items()
                if item not in spread[:at]
            }
            assert marginal[spread[at]] == pytest.approx(max(marginal.values()), abs=1e-5)
        if spread == plain:
            continue
        at = next(at for at in range(10) if spread[at] != plain[at])
        first, instead_of = (likeness(row[at], plain[:at], embeddings) for row in (spread, plain))
        assert first < instead_of
        closer = [
            np.mean([likeness(row[at], row[:at], embeddings) for at in range(1, 10)])
            for row in (plain, spread)
        ]
        # The same ten in another order may be just as close to each other.
        assert closer[0] > closer[1] - 1e-6 * (set(plain) == set(spread))
        changed += 1
    assert changed


def test_reasons_only_when_asked(ask: Ask, history: list[str], items: pd.DataFrame) -> None:
    plain, explained = (ask(history=history, explain=wanted) for wanted in (False, True))
    assert ids(plain) == ids(explained)
    assert all("reason" not in item for item in plain["items"])
    titles = list(items.loc[history, "title"])
    for item in explained["items"]:
        assert any(f"like ‘{title}’ in your history" in item["reason"] for title in titles)


def test_without_a_history_what_is_popular_comes_first(
    ask: Ask, catalog: Catalog, items: pd.DataFrame, workspace: Workspace
) -> None:
    assert catalog.events is not None
    counts = catalog.events["item_id"].value_counts()
    with EventStore.open(workspace.store_url(Settings())) as store:
        # Feedback of other tests counts as well, perhaps not all of it yet.
        recorded = Counter(event.item_id for event in store.feedback())
    answer = ask(history=[], k=5, explain=True)
    assert sources(answer) == {"popular"}
    assert all(item["reason"] for item in answer["items"])
    sold_out = set(items.index[items["availability"] == "out_of_stock"])
    best = [counts[item] for item in counts.index if item not in sold_out][:5]
    events = len(catalog.events)
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    for item, score in zip(ids(answer), scores, strict=True):
        most = counts[item] + recorded[item]
        assert most >= best[-1]
        assert counts[item] / (events + recorded.total()) - 1e-5 < score < most / events + 1e-5
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
    ask: Ask,
    catalog: Catalog,
    items: pd.DataFrame,
    histories: list[list[str]],
    workspace: Workspace,
) -> None:
    assert catalog.events is not None
    taken = set(catalog.events["item_id"])
    in_stock = items[items["availability"] != "out_of_stock"]
    new = in_stock[~in_stock["id"].isin(taken)]
    assert len(new)
    for history in histories[:15]:
        ranked = everything(ask, history)
        assert set(ids(ranked)) == set(in_stock["id"]) - set(history)
        assert sources(ranked) == {"model"}
        # Scored as what they look like was taken, and otherwise as all others.
        parts = parts_of_scores(workspace.checkpoint, workspace.export / "index", history)
        for item, score in scores(ranked).items():
            assert score == pytest.approx(parts.looks[item] + parts.behaviour[item], abs=5e-4)
        # With so little training they are behind the first ten, but not at the end.
        best = min(ids(ranked).index(item) for item in new["id"])
        behind = taken.intersection(ids(ranked)[best:])
        assert len(behind) > len(taken) / 4
    # Among their own kind, they are in every answer of ten.
    for kind, rows in new.groupby("product_type"):
        answer = ask(history=histories[0], filters={"product_type": kind})
        assert set(rows["id"]) <= set(ids(answer))
        assert sources(answer) == {"model"}
