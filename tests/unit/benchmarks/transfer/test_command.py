"""`./run bench transfer` with tasks made up for the test, through the real command line."""

import json
import sys
from types import SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.results import Goal, Row, TaskResult
from benchmarks.transfer.command import REVISIONS, SUITE, TASKS
from newshelf.errors import TrainingError


@pytest.fixture
def tasks(monkeypatch):
    """Replace the benchmark's tasks; each is a function of the context."""

    def put(**functions):
        for name in list(TASKS):
            monkeypatch.delitem(TASKS, name)
        for name, function in functions.items():
            monkeypatch.setitem(TASKS, name, f"made_up_{name}:run")
            module = SimpleNamespace(run=function)
            monkeypatch.setitem(sys.modules, f"made_up_{name}", module)

    return put


@pytest.fixture
def bench(tmp_path):
    """Run the verb on an empty data folder; the report goes to ``report.md``."""
    (tmp_path / "data").mkdir()

    def run(*words):
        out = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "report.md")]
        found = CliRunner().invoke(app, ["transfer", *out, *words], env={"COLUMNS": "200"})
        return found.exit_code, found.output

    return run


def rings(context):
    Image.new("RGB", (8, 8)).save(context.figures / "rings.png")
    return TaskResult(
        task="rings",
        title="Rings from few labels",
        protocol="Five labels | per class.",
        rows=[
            Row("accuracy", "linear probe", [0.5 for _ in context.seeds], baseline=True),
            Row("accuracy", "nearest mean", [0.4 for _ in context.seeds], baseline=True),
            Row("accuracy", "fine-tuned", [0.6 + seed / 100 for seed in context.seeds]),
        ],
        goals=[Goal("accuracy", 0.6)],
        notes=["Longer training did not help."],
        figures={"accuracy over shots": context.figures / "rings.png"},
    )


def rooms(context):
    return TaskResult(
        task="rooms",
        title="Rooms",
        protocol="One item left out.",
        rows=[Row("Recall", "EASE", [0.1], baseline=True), Row("Recall", "two towers", [0.05])],
        goals=[Goal("Recall", 1.5, "times")],
        percent=False,
    )


def broken(context):
    raise TrainingError("no row has a label: add product_type")


def test_a_report_with_the_figures_of_every_method(tasks, bench, tmp_path):
    tasks(rings=rings)
    code, output = bench("--seeds", "3")
    assert code == 0
    assert "≥ 60.0 %" in output
    report = (tmp_path / "report.md").read_text()
    rows = [line for line in report.splitlines() if line.startswith("| ")]
    assert "| accuracy | **fine-tuned** | **61.0 ± 1.0 %** | **1.22** |" in rows
    assert "|  | linear probe (baseline) | 50.0 ± 0.0 % | 1.00 |" in rows
    assert "|  | nearest mean (baseline) | 40.0 ± 0.0 % | 0.80 |" in rows
    assert "≥ 60.0 %; reached: yes" in report
    assert "Five labels | per class." in report
    assert "- Longer training did not help." in report
    for library in ("torch", "numpy", "timm", "scikit-learn", "newshelf"):
        assert f"{library} " in report
    assert "cores" in report
    assert "./run bench transfer --seeds 3 --data" in report


def test_figures_lie_beside_the_report_and_are_linked_relatively(tasks, bench, tmp_path):
    tasks(rings=rings)
    bench()
    assert "![accuracy over shots](report/figures/rings.png)" in (
        (tmp_path / "report.md").read_text()
    )
    assert (tmp_path / "report" / "figures" / "rings.png").is_file()


def test_a_missed_goal_is_shown_and_is_no_failure(tasks, bench, tmp_path):
    tasks(rooms=rooms)
    code, output = bench()
    assert code == 0
    report = (tmp_path / "report.md").read_text()
    line = next(line for line in report.splitlines() if line.startswith("| [rooms]"))
    assert "| EASE, 0.1000 | two towers, 0.0500 | 0.50 |" in line
    assert line.endswith("| ≥ 1.5 × baseline = 0.1500 | **no** |")
    assert "≥ 1.5 × baseline = 0.1500" in output


def test_a_report_names_the_measures_where_a_baseline_is_ahead(tasks, bench, tmp_path):
    tasks(rings=rings, rooms=rooms)
    bench()
    lines = [
        line
        for line in (tmp_path / "report.md").read_text().splitlines()
        if line.startswith("A baseline is ahead")
    ]
    assert len(lines) == 1
    assert "Recall (EASE 0.1000; best method: two towers 0.0500)" in lines[0]


