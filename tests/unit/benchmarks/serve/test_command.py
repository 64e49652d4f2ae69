"""`./run bench serve` with tasks made up for the test, through the real command line."""

import json
import os
import subprocess
import sys
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from benchmarks.serve.command import SUITE, TASKS
from benchmarks.serve.cpu import Others
from benchmarks.serve.memory import proportional_bytes, require_unshared
from benchmarks.serve.peer import Peer, PeerLayout, ServedModel


@pytest.fixture(autouse=True)
def keep_cores():
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def tasks(monkeypatch):
    """Replace the benchmark's tasks; each is a function of the context."""
    monkeypatch.setattr("benchmarks.serve.command.require_wrk", lambda: "wrk")

    def put(**functions):
        for name in list(TASKS):
            monkeypatch.delitem(TASKS, name)
        for name, function in functions.items():
            monkeypatch.setitem(TASKS, name, f"made_up_{name}:run")
            monkeypatch.setitem(sys.modules, f"made_up_{name}", SimpleNamespace(run=function))

    return put


@pytest.fixture
def bench(tmp_path):
    def run(*words):
        out = ["--data", str(tmp_path), "--out", str(tmp_path / "report.md")]
        found = CliRunner().invoke(app, ["serve", *out, *words], env={"COLUMNS": "200"})
        return found.exit_code, found.output

    return run


def encoder(context):
    assert context.rounds == 3
    return TaskResult(
        task="encoder",
        title="Encoder",
        protocol="As it is.",
        rows=[
            Row("requests/s", "Newshelf", [70.0, 5.0, 72.0], robust=True),
            Row("requests/s", "stock", [10.0, 11.0, 10.0], baseline=True, robust=True),
        ],
        goals=[Goal("requests/s", 6.0, "times")],
        details="| contender | p99 |\n| --- | --- |\n| Newshelf | 9 |",
        percent=False,
    )


def broken(context):
    raise BenchmarkError("the answers are wrong: cosine 0.5")


def test_the_report_has_the_ratio_of_the_medians_and_the_details(tasks, bench, tmp_path):
    tasks(encoder=encoder)
    code, output = bench("--rounds", "3")
    assert code == 0
    assert "≥ 6 × baseline = 60.0" in output
    report = (tmp_path / "report.md").read_text()
    assert report.startswith("# Serving\n")
    assert "| Newshelf | 9 |" in report
    [line] = [line for line in report.splitlines() if line.startswith("| [encoder]")]
    assert "7.00 | ≥ 6 × baseline = 60.0 | **yes** |" in line
    assert "rounds 1, 2, 3" in report
    assert "median ± sd" in report
    for name in ("torchserve", "peers' litserve", "peers' bentoml"):
        assert f"{name} " in report
    assert "./run bench serve --rounds 3 --seconds 10 --data" in report
    assert json.loads((tmp_path / "report" / "encoder.json").read_text())["hardware"]


def test_wrong_answers_are_a_failure_and_no_figure(tasks, bench, tmp_path):
    tasks(encoder=encoder, broken=broken)
    code, output = bench()
    assert code == 1
    assert "BenchmarkError: the answers are wrong" in output
    report = (tmp_path / "report.md").read_text()
    assert "BenchmarkError: the answers are wrong" in report
    assert "| [encoder]" in report


def test_an_unknown_task_is_refused_with_the_ones_there_are(tasks, bench):
    tasks(encoder=encoder)
    code, output = bench("--only", "decoder")
    assert code != 0
    assert "the tasks are encoder" in output


def test_without_wrk_nothing_is_started(tasks, bench, monkeypatch):
    tasks(encoder=lambda _: pytest.fail("it was started"))
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    code, output = bench()
    assert code != 0
    assert "apt-get install wrk" in output


def test_a_core_that_is_not_there_is_refused(tasks, bench):
    tasks(encoder=encoder)
    code, output = bench("--cores", "0,4096")
    assert code != 0
    assert "[4096]" in output


def test_servers_and_client_are_kept_on_the_cores_that_are_named(tasks, bench):
    seen = []
    one = min(os.sched_getaffinity(0))

    def look(context):
        seen.append(os.sched_getaffinity(0))
        return encoder(context)

    tasks(encoder=look)
    assert bench("--cores", str(one))[0] == 0
    assert seen == [{one}]


def test_the_command_is_one_that_can_be_asked_again():
    options = {"rounds": 2, "seconds": 5.0, "cores": (0, 1), "data": None}
    words = SUITE.command(["lite0"], SUITE.default_report, **options)
    assert words == "./run bench serve --only lite0 --rounds 2 --seconds 5 --cores 0,1"


def test_a_task_of_half_an_hour_is_run_only_when_it_is_named():
    assert set(TASKS) - set(SUITE.chosen([])) == {"search-10m"}
    assert SUITE.chosen(["search-10m"]) == ["search-10m"]


def test_every_task_has_a_module_that_runs_it():
    for name, module in TASKS.items():
        assert callable(resolve_name(module)), name


@pytest.mark.parametrize(
    ("runtime", "name"),
    [("onnxruntime", "FastAPI + ONNX Runtime"), ("openvino", "FastAPI + OpenVINO")],
)
def test_a_peer_names_what_it_runs_by(runtime, name, tmp_path):
    served = ServedModel(tmp_path, runtime, "int8")
    peer = Peer(PeerLayout("FastAPI", 2, 1), tmp_path, served, tmp_path)
    assert peer.name == name
    assert peer.layout == f"2 × 1 threads, no batching, {runtime} int8"


def test_no_other_process_takes_more_than_all_the_cores():
    cores = len(os.sched_getaffinity(0))
    others = Others(cores)
    assert others.share() >= 0.0


def test_the_memory_of_a_process_is_counted():
    # A process of its own: this one shares pages with others, which may come and go.
    script = "import os\nprint(1, flush=True)\ninput()\na = os.urandom(32_000_000)\n"
    script += "print(2, flush=True)\ninput()\n"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        before = proportional_bytes([child.pid])
        print(file=child.stdin, flush=True)
        child.stdout.readline()
        grown = proportional_bytes([child.pid]) - before
        print(file=child.stdin, flush=True)
    assert 28_000_000 < grown < 40_000_000


def test_memory_is_not_measured_beside_the_libraries_of_the_workers():
    import onnxruntime  # noqa: F401, PLC0415 - loaded on purpose

    with pytest.raises(BenchmarkError, match="measure memory alone"):
        require_unshared([])
