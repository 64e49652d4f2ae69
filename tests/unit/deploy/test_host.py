"""The commands of a pod: what they serve, the files that they write, TorchServe's process."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from newshelf.errors import NewshelfError
from newshelf.gateway.keys import KeyFile
from newshelf.rollout.versions import PromotedFile
from newshelf.server.ports import Ports, free_port, free_ports
from newshelf.server.process import is_running
from newshelf.server.state import ServerState, read_state
from newshelf.server.torchserve import read_properties
from newshelf.serving.index_write import write_index
from newshelf.serving.item_table import INDEX_COLUMNS
from newshelf.store.store import EventStore
from tests.unit.deploy.conftest import CHART

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = CHART / "files" / "host.py"
FAKE = ROOT / "tests" / "unit" / "server" / "fake_torchserve.py"
CONSOLE = Console(quiet=True)
PRODUCTS = pd.DataFrame(
    {
        **{name: [None, None] for name in INDEX_COLUMNS},
        "id": ["ring", "bag"],
        "title": ["Jade ring", "Canvas bag"],
        "product_type": ["Rings", "Bags"],
        "popularity": [1.0, 3.0],
    }
)


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of an archive with two products."""
    folder = tmp_path_factory.mktemp("index") / "index"
    embeddings = np.eye(2, 512, dtype=np.float32)
    write_index(folder, encoder_version="1", items=PRODUCTS, embeddings=embeddings, vectors=None)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "model_store"
    folder.mkdir()
    return folder


Put = Callable[[str], dict[str, Path]]


@pytest.fixture
def put(store: Path, index: Path) -> Put:
    """Put archives of a version into the store."""

    def make(version: str) -> dict[str, Path]:
        found = {name: store / f"{name}-{version}.mar" for name in ("encoder", "recommender")}
        for path in found.values():
            with zipfile.ZipFile(path, "w") as archive:
                for part in index.iterdir():
                    archive.write(part, f"index/{part.name}")
        return found

    return make


MakePlan = Callable[..., Any]


@pytest.fixture
def make_plan(host: ModuleType, tmp_path: Path, store: Path) -> MakePlan:
    """A plan of a host in the test's folder."""
    (tmp_path / "plans").mkdir(exist_ok=True)

    def make(**further: object) -> Any:
        return host.HostPlan.model_validate(
            {
                "state": tmp_path / "state",
                "model_store": store,
                "plans": tmp_path / "plans",
                "catalog": tmp_path,
                **further,
            }
        )

    return make


def test_a_named_version_is_served_once_both_archives_are_there(
    host: ModuleType, make_plan: MakePlan, store: Path, put: Put
) -> None:
    plan = make_plan(version="2")
    put("1")
    assert host.find_archives(plan, CONSOLE) is None
    archives = put("2")
    archives["encoder"].rename(store / "away")
    assert host.find_archives(plan, CONSOLE) is None
    (store / "away").rename(archives["encoder"])
    assert host.find_archives(plan, CONSOLE) == archives


def test_after_a_promotion_the_store_says_what_is_served(
    host: ModuleType, make_plan: MakePlan, put: Put, tmp_path: Path
) -> None:
    old, new = put("1"), put("2")
    plan = make_plan(version="1", store_url=f"sqlite:///{tmp_path}/events.db")
    # Without tables yet.
    assert host.find_archives(plan, CONSOLE) == old
    with EventStore.open(plan.store_url) as store:
        assert host.find_archives(plan, CONSOLE) == old
        store.rollouts.create("spring", "{}", "{}", None)
        assert store.rollouts.replace_state("spring", 1, "{}", None, "", serve="2")
    promoted = old | {"recommender": new["recommender"]}
    assert host.find_archives(plan, CONSOLE) == promoted
    # The store is away: what the last controller of this pod wrote down.
    PromotedFile(plan.own.promoted).promote("2", "spring", "1")
    away = "postgresql+psycopg://newshelf@127.0.0.1:1/newshelf"
    assert host.find_archives(make_plan(version="1", store_url=away), CONSOLE) == promoted
    new["recommender"].unlink()
    assert host.find_archives(plan, CONSOLE) is None


