"""Spare workers of TorchServe, in the place of those that it waits long to start again."""

import os
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from newshelf.config import LogSettings
from newshelf.server import supervisor, torchserve
from newshelf.server.client import Client
from newshelf.server.process import Service
from newshelf.server.state import TORCHSERVE, new_temp
from newshelf.server.supervisor import Supervisor
from newshelf.server.torchserve import SpareWorkers
from tests.answering import answering
from tests.fake_server import state_at

NOBODY = 2**22 + 1
"""No process has this id."""


@dataclass
class Workers:
    """One version's workers as TorchServe 0.12 scales them: it adds and ends them at the end."""

    ready: list[bool]
    loads: Set[int] = frozenset()
    """Places of those that are not ready and have a process."""
    scaled: list[int] = field(default_factory=list)
    described: int = 0

    def handle(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, object]:
        if method == "PUT":
            assert path == "/models/recommender/1"
            count = int(query["min_worker"][0])
            assert query["max_worker"] == query["min_worker"]
            assert all(self.ready[count:]), "one that waits was ended"
            self.ready = [*self.ready[:count], *[False] * (count - len(self.ready))]
            self.scaled.append(count)
            return 202, {"status": "begun"}
        if path == "/ping":
            return 200, {}
        assert path == "/models/recommender/all"
        self.described += 1
        workers = [
            {
                "id": str(9000 + at),
                "status": "READY" if ready else "UNLOADING",
                "pid": os.getpid() if ready or at in self.loads else NOBODY,
            }
            for at, ready in enumerate(self.ready)
        ]
        return 200, [{"modelVersion": "1", "workers": workers}]


Watch = Callable[..., Workers]


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Let a fresh ``SpareWorkers`` look twice at each of some states of the workers."""
    monkeypatch.setattr(torchserve, "_AWAY_S", 0.0)
    fake, spares = Workers([]), SpareWorkers()

    def look(*states: list[bool], loads: Set[int] = frozenset()) -> Workers:
        fake.loads = loads
        for state in states:
            fake.ready = [*state, *fake.ready[len(state) :]]
            for _ in range(2):
                spares.look(client, "recommender")
        return fake

    with answering(fake.handle) as port, Client(state_at(port, tmp_path)) as client:
        yield look


def test_a_worker_that_stays_away_is_replaced_until_it_is_back(watch: Watch) -> None:
    fake = watch([True, True], [True, False])
    assert fake.scaled == [3]
    watch([True, False, True])
    assert fake.scaled == [3]
    watch([True, True, True])
    assert fake.scaled == [3, 2]


def test_a_spare_worker_that_dies_too_is_replaced_and_there_are_two_at_most(watch: Watch) -> None:
    assert watch([True], [False], [False, False], [False, False, False]).scaled == [2, 3]
    assert watch([False, True, True]).scaled == [2, 3, 2]
    assert watch([False, True], [False, False]).scaled == [2, 3, 2, 3]


def test_a_version_that_was_never_ready_gets_none(watch: Watch) -> None:
    assert watch([False], [False], [False, False], [True, False]).scaled == []


def test_a_worker_that_loads_is_awaited(watch: Watch) -> None:
    assert watch([True, True], [True, False], loads={1}).scaled == []


def test_a_short_absence_changes_nothing(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchserve, "_AWAY_S", 60.0)
    assert watch([True], [False], [False], [True], [False]).scaled == []


def test_the_supervisor_looks_at_the_workers_of_a_torchserve_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchserve, "_AWAY_S", 0.0)
    monkeypatch.setattr(supervisor, "_WORKERS_S", 0.0)
    fake = Workers([True])
    with answering(fake.handle) as port:
        state = state_at(port, tmp_path, temp=new_temp())
        url, command = f"{state.inference_url}/ping", ("sleep", "600")
        service = Service(name=TORCHSERVE, command=command, cwd=tmp_path, url=url, start_s=0.0)
        state = replace(state, models={"recommender": ""}).start(service)
        try:
            watched = Supervisor(state, LogSettings())
            while not fake.scaled:
                watched.look()
                # Not at the first: a busy machine may have kept the answer too long.
                if fake.described >= 3 and fake.ready == [True]:
                    fake.ready = [False]
        finally:
            state.end()
    assert fake.scaled == [2]
