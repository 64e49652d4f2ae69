"""Answers of a worker with rules: hidden, boosted, buried and pinned products."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from newshelf.nn.blend import NEAREST
from newshelf.serving.item_table import INDEX_COLUMNS
from newshelf.serving.live import LiveIndex
from newshelf.serving.rules import RuleSet
from newshelf.serving.segments import Segment

OUT = {"i04", "i11"}
"""Out of stock."""
BY_ID = "i{:02}".format
JADE = {"id": "new", "title": "green jade ring", "brand": "Aurora"}


def rules_of(*rules: Mapping[str, Any]) -> RuleSet:
    return RuleSet.model_validate({"rule": [{"name": f"r{at}", **r} for at, r in enumerate(rules)]})


def ids_are(*ids: str) -> dict[str, Any]:
    return {"column": "id", "in": list(ids)}


@pytest.fixture
def ask(recommender, post):
    """Answers of a worker with rules; ``live`` replaces the archive's index."""

    def answer(rules: RuleSet, *, live: LiveIndex | None = None, **request: Any) -> dict[str, Any]:
        over = recommender if live is None else recommender.over(recommender.index)
        if live is not None:
            over.live = live
        [(status, found)] = post(over.with_rules(rules), {"history": ["i00"], "k": 6, **request})
        assert status == 200, found
        return found

    return answer


def ids(answer: Mapping[str, Any]) -> list[str]:
    return [item["id"] for item in answer["items"]]


NONE = rules_of()


def test_without_rules_nothing_changes(ask, recommender, post):
    [(_, plain)] = post(recommender, {"history": ["i00"], "k": 6})
    elsewhere = rules_of({"action": "hide", "when": ids_are(*ids(plain)), "placements": ["cart"]})
    assert ask(NONE)["items"] == ask(elsewhere, placement="home")["items"] == plain["items"]


@pytest.mark.parametrize("request_", [{}, {"history": []}, {"kind": "popular"}, {"diversity": 0.4}])
def test_hidden_products_are_in_no_answer(ask, request_):
    first = ids(ask(NONE, k=3, **request_))
    hidden = ids(ask(rules_of({"action": "hide", "when": ids_are(*first)}), k=25, **request_))
    assert len(hidden) >= 20
    assert set(hidden).isdisjoint(first)


def test_hidden_products_are_not_answered_when_named_or_brought_along(ask):
    rules = rules_of({"action": "hide", "when": {"column": "brand", "is": "Aurora"}})
    found = ask(rules, candidates=["i02", "i03", JADE, {"id": "other", "title": "red lamp"}])
    assert set(ids(found)) == {"i02", "other"}
    assert ids(ask(rules, candidates=["i03"])) == []


def test_a_boost_divides_the_rank_and_keeps_the_scores(ask):
    plain = ask(NONE)
    rules = rules_of({"action": "boost", "weight": 3, "when": ids_are(ids(plain)[4])})
    ruled = ask(rules)
    # 5 / 3 is between ranks 1 and 2.
    assert ids(ruled) == [ids(plain)[at] for at in (0, 4, 1, 2, 3, 5)]
    scores = {item["id"]: item["score"] for item in plain["items"]}
    assert {item["id"]: item["score"] for item in ruled["items"]} == scores
    assert [item.get("rules") for item in ruled["items"]] == [None, ["r0"], *[None] * 4]


def test_a_bury_multiplies_the_rank(ask):
    plain = ids(ask(NONE))
    ruled = ids(ask(rules_of({"action": "bury", "weight": 3, "when": ids_are(plain[0])})))
    assert ruled == [plain[at] for at in (1, 2, 0, 3, 4, 5)]


@pytest.mark.parametrize("request_", [{"history": []}, {"kind": "popular"}, {"kind": "similar"}])
def test_boosts_work_in_every_ranking(ask, request_):
    plain = ids(ask(NONE, **request_))
    found = ids(
        ask(rules_of({"action": "boost", "weight": 9, "when": ids_are(plain[5])}), **request_)
    )
    assert found == [plain[5], *plain[:5]]


def test_diversity_chooses_among_the_boosted_order(ask):
    plain = ids(ask(NONE, k=10))
    rules = rules_of({"action": "boost", "weight": 20, "when": ids_are(plain[9])})
    diverse = ask(rules, diversity=0.3)
    assert ids(diverse)[0] == plain[9]
    assert len(set(ids(diverse))) == 6


