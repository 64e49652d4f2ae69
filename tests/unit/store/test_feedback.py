"""An event belongs to the answer that showed its product."""

import threading
from typing import get_args

import pytest

from newshelf.store import write as join_module
from newshelf.store.records import FeedbackOutcome
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

HOUR_S = 3600
"""The window of the fixture's store."""


def test_every_outcome(store: EventStore, exposure, feedback) -> None:
    store.write(WriteBatch(exposures=[exposure("ring", "vase", request_id="r", at_s=0)]))
    events = [
        feedback("ring", request_id="r", event_id="a"),
        feedback("ring", request_id="r", event_id="a"),
        feedback("ring", unit="bob"),
        feedback("ring", request_id="never"),
        feedback("lamp", request_id="r"),
        feedback("vase", request_id="r", event_id="a"),
        feedback("ring", request_id="r", at_s=-HOUR_S - 1),
    ]
    outcomes = store.write(WriteBatch(feedback=events))
    assert outcomes == [
        "stored",
        "duplicate",
        "unjoined",
        "unknown_request",
        "unknown_item",
        "conflict",
        "before_answer",
    ]
    assert set(outcomes) == set(get_args(FeedbackOutcome)) - {"spooled", "erased"}


def test_what_is_kept_of_a_joined_event(store: EventStore, exposure, feedback) -> None:
    answer = exposure("ring", "vase", rollout="spring", variant="challenger", request_id="r")
    store.write(WriteBatch(exposures=[answer]))
    event = feedback("vase", "purchase", request_id="r", unit="somebody else", value=19.5)
    store.write(WriteBatch(feedback=[event]))
    (found,) = store.feedback("spring")
    assert found.event_id == event.event_id
    assert (found.event_type, found.item_id, found.value) == ("purchase", "vase", 19.5)
    assert found.at == event.at
    # The answer knows better whose it was.
    assert found.unit == "ann"
    assert (found.request_id, found.variant) == ("r", "challenger")
    assert (found.position, found.source) == (2, "model")


def test_what_is_kept_of_an_event_that_no_answer_led_to(store: EventStore, feedback) -> None:
    store.write(WriteBatch(feedback=[feedback("ring", "purchase", unit="bob", value=3)]))
    (found,) = store.feedback()
    assert (found.unit, found.item_id, found.value) == ("bob", "ring", 3)
    assert (found.request_id, found.rollout, found.variant, found.position) == (None,) * 4
    assert list(store.feedback("spring")) == []


@pytest.mark.parametrize("request_id", ["never", None])
def test_what_cannot_be_placed_is_not_kept(store: EventStore, feedback, request_id) -> None:
    event = feedback("ring", request_id=request_id)
    assert store.write(WriteBatch(feedback=[event])) == ["unknown_request"]
    assert list(store.feedback()) == []
    assert store.write(WriteBatch(feedback=[event])) == ["unknown_request"]


def test_an_event_with_only_a_unit_belongs_to_its_last_exposure_of_the_product(
    store: EventStore, exposure, feedback
) -> None:
    store.write(
        WriteBatch(
            exposures=[
                exposure("ring", request_id="first", at_s=0),
                exposure("vase", "ring", request_id="second", at_s=10),
                exposure("vase", request_id="without it", at_s=20),
                exposure("ring", request_id="another's", unit="bob", at_s=30),
                exposure("ring", request_id="later", at_s=101),
            ]
        )
    )
    store.write(WriteBatch(feedback=[feedback("ring", unit="ann", at_s=100)]))
    (found,) = store.feedback()
    assert (found.request_id, found.position) == ("second", 2)


@pytest.mark.parametrize(
    ("after_s", "outcome"),
    [(-0.001, "unjoined"), (0, "stored"), (HOUR_S, "stored"), (HOUR_S + 0.001, "unjoined")],
)
def test_the_windows_ends_belong_to_it(
    store: EventStore, exposure, feedback, after_s: float, outcome: str
) -> None:
    store.write(WriteBatch(exposures=[exposure("ring", at_s=50)]))
    assert store.write(WriteBatch(feedback=[feedback("ring", unit="ann", at_s=50 + after_s)])) == [
        outcome
    ]


def test_an_event_that_names_its_request_is_not_bound_to_the_window(
    store: EventStore, exposure, feedback
) -> None:
    store.write(WriteBatch(exposures=[exposure("ring", request_id="r", at_s=0)]))
    late = feedback("ring", request_id="r", at_s=30 * HOUR_S)
    assert store.write(WriteBatch(feedback=[late])) == ["stored"]


def test_of_two_answers_of_one_moment_the_one_stored_last_counts(
    store: EventStore, exposure, feedback
) -> None:
    for name in ("b", "a"):
        store.write(WriteBatch(exposures=[exposure("ring", request_id=name, at_s=0)]))
    store.write(WriteBatch(feedback=[feedback("ring", unit="ann")]))
    assert next(store.feedback()).request_id == "a"


def test_ids_are_compared_whole_and_by_case(store: EventStore, exposure, feedback) -> None:
    store.write(WriteBatch(exposures=[exposure("Ring", "rings", "100%", 'a"b')]))
    asked = ["ring", "rin", "ring%", "100_", 'a"b']
    outcomes = store.write(WriteBatch(feedback=[feedback(item, unit="ann") for item in asked]))
    assert outcomes == ["unjoined"] * 4 + ["stored"]


