"""A rollout as shoppers meet it: a split, a shadow, an interleaving."""

import threading
from collections import Counter
from typing import Any

import httpx
import pytest

from newshelf.rollout.assignment import assign, draft_propensities
from newshelf.store.records import TrafficSplit
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.fake_torchserve import ALIVE, FakeTorchServe, late, status
from tests.unit.store.helpers import shadow_summary

SPLIT = TrafficSplit(rollout="spring", salt="s1", control="old", challenger="new", share=0.25)


def test_each_unit_is_answered_by_its_variants_version(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway((SPLIT,))
    for number in range(60):
        gateway.recommend(f"u{number}")
    for asked, exposure in zip(torchserve.asked, gateway.exposures(), strict=True):
        expected = assign(SPLIT, exposure.unit)
        assert asked.path == f"/predictions/recommender/{expected.version}"
        assert (exposure.rollout, exposure.variant) == ("spring", expected.variant)
        assert exposure.model_version == expected.version
        assert {item.propensity for item in exposure.items} == {expected.propensity}
    seen = Counter(exposure.variant for exposure in gateway.exposures())
    assert set(seen) == {"default", "control", "challenger"}


def test_a_unit_keeps_its_variant(start_gateway: StartGateway) -> None:
    gateway = start_gateway((SPLIT,))
    for _ in range(3):
        for number in range(15):
            gateway.recommend(f"u{number}")
    variants: dict[str, set[str]] = {}
    for exposure in gateway.exposures():
        variants.setdefault(exposure.unit, set()).add(exposure.variant)
    assert len(variants) == 15
    assert all(len(seen) == 1 for seen in variants.values())


def test_a_tester_sees_the_challenger_and_counts_for_nothing(start_gateway: StartGateway) -> None:
    gateway = start_gateway((SPLIT.model_copy(update={"overrides": {"tester": "challenger"}}),))
    gateway.recommend("tester")
    (exposure,) = gateway.exposures()
    assert (exposure.model_version, exposure.rollout) == ("new", None)


def test_a_dead_challenger_is_the_fallbacks_and_controls_units_notice_nothing(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.by_version["new"] = status(503)
    gateway = start_gateway((SPLIT.model_copy(update={"share": 0.5}),))
    for number in range(60):
        assert gateway.recommend(f"u{number}").status_code == 200
    by_variant: dict[str, set[tuple[bool, str]]] = {}
    for exposure in gateway.exposures():
        by_variant.setdefault(exposure.variant, set()).add(
            (exposure.fallback, exposure.model_version)
        )
    assert by_variant == {"challenger": {(True, "new")}, "control": {(False, "old")}}


def test_a_rollout_that_changes_is_followed_while_it_runs(start_gateway: StartGateway) -> None:
    gateway = start_gateway((SPLIT,))
    row = gateway.store.rollouts.get("spring")
    wider = SPLIT.model_copy(update={"share": 0.5})
    assert gateway.store.rollouts.replace_state("spring", row.revision, "{}", wider, "ramp")
    while gateway.http.get("/v1/rollouts").json()["rollouts"][0]["share"] == 0.25:
        threading.Event().wait(0.05)
    (told,) = gateway.http.get("/v1/rollouts").json()["rollouts"]
    assert told == {
        "rollout": "spring",
        "control": "old",
        "challenger": "new",
        "share": 0.5,
        "holdout": 0.0,
        "shadow": False,
        "interleave": False,
    }
    row = gateway.store.rollouts.get("spring")
    assert gateway.store.rollouts.replace_state("spring", row.revision, "{}", None, "over")
    while gateway.http.get("/v1/rollouts").json()["rollouts"]:
        threading.Event().wait(0.05)
    gateway.recommend("u1")
    assert gateway.exposures()[-1].model_version == "default00000"


def test_a_promotion_switches_everybody_by_its_row(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway((SPLIT,))
    rollouts = gateway.store.rollouts
    assert rollouts.replace_state("spring", 1, "{}", SPLIT, "promoting", serve="old")
    assert rollouts.replace_state("spring", 2, "{}", None, "promoted", serve="new")
    while gateway.http.get("/v1/rollouts").json()["rollouts"]:
        threading.Event().wait(0.05)
    # Whatever the default of this gateway's TorchServe is.
    gateway.recommend("u1")
    assert torchserve.asked[-1].path == "/predictions/recommender/new"
    assert gateway.exposures()[-1].model_version == "new"


def strictly_ready(gateway: Gateway) -> httpx.Response:
    return gateway.http.get("/readyz", params="strict")


def test_a_gateway_is_ready_when_the_version_that_is_served_answers(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.by_version["new"] = status(404)
    gateway = start_gateway((SPLIT.model_copy(update={"control": "new", "challenger": "newer"}),))
    assert gateway.store.rollouts.replace_state("spring", 1, "{}", None, "", serve="new")
    while (answer := strictly_ready(gateway)).status_code == 200:
        threading.Event().wait(0.05)
    assert "recommender" in answer.json()["message"]
    assert gateway.http.get("/readyz").status_code == 200
    torchserve.by_version["new"] = ALIVE
    while strictly_ready(gateway).status_code != 200:
        threading.Event().wait(0.05)


@pytest.mark.parametrize(("patience_s", "code"), [(600.0, 503), (0.0, 200)])
def test_a_gateway_that_starts_waits_for_the_challenger_but_not_forever(
    start_gateway: StartGateway,
    torchserve: FakeTorchServe,
    monkeypatch: pytest.MonkeyPatch,
    patience_s: float,
    code: int,
) -> None:
    monkeypatch.setattr("newshelf.gateway.state._PATIENCE_S", patience_s)
    torchserve.by_version["new"] = status(404)
    gateway = start_gateway((SPLIT,))
    answer = strictly_ready(gateway)
    assert answer.status_code == code
    assert ("recommender new" in answer.json().get("message", "")) == (code == 503)
    # Shoppers get answers, and a challenger that hangs delays no probe.
    assert gateway.http.get("/readyz").json()["missing"] == {}


SHADOW = SPLIT.model_copy(update={"shadow": True, "share": 0.0})


def shadow_answers(gateway: Gateway, count: int) -> dict[str, float]:
    since = gateway.exposures()[0].at
    while (found := shadow_summary(gateway.store, since=since)[0]).get("requests", 0) < count:
        threading.Event().wait(0.02)
    return found


def test_a_shadow_is_asked_compared_and_never_shown(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway((SHADOW,))
    for number in range(10):
        gateway.recommend(f"u{number}", history=["item-001"])
    found = shadow_answers(gateway, 10)
    # The fake ranks by a hash of the request alone: both versions agree.
    assert (found["overlap"], found["score_drift"], found["errors"]) == (1.0, 0.0, 0.0)
    asked = Counter(asked.version for asked in torchserve.asked)
    assert asked == {"old": 10, "new": 10}
    assert {exposure.model_version for exposure in gateway.exposures()} == {"old"}
    bodies = {version: set() for version in ("old", "new")}  # type: ignore[var-annotated]
    for one in torchserve.asked:
        bodies[one.version].add(one.body)
    assert bodies["old"] == bodies["new"]


def test_a_shadow_that_never_answers_delays_nobody_and_is_not_asked_without_end(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.by_version["new"] = late(60)
    gateway = start_gateway((SHADOW,), shadow_requests=3, timeout_ms=5000)
    for number in range(20):
        assert gateway.recommend(f"u{number}").json()["source"] == "model"
    page = gateway.http.get("/metrics").text
    assert 'newshelf_gateway_shadow_total{outcome="dropped"} 17.0' in page
    assert sum(asked.version == "new" for asked in torchserve.asked) <= 3


def test_a_shadow_that_errs_is_recorded_as_an_error(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.by_version["new"] = status(500, b"")
    gateway = start_gateway((SHADOW,))
    for number in range(3):
        assert gateway.recommend(f"u{number}").json()["source"] == "model"
    assert shadow_answers(gateway, 3)["errors"] == 3


async def reversed_answer(asked: Any, writer: Any) -> None:
    """Another ranking of the same products."""
    asked.body = asked.body.replace(b"item-001", b"item-002")
    await ALIVE(asked, writer)


INTERLEAVED = SPLIT.model_copy(update={"interleave": True, "share": 0.5})


def test_interleaved_units_see_both_rankings(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.by_version["new"] = reversed_answer
    gateway = start_gateway((INTERLEAVED,))
    for number in range(40):
        answer = gateway.recommend(f"u{number}", history=["item-001"], k=6).json()
        assert len({item["id"] for item in answer["items"]}) == 6
        assert {item["source"] for item in answer["items"]} == {"model"}
    seen = [one for one in gateway.exposures() if one.variant == "interleaved"]
    assert len(seen) > 5
    teams: Counter[str] = Counter()
    for exposure in seen:
        teams.update(item.source for item in exposure.items)
    assert set(teams) == {"control/model", "challenger/model"}
    control = next(one for one in gateway.exposures() if one.variant == "control")
    ranking = [item.item_id for item in control.items]
    first = draft_propensities(ranking, ["x"], 1)[0][ranking[0]]
    # At the first place it is a coin whose ranking begins.
    assert first == 0.5
    for exposure in seen:
        assert exposure.items[0].propensity == pytest.approx(0.25)
        assert (exposure.model_version, exposure.fallback) == ("new", False)


def test_an_interleaved_answer_needs_both_models(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.by_version["new"] = status(503)
    gateway = start_gateway((INTERLEAVED,))
    for number in range(20):
        assert gateway.recommend(f"u{number}").status_code == 200
    for exposure in gateway.exposures():
        assert exposure.fallback == (exposure.variant == "interleaved")


def test_a_host_is_ready_when_its_controller_has_registered_it(
    start_gateway: StartGateway,
) -> None:
    """Before, a rollout would not wait for it."""
    gateway = start_gateway(controller="here")
    answer = strictly_ready(gateway)
    assert answer.status_code == 503
    assert "controller: it has not registered this host" in answer.json()["message"]
    # A balancer sends shoppers all the same: they get answers.
    assert gateway.http.get("/readyz").status_code == 200
    assert gateway.store.hosts.acquire("there", "holder", 30)
    assert strictly_ready(gateway).status_code == 503
    assert gateway.store.hosts.acquire("here", "holder", 30)
    while strictly_ready(gateway).status_code != 200:
        threading.Event().wait(0.05)
