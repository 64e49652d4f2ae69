"""``./run tune`` with servers of its own, on the shared workspace's export."""

from dataclasses import replace
from pathlib import Path

import psutil
import yaml
from rich.console import Console
from typer.testing import CliRunner

from loadtest.slo import parse_slo
from loadtest.tuning.load import ModelName
from loadtest.tuning.points import Arithmetic, Computing, SearchSpace
from loadtest.tuning.tune import PointLoad, tune
from loadtest.tuning.verbs import make_tools
from newshelf.cli.app import app
from newshelf.config import Settings, load_settings
from newshelf.files import read_json
from newshelf.pipeline.workspace import Workspace

ONE = Computing(1, 1, Arithmetic("onnxruntime", "fp32"))


def run(workspace: Workspace, settings: Path, out: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(
        app,
        [
            "tune", "--model", "encoder", "--seconds", "1", "--clients", "2",
            "--runtime", "onnxruntime", "--precision", "fp32", "--workers", "1",
            "--threads", "1", "--settings", str(settings), "--out", str(out),
            "--workspace", str(workspace.root), "--catalog", str(workspace.catalog), *words,
        ],
        env={"COLUMNS": "120"},
    )  # fmt: skip
    return done.exit_code, done.output


def check_nothing_is_left(workspace: Workspace) -> None:
    assert not (workspace.root / "tuning" / ".work").exists()
    left = str(workspace.root / "tuning")
    commands = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if left in command]


def test_points_are_served_measured_and_the_best_is_written(
    workspace: Workspace, settings_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned.toml"
    words = ("--slo", "p99=60s,errors=0%", "--batch", "1,4", "--delay", "1")
    code, output = run(workspace, settings_file, out, *words)
    assert code == 0, output
    assert "2 of 2 points" in output
    assert "chosen" in output
    tuned, own = load_settings(out), load_settings(settings_file)
    assert tuned.finetune == own.finetune
    assert tuned.archive.recommender == own.archive.recommender
    assert (tuned.archive.encoder.workers, tuned.archive.encoder.threads) == (1, 1)
    config = yaml.safe_load((tmp_path / "tuned.model-config.yaml").read_text())
    assert config["batchSize"] == tuned.archive.encoder.batch_size
    assert config["maxBatchDelay"] == 1
    runs = read_json(tmp_path / "tuned.json")["runs"]
    assert {one["batch_size"] for one in runs} == {1, 4}
    assert all(one["requests_per_second"] > 0 and not one["missed"] for one in runs)
    assert (tmp_path / "tuned.png").stat().st_size > 1000
    check_nothing_is_left(workspace)


def test_an_objective_that_none_keeps_writes_no_settings(
    workspace: Workspace, settings_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned.toml"
    words = ("--slo", "p99=10us", "--batch", "4", "--delay", "1")
    code, output = run(workspace, settings_file, out, *words)
    assert code == 1, output
    assert "No point meets the SLO" in output
    assert not out.exists()
    assert read_json(tmp_path / "tuned.json")["runs"][0]["missed"]
    check_nothing_is_left(workspace)


def test_a_point_that_cannot_be_served_is_left_out(workspace: Workspace) -> None:
    """Its worker refuses its configuration, as it would a provider that is not there."""
    tools = make_tools(workspace)

    def model_config(settings: Settings, model: ModelName) -> str:
        table = yaml.safe_load(tools.model_config(settings, model))
        if table["batchSize"] == 1:
            table["serving"]["threads"] = -1
        return yaml.safe_dump(table)

    console = Console(record=True, width=150)
    found = tune(
        workspace,
        Settings(),
        SearchSpace((ONE,), (1, 2), (1,)),
        PointLoad("recommender", 2, 1.0),
        parse_slo("p99=60s"),
        replace(tools, model_config=model_config),
        console,
    )
    failed, good = sorted(found.runs, key=lambda one: one.point)
    assert (failed.per_second, failed.meets) == (0, False)
    assert good.per_second > 0
    assert found.best == good
    assert "✗ 1 × 1 onnxruntime fp32, batch 1" in console.export_text()
    check_nothing_is_left(workspace)
