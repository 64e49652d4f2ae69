"""A rollout over three model servers: it covers all of them or none, whichever fails, and when."""

import asyncio
from dataclasses import dataclass, field

import pytest

from newshelf.rollout.assignment import Router, assign
from newshelf.rollout.controller import Controller
from newshelf.rollout.operations import change_rollout
from newshelf.rollout.versions import PromotedFile
from tests.unit.rollout.controller.conftest import NAME, World
from tests.unit.rollout.controller.fake_versions import FakeVersions

NOBODY = "fallback"
UNITS = ["", *(f"unit-{number}" for number in range(20))]
DECIDES, FOLLOWS = 0, 2
PHASES = [("draft", FOLLOWS), ("shadow", DECIDES), ("ramp", FOLLOWS), ("promoting", DECIDES)]


@dataclass
class Host:
    """A model server, its controller, and a gateway in front of it."""

    name: str
    world: World
    versions: FakeVersions = field(default_factory=FakeVersions)
    dies: bool = False

    def __post_init__(self) -> None:
        self.folder = self.world.folder / self.name
        self.begin()

    def begin(self) -> None:
        """Start a controller; the first one, or after the host was away."""
        self.dies = False
        self.controller: Controller = self.world.controller(f"of {self.name}", host=self.name)
        self.controller.versions = self.versions
        self.controller.promoted = PromotedFile(self.folder / "promoted.json")

    def restart_server(self) -> None:
        """As after SIGKILL: what is loaded then is what the start names."""
        promoted = self.controller.promoted.read()
        version = promoted.version if promoted else "1"
        self.versions.current, self.versions.there = version, {version}

    def die(self) -> None:
        """With everything on it; its leases run out."""
        self.dies = True
        self.controller.release()

    def come_back(self) -> None:
        """With the version that it was installed with, and nothing else."""
        self.versions.current, self.versions.there = "1", {"1"}
        (self.folder / "promoted.json").unlink(missing_ok=True)
        self.begin()

    def answers(self, unit: str = "unit-1", router: Router | None = None) -> str:
        """The version that answers a shopper here."""
        router = router or routes(self.world)
        version = router.route(unit).assigned.version or self.versions.default()
        return version if version in self.versions.loaded() else NOBODY


def routes(world: World) -> Router:
    """What any gateway reads."""
    router = Router(world.store.rollouts.traffic)
    asyncio.run(router.refresh())
    return router


@dataclass
class Installation:
    world: World
    hosts: list[Host]

    def look(self, *until: str) -> None:
        """Each controller looks once, or until a phase; after each look, nobody is switched."""
        for host in self.hosts:
            if not host.dies and self.world.state.phase not in until:
                host.controller.tick_all()
                self.check()

    def check(self) -> None:
        """Everybody outside the experiment has one version, whichever host answers."""
        state = self.world.state
        phases = [one for one in self.world.phases if one != "rolling_back"]
        everybody = "2" if phases[-1] == "promoted" else "1"
        router = routes(self.world)
        (split,) = router.current.splits or (None,)
        for unit in UNITS:
            wanted = assign(split, unit).version if split and unit else everybody
            for host in self.hosts:
                assert host.dies or host.answers(unit, router) in {wanted, NOBODY}, state

    def go_on(self, *until: str, seconds: float = 6) -> None:
        for _ in range(30):
            if self.world.state.phase in until:
                return
            self.world.shop()
            self.world.pass_time(seconds)
            self.look(*until)
        pytest.fail(f"still {self.world.state.phase}: {self.world.state.reason}")

    def settle(self) -> None:
        for _ in range(3):
            self.world.pass_time(60)
            self.look()

    def all_answer_with(self, version: str) -> bool:
        return all(
            (host.versions.default(), host.versions.loaded(), host.answers())
            == (version, {version}, version)
            for host in self.hosts
        )


@pytest.fixture
def three(world: World) -> Installation:
    hosts = [Host(name, world) for name in "abc"]
    # Shoppers are recorded as the first one's gateway answers them.
    world.versions = hosts[0].versions
    installation = Installation(world, hosts)
    for host in hosts:
        assert host.controller.register()
    return installation


def test_it_begins_when_the_challenger_answers_on_each_and_ends_on_all(three: Installation) -> None:
    three.world.start()
    first, second, third = three.hosts
    first.controller.tick_all()
    second.controller.tick_all()
    # The third has not looked yet.
    assert three.world.state.phase == "draft"
    three.look()
    three.look()
    assert three.world.state.phase == "shadow"
    assert all(("2", 20) in host.versions.asked for host in three.hosts)
    three.go_on("promoted")
    assert {host.versions.default() for host in three.hosts} == {"2"}
    three.settle()
    assert three.all_answer_with("2")
    change_rollout(three.world.store, NAME, "abort", clock=three.world.clock)
    three.go_on("rolled_back")
    three.settle()
    assert three.all_answer_with("1")
    assert first.controller.promoted.read() == third.controller.promoted.read()