def test_the_trainings_workspace_says_what_is_served(
    host: ModuleType, make_plan: MakePlan, put: Put, tmp_path: Path
) -> None:
    plan = make_plan(workspace=tmp_path / "workspace")
    own, promoted = put("1"), put("2")
    assert host.find_archives(plan, CONSOLE) is None
    listed = tmp_path / "workspace" / "archive" / "archives.json"
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps([str(path) for path in own.values()]))
    assert host.find_archives(plan, CONSOLE) == own
    decided = tmp_path / "workspace" / "rollout" / "promoted.json"
    decided.parent.mkdir()
    decided.write_text(json.dumps({"version": "2", "rollout": "spring"}))
    # The encoder stays that of the workspace, as ./run serve does it.
    assert host.find_archives(plan, CONSOLE) == own | {"recommender": promoted["recommender"]}


def test_the_only_version_of_a_folder_is_served(
    host: ModuleType, make_plan: MakePlan, put: Put
) -> None:
    plan = make_plan()
    assert host.find_archives(plan, CONSOLE) is None
    archives = put("1")
    assert host.find_archives(plan, CONSOLE) == archives
    put("2")
    with pytest.raises(NewshelfError, match="versions 1, 2; name one"):
        host.find_archives(plan, CONSOLE)


@pytest.fixture
def prepared(
    host: ModuleType, make_plan: MakePlan, put: Put, tmp_path: Path
) -> Callable[..., Path]:
    """Prepare a host, and return its state's folder."""
    put("1")

    def run(**further: object) -> Path:
        host.prepare(make_plan(**further), CONSOLE)
        return tmp_path / "state"

    return run


