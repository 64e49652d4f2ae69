"""``./run loadtest`` against the shared server."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from loadtest.record import RunRecord, read_record
from loadtest.timeline import Timeline
from newshelf.pipeline.serve import Served
from newshelf.pipeline.workspace import ROOT, Workspace
from newshelf.server.client import Client
from tests.e2e.metrics_page import settled, told

KEPT = ROOT / "test-reports" / "loadtest"
"""Not in git; whoever runs the tests may keep it."""
LIMITS = """
all:
  p99_ms: 60000
  error_rate: 0
  throughput: 1
kinds:
  encode both:
    p50_ms: 60000
"""


def loadtest(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [str(ROOT / "run"), "loadtest", *words],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def at(workspace: Workspace, via: str = "torchserve") -> list[str]:
    where = ["--workspace", str(workspace.root), "--catalog", str(workspace.catalog)]
    return ["--via", via, *where]


@pytest.fixture(scope="module")
def smoke(
    workspace: Workspace, server: Served, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """12 s of all that shoppers and shop ask for; the report is kept for who looks later."""
    out = tmp_path_factory.mktemp("loadtest") / "steady"
    slo = out.parent / "slo.yaml"
    slo.write_text(LIMITS)
    code, output = loadtest(
        "steady", *at(workspace), "--rate", "12", "--seconds", "12", "--warm-up", "1",
        "--slo", str(slo), "--out", str(out),
    )  # fmt: skip
    shutil.rmtree(KEPT, ignore_errors=True)
    if out.is_dir():
        shutil.copytree(out, KEPT)
    assert code == 0, output
    return out, output


def test_a_smoke_run_keeps_its_limits_and_writes_its_report(smoke: tuple[Path, str]) -> None:
    out, output = smoke
    assert "All limits are met." in output
    html = (out / "report.html").read_text()
    assert html.count("data:image/png;base64,") >= 6
    assert "All limits are met." in html
    assert (KEPT / "report.html").read_text() == html


def test_its_record_holds_both_sides(smoke: tuple[Path, str], workspace: Workspace) -> None:
    record = read_record(smoke[0] / "record.json")
    whole = Timeline.of(record).total()
    assert whole.failed == 0
    # 144 arrivals are expected, with a spread of 12.
    assert 90 < whole.intended < 200
    assert set(record.models) == {"encoder", "recommender"}
    assert f"--workspace {workspace.root}" in record.command
    check_the_servers_side(record)


def check_the_servers_side(record: RunRecord) -> None:
    assert len(record.server) >= 8
    assert all(one.reachable for one in record.server)
    last = record.server[-1]
    assert {one.model for one in last.workers} == {"encoder", "recommender"}
    for worker in last.workers:
        assert worker.status == "READY"
        assert worker.memory_bytes > 50e6
    assert any(one.cpu_percent > 0 for sample in record.server for one in sample.workers)
    assert any(one.queue_ms is not None for one in record.server)
    batches = sum(sum(one.batch_sizes.values()) for one in record.server)
    batched = sum(one.batched for one in record.server)
    # Requests at either end of the run are in batches that no look, or another one, tells of.
    intended = Timeline.of(record).total().intended
    assert 0.5 * intended < batched < 1.5 * intended
    assert batches <= batched


def test_it_can_be_reported_again_and_held_against_other_limits(
    smoke: tuple[Path, str], tmp_path: Path
) -> None:
    record = str(smoke[0] / "record.json")
    code, output = loadtest("report", record, "--slo", "p50=1us", "--out", str(tmp_path))
    assert code == 1, output
    assert "✗ all: p50 is " in output
    assert "at most 0.0 ms" in output
    assert "broken: all p50" in (tmp_path / "report.html").read_text()


def test_shoppers_of_the_gateway_lose_no_acknowledged_event(
    workspace: Workspace, server: Served, tmp_path: Path
) -> None:
    # A busy machine misses deadlines; what was acknowledged is kept all the same.
    slo = "p99=60s,errors=20%"
    code, output = loadtest(
        "steady", *at(workspace, "gateway"), "--rate", "10", "--seconds", "8", "--warm-up", "1",
        "--traffic", "units=20", "--slo", slo, "--out", str(tmp_path),
    )  # fmt: skip
    assert code == 0, output
    assert "the event store has all of them" in output
    record = read_record(tmp_path / "record.json")
    assert {"recommend", "feedback"} <= set(record.kinds())
    assert record.acknowledged is not None
    assert record.acknowledged.events > 0
    assert Timeline.of(record).total().fallback_rate < 1
    assert "Event store" in (tmp_path / "report.html").read_text()


def test_a_run_is_not_told_apart_from_itself(smoke: tuple[Path, str], tmp_path: Path) -> None:
    record = str(smoke[0] / "record.json")
    code, output = loadtest("compare", record, record, "--out", str(tmp_path))
    assert code == 0, output
    assert "not told apart" in output
    assert (tmp_path / "report.html").is_file()


def test_limits_that_are_broken_end_with_exit_code_1(
    workspace: Workspace, server: Served, tmp_path: Path
) -> None:
    code, output = loadtest(
        "spike", *at(workspace), "--rate", "4", "--seconds", "5", "--warm-up", "0",
        "--shape", "height=2", "--mix", "encode text=1", "--slo", "p99=10us",
        "--out", str(tmp_path),
    )  # fmt: skip
    assert code == 1, output
    assert "1 of 2 limits" in output
    assert "all p99" in output


def test_clients_that_wait_are_a_closed_loop(
    workspace: Workspace, server: Served, tmp_path: Path
) -> None:
    code, output = loadtest(
        "steady", *at(workspace), "--clients", "2", "--seconds", "4", "--warm-up", "0",
        "--slo", "p99=60s", "--out", str(tmp_path),
    )  # fmt: skip
    assert code == 0, output
    assert read_record(tmp_path / "record.json").loop == "closed"


def test_the_greatest_rate_is_searched_and_confirmed(
    workspace: Workspace, server: Served, tmp_path: Path
) -> None:
    code, output = loadtest(
        "saturate", *at(workspace), "--rate", "40", "--seconds", "3", "--warm-up", "0.5",
        "--resolution", "0.5", "--mix", "recommend history=1", "--traffic", "cold_share=0",
        "--traffic", "bad_share=0", "--slo", "p99=500ms,errors=50%", "--out", str(tmp_path),
    )  # fmt: skip
    assert code == 0, output
    found = json.loads((tmp_path / "saturation.json").read_text())
    confirmed = [one for one in found["trials"] if one["purpose"] == "confirm"]
    assert sum(one["kept"] and one["rate"] == found["rate"] for one in confirmed) >= 2
    assert f"{found['rate']:.1f} requests/s" in output
    assert "Last run: Latency" in (tmp_path / "report.html").read_text()


def without_pictures(workspace: Workspace, folder: Path) -> Path:
    shutil.copytree(workspace.catalog, folder)
    shutil.rmtree(folder / "images")
    return folder


def test_what_is_not_right_is_told_before_any_load_with_exit_code_2(
    workspace: Workspace, server: Served, client: Client, tmp_path: Path
) -> None:
    slo = tmp_path / "slo.yaml"
    slo.write_text("all: {p98_ms: 5}\n")
    bare = without_pictures(workspace, tmp_path / "bare")
    host = ["--via", "torchserve", "--host", server.state.inference_url]
    token = client.authorization()["Authorization"].split()[1]
    cases = {
        "http://127.0.0.1:1 ": [
            *host[:3], "http://127.0.0.1:1", "--catalog", str(workspace.catalog)
        ],
        "refuses the token": [*at(workspace), "--token", "wrong"],
        "'p98_ms'": [*at(workspace), "--slo", str(slo)],
        "picture": [*host, "--token", token, "--catalog", str(bare)],
        "no server is running": ["--workspace", str(tmp_path)],
        "--traffic cold: ": [*at(workspace), "--traffic", "cold=1"],
    }  # fmt: skip
    before = told(settled(client))
    for words, options in cases.items():
        code, output = loadtest("steady", "--out", str(tmp_path / "out"), *options)
        assert code == 2, (words, output)
        assert output.startswith("error: "), output
        assert words in output
        assert len(output.strip().splitlines()) == 1, output
    assert not (tmp_path / "out").exists()
    assert told(settled(client)) == before
