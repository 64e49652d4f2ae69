"""The sums of the database are those of a plain loop over the records."""

import math
import random
import re
from collections import Counter
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest
import sqlalchemy

from newshelf.rollout.controller import observe_rollout
from newshelf.rollout.decide import decide
from newshelf.store.aggregates import team_credits
from newshelf.store.records import (
    Exposure,
    Floats,
    Observation,
    StoredFeedback,
    UnitTotals,
    halvings,
)
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch
from tests.unit.rollout.conftest import plan, state
from tests.unit.store.conftest import MakeExposure, MakeFeedback
from tests.unit.store.helpers import START

NAMES = ("requests", "shown", "clicks", "purchases", "revenue", "ndcg", "ndcg_requests")
STEP_S, BEFORE_S = 500.0, 300.0
Rows = list[tuple[float, ...]]


def observe(
    store: EventStore, *, step_s: float = STEP_S, before_s: float = BEFORE_S
) -> Observation:
    now = since = START + timedelta(seconds=step_s)
    ramp = state("ramp", rollout="spring", since=since)
    return observe_rollout(
        store, plan(), ramp, now=now, before_window_s=before_s, versions_ready=True
    )


def rows(totals: UnitTotals) -> Rows:
    """Per unit, in an order of their own: values, then those of before."""
    columns = [getattr(totals, name) for name in NAMES] + [totals.before[name] for name in NAMES]
    assert {column.dtype for column in columns} == {np.dtype(np.float64)}
    assert {column.shape for column in columns} == {(len(totals),)}
    return sorted(zip(*columns, strict=True))


def naive_sums(shown: list[Exposure], done: list[StoredFeedback]) -> tuple[float, ...]:
    """One unit's."""
    answered = [one for one in shown if one.status < 500]
    clicked: dict[str | None, set[int]] = {}
    for event in done:
        if event.event_type == "click" and event.position is not None:
            clicked.setdefault(event.request_id, set()).add(event.position)
    bought = [event for event in done if event.event_type == "purchase"]
    ndcg = 0.0
    for positions in clicked.values():
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, len(positions) + 1))
        ndcg += sum(1 / math.log2(position + 1) for position in positions) / ideal
    return (
        sum(bool(one.items) for one in answered),
        sum(len(one.items) for one in answered),
        sum(map(len, clicked.values())),
        len(bought),
        sum(event.value or 0 for event in bought),
        ndcg,
        len(clicked),
    )


def naive_rows(store: EventStore, variant: str) -> Rows:
    counted = {"control", "challenger", "interleaved"}
    seen = [one for one in store.exposures("spring") if one.variant in counted]
    began = min(one.at for one in seen)
    found = []
    for unit in {one.unit for one in seen if one.variant == variant}:
        shown = [one for one in seen if (one.unit, one.variant) == (unit, variant)]
        done = [
            event
            for event in store.feedback("spring")
            if (event.unit, event.variant) == (unit, variant)
        ]
        first = began - timedelta(seconds=BEFORE_S)
        shown_before = [
            one for one in store.exposures() if one.unit == unit and first <= one.at < began
        ]
        done_before = [
            event
            for event in store.feedback()
            if event.unit == unit and event.request_id and first <= event.at < began
        ]
        found.append((*naive_sums(shown, done), *naive_sums(shown_before, done_before)))
    return sorted(found)


