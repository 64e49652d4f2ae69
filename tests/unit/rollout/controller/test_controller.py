"""Each phase of a rollout, as a controller goes through it."""

from pathlib import Path

import pytest

from newshelf.errors import RolloutError, ServerError
from newshelf.rollout.history import read_snapshot
from newshelf.rollout.operations import change_rollout, start_rollout
from newshelf.rollout.plan import SuccessMetric
from newshelf.rollout.versions import PromotedVersion
from newshelf.server.webhooks import Webhooks
from newshelf.store.records import Feedback
from newshelf.store.write import WriteBatch
from tests.receiver import receiver, settings_of
from tests.unit.rollout.controller.conftest import NAME, World


def go_on(world: World, until: str, looks: int = 30, **challenger: float) -> None:
    """Let shoppers and controller go on until a phase is reached."""
    controller = world.controller()
    for _ in range(looks):
        if world.state.phase == until:
            return
        world.shop(**challenger)
        world.pass_time(6)
        controller.tick(NAME)
    pytest.fail(f"still {world.state.phase}: {world.state.reason}")


def test_a_better_challenger_goes_all_the_way(world: World) -> None:
    world.start()
    go_on(world, "promoted")
    assert world.phases == [
        "draft", "shadow", "ramp 0", "ramp 1", "promoting", "promoted",
    ]  # fmt: skip
    assert world.versions.default() == "2"
    assert world.store.rollouts.traffic().splits == ()
    # Asked for long before a shopper was.
    assert world.versions.asked[0] == ("2", 20)
    promoted = world.promoted.read()
    assert promoted == PromotedVersion(version="2", rollout=NAME, before="1")
    # The old version finishes what it has begun.
    assert world.versions.loaded() == {"1", "2"}
    controller = world.controller()
    world.pass_time(10)
    controller.tick(NAME)
    assert world.versions.loaded() == {"1", "2"}
    world.pass_time(30)
    controller.tick(NAME)
    assert world.versions.loaded() == {"2"}


def test_nothing_is_sent_to_a_challenger_that_has_not_answered(world: World) -> None:
    world.versions.broken["2"] = "2 answered 507: it is broken"
    world.start()
    controller = world.controller()
    for _ in range(3):
        world.pass_time(15)
        controller.tick(NAME)
        assert world.state.phase == "draft"
        assert world.store.rollouts.traffic().splits == ()
    world.pass_time(30)
    controller.tick(NAME)
    assert world.state.phase == "aborted"
    assert "it is broken" in world.state.reason
    world.pass_time(30)
    controller.tick(NAME)
    assert world.versions.loaded() == {"1"}


@pytest.mark.parametrize(
    ("challenger", "reason"),
    [
        ({"error": 0.5}, "error_rate"),
        ({"latency_ms": 900.0}, "p99_ms"),
        ({"ctr": 0.15}, "ctr"),
    ],
)
def test_a_bad_challenger_is_rolled_back_with_the_reason(
    world: World, challenger: dict[str, float], reason: str
) -> None:
    world.start()
    go_on(world, "ramp")
    go_on(world, "rolled_back", **challenger)
    assert reason in world.state.reason
    assert world.versions.default() == "1"
    assert world.promoted.read() is None
    assert world.store.rollouts.traffic().splits == ()
    world.pass_time(30)
    world.controller().tick(NAME)
    assert world.versions.loaded() == {"1"}


def test_webhooks_tell_of_a_halt_and_of_a_promotion(world: World, tmp_path: Path) -> None:
    with receiver() as received:
        world.webhooks = Webhooks(settings_of(received.url, secret=tmp_path / "key"))
        world.start()
        controller = world.controller()
        for _ in range(2):
            world.pass_time(30)
            controller.tick(NAME)
        told = received.next()
        assert (told["event"], told["rollout"]) == ("paused", NAME)
        assert "traffic is probably missing" in told["reason"]
        change_rollout(world.store, NAME, "resume", clock=world.clock)
        go_on(world, "promoted")
        assert received.next()["event"] == "promoted"
        assert received.arrived.empty()


def test_a_bad_challenger_never_leaves_the_shadow(world: World) -> None:
    world.start()
    go_on(world, "rolled_back", error=0.5)
    assert world.phases == ["draft", "shadow", "rolling_back", "rolled_back"]