def test_a_result_of_an_earlier_revision_is_marked(tasks, bench, tmp_path, monkeypatch):
    tasks(rings=rings)
    bench("--seeds", "1")
    assert "**Outdated:" not in (tmp_path / "report.md").read_text()
    tasks(rings=rings, rooms=rooms)
    monkeypatch.setitem(REVISIONS, "rings", 2)
    bench("--only", "rooms")
    report = (tmp_path / "report.md").read_text()
    assert "| **yes, outdated** |" in report
    assert "**Outdated: " in report
    bench("--only", "rings")
    assert "**Outdated:" not in (tmp_path / "report.md").read_text()


def test_a_task_that_fails_stops_no_other(tasks, bench, tmp_path):
    tasks(broken=broken, rings=rings)
    code, output = bench()
    assert code == 1
    assert "no row has a label" in output
    assert "failed: broken" in output
    report = (tmp_path / "report.md").read_text()
    assert "TrainingError: no row has a label" in report
    assert "fine-tuned" in report


def test_a_mistake_in_a_task_shows_its_place(tasks, bench):
    def wrong(context):
        return 1 / 0

    tasks(wrong=wrong)
    code, output = bench()
    assert (code, "return 1 / 0" in output) == (1, True)


def test_a_result_that_is_not_a_number_is_a_failure(tasks, bench):
    tasks(nan=lambda context: TaskResult("nan", "t", "p", [Row("m", "x", [float("nan")])]))
    code, output = bench()
    assert (code, "m, x: " in output and "[nan]" in output) == (1, True)


def test_a_figure_that_was_promised_must_be_there(tasks, bench):
    def forgot(context):
        figures = {"a plot": context.figures / "none.png"}
        return TaskResult("forgot", "t", "p", [Row("m", "x", [1.0])], figures=figures)

    tasks(forgot=forgot)
    code, output = bench()
    assert (code, "none.png" in output) == (1, True)


def test_only_keeps_what_the_other_tasks_measured(tasks, bench, tmp_path):
    tasks(rings=rings, rooms=rooms)
    bench("--seeds", "2")
    kept = tmp_path / "report" / "rooms.json"
    old = json.loads(kept.read_text()) | {"date": "2001-02-03 04:05 UTC"}
    kept.write_text(json.dumps(old))
    assert bench("--only", "rings", "--seeds", "1")[0] == 0
    report = (tmp_path / "report.md").read_text()
    assert "2001-02-03 04:05 UTC · seeds 0, 1" in report
    assert " · seed 0 · " in report
    assert report.index("## Rings") < report.index("## Rooms")
    assert "--only rings --seeds 1" in report


def test_a_failed_run_keeps_the_result_before_it_and_says_so(tasks, bench, tmp_path):
    tasks(rings=rings)
    bench()
    tasks(rings=broken)
    assert bench()[0] == 1
    report = (tmp_path / "report.md").read_text()
    assert "failed: TrainingError" in report
    assert "run before" in report
    assert "61.0 ± 1.0 %" in report
    tasks(rings=rings)
    bench()
    assert "failed: " not in (tmp_path / "report.md").read_text()


def test_an_unknown_task_is_refused_with_the_names_of_the_tasks(tasks, bench):
    tasks(rings=rings)
    code, output = bench("--only", "hats")
    assert code == 1
    assert output.startswith("error: --only hats: ")
    assert output.endswith(" rings\n")


@pytest.mark.parametrize("option", ["--data", "--kept-back"])
def test_a_folder_that_is_not_there_is_refused(tasks, bench, option):
    tasks(rings=rings)
    code, output = bench(option, "/nowhere")
    assert code == 1
    assert output.startswith(f"error: {option} /nowhere ")


def test_without_data_the_option_is_named(tasks, tmp_path, monkeypatch):
    tasks(rings=rings)
    monkeypatch.setattr("benchmarks.transfer.command._DATA", tmp_path / "none")
    words = ["transfer", "--out", str(tmp_path / "report.md")]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 1
    assert "pass --data DIR" in found.output
    assert not (tmp_path / "report.md").exists()


def test_a_damaged_result_names_its_file(tasks, bench, tmp_path):
    tasks(rings=rings)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "rings.json").write_text("{}")
    code, output = bench()
    assert code == 1
    assert "rings.json" in output
    assert "--only rings" in output


def test_the_command_in_the_report_names_no_folder_far_away(tmp_path, monkeypatch):
    # Wherever this repository lies: perhaps next to the tests' folder.
    monkeypatch.setattr("benchmarks.records.ROOT", tmp_path / "far" / "away" / "repo")
    words = SUITE.command(["home"], SUITE.default_report, seeds=3, data=tmp_path / "data")
    assert words == "./run bench transfer --only home --seeds 3 --data …/data"


def test_the_help_has_an_example():
    output = CliRunner().invoke(app, ["transfer", "--help"]).output
    assert "Example: ./run bench transfer --only" in " ".join(output.split())
