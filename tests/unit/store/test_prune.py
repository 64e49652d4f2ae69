"""Old answers and events are removed, young ones stay, and others write meanwhile."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from newshelf.store.records import Exposure, Feedback, ShadowAnswer
from newshelf.store.store import EventStore, PruneCounts, clock_doubt, prune
from newshelf.store.write import WriteBatch
from tests.unit.store.helpers import START, shadow_summary

MakeExposure = Callable[..., Exposure]


@pytest.fixture(autouse=True)
def small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("newshelf.store.store._ROWS", 7)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def test_what_was_before_goes_and_the_rest_stays(
    store: EventStore, exposure: MakeExposure, feedback: Callable[..., Feedback]
) -> None:
    store.write(
        WriteBatch(exposures=[exposure("ring", request_id=f"{n:02}", at_s=n) for n in range(40)])
    )
    store.write(
        WriteBatch(
            feedback=[
                feedback("ring", request_id=f"{n:02}", event_id=f"e{n:02}", at_s=n)
                for n in range(40)
            ]
        )
    )
    store.write(
        WriteBatch(
            shadow=[
                ShadowAnswer(
                    rollout="spring", request_id=f"{n:02}", at=at(n), latency_ms=1, overlap=0.5
                )
                for n in range(40)
            ]
        )
    )
    told: list[int] = []
    assert prune(store.database, at(25), told.append) == PruneCounts(
        exposures=25, feedback=25, shadow_answers=25
    )
    assert sum(told) == 75
    # In several transactions.
    assert max(told) <= 7
    left = [f"{n:02}" for n in range(25, 40)]
    assert sorted(one.request_id for one in store.exposures()) == left
    assert sorted(one.event_id for one in store.feedback()) == [f"e{name}" for name in left]
    assert shadow_summary(store)[0]["requests"] == 15
    assert prune(store.database, at(25)) == PruneCounts(exposures=0, feedback=0, shadow_answers=0)


def test_an_old_row_among_young_ones_goes_alone(store: EventStore, exposure: MakeExposure) -> None:
    seconds = [0, 90, 1, 91, 92, 2]
    store.write(
        WriteBatch(exposures=[exposure("ring", request_id=f"{s:02}", at_s=s) for s in seconds])
    )
    assert prune(store.database, at(50)).exposures == 3
    assert sorted(one.request_id for one in store.exposures()) == ["90", "91", "92"]


DAY_S = 86_400


def test_what_a_clock_that_was_ahead_has_stamped_goes_in_its_turn(
    store: EventStore, exposure: MakeExposure
) -> None:
    ahead_s = 5000 * DAY_S
    order = [*range(10), *(ahead_s + n for n in range(20)), *range(10, 40), ahead_s + 99]
    store.write(
        WriteBatch(
            exposures=[
                exposure("ring", request_id=f"{n:03}", at_s=second)
                for n, second in enumerate(order)
            ]
        )
    )
    # More of them than a transaction removes stand before old ones, and end nothing.
    assert prune(store.database, at(20)).exposures == 10 + 20 + 10
    assert [one.request_id for one in store.exposures()] == [f"{n:03}" for n in range(40, 61)]


@pytest.mark.parametrize(
    ("days", "keep_days", "said"),
    [
        # The gateway has written nothing since the clock jumped.
        ([*range(200)], 180, None),
        ([*range(200)], 19, None),
        ([*range(200), 199 + 400], 180, "the newest answer is of"),
        ([*range(200), *(600 + n / 1000 for n in range(50))], 180, "the newest answer is of"),
        # It jumped by less than what is kept.
        ([n / 10 for n in range(6000)] + [650 + n / 10 for n in range(100)], 180, "days after"),
        # Nothing would go.
        ([*range(100)], 180, None),
        # Long ago.
        ([n / 10 for n in range(1000)] + [150 + n / 10 for n in range(5000)], 180, None),
        # It is right again.
        ([*range(150), 5000, *range(150, 200)], 180, None),
        ([], 180, None),
    ],
)
def test_a_clock_that_jumped_is_doubted(
    store: EventStore,
    exposure: MakeExposure,
    days: list[float],
    keep_days: float,
    said: str | None,
) -> None:
    store.write(
        WriteBatch(
            exposures=[
                exposure("ring", request_id=f"{n:05}", at_s=day * DAY_S)
                for n, day in enumerate(days)
            ]
        )
    )
    newest = max((day for day in days if day < 5000), default=0)
    now = at(newest * DAY_S + 60)
    doubt = clock_doubt(store.database, now - timedelta(days=keep_days), now)
    assert (doubt is None) if said is None else (doubt is not None and said in doubt)


def test_answers_are_stored_while_old_ones_go(store: EventStore, exposure: MakeExposure) -> None:
    store.write(
        WriteBatch(exposures=[exposure("ring", request_id=f"old-{n}", at_s=n) for n in range(300)])
    )
    young = [exposure("ring", request_id=f"young-{n}", at=datetime.now(UTC)) for n in range(100)]

    def write() -> None:
        for one in young:
            store.write(WriteBatch(exposures=[one]))

    writer = threading.Thread(target=write)
    writer.start()
    removed = prune(store.database, datetime.now(UTC) - timedelta(days=2))
    writer.join()
    assert removed.exposures == 300
    assert sorted(one.request_id for one in store.exposures()) == sorted(
        one.request_id for one in young
    )