def test_without_traffic_it_pauses_and_goes_on_when_a_person_says_so(world: World) -> None:
    world.start()
    controller = world.controller()
    for _ in range(2):
        world.pass_time(30)
        controller.tick(NAME)
    assert (world.state.phase, world.state.resumes_to) == ("paused", "shadow")
    assert "traffic is probably missing" in world.state.reason
    change_rollout(world.store, NAME, "resume", clock=world.clock)
    go_on(world, "promoted")


def test_the_loser_stays_while_a_gateway_still_asks_it(world: World) -> None:
    world.start()
    go_on(world, "ramp")
    change_rollout(world.store, NAME, "pause", clock=world.clock)
    world.shop()
    change_rollout(world.store, NAME, "abort", clock=world.clock)
    controller = world.controller()
    # A gateway that could not read the store for a while goes on splitting.
    last = world.store.rollouts.journal(NAME)[-2].split
    for _ in range(4):
        world.pass_time(15)
        late = world._answer("unit-1", last, {"ctr": 0, "error": 0, "latency_ms": 1})
        world.store.write(WriteBatch(exposures=[late]))
        controller.tick(NAME)
        assert "2" in world.versions.loaded()
    world.pass_time(21)
    controller.tick(NAME)
    assert world.versions.loaded() == {"1"}


def test_one_command_goes_back_after_a_promotion(world: World) -> None:
    world.start()
    go_on(world, "promoted")
    controller = world.controller()
    world.pass_time(60)
    controller.tick(NAME)
    assert world.versions.loaded() == {"2"}
    change_rollout(world.store, NAME, "abort", clock=world.clock)
    controller.tick(NAME)
    assert world.state.phase == "rolled_back"
    assert world.versions.default() == "1"
    promoted = world.promoted.read()
    assert promoted is not None
    assert promoted.version == "1"
    world.pass_time(60)
    controller.tick(NAME)
    assert world.versions.loaded() == {"1"}
    assert world.promoted.read() == promoted


def test_it_does_not_go_back_onto_a_control_that_does_not_answer(world: World) -> None:
    world.start()
    go_on(world, "promoted")
    change_rollout(world.store, NAME, "abort", clock=world.clock)
    world.versions.broken["1"] = "1 does not answer"
    with pytest.raises(ServerError, match="1 does not answer"):
        world.controller().tick(NAME)
    assert (world.state.phase, world.versions.default()) == ("rolling_back", "2")
    del world.versions.broken["1"]
    world.controller().tick(NAME)
    assert (world.state.phase, world.versions.default()) == ("rolled_back", "1")


def test_a_restarted_model_server_gets_its_challenger_back(world: World) -> None:
    world.start()
    go_on(world, "ramp")
    world.versions.there = {"1"}
    world.controller().tick(NAME)
    assert world.versions.loaded() == {"1", "2"}
    assert world.state.phase == "ramp"


def test_a_challenger_that_does_not_answer_is_not_promoted(world: World) -> None:
    world.start()
    go_on(world, "promoting")
    world.versions.broken["2"] = "no worker of 2 is ready"
    controller = world.controller()
    for _ in range(12):
        world.shop()
        world.pass_time(6)
        controller.tick(NAME)
        assert world.versions.default() == "1"
    assert (world.state.phase, world.state.resumes_to) == ("paused", "promoting")
    del world.versions.broken["2"]
    change_rollout(world.store, NAME, "resume", clock=world.clock)
    go_on(world, "promoted")


def test_a_rollout_that_cannot_be_decided_is_paused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start()
    go_on(world, "ramp")
    controller = world.controller()

    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of nothing")

    with monkeypatch.context() as patched:
        patched.setattr("newshelf.rollout.controller.decide", fails)
        for _ in range(29):
            controller.tick_all()
        assert world.state.phase == "ramp"
        controller.tick_all()
        assert (world.state.phase, world.state.resumes_to) == ("paused", "ramp")
        assert "30 looks in a row" in world.state.reason
        assert "of nothing" in world.state.reason
        revision = world.state.revision
        controller.tick_all()
        assert world.state.revision == revision
    change_rollout(world.store, NAME, "resume", clock=world.clock)
    go_on(world, "promoted")


def test_looks_that_fail_now_and_then_pause_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start()
    go_on(world, "ramp")
    controller = world.controller()

    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of nothing")

    for _ in range(3):
        with monkeypatch.context() as patched:
            patched.setattr("newshelf.rollout.controller.decide", fails)
            for _ in range(20):
                controller.tick_all()
        controller.tick_all()
    assert world.state.phase == "ramp"