@pytest.fixture
def busy(store: EventStore, exposure, feedback, split) -> EventStore:
    """A rollout after 400 seconds without one, and another beside it."""
    chance = random.Random(3)
    store.rollouts.create("spring", "", "", split())
    store.rollouts.create("autumn", "", "", split("autumn"))
    products = [f"p{number}" for number in range(9)]
    answers = []
    for second in range(0, 1000, 2):
        variant = chance.choice(["default", "control", "challenger", "interleaved"])
        rollout = None if second < 400 else chance.choice(["spring", "spring", "autumn"])
        answers.append(
            exposure(
                *chance.sample(products, chance.randrange(5)),
                at_s=second,
                unit=f"{variant} {chance.randrange(12)}",
                rollout=rollout,
                variant="default" if rollout is None else variant,
                status=chance.choice([200, 200, 200, 500, 503]),
                fallback=chance.random() < 0.1,
                latency_ms=chance.random() * 50,
            )
        )
    store.write(WriteBatch(exposures=answers))
    events = []
    for answer in answers:
        for _ in range(chance.randrange(4) if answer.items else 0):
            kind = chance.choice(["view", "click", "click", "cart", "purchase"])
            value = chance.choice([None, 9.5]) if kind == "purchase" else None
            later = answer.at + timedelta(seconds=chance.randrange(60))
            item = chance.choice(answer.items).item_id
            event = feedback(item, kind, request_id=answer.request_id, value=value)
            events.append(event.model_copy(update={"at": later}))
    store.write(
        WriteBatch(feedback=[*events, feedback("p1", "purchase", unit="control 1", value=1e6)])
    )
    return store


@pytest.mark.parametrize("variant", ["control", "challenger", "interleaved"])
def test_each_unit_is_summed_up_as_by_hand(busy: EventStore, variant: str) -> None:
    found, expected = rows(observe(busy).totals[variant]), naive_rows(busy, variant)
    assert len(found) > 5
    np.testing.assert_allclose(found, expected)
    # None of the columns is empty, so each was compared.
    assert np.all(np.sum(expected, axis=0) > 0)


@pytest.mark.parametrize("variant", ["control", "challenger"])
def test_health_is_of_the_step_alone(busy: EventStore, variant: str) -> None:
    step = START + timedelta(seconds=STEP_S)
    seen = [one for one in busy.exposures("spring") if one.variant == variant and one.at >= step]
    health = observe(busy).health[variant]
    assert 0 < health.requests == len(seen)
    assert health.errors == sum(one.status >= 500 or one.fallback for one in seen) > 0
    assert health.fallbacks == sum(one.fallback for one in seen) > 0
    assert health.empty == sum(one.status < 500 and not one.items for one in seen) > 0
    assert health.units == len({one.unit for one in seen})
    assert health.items == Counter(item.item_id for one in seen for item in one.items)
    assert sorted(health.latencies_ms) == sorted(one.latency_ms for one in seen)


def test_nothing_yet(store: EventStore) -> None:
    seen = observe(store)
    assert set(seen.totals) == set(seen.health) == {"control", "challenger"}
    assert all(len(totals) == 0 for totals in seen.totals.values())
    assert rows(seen.totals["control"]) == []
    assert seen.health["control"].requests == seen.health["control"].units == 0
    assert seen.health["control"].latencies_ms.shape == (0,)
    assert seen.health["control"].items == {}
    assert seen.double_exposed == 0


@pytest.mark.parametrize(
    ("variants", "double"),
    [
        (["control", "control"], 0),
        (["default", "control"], 0),
        (["interleaved", "challenger"], 0),
        (["control", "challenger"], 1),
        (["control", "interleaved", "control"], 1),
    ],
)
def test_a_unit_in_two_variants_is_told(
    store: EventStore, exposure, variants: list[str], double: int
) -> None:
    for variant in variants:
        store.write(WriteBatch(exposures=[exposure("ring", rollout="spring", variant=variant)]))
    store.write(
        WriteBatch(exposures=[exposure("ring", rollout="autumn", variant="challenger", unit="bob")])
    )
    assert observe(store).double_exposed == double


def test_testers_are_not_counted_even_when_the_rollout_is_over(
    store: EventStore, exposure, feedback, split
) -> None:
    store.rollouts.create("spring", "", "", split(overrides={"tester": "challenger"}))
    store.rollouts.replace_state("spring", 1, "", split(overrides={"other": "control"}), "")
    store.rollouts.replace_state("spring", 2, "", None, "over")
    shown = {
        unit: exposure("ring", rollout="spring", variant="challenger", unit=unit)
        for unit in ("tester", "other", "ann")
    }
    store.write(WriteBatch(exposures=list(shown.values())))
    store.write(
        WriteBatch(feedback=[feedback("ring", request_id=one.request_id) for one in shown.values()])
    )
    seen = observe(store, step_s=0)
    assert len(seen.totals["challenger"]) == 1
    assert seen.totals["challenger"].clicks.sum() == 1
    assert seen.health["challenger"].requests == seen.health["challenger"].units == 1


