"""The versions of a TorchServe, at the level of HTTP."""

import json
import re
import zipfile
from pathlib import Path

import pytest

from newshelf.errors import RolloutError, ServerError
from newshelf.rollout.versions import TorchServeVersions, find_archive
from newshelf.server.process import stop_session
from newshelf.server.state import ServerState
from tests.fake_server import FakeServer, answer


@pytest.fixture
def versions(server_state: ServerState, tmp_path: Path) -> TorchServeVersions:
    store = tmp_path / "store"
    store.mkdir()
    for version in ("1", "2"):
        with zipfile.ZipFile(store / f"recommender-{version}.mar", "w") as archive:
            table = {"index_version": f"index-of-{version}"}
            archive.writestr("index/index.json", json.dumps(table))
    return TorchServeVersions(server_state.directory, store, {"history": ["a"], "k": 5})


def test_a_challenger_is_loaded_beside_with_as_many_workers(
    versions: TorchServeVersions, fake_server: FakeServer
) -> None:
    versions.load("2")
    assert versions.loaded() == {"1", "2"}
    assert fake_server.workers["2"] == ["LOADING", "LOADING"]
    assert versions.default() == "1"
    versions.load("2")
    assert fake_server.asked.count("POST /models") == 1


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
    fake_server: FakeServer,
    workers: list[str],
    answers: list[tuple[int, object]],
    obstacle: str,
) -> None:
    fake_server.workers["2"], fake_server.answers["2"] = workers, answers
    found = versions.obstacle("2")
    assert found is not None
    assert re.search(obstacle, found)


def test_a_version_whose_products_have_changed_since_its_export_is_ready(
    versions: TorchServeVersions, fake_server: FakeServer
) -> None:
    fake_server.workers["2"] = ["READY"]
    fake_server.answers["2"] = [(200, answer("2", index_version="index-of-2+1234"))]
    assert versions.obstacle("2") is None


def test_a_version_that_is_not_loaded_is_not_ready(versions: TorchServeVersions) -> None:
    assert versions.obstacle("2") == "2 is not loaded"


def test_a_worker_that_is_being_replaced_does_not_hide_the_others(
    versions: TorchServeVersions, fake_server: FakeServer
) -> None:
    fake_server.workers["1"] = ["LOADING", "READY"]
    assert versions.obstacle("1") is None


def test_a_full_queue_is_asked_again(versions: TorchServeVersions, fake_server: FakeServer) -> None:
    fake_server.answers["1"] = [(503, {}), (503, {}), (200, answer("1"))]
    assert versions.obstacle("1") is None


def test_the_last_of_many_requests_counts_too(
    versions: TorchServeVersions, fake_server: FakeServer
) -> None:
    fake_server.answers["1"] = [(200, answer("1")), (200, answer("1")), (500, {})]
    assert versions.obstacle("1", requests=2) is None
    found = versions.obstacle("1", requests=3)
    assert found is not None
    assert "500" in found


def test_default_and_unloading_are_done_once(
    versions: TorchServeVersions, fake_server: FakeServer
) -> None:
    versions.load("2")
    for _ in range(2):
        versions.set_default("2")
        versions.unload("1")
    assert (fake_server.default, set(fake_server.workers)) == ("2", {"2"})
    changes = [one for one in fake_server.asked if one.startswith(("PUT", "DELETE"))]
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
    versions: TorchServeVersions, fake_server: FakeServer, version: str
) -> None:
    with pytest.raises(RolloutError, match="is not in the model store"):
        versions.load(version)
    assert fake_server.asked == []


def test_a_server_that_is_gone_is_told(
    versions: TorchServeVersions, server_state: ServerState
) -> None:
    stop_session(server_state.process)
    with pytest.raises(ServerError, match="TorchServe is not running"):
        versions.default()


def test_without_a_state_no_server_runs(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="TorchServe is not running"):
        TorchServeVersions(tmp_path, tmp_path, {}).loaded()