def test_one_event_switches_no_guardrail_off(world: World) -> None:
    world.plan = world.plan.model_copy(
        update={"success": (SuccessMetric(metric="revenue_per_unit", minimum_effect=0.3),)}
    )
    world.start()
    go_on(world, "ramp")
    world.shop()
    world.store.write(WriteBatch(feedback=[
        Feedback(
            event_id=f"giant-{place}", event_type="purchase", item_id="item-1", at=world.now,
            request_id=answer.request_id, value=1e308,
        )
        for place, answer in enumerate(world.store.exposures(NAME))
    ]))  # fmt: skip
    go_on(world, "rolled_back", error=0.5)
    assert "error_rate" in world.state.reason


def test_what_was_seen_is_kept_for_the_report(world: World) -> None:
    world.start()
    go_on(world, "promoted")
    looks = [read_snapshot(kept)[1] for kept in world.store.rollouts.snapshots(NAME, most=100)]
    assert {look.phase for look in looks} == {"shadow", "ramp", "promoting"}
    assert looks[-1].outcome == "success"
    analysis = looks[-1].analysis
    assert analysis is not None
    assert analysis.metrics[0].verdict == "better"
    assert analysis.metrics[0].low > 0
    shadowed = [look for look in looks if look.phase == "shadow" and look.shadow]
    assert shadowed[-1].shadow["overlap"] == pytest.approx(0.7)


def test_a_rollout_that_is_over_asks_nothing_of_the_model_server(world: World) -> None:
    world.start()
    go_on(world, "promoted")
    controller = world.controller()
    for _ in range(3):
        world.pass_time(60)
        controller.tick_all()
    done, asked = list(world.versions.done), list(world.versions.asked)
    world.pass_time(60)
    controller.tick_all()
    assert (world.versions.done, world.versions.asked) == (done, asked)


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ({"challenger": "3"}, "version 3 .*there is 1, 2"),
        ({"challenger": "../2"}, "not in the model store"),
        ({"control": "2", "challenger": "1"}, "control is 2, but 1 is served"),
    ],
)
def test_a_version_that_is_not_there_changes_nothing(
    world: World, versions: dict[str, str], reason: str
) -> None:
    world.plan = world.plan.model_copy(update=versions)
    with pytest.raises(RolloutError, match=reason):
        world.start()
    assert world.store.rollouts.all() == []
    assert world.versions.done == []


def test_one_rollout_at_a_time(world: World) -> None:
    world.start()
    with pytest.raises(RolloutError, match=f"{NAME} is in progress"):
        world.start()
    assert len(world.store.rollouts.all()) == 1


def test_an_older_promotion_is_taken_back_for_good(world: World) -> None:
    world.start()
    go_on(world, "promoted")
    (world.folder / "recommender-3.mar").write_bytes(b"")
    third = world.plan.model_copy(update={"control": "2", "challenger": "3"})
    start_rollout(
        world.store, world.versions.default, world.folder, third, "next", clock=world.clock
    )
    with pytest.raises(RolloutError, match=r"next \(draft\) began with 2"):
        change_rollout(world.store, NAME, "abort", clock=world.clock)
    controller = world.controller()
    change_rollout(world.store, "next", "abort", clock=world.clock)
    change_rollout(world.store, NAME, "abort", clock=world.clock)
    for _ in range(4):
        controller.tick_all()
        assert world.versions.default() == "1"
        world.pass_time(30)
    assert world.versions.loaded() == {"1"}


def test_what_an_earlier_rollout_left_is_unloaded_too(world: World) -> None:
    world.start()
    go_on(world, "ramp")
    change_rollout(world.store, NAME, "abort", clock=world.clock)
    (world.folder / "recommender-3.mar").write_bytes(b"")
    third = world.plan.model_copy(update={"challenger": "3"})
    start_rollout(
        world.store, world.versions.default, world.folder, third, "next", clock=world.clock
    )
    controller = world.controller()
    controller.tick_all()
    assert world.versions.loaded() == {"1", "2", "3"}
    world.pass_time(30)
    controller.tick_all()
    assert world.versions.loaded() == {"1", "3"}


def test_a_version_that_the_next_rollout_needs_stays(world: World) -> None:
    world.start()
    go_on(world, "ramp")
    change_rollout(world.store, NAME, "abort", clock=world.clock)
    start_rollout(
        world.store, world.versions.default, world.folder, world.plan, "again", clock=world.clock
    )
    controller = world.controller()
    for _ in range(2):
        world.pass_time(30)
        controller.tick_all()
        assert world.versions.loaded() == {"1", "2"}