@pytest.mark.parametrize(
    ("positions", "ndcg"),
    [
        ([1], 1.0),
        ([1, 2], 1.0),
        ([3], 1 / math.log2(4)),
        ([2, 4], (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))),
    ],
)
def test_the_ndcg_of_clicks(
    store: EventStore, exposure, feedback, positions: list[int], ndcg: float
) -> None:
    store.rollouts.create("spring", "", "", None)
    answer = exposure("a", "b", "c", "d", rollout="spring", variant="control")
    store.write(WriteBatch(exposures=[answer]))
    # Twice each: a product counts once.
    items = [answer.items[position - 1].item_id for position in positions] * 2
    store.write(
        WriteBatch(feedback=[feedback(item, request_id=answer.request_id) for item in items])
    )
    totals = observe(store).totals["control"]
    assert totals.ndcg == pytest.approx([ndcg])
    assert totals.ndcg_requests.tolist() == [1]
    assert totals.clicks.tolist() == [len(positions)]


def test_values_that_no_purchase_has_do_not_spoil_the_sum(
    store: EventStore, exposure, feedback
) -> None:
    """Stored before there was a limit: two of them are more than a float holds."""
    store.rollouts.create("spring", "", "", None)
    shown = [exposure("ring", rollout="spring", variant="control", unit=u) for u in "ab"]
    store.write(WriteBatch(exposures=shown))
    giants = [feedback("ring", "purchase", unit="a", value=1.7e308) for _ in range(3)]
    store.write(WriteBatch(feedback=[*giants, feedback("ring", "purchase", unit="b", value=20.0)]))
    totals = observe(store).totals["control"]
    revenue = dict(zip(totals.units, totals.revenue, strict=True))
    assert revenue["b"] == 20
    assert 1e9 < revenue["a"] < 1e20


