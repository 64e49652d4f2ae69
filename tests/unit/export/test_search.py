"""The switch of a running server to the precision that a search has found."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from export.search import Switch, search
from newshelf.config import Settings
from newshelf.errors import RolloutError, ServerError, SetupError
from newshelf.pipeline.serve import SearchPlan
from newshelf.pipeline.stages import Jobs
from newshelf.pipeline.workspace import Workspace
from newshelf.rollout.versions import FIRST
from newshelf.server.ports import Ports
from newshelf.server.process import start_session, stop_session
from newshelf.server.state import TORCHSERVE, ServerState
from newshelf.store.items import ItemColumns, ItemWrite
from newshelf.store.store import EventStore
from tests.answering import answering

MODELS = ("encoder", "recommender")
NEW, OLD = "abc", f"abc{FIRST}"


@dataclass
class FakeServer:
    """Both models, as TorchServe 0.12 answers for them; new workers are ready at once."""

    default: dict[str, str] = field(default_factory=lambda: dict.fromkeys(MODELS, OLD))
    loaded: dict[str, set[str]] = field(default_factory=lambda: {one: {OLD} for one in MODELS})
    broken: set[tuple[str, str]] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def handle(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, object]:  # noqa: PLR0911
        match [method, *path.strip("/").split("/")]:
            case ["GET", "models", model]:
                return 200, [_told(self.default[model])]
            case ["GET", "models", model, "all"]:
                return 200, [_told(version) for version in self.loaded[model]]
            case ["GET", "models", model, version] if version in self.loaded[model]:
                return 200, [_told(version)]
            case ["POST", "models"]:
                model, _, version = query["url"][0].removesuffix(".mar").partition("-")
                self.loaded[model].add(version)
                self.asked.append(f"load {model} {version}")
                return 200, {}
            case ["PUT", "models", model, version, "set-default"]:
                self.default[model] = version
                self.asked.append(f"default {model} {version}")
                return 200, {}
            case ["DELETE", "models", model, version] if version != self.default[model]:
                self.loaded[model].remove(version)
                self.asked.append(f"unload {model} {version}")
                return 200, {}
            case ["POST", "predictions", model, version] if version in self.loaded[model]:
                if (model, version) in self.broken:
                    return 500, {"message": "golden products differ"}
                index = {"items": [{"id": "a"}], "index_version": "i"}
                return 200, {"model_version": version, **(index if model == "recommender" else {})}
        return 404, {"message": "no such version"}


def _told(version: str) -> dict[str, object]:
    return {"modelVersion": version, "workers": [{"status": "READY"}]}


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer()


@pytest.fixture
def port(fake: FakeServer) -> Iterator[int]:
    with answering(fake.handle) as found:
        yield found


@pytest.fixture
def plan(port: int, tmp_path: Path) -> Iterator[SearchPlan]:
    workspace = Workspace(tmp_path / "w", tmp_path, is_sample=False, model_store=tmp_path / "store")
    for folder in (workspace.server, workspace.gateway, workspace.model_store):
        folder.mkdir(parents=True)
    far = {"key": "k", "expiration time": "2999-01-01T00:00:00Z"}
    key_file = workspace.server / "key_file.json"
    key_file.write_text(json.dumps(dict.fromkeys(("inference", "management", "API"), far)))
    key_file.chmod(0o600)
    loads = ",".join(f"{model}={model}-{OLD}.mar" for model in MODELS)
    (workspace.server / "config.properties").write_text(f"load_models={loads}\n")
    process = start_session(["sleep", "600"], cwd=tmp_path, env={}, log=tmp_path / "log")
    state = ServerState(workspace.server, Ports(port, port), tmp_path, {}, "shop")
    state.__class__(**vars(state) | {"processes": {TORCHSERVE: process}}).save()
    for model in MODELS:
        for version in (NEW, OLD):
            with zipfile.ZipFile(workspace.model_store / f"{model}-{version}.mar", "w") as archive:
                archive.writestr("index/index.json", json.dumps({"index_version": "i"}))
    settings = Settings.model_validate({"rollout": {"load_s": 0.01}, "shelf": {"enabled": False}})
    yield SearchPlan(
        workspace=workspace, settings=settings, questions={one: {"k": 1} for one in MODELS}
    )
    stop_session(process)


def switch_of(plan: SearchPlan) -> Switch:
    store = plan.workspace.model_store
    return Switch(plan, {model: store / f"{model}-{NEW}.mar" for model in MODELS})


def loads(plan: SearchPlan) -> str:
    return (plan.workspace.server / "config.properties").read_text()


def test_the_new_version_is_loaded_checked_made_the_default_and_loaded_after_a_restart(
    plan: SearchPlan, fake: FakeServer
) -> None:
    switch = switch_of(plan)
    switch.run()
    assert fake.default == dict.fromkeys(MODELS, NEW)
    assert [one.split()[0] for one in fake.asked] == ["load", "load", "default", "default"]
    assert (
        loads(plan) == f"load_models=encoder=encoder-{NEW}.mar,recommender=recommender-{NEW}.mar\n"
    )
    switch.unload(switch.old)
    assert fake.loaded == {one: {NEW} for one in MODELS}
    assert sorted(path.name for path in plan.workspace.model_store.glob(f"*-{OLD}.mar")) == [
        f"{model}-{OLD}.mar" for model in MODELS
    ]


@pytest.mark.parametrize("model", MODELS)
def test_a_version_that_does_not_answer_leaves_the_server_as_it_was(
    plan: SearchPlan, fake: FakeServer, model: str
) -> None:
    fake.broken.add((model, NEW))
    with pytest.raises(ServerError, match="golden products differ"):
        switch_of(plan).run()
    assert fake.default == dict.fromkeys(MODELS, OLD)
    assert fake.loaded == {one: {OLD} for one in MODELS}
    assert NEW + ".mar" not in loads(plan)


def test_products_that_changed_meanwhile_are_published_before_the_switch(
    plan: SearchPlan, fake: FakeServer
) -> None:
    with_shelf = plan.settings.model_copy(update={"shelf": Settings().shelf})
    behind = plan.model_copy(update={"settings": with_shelf})
    switch = switch_of(behind)
    with pytest.raises(ServerError, match="not published"):
        switch.run()
    assert fake.default == dict.fromkeys(MODELS, OLD)
    with EventStore.open(plan.workspace.store_url(plan.settings)) as store:
        store.items.published("here", NEW, store.items.last_seq())
        # There may always be a newer change.
        store.items.put([ItemWrite(ItemColumns(id="new", title="ring"))])
        assert store.items.last_seq() > 0
    switch.run()
    assert fake.default == dict.fromkeys(MODELS, NEW)


def test_where_rollouts_decide_nothing_is_switched(plan: SearchPlan, fake: FakeServer) -> None:
    with EventStore.open(plan.workspace.store_url(plan.settings)) as store:
        store.rollouts.create("spring", "{}", "{}", None)
    with pytest.raises(RolloutError, match="rollouts decide"):
        switch_of(plan).run()
    assert fake.asked == []


def test_a_failed_search_is_resumed_by_the_next_one(plan: SearchPlan) -> None:
    done: list[str] = []

    def precision(_: Workspace, __: Settings, out: Path) -> None:
        done.append("precision")
        (out / "encoder.int8.onnx").write_bytes(b"int8")

    def archive(workspace: Workspace, _: Settings, source: Path, __: Path) -> list[Path]:
        done.append("archive")
        assert (source / "encoder.int8.onnx").exists()
        if done.count("archive") == 1:
            raise SetupError("no space left")
        return [workspace.model_store / f"{model}-{NEW}.mar" for model in MODELS]

    def unexpected(*_: object) -> None:
        raise AssertionError

    workspace = plan.workspace
    workspace.graphs.mkdir()
    (workspace.graphs / "encoder.onnx").write_bytes(b"float32")
    (workspace.catalog / "items.csv").write_text("id\na\n")
    jobs = Jobs(unexpected, unexpected, unexpected, unexpected, precision, archive)
    with pytest.raises(SetupError, match="no space left"):
        search(plan, jobs, Console(quiet=True))
    made = search(plan, jobs, Console(quiet=True))
    assert done == ["precision", "archive", "archive"]
    assert made == {model: workspace.model_store / f"{model}-{NEW}.mar" for model in MODELS}
