"""The versions of a TorchServe, at the level of HTTP."""

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from newshelf.errors import RolloutError, ServerError
from newshelf.rollout.versions import TorchServeVersions, find_archive
from newshelf.server.ports import Ports
from newshelf.server.process import start_session, stop_session
from newshelf.server.state import TORCHSERVE, ServerState
from tests.answering import answering

FAR = "2999-01-01T00:00:00Z"


@dataclass
class FakeServer:
    """Answers as TorchServe 0.12 does."""

    default: str = "1"
    workers: dict[str, list[str]] = field(default_factory=lambda: {"1": ["READY", "READY"]})
    """Status of each worker, by version."""
    answers: dict[str, list[tuple[int, object]]] = field(default_factory=dict)
    """By version: the next ones; the last is repeated."""
    asked: list[str] = field(default_factory=list)

    def handle(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, object]:
        self.asked.append(f"{method} {path}")
        match [method, *path.strip("/").split("/")]:
            case ["GET", "models", "recommender"]:
                found: tuple[int, object] = 200, [self._told(self.default)]
            case ["GET", "models", "recommender", "all"]:
                found = 200, [self._told(version) for version in self.workers]
            case ["GET", "models", "recommender", version] if version in self.workers:
                found = 200, [self._told(version)]
            case ["POST", "models"]:
                version = query["url"][0].removeprefix("recommender-").removesuffix(".mar")
                self.workers[version] = ["LOADING"] * int(query["initial_workers"][0])
                found = 202, {"status": "begun"}
            case ["PUT", "models", "recommender", version, "set-default"]:
                self.default = version
                found = 200, {"status": "done"}
            case ["DELETE", "models", "recommender", version] if version != self.default:
                del self.workers[version]
                found = 200, {"status": "done"}
            case ["POST", "predictions", "recommender", version] if version in self.workers:
                next_ones = self.answers.get(version) or [(200, answer(version))]
                found = next_ones[0] if len(next_ones) == 1 else next_ones.pop(0)
            case _:
                found = 404, {"code": 404, "message": "no such version"}
        return found

    def _told(self, version: str) -> dict[str, object]:
        workers = [{"status": status} for status in self.workers[version]]
        return {"modelVersion": version, "workers": workers}


def answer(version: str, **other: object) -> dict[str, object]:
    index = f"index-of-{version}"
    return {"items": [{"id": "a"}], "model_version": version, "index_version": index, **other}


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer()


@pytest.fixture
def state(fake: FakeServer, tmp_path: Path) -> Iterator[ServerState]:
    process = start_session(["sleep", "600"], cwd=tmp_path, env={}, log=tmp_path / "log")
    keys = {
        name: {"key": "k", "expiration time": FAR} for name in ("inference", "management", "API")
    }
    key_file = tmp_path / "key_file.json"
    key_file.write_text(json.dumps(keys))
    key_file.chmod(0o600)
    with answering(fake.handle) as port:
        written = ServerState(
            tmp_path, Ports(port, port), tmp_path, {}, "shop", processes={TORCHSERVE: process}
        )
        written.save()
        yield written
    stop_session(process)


@pytest.fixture
def versions(state: ServerState, tmp_path: Path) -> TorchServeVersions:
    store = tmp_path / "store"
    store.mkdir()
    for version in ("1", "2"):
        with zipfile.ZipFile(store / f"recommender-{version}.mar", "w") as archive:
            table = {"index_version": f"index-of-{version}"}
            archive.writestr("index/index.json", json.dumps(table))
    return TorchServeVersions(state.directory, store, {"history": ["a"], "k": 5})


def test_a_challenger_is_loaded_beside_with_as_many_workers(
    versions: TorchServeVersions, fake: FakeServer
) -> None:
    versions.load("2")
    assert versions.loaded() == {"1", "2"}
    assert fake.workers["2"] == ["LOADING", "LOADING"]
    assert versions.default() == "1"
    versions.load("2")
    assert fake.asked.count("POST /models") == 1


