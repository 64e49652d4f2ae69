"""A server to start that needs no JVM and no models."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from newshelf.server.ports import free_ports
from newshelf.server.state import ServerState
from newshelf.server.torchserve import TorchServePlan, start_torchserve

ROOT = Path(__file__).resolve().parents[3]
FAKE = Path(__file__).with_name("fake_torchserve.py")

Start = Callable[..., ServerState]


@pytest.fixture
def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {FAKE} "$@"\n')
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    return java


@pytest.fixture
def plan(tmp_path: Path, fake_java: Path) -> TorchServePlan:
    store = tmp_path / "store"
    store.mkdir()
    models = {name: store / f"{name}-abc.mar" for name in ("encoder", "recommender")}
    for archive in models.values():
        archive.touch()
    (store / "behaviour.json").write_text("{}")
    return TorchServePlan(
        root=ROOT,
        directory=tmp_path / "server",
        model_store=store,
        models=models,
        catalog=str(tmp_path / "shop"),
        ports=free_ports(),
    )


@pytest.fixture
def start_fake(plan: TorchServePlan) -> Iterator[Start]:
    started: list[ServerState] = []

    def run(**behaviour: object) -> ServerState:
        (plan.model_store / "behaviour.json").write_text(json.dumps(behaviour))
        started.append(start_torchserve(plan))
        return started[-1]

    yield run
    for state in started:
        state.end()
