"""What the challenger would have answered."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from newshelf.rollout.controller import observe_rollout
from newshelf.store.records import ShadowAnswer
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch
from tests.unit.rollout.conftest import plan, state
from tests.unit.store.helpers import START, shadow_summary


def answer(number: int, **values: object) -> ShadowAnswer:
    given = {"rollout": "spring", "request_id": f"r{number}", "latency_ms": float(number)}
    return ShadowAnswer.model_validate({**given, "at": START + timedelta(seconds=number), **values})


def test_the_summary(store: EventStore) -> None:
    good = [answer(n, overlap=0.5 + 0.5 * (n % 2), score_drift=0.2) for n in range(100)]
    bad = [answer(n, error=True) for n in range(100, 104)]
    store.write(WriteBatch(shadow=[*good, *bad, answer(0, rollout="autumn", overlap=0)]))
    summary, latencies_ms = shadow_summary(store)
    assert sorted(latencies_ms) == list(range(104))
    p99_ms = summary.pop("p99_ms")
    assert summary == pytest.approx(
        {"requests": 104, "errors": 4, "overlap": 0.75, "score_drift": 0.2}
    )
    assert 100 <= p99_ms <= 103


def test_only_what_came_since_is_summed_up(store: EventStore) -> None:
    store.write(WriteBatch(shadow=[answer(n, overlap=0.5) for n in range(10)]))
    summary, latencies_ms = shadow_summary(store, since=START + timedelta(seconds=8))
    assert (summary["requests"], summary["errors"]) == (2, 0)
    assert sorted(latencies_ms) == [8, 9]
    summary, latencies_ms = shadow_summary(store, since=START + timedelta(seconds=11))
    assert summary == {}
    assert len(latencies_ms) == 0


def test_what_no_answer_has_is_left_out(store: EventStore) -> None:
    store.write(WriteBatch(shadow=[answer(1, error=True)]))
    summary, _ = shadow_summary(store)
    assert summary == {"requests": 1, "errors": 1, "p99_ms": 1}


def test_a_copy_is_kept_once(store: EventStore) -> None:
    store.write(WriteBatch(shadow=[answer(1, overlap=0.5), answer(1, overlap=1.0)]))
    store.write(WriteBatch(shadow=[answer(1, error=True)]))
    summary, _ = shadow_summary(store)
    assert (summary["requests"], summary["overlap"], summary["errors"]) == (1, 0.5, 0)


@pytest.mark.parametrize(
    "wrong", [{"overlap": 1.1}, {"score_drift": float("nan")}, {"latency_ms": -1}, {"more": 1}]
)
def test_what_is_no_shadow_answer_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        answer(1, **wrong)


@pytest.mark.parametrize(("slow", "told"), [(0, None), (3, None), (60, 500.0)])
def test_the_p99_that_is_judged_is_the_lowest_that_it_can_be(
    store: EventStore, slow: int, told: float | None
) -> None:
    """Three slow copies of 200 are far above one in a hundred, but it may be chance."""
    store.write(
        WriteBatch(shadow=[answer(n, latency_ms=500 if n < slow else 50) for n in range(200)])
    )
    seen = observe_rollout(
        store,
        plan(),
        state("shadow", rollout="spring", since=START),
        now=START + timedelta(seconds=60),
        before_window_s=0,
        versions_ready=True,
    ).shadow
    low_ms = seen.get("p99_low_ms")
    assert low_ms == told if told else low_ms is None or low_ms <= 50