def test_plans_are_where_the_programs_and_verbs_read_them(
    prepared: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("gateway", "shelf"):
        (tmp_path / "plans" / f"{name}.json").write_text(f'"{name}"')
    state = prepared()
    places = {"gateway": state / "server/gateway.json", "shelf": state / "shelf.json"}
    for name, place in places.items():
        assert place.read_text() == f'"{name}"'
        assert place.stat().st_mode & 0o777 == 0o600
    assert not (state / "rollout/controller.json").exists()
    # A shelf that was disabled since leaves no plan.
    (tmp_path / "plans" / "shelf.json").unlink()
    prepared()
    assert not places["shelf"].exists()


def test_popular_products_are_those_of_the_archive(prepared: Callable[..., Path]) -> None:
    rows = json.loads((prepared() / "server/popular.json").read_bytes())
    assert [row["id"] for row in rows] == ["bag", "ring"]


def test_given_keys_are_copied_and_private(prepared: Callable[..., Path], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    secret = KeyFile(keys / "keys.json").add(
        "shop", now=datetime.now(UTC), expires=None, rate_per_s=5
    )
    assert secret
    (keys / "keys.json").chmod(0o644)
    (keys / "cursor.key").write_text("ab" * 32)
    gateway = prepared(keys=keys) / "gateway"
    assert [key.name for key in KeyFile(gateway / "keys.json").read()] == ["shop"]
    assert (gateway / "cursor.key").read_text() == "ab" * 32
    assert not (gateway / "local.key").exists()


def test_without_keys_there_is_a_local_one(prepared: Callable[..., Path]) -> None:
    gateway = prepared() / "gateway"
    assert [key.name for key in KeyFile(gateway / "keys.json").read()] == ["local"]
    assert (gateway / "local.key").stat().st_mode & 0o777 == 0o600


def test_a_damaged_archive_is_named(host: ModuleType, make_plan: MakePlan, put: Put) -> None:
    put("1")["recommender"].write_bytes(b"no archive")
    with pytest.raises(NewshelfError, match=r"recommender-1\.mar cannot be unpacked"):
        host.prepare(make_plan(), CONSOLE)


def test_it_waits_for_the_archives(
    host: ModuleType, make_plan: MakePlan, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.time, "sleep", lambda _s: put("1"))
    assert host.prepare(make_plan(), CONSOLE)["recommender"].name == "recommender-1.mar"


def test_products_of_the_catalogue_are_stored_once(
    host: ModuleType, make_plan: MakePlan, tmp_path: Path
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "items.csv").write_text("id,title\nring,Jade ring\nbag,Canvas bag\n")
    plan = make_plan(catalog=tmp_path / "shop", store_url=f"sqlite:///{tmp_path}/events.db")
    for _ in range(2):
        host.seed(plan, CONSOLE)
        with EventStore.open(plan.store_url) as store:
            assert sorted(store.items.ids()) == ["bag", "ring"]


def test_a_store_that_does_not_open_fails_the_job(
    host: ModuleType, make_plan: MakePlan, tmp_path: Path
) -> None:
    (tmp_path / "events.db").mkdir()
    with pytest.raises(NewshelfError):
        host.seed(make_plan(store_url=f"sqlite:///{tmp_path}/events.db"), CONSOLE)


@pytest.mark.parametrize("arguments", [[], ["models"], ["stop", "plan.json"], ["models", "a", "b"]])
def test_other_commands_are_refused(
    host: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.main(arguments) == 2
    assert "prepare|models|serve|seed" in capsys.readouterr().err


def test_a_wrong_plan_is_refused_in_one_line(
    host: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "host.json"
    path.write_text('{"state": "/state", "model_store": "/m", "plans": "/p", "versoin": "1"}')
    assert host.main(["models", str(path)]) == 1
    assert "versoin" in capsys.readouterr().err


class Container:
    """``host.py COMMAND`` in a process of its own, on a stand-in for TorchServe's Java."""

    def __init__(self, command: str, plan: Any, folder: Path) -> None:
        (plan.model_store / "behaviour.json").write_text("{}")
        java = folder / "jdk" / "bin" / "java"
        java.parent.mkdir(parents=True)
        java.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {FAKE} "$@"\n')
        java.chmod(0o755)
        path = folder / "host.json"
        path.write_text(plan.model_dump_json())
        self.state = plan.own.server
        self.process = subprocess.Popen(
            [sys.executable, "-P", SCRIPT, command, path],
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAVA_HOME": str(folder / "jdk")},
            stderr=subprocess.PIPE,
            text=True,
        )

    def check_runs(self) -> None:
        assert self.process.poll() is None, self.process.communicate()[1]

    def wait_until_started(self) -> ServerState:
        while (state := read_state(self.state)) is None:
            self.check_runs()
            time.sleep(0.05)
        return state

    def wait(self) -> tuple[int, str]:
        _, error = self.process.communicate()
        return self.process.returncode, error


Start = Callable[[str], Container]


@pytest.fixture
def ports() -> Ports:
    """TorchServe's ports."""
    return free_ports()


@pytest.fixture
def start(make_plan: MakePlan, put: Put, ports: Ports, tmp_path: Path) -> Iterator[Start]:
    """Start a container with archives of one version."""
    put("1")
    addresses = {
        f"{name}_address": f"http://127.0.0.1:{getattr(ports, name)}"
        for name in ("inference", "management", "metrics")
    }
    grpc = {
        f"{name}_port": str(getattr(ports, name)) for name in ("grpc_inference", "grpc_management")
    }
    started = []

    def run(command: str) -> Container:
        started.append(Container(command, make_plan(properties=addresses | grpc), tmp_path))
        return started[-1]

    yield run
    for one in started:
        one.process.terminate()
        one.process.wait()


def test_torchserve_runs_until_the_container_is_told_to_end(start: Start) -> None:
    models = start("models")
    state = models.wait_until_started()
    assert state.models == {name: f"{name}-1.mar" for name in ("encoder", "recommender")}
    written = read_properties(models.state / "config.properties")
    assert written["metrics_address"] == f"http://127.0.0.1:{state.ports.metrics}"
    # The rest is that of the repository.
    assert written["allowed_urls"] == read_properties(ROOT / "config.properties")["allowed_urls"]
    models.process.send_signal(signal.SIGTERM)
    assert models.wait()[0] == 0
    assert not is_running(state.process)
    assert read_state(models.state) is None


def test_the_container_ends_with_torchserve(start: Start) -> None:
    models = start("models")
    os.kill(models.wait_until_started().process.pid, signal.SIGKILL)
    code, error = models.wait()
    assert code == 1
    assert "torchserve ended" in error


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz?strict", timeout=30).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def test_one_container_serves_models_and_gateway(
    start: Start, ports: Ports, tmp_path: Path
) -> None:
    """As KServe starts it, with its plan in the test's folder."""
    text = (ROOT / "deploy" / "kserve" / "gateway.json").read_text()
    port = free_port()
    plan = json.loads(text.replace("/state/", f"{tmp_path}/state/")) | {
        "settings": {"port": port},
        "inference_url": f"http://127.0.0.1:{ports.inference}",
        "management_url": f"http://127.0.0.1:{ports.management}",
        "placements": None,
        "store_url": f"sqlite:///{tmp_path}/events.db",
    }
    (tmp_path / "plans" / "gateway.json").write_text(json.dumps(plan))
    container = start("serve")
    while not is_ready(f"http://127.0.0.1:{port}"):
        container.check_runs()
        time.sleep(0.1)
    state = container.wait_until_started()
    container.process.send_signal(signal.SIGTERM)
    assert container.wait()[0] == 0
    assert state.processes.keys() == {"torchserve", "gateway-1"}
    assert not any(is_running(one) for one in state.processes.values())
