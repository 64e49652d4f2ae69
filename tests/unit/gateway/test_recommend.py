"""Interleaved answers with products that rules pin, and the positions that rules touched."""

from collections import Counter

import orjson
import pytest

from newshelf.gateway.recommend import RankedResponse, explored, interleaved
from newshelf.gateway.schemas import RecommendOut
from newshelf.rollout.assignment import draft_propensities
from tests.gateways import StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe, status

DRAFTS = 4000


def ranked(*ids: str, pinned: tuple[str, ...] = ()) -> RankedResponse:
    items = [
        {"id": one, "score": 0.0, "source": "pinned", "rules": ["lamp"]}
        if one in pinned
        else {"id": one, "score": 1.0, "source": "model"}
        for one in ids
    ]
    return RankedResponse(items, "v", "i")


def drafts(control: RankedResponse, challenger: RankedResponse, k: int) -> list[RankedResponse]:
    return [interleaved(control, challenger, k, f"request {at}") for at in range(DRAFTS)]


def ids(answer: RankedResponse) -> list[str]:
    return [item["id"] for item in answer.items]


def test_what_a_rule_pins_in_both_answers_stays_and_is_no_team_s() -> None:
    control = ranked("a", "b", "P", "c", "d", pinned=("P",))
    challenger = ranked("c", "a", "P", "e", "b", pinned=("P",))
    answers = drafts(control, challenger, 5)
    assert {ids(one)[2] for one in answers} == {"P"}
    assert {one.sources[2] for one in answers} == {"pinned"}
    assert {one.propensities[2] for one in answers} == {1.0}
    assert {len(ids(one)) for one in answers} == {5}
    # The rest is the draft of both rankings without it.
    expected = draft_propensities(["a", "b", "c", "d"], ["c", "a", "e", "b"], 4)
    for place, of_place in zip((0, 1, 3, 4), expected, strict=True):
        shown = Counter(ids(one)[place] for one in answers)
        stated = {ids(one)[place]: one.propensities[place] for one in answers}
        assert stated == of_place
        for item, probability in of_place.items():
            assert shown[item] / DRAFTS == pytest.approx(probability, abs=0.04)


def test_teams_pick_as_often_with_a_pin_as_without() -> None:
    control = ranked("P", "a", "b", "c", pinned=("P",))
    challenger = ranked("P", "x", "y", "z", pinned=("P",))
    teams = Counter(
        source.partition("/")[0] for one in drafts(control, challenger, 4) for source in one.sources
    )
    assert teams["pinned"] == DRAFTS
    assert teams["control"] == pytest.approx(teams["challenger"], rel=0.05)


def test_a_pin_of_one_version_alone_is_its_team_s_choice() -> None:
    control = ranked("a", "P", "b", pinned=("P",))
    challenger = ranked("a", "b", "c")
    by_place = {place: ids(one)[place] for one in drafts(control, challenger, 3) for place in (0,)}
    assert by_place == {0: "a"}
    sources = {
        source
        for one in drafts(control, challenger, 3)
        for source in one.sources
        if "pin" in source
    }
    assert sources == {"control/pinned"}


def test_pins_beyond_a_short_draft_follow_it() -> None:
    answer = interleaved(
        ranked("a", "P", "Q", pinned=("P", "Q")), ranked("a", "P", "Q", pinned=("P", "Q")), 5, "r"
    )
    assert ids(answer) == ["a", "P", "Q"]
    assert answer.propensities == [1.0, 1.0, 1.0]


def test_an_answer_s_rules_are_passed_on_and_recorded_by_position(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    rules = [["sale"], ["sale", "lamp"], []]
    items = [
        {"id": one, "score": 0.5, "source": "model", **({"rules": names} if names else {})}
        for one, names in zip(("a", "b", "c"), rules, strict=True)
    ]
    body = {"items": items, "model_version": "m", "index_version": "i"}
    torchserve.always = status(200, orjson.dumps(body))
    gateway = start_gateway()
    answer = RecommendOut.model_validate(gateway.recommend("shopper").json())
    assert [item.rules for item in answer.items] == rules
    (exposure,) = gateway.exposures()
    assert exposure.rules == {"sale": (1, 2), "lamp": (2,)}
    assert {item.propensity for item in exposure.items} == {1.0}


def test_an_explored_answer_has_one_pair_of_neighbours_in_random_order() -> None:
    plain = ranked("a", "b", "c", "d", "e")
    answers = [explored(plain, 0.5, f"request {at}") for at in range(DRAFTS)]
    assert answers == [explored(plain, 0.5, f"request {at}") for at in range(DRAFTS)]
    drawn = [one for one in answers if one.propensities]
    assert len(drawn) / DRAFTS == pytest.approx(0.5, abs=0.03)
    swapped, pairs = 0, Counter()
    for one in drawn:
        place = one.propensities.index(0.5)
        pairs[place] += 1
        assert one.propensities == [0.5 if at in (place, place + 1) else 1.0 for at in range(5)]
        order = list("abcde")
        if ids(one) != order:
            swapped += 1
            order[place : place + 2] = order[place + 1], order[place]
        assert ids(one) == order
    assert swapped / len(drawn) == pytest.approx(0.5, abs=0.04)
    # As 1, 1/2, 1/3 and 1/4.
    assert [pairs[place] / len(drawn) for place in range(4)] == pytest.approx(
        [0.48, 0.24, 0.16, 0.12], abs=0.04
    )


def test_pins_and_short_answers_are_not_explored() -> None:
    for answer in (ranked("a", "b"), ranked("P", "Q", "R", pinned=("P", "Q", "R"))):
        assert all(explored(answer, 1.0, f"r{at}") is answer for at in range(50))


def test_an_explored_answer_is_recorded_as_it_was_sent(start_gateway: StartGateway) -> None:
    gateway = start_gateway(explore_share=1.0)
    sent = [item["id"] for item in gateway.recommend("shopper").json()["items"]]
    (exposure,) = gateway.exposures()
    assert [item.item_id for item in exposure.items] == sent
    assert sorted(item.propensity for item in exposure.items) == [0.5, 0.5, 1.0]
