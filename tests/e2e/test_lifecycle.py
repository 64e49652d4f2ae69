"""The command line around a real TorchServe: start, ask, end."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from newshelf.pipeline.serve import Served
from newshelf.pipeline.workspace import ROOT, Workspace
from newshelf.server.client import Client
from newshelf.server.process import members
from newshelf.server.state import ServerState, running_state

ENV = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
COMMAND = (sys.executable, "-P", "-m", "newshelf")


@pytest.fixture
def own(copy_workspace: Callable[[], Workspace]) -> Iterator[Workspace]:
    workspace = copy_workspace()
    yield workspace
    state = running_state(workspace.server)
    if state is not None:
        state.end()


def run(words: Sequence[str], cwd: Path) -> str:
    done = subprocess.run(
        [*COMMAND, *words], cwd=cwd, env=ENV, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def places(workspace: Workspace) -> list[str]:
    return ["--catalog", str(workspace.catalog), "--workspace", str(workspace.root)]


def started(workspace: Workspace) -> ServerState:
    state = running_state(workspace.server)
    assert state is not None
    return state


def serve_words(workspace: Workspace, settings_file: Path) -> list[str]:
    store = str(workspace.model_store)
    return [
        "serve", *places(workspace), "--settings", str(settings_file), "--model-store", store,
        "--port", "0",
    ]  # fmt: skip


def gone(processes: Sequence[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_serve_detached_status_recommend_encode_stop(
    own: Workspace, settings_file: Path, server: Served, client: Client, tmp_path: Path
) -> None:
    words = serve_words(own, settings_file)
    printed = run([*words, "--runtime", "torchscript", "--detach"], tmp_path)
    # What was copied is current; the archives of the other runtime are not.
    assert "train: current" in printed
    assert "export: current" in printed
    assert "archive: " in printed
    assert "encoder answers" in printed
    assert "recommender answers" in printed
    assert "rank" in printed

    state = started(own)
    processes = members(state.process)
    assert len(processes) >= 3, "Java and a worker for each model"
    assert "1 of 1 workers ready" in run(["status", *places(own)], tmp_path)

    history = server.demo.history
    asked = [word for item in history for word in ("--history", item)]
    table = run(["recommend", *asked, "-k", "5", *places(own)], tmp_path)
    # Both runtimes give the same ranking.
    expected = [item["id"] for item in client.recommend(history=history, k=5)["items"]]
    assert re.findall(r"\(([^()\s]+)\)", table)[:5] == expected

    assert "512 numbers" in run(["encode", "--title", "jade ring", *places(own)], tmp_path)

    assert "stopped" in run(["stop", *places(own)], tmp_path)
    assert gone(processes)
    assert not state.key_file.exists()
    assert not state.temp.exists()


def test_ctrl_c_ends_everything_and_the_printed_lines_work(
    own: Workspace, settings_file: Path, tmp_path: Path
) -> None:
    words = serve_words(own, settings_file)
    serving = subprocess.Popen(
        [*COMMAND, *words], cwd=tmp_path, env=ENV, text=True, stdout=subprocess.PIPE
    )
    assert serving.stdout is not None
    printed = ""
    for line in serving.stdout:
        printed += line
        if "Ctrl-C ends it" in line:
            break
    assert "Try next:" in printed, printed
    processes = members(started(own).process)

    script = printed.partition("Try next:")[2].partition("Ctrl-C")[0]
    answered = subprocess.run(
        ["bash", "-euc", script], text=True, capture_output=True, check=True
    ).stdout
    assert answered.count('"embedding"') == 2
    assert '"items"' in answered
    assert "newshelf_inference_seconds_bucket" in answered

    serving.send_signal(signal.SIGINT)
    for line in serving.stdout:
        if "stopping TorchServe" in line:
            # Someone impatient must not leave half of it running.
            serving.send_signal(signal.SIGINT)
    assert serving.wait() == 130
    assert gone(processes)
    assert running_state(own.server) is None


def test_a_wrong_token_is_refused(client: Client) -> None:
    # TorchServe 0.12 says 400 where 401 would be right.
    refused = client.predict("recommender", json={"history": [], "k": 1}, token="wrong")
    assert refused.status_code == 400
    assert "Token Authorization failed" in refused.text
