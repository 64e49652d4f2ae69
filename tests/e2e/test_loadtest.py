"""Locust's users and the load generator against the shared server."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.record import RunRecord, decoded, read_record
from loadtest.requests import BAD_FOR_ENCODER, BAD_FOR_RECOMMENDER, Rendered
from loadtest.run import run_load
from loadtest.scenarios import LoadPlan
from loadtest.traffic import MODEL_KINDS, TrafficSettings
from newshelf.errors import ServerError
from newshelf.pipeline.serve import Served
from newshelf.pipeline.workspace import ROOT, Workspace
from newshelf.server.client import Client

GOOD = set(MODEL_KINDS) - {"bad"}


def locust(workspace: Workspace, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"),
            "--headless", "-u", "3", "-r", "3", "-t", "5s",
            "--json-file", str(tmp_path / "stats"),
            "--catalog", str(workspace.catalog), "--workspace", str(workspace.root),
            "--via", "torchserve", *words,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def requests_and_failures(tmp_path: Path) -> dict[str, tuple[int, int]]:
    """By kind, as Locust itself counts them."""
    stats = json.loads((tmp_path / "stats.json").read_text())
    return {row["name"]: (row["num_requests"], row["num_failures"]) for row in stats}


def answered(record: RunRecord) -> int:
    return sum(decoded(part.latency).total_count for part in record.load)


def test_every_user_is_answered(workspace: Workspace, server: Served, tmp_path: Path) -> None:
    done = locust(workspace, tmp_path, "EncoderUser", "RecommenderUser", "-u", "6", "-r", "6")
    assert done.returncode == 0, done.stdout + done.stderr
    found = requests_and_failures(tmp_path)
    assert {"encode both", "recommend history"} <= set(found)
    assert all(requests and not failures for requests, failures in found.values())


def test_the_mix_with_bad_requests_is_recorded(
    workspace: Workspace, server: Served, tmp_path: Path
) -> None:
    path = tmp_path / "record.json"
    words = ("--bad-share", "0.3", "--record", str(path))
    done = locust(workspace, tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_record(path)
    assert (record.scenario, record.loop) == ("locust", "closed")
    assert {"bad", "recommend history"} <= set(record.kinds())
    counted = requests_and_failures(tmp_path).values()
    assert answered(record) == sum(requests for requests, _ in counted) > 0


def test_arrivals_of_several_processes_are_recorded(
    workspace: Workspace, server: Served, tmp_path: Path
) -> None:
    path = tmp_path / "record.json"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    master = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port)
    words = ("--rate", "20", "--processes", "2", "--record", str(path), "-t", "15s")
    done = locust(workspace, tmp_path, *master, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_record(path)
    assert record.loop == "open"
    assert record.generator.processes == 2
    assert max(part.second for part in record.load) < record.seconds < 60
    assert "in time" not in record.generator.limited
    counted = requests_and_failures(tmp_path).values()
    assert answered(record) == sum(requests for requests, _ in counted) > 20


def test_a_limit_that_is_not_kept_is_told_and_fails(
    workspace: Workspace, server: Served, tmp_path: Path
) -> None:
    done = locust(workspace, tmp_path, "--p99-ms", "0", "-t", "2s")
    assert done.returncode == 1
    assert "at most 0 ms" in done.stdout + done.stderr


def test_shoppers_of_the_gateway_are_answered_and_their_events_found(
    workspace: Workspace, server: Served, tmp_path: Path
) -> None:
    path = tmp_path / "record.json"
    words = ("--via", "gateway", "--record", str(path), "--stop-timeout", "30")
    done = locust(workspace, tmp_path, *words)
    # 1: on a busy machine, a request missed its deadline.
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    assert "the event store has all of them" in done.stdout
    found = read_record(path).acknowledged
    assert found is not None
    assert found.answers > 0
    assert found.lost == ()
    assert {"recommend", "feedback"} <= set(requests_and_failures(tmp_path))
    refused = locust(workspace, tmp_path, "--via", "gateway", "EncoderUser")
    assert (refused.returncode, "--via torchserve" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--token", "wrong"], "refuses the token"),
        (["--mix", "encode sound=1"], "'encode sound'"),
        (["OpenLoop"], "--rate"),
        (["-H", "http://127.0.0.1:9"], "http://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_tested_is_one_sentence(
    workspace: Workspace, server: Served, tmp_path: Path, words: list[str], says: str
) -> None:
    done = locust(workspace, tmp_path, *words)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert says in line


def plan(workspace: Workspace, server: Served, client: Client, **changes: object) -> LoadPlan:
    usual = {
        "url": server.state.inference_url,
        "headers": client.authorization(),
        "catalog": workspace.catalog,
        "seconds": 8,
        "warm_up_s": 1,
        "rate": 15,
    }
    return LoadPlan(**usual | changes)


def test_the_generator_is_answered_in_every_kind(
    workspace: Workspace, server: Served, client: Client
) -> None:
    mix = dict.fromkeys(GOOD - {"recommend unseen"}, 1)
    traffic = TrafficSettings(mix=mix, cold_share=0.5, bad_share=0.2, picture_px=(64, 200))
    record = run_load(plan(workspace, server, client, traffic=traffic), command="test")
    assert {kind for kind in MODEL_KINDS if kind in record.kinds()} == set(MODEL_KINDS)
    assert [dict(part.errors) for part in record.load if part.errors] == []
    assert answered(record) == sum(part.intended for part in record.load)
    assert set(record.models) == {"encoder", "recommender"}
    assert all(record.models.values())


@pytest.mark.parametrize("bad", [*BAD_FOR_ENCODER, *BAD_FOR_RECOMMENDER])
def test_each_bad_request_gets_what_it_deserves(client: Client, bad: Rendered) -> None:
    model = bad.path.rpartition("/")[2]
    answer = client.predict(model, content=bad.body(0), content_type=bad.content_type)
    assert answer.status_code == bad.expected, answer.text


def test_a_wrong_token_is_said_before_any_load(
    workspace: Workspace, server: Served, client: Client
) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    with pytest.raises(ServerError, match="refuses the token"):
        run_load(plan(workspace, server, client, headers=wrong), command="test")
