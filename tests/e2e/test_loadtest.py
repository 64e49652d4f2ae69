"""The load scenarios against the shared server."""

import csv
import os
import subprocess
import sys
from pathlib import Path

from newshelf.pipeline.serve import Served
from newshelf.pipeline.workspace import ROOT, Workspace


def locust(workspace: Workspace, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"),
            "--headless", "-u", "3", "-r", "3", "-t", "5s", "--csv", str(tmp_path / "load"),
            "--catalog", str(workspace.catalog), "--workspace", str(workspace.root), *words,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def test_every_scenario_is_answered(workspace: Workspace, server: Served, tmp_path: Path) -> None:
    done = locust(workspace, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "load_stats.csv").open(newline="") as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert {"recommend", "encode", "Aggregated"} <= set(rows)
    assert int(rows["Aggregated"]["Failure Count"]) == 0
    assert int(rows["recommend"]["Request Count"]) > 0


def test_a_limit_that_is_not_kept_is_told_and_fails(
    workspace: Workspace, server: Served, tmp_path: Path
) -> None:
    done = locust(workspace, tmp_path, "--p99-ms", "0")
    assert done.returncode == 1
    assert "at most 0 ms were asked for" in done.stdout + done.stderr