@pytest.mark.parametrize(
    ("workers", "answers", "obstacle"),
    [
        (["LOADING"], [], "no worker of 2 is ready"),
        (["READY"], [(500, {"message": "broken"})], "2 answered 500: .*broken"),
        (["READY"], [(200, answer("2", items=[]))], "2 answered without a product"),
        (["READY"], [(200, answer("1"))], "model_version 1, not 2"),
        (
            ["READY"],
            [(200, answer("2", index_version="old"))],
            "index_version old, not index-of-2",
        ),
        (["READY"], [(503, {"message": "full"})], "2 answered 503"),
    ],
)
def test_a_version_that_would_fail_shoppers_is_not_ready(
    versions: TorchServeVersions,
    fake: FakeServer,
    workers: list[str],
    answers: list[tuple[int, object]],
    obstacle: str,
) -> None:
    fake.workers["2"], fake.answers["2"] = workers, answers
    found = versions.obstacle("2")
    assert found is not None
    assert re.search(obstacle, found)


def test_a_version_whose_products_have_changed_since_its_export_is_ready(
    versions: TorchServeVersions, fake: FakeServer
) -> None:
    fake.workers["2"] = ["READY"]
    fake.answers["2"] = [(200, answer("2", index_version="index-of-2+1234"))]
    assert versions.obstacle("2") is None


def test_a_version_that_is_not_loaded_is_not_ready(versions: TorchServeVersions) -> None:
    assert versions.obstacle("2") == "2 is not loaded"


def test_a_worker_that_is_being_replaced_does_not_hide_the_others(
    versions: TorchServeVersions, fake: FakeServer
) -> None:
    fake.workers["1"] = ["LOADING", "READY"]
    assert versions.obstacle("1") is None


def test_a_full_queue_is_asked_again(versions: TorchServeVersions, fake: FakeServer) -> None:
    fake.answers["1"] = [(503, {}), (503, {}), (200, answer("1"))]
    assert versions.obstacle("1") is None


def test_the_last_of_many_requests_counts_too(
    versions: TorchServeVersions, fake: FakeServer
) -> None:
    fake.answers["1"] = [(200, answer("1")), (200, answer("1")), (500, {})]
    assert versions.obstacle("1", requests=2) is None
    found = versions.obstacle("1", requests=3)
    assert found is not None
    assert "500" in found


def test_default_and_unloading_are_done_once(
    versions: TorchServeVersions, fake: FakeServer
) -> None:
    versions.load("2")
    for _ in range(2):
        versions.set_default("2")
        versions.unload("1")
    assert (fake.default, set(fake.workers)) == ("2", {"2"})
    changes = [one for one in fake.asked if one.startswith(("PUT", "DELETE"))]
    assert changes == [
        "PUT /models/recommender/2/set-default",
        "DELETE /models/recommender/1",
    ]


def test_an_archive_that_is_not_there_says_what_is(
    versions: TorchServeVersions, tmp_path: Path
) -> None:
    with pytest.raises(RolloutError, match=r"version 3 .*there is 1, 2"):
        versions.load("3")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RolloutError, match="no recommender at all"):
        find_archive(tmp_path / "empty", "1")


@pytest.mark.parametrize("version", ["../1", "a/b", "", ".hidden", "1?x=2"])
def test_a_version_that_is_no_file_name_is_refused(
    versions: TorchServeVersions, fake: FakeServer, version: str
) -> None:
    with pytest.raises(RolloutError, match="is not in the model store"):
        versions.load(version)
    assert fake.asked == []


def test_a_server_that_is_gone_is_told(versions: TorchServeVersions, state: ServerState) -> None:
    stop_session(state.process)
    with pytest.raises(ServerError, match="TorchServe is not running"):
        versions.default()


def test_without_a_state_no_server_runs(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="TorchServe is not running"):
        TorchServeVersions(tmp_path, tmp_path, {}).loaded()