def test_a_sample_of_the_latencies_grows_until_it_is_halved(
    store: EventStore, exposure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newshelf.store.records.MOST_LATENCIES", 50)
    samples: dict[int, list[set[float]]] = {}
    for first in range(0, 1000, 20):
        store.write(
            WriteBatch(
                exposures=[
                    exposure("ring", rollout="spring", variant="control", latency_ms=n, at_s=600)
                    for n in range(first, first + 20)
                ]
            )
        )
        look, again = (observe(store).health["control"] for _ in range(2))
        assert look.latencies_ms.tolist() == again.latencies_ms.tolist()
        samples.setdefault(halvings(look.requests), []).append(set(look.latencies_ms))
    assert list(samples) == [0, 1, 2, 3, 4, 5]
    assert samples[0][-1] == set(range(40))
    for grown in samples.values():
        assert all(before <= after for before, after in pairwise(grown))
    assert {n for n in samples[5][0] if n < 800} < samples[4][-1]
    # Of all of them, and of about as many as there should be.
    last = samples[5][-1]
    assert 10 < len(last) < 60
    assert min(last) < 300
    assert max(last) > 700


@pytest.fixture
def one_per_cent(store: EventStore, exposure, feedback, split) -> EventStore:
    """A step of 1 %, in which only those outside of the experiment click and buy."""
    store.rollouts.create("spring", "", "", split())
    share = {3: "control", 53: "challenger"}
    answers = [
        exposure(
            "ring", unit=f"unit {number}", rollout="spring", at_s=number,
            variant=share.get(number % 100, "default"),
        )
        for number in range(4000)
    ]  # fmt: skip
    outside = [one for one in answers if one.variant == "default"]
    store.write(WriteBatch(exposures=answers))
    store.write(
        WriteBatch(
            feedback=[
                feedback("ring", kind, request_id=one.request_id, value=5.0)
                for one in outside
                for kind in ("click", "purchase")
            ]
        )
    )
    return store


def test_only_the_variants_are_summed_up(one_per_cent: EventStore) -> None:
    seen = observe(one_per_cent, step_s=0)
    assert set(seen.totals) == set(seen.health) == {"control", "challenger"}
    assert [len(totals) for totals in seen.totals.values()] == [40, 40]
    assert not any(totals.clicks.any() for totals in seen.totals.values())


def test_feedback_that_is_missing_in_both_variants_pauses(one_per_cent: EventStore) -> None:
    ramp = state("ramp", rollout="spring", since=START)
    rules = plan(ramp=[{"percent": 1, "min_seconds": 9, "max_seconds": 9000, "min_units": 40}])
    now = START + timedelta(seconds=4000)
    seen = observe_rollout(
        one_per_cent, rules, ramp, now=now, before_window_s=BEFORE_S, versions_ready=True
    )
    decision = decide(rules, ramp, seen)
    assert (decision.outcome, decision.phase) == ("no_data", "paused")
    assert "no feedback for ctr" in decision.reason


def test_a_look_reads_nothing_of_those_outside(one_per_cent: EventStore) -> None:
    """By the database's own plan for each statement."""
    engine, statements = one_per_cent.database._engine, []
    is_sqlite = engine.dialect.name == "sqlite"
    if not is_sqlite:
        # As its autovacuum does.
        with one_per_cent.database.writing() as connection:
            connection.execute(sqlalchemy.text("ANALYZE"))
    sqlalchemy.event.listen(
        engine, "before_cursor_execute", lambda *call: statements.append(call[2:4])
    )
    observe(one_per_cent)
    one_per_cent.last_answer_at("spring")
    explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
    by_rollout = re.compile(r"WHERE (exposures|feedback)\.rollout = ")
    # Covariates are read by unit.
    looked = [one for one in statements if by_rollout.search(one[0]) and "BETWEEN" not in one[0]]
    assert len(looked) > 10
    with one_per_cent.database.reading() as connection:
        for sql, values in looked:
            rows = connection.exec_driver_sql(f"{explain} {sql}", values)
            told = "\n".join(str(row[-1]) for row in rows)
            assert re.search(r"(SEARCH|Index Cond).*rollout ?= ?.*variant ?= ?", told), told
            assert not re.search(r"Seq Scan|SCAN (exposures|feedback)", told), told


def _credits(store: EventStore) -> dict[str, Floats]:
    with store.database.reading() as connection:
        return team_credits(connection, "spring")


def test_clicks_are_credited_to_the_team_that_drafted(
    store: EventStore, exposure: MakeExposure, feedback: MakeFeedback
) -> None:
    assert _credits(store) == {}
    teams = {"ring": "control/model", "scarf": "challenger/model", "lamp": "challenger/similar"}
    answers = []
    for unit in ("ann", "bob", "cid"):
        for _ in range(2):
            answer = exposure(*teams, unit=unit, rollout="spring", variant="interleaved")
            items = tuple(
                item.model_copy(update={"source": teams[item.item_id]}) for item in answer.items
            )
            answers.append(answer.model_copy(update={"items": items}))
    store.write(WriteBatch(exposures=answers))
    clicked = [
        (0, "ring"), (0, "scarf"), (0, "scarf"), (1, "lamp"), (2, "ring"), (3, "ring"),
    ]  # fmt: skip
    store.write(
        WriteBatch(
            feedback=[
                feedback(item, unit=answers[at].unit, request_id=answers[at].request_id)
                for at, item in clicked
            ]
        )
    )
    found = _credits(store)
    # Twice on the same product of one answer is once; who did not click is not there.
    assert found["control"].tolist() == [1, 2]
    assert found["challenger"].tolist() == [2, 0]