def test_a_pinned_product_is_at_its_position(ask):
    plain = ids(ask(NONE, k=20))
    pins = rules_of(
        {"action": "pin", "position": 3, "when": ids_are(plain[15])},
        {"action": "pin", "position": 1, "when": ids_are(plain[1])},
        {"action": "pin", "position": 7, "when": ids_are(plain[17])},
    )
    found = ask(pins, explain=True)
    assert ids(found) == [plain[1], plain[0], plain[15], plain[2], plain[3], plain[4]]
    pinned = [item for item in found["items"] if item["source"] == "pinned"]
    assert [(item["id"], item["rules"]) for item in pinned] == [
        (plain[1], ["r1"]),
        (plain[15], ["r0"]),
    ]
    assert {item["reason"] for item in pinned} == {"chosen by the shop"}
    assert [item["score"] for item in pinned] == [0.0, 0.0]


def test_a_pin_takes_the_best_of_its_products_that_may_be_answered(ask, frame):
    plain = ids(ask(NONE, k=28))
    answered = {"action": "pin", "position": 2, "when": ids_are(plain[20], plain[4], plain[3])}
    assert ids(ask(rules_of(answered)))[1] == plain[3]
    popularity = dict(zip(frame["id"], frame["popularity"], strict=True))
    others = sorted(plain[20:26], key=popularity.__getitem__, reverse=True)
    absent = {"action": "pin", "position": 2, "when": ids_are(*others)}
    assert ids(ask(rules_of(absent)))[1] == others[0]
    assert ids(ask(rules_of(absent), exclude=[others[0]]))[1] == others[1]
    second = {"action": "pin", "position": 1, "when": ids_are(*others)}
    assert ids(ask(rules_of(absent, second)))[:2] == [others[0], others[1]]


@pytest.mark.parametrize(
    ("pinned", "request_"),
    [
        ("i04", {}),
        ("i04", {"filters": {"availability": ["out_of_stock", "in_stock"]}}),
        ("i00", {}),
        ("i20", {"exclude": ["i20"]}),
        ("i20", {"filters": {"price": {"max": 30}}}),
        ("i20", {"candidates": ["i01", "i02", "i03"]}),
        ("unknown", {}),
    ],
)
def test_a_product_that_may_not_be_answered_is_not_pinned(ask, pinned, request_):
    rules = rules_of({"action": "pin", "position": 1, "when": ids_are(pinned)})
    found = ask(rules, **request_)
    assert "pinned" not in {item["source"] for item in found["items"]}
    assert ids(found) == ids(ask(NONE, **request_))


def test_a_pin_beyond_a_short_answer_comes_last(ask):
    found = ask(
        rules_of({"action": "pin", "position": 5, "when": ids_are("i01")}),
        candidates=["i01", "i02", "i03"],
    )
    assert len(ids(found)) == 3
    assert ids(found)[-1] == "i01"


def arriving(live: LiveIndex, unit_rows: Any, rows: Sequence[Mapping[str, Any]]) -> LiveIndex:
    """The index with a segment of new products."""
    count, columns = len(rows), {name: [row.get(name) for row in rows] for name in INDEX_COLUMNS}
    shape = live.shape
    return live.plus(
        "seg-1",
        Segment(
            columns={**columns, "popularity": [0.0] * count},
            extras=[row.get("extras", {}) for row in rows],
            knowledge=[],
            embeddings=unit_rows(count, shape.embedding, 8),
            vectors=unit_rows(count, shape.vector, 9),
            origin=np.full(count, -1),
            nearest=np.zeros((count, shape.nearest), dtype=np.int64),
            shares=np.full((count, shape.nearest), 1 / NEAREST, dtype=np.float32),
            removed=[],
        ),
    )


def test_rules_match_products_that_arrive_by_further_columns_too(ask, recommender, unit_rows):
    summer = {"column": "season", "is": "Summer"}
    rows = [
        {"id": "n1", "brand": "Aurora", "extras": {"season": "summer"}},
        {"id": "n2", "brand": "Fjord", "extras": {"season": "winter"}},
    ]
    live = arriving(LiveIndex.of(recommender.index), unit_rows, rows)
    pinned = ask(rules_of({"action": "pin", "position": 1, "when": summer}), live=live)
    assert ids(pinned)[0] == "n1"
    named = {"candidates": ["n1", "n2", "i03"], "live": live}
    assert set(ids(ask(rules_of({"action": "hide", "when": summer}), **named))) == {"n2", "i03"}
    aurora = {"column": "brand", "is": "aurora"}
    assert set(ids(ask(rules_of({"action": "hide", "when": aurora}), **named))) == {"n2"}
    # A later row of the same product replaces what the rule matched.
    again = arriving(live, unit_rows, [{**rows[0], "extras": {"season": "winter"}}])
    assert ids(ask(rules_of({"action": "pin", "position": 1, "when": summer}), live=again)) == ids(
        ask(NONE, live=again)
    )
