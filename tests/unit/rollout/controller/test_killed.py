"""Controllers that are killed between any two steps, and controllers at the same time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Barrier, Thread

import pytest

from newshelf.errors import Unavailable
from newshelf.rollout.controller import Controller
from newshelf.rollout.operations import Command, change_rollout
from newshelf.rollout.versions import PromotedFile
from newshelf.store.rollouts import RolloutRepository
from tests.unit.rollout.controller.conftest import NAME, World
from tests.unit.rollout.controller.fake_versions import Killed

LEASE_S = 0.02


class Mortal:
    """Counts the side effects of controllers, and kills before the chosen one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, world: World, kill_at: int = 0) -> None:
        self.count = 0
        self.kill_at = kill_at
        for owner, name in (
            (RolloutRepository, "replace_state"),
            (RolloutRepository, "add_snapshot"),
            (PromotedFile, "_write"),
            (type(world.versions), "load"),
            (type(world.versions), "set_default"),
            (type(world.versions), "unload"),
        ):
            self._wrap(monkeypatch, owner, name)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        real: Callable[..., object] = getattr(owner, name)

        def effect(*given: object, **named: object) -> object:
            if name == "replace_state" and "holder" not in named:
                # A person's.
                return real(*given, **named)
            self.count += 1
            if self.count == self.kill_at:
                raise Killed
            return real(*given, **named)

        monkeypatch.setattr(owner, name, effect)


def tick(controller: Controller) -> bool:
    """Whether the controller outlived it."""
    try:
        controller.tick(NAME)
    except Killed:
        return False
    return True


def drive(world: World, scenario: "Scenario") -> int:
    """Go on to the end with a new controller for each that is killed; how many those were."""
    number, controller = 0, world.controller("0")
    commands = dict(scenario.commands)
    for _ in range(60):
        state = world.state
        if state.phase in commands:
            change_rollout(world.store, NAME, commands.pop(state.phase), clock=world.clock)
        fails = scenario.ends == "rolled_back" and not scenario.commands
        world.shop(error=0.6 if fails and state.phase == "ramp" else 0.0)
        world.pass_time(6)
        if not tick(controller):
            # As if its leases had run out meanwhile.
            controller.release()
            number += 1
            controller = world.controller(str(number))
        shoppers_are_answered(world)
        is_over = world.state.phase == scenario.ends and not commands
        if is_over and len(world.versions.loaded()) == 1:
            return number
    last = world.store.rollouts.last_snapshot(NAME)
    pytest.fail(f"{world.state.phase}: {world.state.reason}; {world.versions.done}; {last}")


def shoppers_are_answered(world: World) -> None:
    """Whatever was killed, what the split and the default name is loaded."""
    loaded = world.versions.loaded()
    assert world.versions.default() in loaded
    for split in world.store.rollouts.traffic().splits:
        assert {split.control, split.challenger} <= loaded


@dataclass(frozen=True)
class Scenario:
    """A whole rollout."""

    ends: str
    served: str
    effects: int
    """On the store, the model server and the file of what is promoted."""
    commands: dict[str, Command] = field(default_factory=dict)


SCENARIOS = {
    "promoted": Scenario("promoted", "2", 13),
    "promoted, and back again": Scenario("rolled_back", "1", 16, {"promoted": "abort"}),
    "rolled back": Scenario("rolled_back", "1", 8),
    "aborted while promoting": Scenario("aborted", "1", 9, {"promoting": "abort"}),
}


@pytest.mark.parametrize(
    ("name", "at"),
    [(name, at) for name, one in SCENARIOS.items() for at in range(1, one.effects + 1)],
)
def test_killed_before_any_step_the_next_one_brings_it_to_the_same_end(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    scenario = SCENARIOS[name]
    world.start()
    Mortal(monkeypatch, world, kill_at=at)
    assert drive(world, scenario) == 1
    assert world.state.phase == scenario.ends
    assert world.versions.default() == scenario.served
    assert world.versions.loaded() == {scenario.served}
    promoted = world.promoted.read()
    assert promoted is None or promoted.version == scenario.served
    assert (promoted is not None) == ("promoted" in world.phases)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_step_is_left_out(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    world.start()
    mortal = Mortal(monkeypatch, world)
    assert drive(world, SCENARIOS[name]) == 0
    assert mortal.count == SCENARIOS[name].effects


@pytest.mark.parametrize("wanted", ["abort", "pause"])
def test_a_promotion_that_was_broken_off_and_is_then_stopped_is_undone(
    world: World, monkeypatch: pytest.MonkeyPatch, wanted: Command
) -> None:
    world.start()
    controller = world.controller("dies", LEASE_S)
    while world.state.phase != "promoting":
        world.shop()
        world.pass_time(6)
        tick(controller)

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(world.store.rollouts, "replace_state", killed)
        assert not tick(controller)
    # The gateways go by the split, which names control.
    assert (world.versions.default(), world.store.rollouts.traffic().splits[0].control) == (
        "2",
        "1",
    )
    change_rollout(world.store, NAME, wanted, clock=world.clock)
    time.sleep(LEASE_S * 2)
    world.controller("next").tick(NAME)
    assert world.versions.default() == "1"
    promoted = world.promoted.read()
    assert promoted is not None
    assert promoted.version == "1"


def test_two_controllers_at_once_act_once(world: World) -> None:
    world.start()
    world.pass_time(1)
    start, failures = Barrier(2), []

    def act(controller: Controller) -> None:
        start.wait()
        try:
            controller.tick(NAME)
        except Unavailable as error:
            failures.append(error)

    for _ in range(12):
        threads = [Thread(target=act, args=[world.controller(holder)]) for holder in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        start.reset()
        world.shop()
        world.pass_time(6)
    assert not failures
    assert world.phases == ["draft", "shadow", "ramp 0", "ramp 1", "promoting", "promoted"]
    revisions = [entry.revision for entry in world.store.rollouts.journal(NAME)]
    assert revisions == list(range(1, len(revisions) + 1))
    for change in ("load 2", "default 2"):
        assert world.versions.done.count(change) == 1


def test_a_controller_that_lost_its_lease_changes_nothing(world: World) -> None:
    world.start()
    slow = world.controller("slow", LEASE_S)

    def pause(_: str) -> None:
        # It hangs in TorchServe for so long that another one takes over.
        world.versions.before = lambda _: None
        time.sleep(LEASE_S * 2)
        world.controller("other").tick(NAME)

    world.versions.before = pause
    with pytest.raises(Unavailable, match="another controller acts"):
        slow.tick(NAME)
    assert world.phases == ["draft", "shadow"]
    assert world.versions.done == ["load 2", "load 2"]


def test_a_persons_command_wins_over_a_decision_made_meanwhile(world: World) -> None:
    world.start()
    controller = world.controller()
    controller.tick(NAME)
    world.shop()
    world.pass_time(6)
    real = world.store.rollouts.add_snapshot

    def abort_meanwhile(name: str, snapshot: str) -> None:
        real(name, snapshot)
        change_rollout(world.store, NAME, "abort", clock=world.clock)

    world.store.rollouts.add_snapshot = abort_meanwhile  # type: ignore[method-assign]
    controller.tick(NAME)
    assert world.state.phase == "aborted"
    assert world.store.rollouts.traffic().splits == ()
