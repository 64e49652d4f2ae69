"""Looks of the controller, credits of interleaved answers, and when a split answered last."""

from datetime import timedelta

import pytest

from newshelf.store.store import EventStore
from tests.unit.store.conftest import START, MakeExposure, MakeFeedback

NAME = "spring"


@pytest.fixture
def kept(store: EventStore) -> EventStore:
    for name in (NAME, "autumn"):
        store.create_rollout(name, "plan", "state", None)
    return store


def test_looks_are_kept_in_order_by_rollout(kept: EventStore) -> None:
    assert kept.last_look(NAME) is None
    for number in range(3):
        kept.add_look(NAME, f"look {number}")
    kept.add_look("autumn", "another")
    looks = kept.looks(NAME, most=10)
    assert [one.look for one in looks] == ["look 0", "look 1", "look 2"]
    assert looks == sorted(looks, key=lambda one: one.at)
    assert kept.last_look(NAME) == looks[-1]


@pytest.mark.parametrize(("most", "numbers"), [(4, [0, 3, 6, 9]), (3, [1, 5, 9]), (1, [9])])
def test_of_many_looks_some_are_read_and_the_last_one_always(
    kept: EventStore, most: int, numbers: list[int]
) -> None:
    for number in range(10):
        kept.add_look(NAME, str(number))
    assert [int(one.look) for one in kept.looks(NAME, most=most)] == numbers


def test_the_last_answer_of_a_split(store: EventStore, exposure: MakeExposure) -> None:
    assert store.last_answer_at(NAME) is None
    store.add_exposures(
        [
            exposure("ring", at_s=50, rollout=NAME, variant="control"),
            exposure("ring", at_s=30, rollout=NAME, variant="default"),
            exposure("ring", at_s=90),
        ]
    )
    assert store.last_answer_at(NAME) == START + timedelta(seconds=50)


def test_clicks_are_credited_to_the_team_that_drafted(
    store: EventStore, exposure: MakeExposure, feedback: MakeFeedback
) -> None:
    assert store.credits(NAME) == {}
    teams = {"ring": "control/model", "scarf": "challenger/model", "lamp": "challenger/similar"}
    answers = []
    for unit in ("ann", "bob", "cid"):
        for _ in range(2):
            answer = exposure(*teams, unit=unit, rollout=NAME, variant="interleaved")
            items = tuple(
                item.model_copy(update={"source": teams[item.item_id]}) for item in answer.items
            )
            answers.append(answer.model_copy(update={"items": items}))
    store.add_exposures(answers)
    clicked = [
        (0, "ring"), (0, "scarf"), (0, "scarf"), (1, "lamp"), (2, "ring"), (3, "ring"),
    ]  # fmt: skip
    store.add_feedback(
        [
            feedback(item, unit=answers[at].unit, request_id=answers[at].request_id)
            for at, item in clicked
        ]
    )
    found = store.credits(NAME)
    # Twice on the same product of one answer is once; who did not click is not there.
    assert found["control"].tolist() == [1, 2]
    assert found["challenger"].tolist() == [2, 0]
