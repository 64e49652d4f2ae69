"""``./run profile`` against the shared server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from newshelf.cli.app import app
from newshelf.pipeline.serve import Served
from newshelf.pipeline.workspace import Workspace
from newshelf.server.process import members
from newshelf.server.state import running_state

CopyWorkspace = Callable[[], Workspace]
PARTS = ("to the worker", "TorchServe's queue", "inference", "back to the client", "whole request")


@pytest.mark.parametrize("model", ["encoder", "recommender"])
def test_the_time_of_real_requests_is_laid_out(
    workspace: Workspace, server: Served, tmp_path: Path, model: str
) -> None:
    out = tmp_path / "trace.json"
    words = ["profile", "--model", model, "--requests", "24", "--clients", "3", "--out", str(out)]
    place = ["--workspace", str(workspace.root), "--catalog", str(workspace.catalog)]
    done = CliRunner().invoke(app, [*words, *place], env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    for part in PARTS:
        assert part in done.output
    whole = next(line for line in done.output.splitlines() if "whole request" in line)
    assert "100.0%" in whole

    events: list[dict[str, Any]] = json.loads(out.read_text())["traceEvents"]
    requests = [event for event in events if event["name"] == f"POST {model}"]
    assert len(requests) == 24
    # The workers are this server's, and their batches lie inside the requests' time.
    pids = {process.pid for process in members(server.state.current().process)}
    batches = [event for event in events if event["name"].startswith("batch of")]
    assert {event["pid"] for event in batches} <= pids
    assert sum(event["args"]["batch size"] for event in batches) == 24
    for batch in batches:
        inside = [
            one
            for one in requests
            if one["ts"] <= batch["ts"] <= batch["ts"] + batch["dur"] <= one["ts"] + one["dur"]
        ]
        assert len(inside) >= batch["args"]["batch size"]
    stages = {event["name"] for event in events if event["pid"] in pids}
    assert {"parse", "inference", "postprocess"} <= stages
    assert ("decode" in stages) == (model == "encoder")


def test_without_a_server_one_is_started_and_ended(
    copy_workspace: CopyWorkspace, settings_file: Path
) -> None:
    own = copy_workspace()
    place = ["--workspace", str(own.root), "--catalog", str(own.catalog)]
    place += ["--model-store", str(own.model_store), "--settings", str(settings_file)]
    words = ["profile", "--requests", "3", "--clients", "1", *place]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    assert "train: current" in done.output
    assert "3 requests to the encoder, 1 at a time" in done.output
    assert (own.root / "profile" / "encoder.trace.json").is_file()
    assert running_state(own.server) is None