@pytest.mark.parametrize(("phase", "which"), PHASES)
def test_a_server_that_is_killed_gets_its_versions_back_before_it_goes_on(
    three: Installation, phase: str, which: int
) -> None:
    three.world.start()
    three.go_on(phase)
    three.hosts[which].restart_server()
    three.go_on("promoted")
    three.settle()
    assert three.all_answer_with("2")


@pytest.mark.parametrize(
    ("phase", "which", "ends"),
    [
        ("draft", DECIDES, "aborted"),
        ("draft", FOLLOWS, "aborted"),
        ("shadow", FOLLOWS, "paused"),
        ("ramp", DECIDES, "paused"),
        ("promoting", FOLLOWS, "paused"),
    ],
)
def test_a_challenger_that_fails_on_one_server_goes_to_nobody(
    three: Installation, phase: str, ends: str, which: int
) -> None:
    three.world.start()
    three.go_on(phase)
    three.hosts[which].versions.broken["2"] = "no worker of 2 is ready"
    three.go_on(ends, seconds=30)
    if phase == "draft":
        assert f"{'abc'[which]}: no worker of 2 is ready" in three.world.state.reason
    else:
        change_rollout(three.world.store, NAME, "abort", clock=three.world.clock)
    three.settle()
    assert three.all_answer_with("1")


@pytest.mark.parametrize(("phase", "which"), PHASES)
def test_a_host_that_dies_is_left_out_and_comes_back_with_what_is_served(
    three: Installation, phase: str, which: int
) -> None:
    three.world.start()
    three.go_on(phase)
    dead = three.hosts[which]
    dead.die()
    three.world.versions = three.hosts[1].versions
    three.go_on("promoted")
    three.settle()
    dead.come_back()
    # Its gateway knows what all serve, and its server does not have it yet.
    assert dead.answers() == NOBODY
    three.look()
    assert dead.answers() == "2"
    three.settle()
    assert three.all_answer_with("2")


@pytest.mark.parametrize("phase", ["draft", "promoting"])
def test_a_host_that_joins_is_waited_for(three: Installation, phase: str) -> None:
    three.world.start()
    late = three.hosts.pop()
    late.die()
    three.go_on(phase)
    three.hosts.append(late)
    late.come_back()
    assert late.controller.register()
    late.versions.broken["2"] = "2 loads"
    for _ in range(2):
        three.world.shop()
        three.world.pass_time(6)
        three.look()
    assert three.world.state.phase == phase
    late.versions.broken.clear()
    three.go_on("promoted")
    three.settle()
    assert three.all_answer_with("2")


@pytest.mark.parametrize("which", [DECIDES, FOLLOWS])
def test_after_a_promotion_all_go_back_or_none(three: Installation, which: int) -> None:
    three.world.start()
    three.go_on("promoted")
    three.settle()
    slow = three.hosts[which]
    slow.versions.broken["1"] = "no worker of 1 is ready"
    change_rollout(three.world.store, NAME, "abort", clock=three.world.clock)
    for _ in range(4):
        three.look()
    assert three.world.state.phase == "rolling_back"
    assert {host.answers() for host in three.hosts} == {"2"}
    slow.restart_server()
    slow.versions.broken.clear()
    three.go_on("rolled_back")
    three.settle()
    assert three.all_answer_with("1")


def test_a_promotion_that_is_stopped_half_way_reaches_nobody(three: Installation) -> None:
    three.world.start()
    three.go_on("promoting")
    three.hosts[0].controller.tick_all()
    assert [host.versions.default() for host in three.hosts] == ["2", "1", "1"]
    change_rollout(three.world.store, NAME, "abort", clock=three.world.clock)
    # Before any controller has seen it.
    three.check()
    three.settle()
    assert three.all_answer_with("1")


def test_a_server_that_starts_with_an_old_version_long_afterwards_is_put_right(
    three: Installation,
) -> None:
    three.world.start()
    three.go_on("promoted")
    three.settle()
    three.hosts[1].versions.current, three.hosts[1].versions.there = "1", {"1"}
    three.check()
    three.settle()
    assert three.all_answer_with("2")


def test_without_its_hosts_lease_a_controller_does_nothing(three: Installation) -> None:
    three.world.start()
    first = three.hosts[0]
    second = three.world.controller("another", host="a")
    second.versions = first.versions
    second.tick_all()
    assert first.versions.asked == []
    first.controller.release()
    second.tick_all()
    assert first.versions.loaded() == {"1", "2"}
