"""A real TorchServe whose workers are forked from processes with the models loaded."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from export.archive import archive
from newshelf.catalog.catalog import Catalog
from newshelf.cli.pipeline import settings_from
from newshelf.config import Settings
from newshelf.pipeline.workspace import ROOT, Workspace
from newshelf.server.client import Client
from newshelf.server.ports import free_ports
from newshelf.server.process import members
from newshelf.server.state import ServerState, read_keys
from newshelf.server.torchserve import TorchServePlan, start_torchserve, wait_until_ready
from newshelf.serving.trace import SPANS_HEADER, TRACE_HEADER
from tests.e2e.products import base64_of, picture_of, product_of

RUNTIMES = ("openvino", "onnxruntime", "torchscript")
QUESTIONS: dict[str, dict[str, object]] = {
    "encoder": {"title": "A ring of green jade"},
    "recommender": {"history": [{"title": "A ring of green jade"}], "k": 3},
}
PATIENCE_S = 120.0


def two_workers(settings: Settings) -> Settings:
    """Of one thread each, and with batches of one, so that both workers get requests."""
    table = settings.archive.model_dump()
    for model in ("encoder", "recommender"):
        table[model] |= {"workers": 2, "threads": 1, "batch_size": 1, "max_batch_delay_ms": 1}
    return settings.model_copy(update={"archive": type(settings.archive).model_validate(table)})


@pytest.fixture(scope="module", params=RUNTIMES)
def forked(
    request: pytest.FixtureRequest,
    workspace: Workspace,
    settings_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerState]:
    """Both models on two workers each."""
    home = tmp_path_factory.mktemp("preload")
    settings = two_workers(settings_from(settings_file, request.param))
    paths = archive(workspace.export, settings, home / "store")
    models = {path.name.partition("-")[0]: path for path in paths}
    plan = TorchServePlan(ROOT, home / "server", home / "store", models, "shop", free_ports())
    state = start_torchserve(plan)
    try:
        wait_until_ready(state, QUESTIONS)
        assert len(members(state.process)) >= 11, (
            "Java, and of each model a preloader and two of both"
        )
        yield state
    finally:
        processes = members(state.process)
        state.end()
    assert not [process for process in processes if running(process)]


def running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def workers_of(state: ServerState, model: str) -> set[int]:
    """The process ids that TorchServe knows; those it has just replaced are not among them."""
    with Client(state) as client:
        [version] = client.describe(model)
    return {worker["pid"] for worker in version["workers"] if worker["status"] == "READY"}


def launchers_of(state: ServerState) -> list[int]:
    return [
        process.pid
        for process in members(state.process)
        if any(word.endswith("model_service_worker.py") for word in process.cmdline())
    ]


def wait_for(condition: object, what: str) -> None:
    assert callable(condition)
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def ask(state: ServerState, bodies: list[dict[str, object]]) -> list[tuple[int, np.ndarray]]:
    """Who answered, and the embedding; several at a time."""
    headers = read_keys(state.key_file).inference.header() | {TRACE_HEADER: "1"}
    with (
        httpx.Client(
            base_url=state.inference_url, headers=headers, timeout=60, trust_env=False
        ) as http,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda body: http.post("/predictions/encoder", json=body), bodies))
    assert {answer.status_code for answer in answers} == {200}
    return [
        (json.loads(answer.headers[SPANS_HEADER])["worker"], np.array(answer.json()["embedding"]))
        for answer in answers
    ]


def questions(catalog: Catalog, count: int) -> list[dict[str, object]]:
    return [
        {**product_of(catalog, row), "image": base64_of(picture_of(catalog, row))}
        for row in range(count)
    ]


def test_both_workers_answer_what_the_model_says(
    forked: ServerState, catalog: Catalog, embeddings: dict[str, np.ndarray]
) -> None:
    workers = workers_of(forked, "encoder")
    assert len(workers) == 2
    [preloader] = {psutil.Process(pid).ppid() for pid in workers}
    assert "handlers.worker_fork" in psutil.Process(preloader).cmdline()

    answers = ask(forked, questions(catalog, 60))
    assert {worker for worker, _ in answers} == workers
    for row, (_, embedding) in enumerate(answers):
        expected = embeddings[catalog.items["id"].iloc[row]]
        np.testing.assert_allclose(embedding, expected, atol=2e-3)


def test_recommendations_come_too(forked: ServerState, catalog: Catalog) -> None:
    ids = list(catalog.items["id"])
    with Client(forked) as client:
        answers = [client.recommend(history=ids[at : at + 3], k=5) for at in range(20)]
    assert {len(answer["items"]) for answer in answers} == {5}
    assert len(workers_of(forked, "recommender")) == 2


# The launchers and TorchServe do not know what a preloader has loaded.
WITH_ONE = pytest.mark.parametrize("forked", RUNTIMES[:1], indirect=True)


@WITH_ONE
@pytest.mark.parametrize("what", ["worker", "launcher"])
def test_a_killed_worker_is_replaced_by_another_fork(
    forked: ServerState, catalog: Catalog, what: str
) -> None:
    before = workers_of(forked, "encoder")
    victim = min(before)
    preloader = psutil.Process(victim).ppid()
    # A launcher that was killed before may not be back yet.
    wait_for(lambda: len(launchers_of(forked)) == 4, "there are not four launchers")
    killed = victim if what == "worker" else min(launchers_of(forked))
    os.kill(killed, signal.SIGKILL)
    everyone = before | workers_of(forked, "recommender")
    wait_for(
        lambda: (
            len(workers_of(forked, "encoder") | workers_of(forked, "recommender")) == 4
            and (workers_of(forked, "encoder") | workers_of(forked, "recommender")) != everyone
        ),
        "no worker took the killed one's place",
    )
    if what == "worker":
        assert not psutil.pid_exists(victim)
        assert {psutil.Process(pid).ppid() for pid in workers_of(forked, "encoder")} == {preloader}
    assert len(ask(forked, questions(catalog, 20))) == 20


@WITH_ONE
def test_a_preloader_goes_when_its_model_does(forked: ServerState) -> None:
    [preloader] = {psutil.Process(pid).ppid() for pid in workers_of(forked, "recommender")}
    with Client(forked) as client:
        [version] = client.describe("recommender")
        client.unregister("recommender", timeout_s=PATIENCE_S, version=version["modelVersion"])
    wait_for(lambda: not psutil.pid_exists(preloader), "it is still there")
    assert len(workers_of(forked, "encoder")) == 2