def test_a_repeated_event_changes_nothing(store: EventStore, exposure, feedback) -> None:
    store.write(WriteBatch(exposures=[exposure("ring", "vase", request_id="r")]))
    assert store.write(WriteBatch(feedback=[feedback("ring", request_id="r", event_id="a")])) == [
        "stored"
    ]
    changed = feedback("vase", "purchase", request_id="r", event_id="a", value=5)
    unknown = feedback("vase", request_id="never", event_id="a")
    later = feedback("ring", request_id="r", event_id="a", at_s=200)
    assert store.write(WriteBatch(feedback=[changed, unknown, later])) == [
        "conflict",
        "conflict",
        "duplicate",
    ]
    (found,) = store.feedback()
    assert (found.item_id, found.event_type) == ("ring", "click")


@pytest.mark.parametrize(
    ("first", "changed"),
    [
        ({"request_id": "r"}, {"item": "vase"}),
        ({"request_id": "r"}, {"kind": "view"}),
        ({"request_id": "r", "kind": "purchase", "value": 10}, {"value": 20}),
        ({"request_id": "r", "kind": "purchase", "value": 10}, {"value": None}),
        ({"request_id": "r"}, {"request_id": "r2"}),
        ({"request_id": "r"}, {"request_id": None, "unit": "bob"}),
        ({"unit": "ann"}, {"unit": "bob"}),
        ({"unit": "nobody"}, {"unit": "bob"}),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_another_event_with_the_same_id_is_a_conflict(
    store: EventStore, exposure, feedback, first, changed, together: bool
) -> None:
    store.write(
        WriteBatch(exposures=[exposure("ring", "vase", request_id=name) for name in ("r", "r2")])
    )
    given = {"item": "ring", "event_id": "order-1001", **first}
    events = [feedback(**given), feedback(**given), feedback(**given | changed)]
    batches = [events] if together else [[event] for event in events]
    outcomes = [outcome for batch in batches for outcome in store.write(WriteBatch(feedback=batch))]
    assert outcomes[1:] == ["duplicate", "conflict"]
    (found,) = store.feedback()
    assert (found.item_id, found.event_id) == ("ring", "order-1001")


def test_a_unit_and_its_answer_say_the_same(store: EventStore, exposure, feedback) -> None:
    store.write(WriteBatch(exposures=[exposure("ring", request_id="r", at_s=0)]))
    by_unit = feedback("ring", unit="ann", event_id="a")
    by_answer = feedback("ring", request_id="r", unit="ann", event_id="a")
    assert store.write(WriteBatch(feedback=[by_unit, by_answer, by_unit])) == [
        "stored",
        "duplicate",
        "duplicate",
    ]


def test_a_robots_answers_are_not_all_searched(
    store: EventStore, exposure, feedback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newshelf.store.write._MOST_ANSWERS", 3)
    shown = ["lamp", "ring", "vase", "vase"]
    store.write(WriteBatch(exposures=[exposure(item, at_s=n) for n, item in enumerate(shown)]))
    events = [feedback("ring", unit="ann"), feedback("lamp", unit="ann")]
    assert store.write(WriteBatch(feedback=events)) == ["stored", "unjoined"]


def test_while_events_are_joined_others_write(
    url: str, store: EventStore, exposure, feedback, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(WriteBatch(exposures=[exposure("ring", request_id="r")]))
    joining = join_module.join

    def join_slowly(*args: object) -> object:
        # Would wait for the lock until it is given up, if the join held it.
        with EventStore.open(url) as other:
            other.write(WriteBatch(exposures=[exposure("ring", request_id="meanwhile")]))
        return joining(*args)

    monkeypatch.setattr("newshelf.store.write.join", join_slowly)
    assert store.write(WriteBatch(feedback=[feedback("ring", request_id="r")])) == ["stored"]
    assert {one.request_id for one in store.exposures()} == {"r", "meanwhile"}


def test_a_refused_event_does_not_hide_its_namesake(store: EventStore, exposure, feedback) -> None:
    store.write(WriteBatch(exposures=[exposure("ring", request_id="r")]))
    wrong = feedback("ring", request_id="never", event_id="a")
    right = feedback("ring", request_id="r", event_id="a")
    assert store.write(WriteBatch(feedback=[wrong, right, right])) == [
        "unknown_request",
        "stored",
        "duplicate",
    ]


def test_more_events_than_one_question_takes(store: EventStore, exposure, feedback) -> None:
    number = 1201
    store.write(WriteBatch(exposures=[exposure("ring", request_id=f"r{n}") for n in range(number)]))
    events = [feedback("ring", request_id=f"r{n}") for n in range(number)]
    assert store.write(WriteBatch(feedback=events)) == ["stored"] * number
    assert store.write(WriteBatch(feedback=events)) == ["duplicate"] * number


def test_an_event_may_come_with_its_exposure(store: EventStore, exposure, feedback) -> None:
    writes = WriteBatch([exposure("ring", request_id="r")], [feedback("ring", request_id="r")])
    assert store.write(writes) == ["stored"]


@pytest.mark.parametrize(("kind", "other"), [("click", "duplicate"), ("view", "conflict")])
def test_of_processes_that_store_the_same_event_at_once_one_does(
    url: str, store: EventStore, exposure, feedback, kind: str, other: str
) -> None:
    store.write(WriteBatch(exposures=[exposure("ring", request_id="r")]))
    # In opposite orders, which would make two transactions wait for each other.
    events = [feedback("ring", request_id="r") for _ in range(200)]
    changed = [event.model_copy(update={"event_type": kind}) for event in events]
    outcomes: list[list[str]] = []
    start = threading.Barrier(2)

    def send(batch) -> None:
        with EventStore.open(url) as opened:
            start.wait()
            outcomes.append(opened.write(WriteBatch(feedback=batch)))

    threads = [threading.Thread(target=send, args=(one,)) for one in (events, changed[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = sorted(outcome for batch in outcomes for outcome in batch)
    assert told == [other] * 200 + ["stored"] * 200
    assert len(list(store.feedback())) == 200
