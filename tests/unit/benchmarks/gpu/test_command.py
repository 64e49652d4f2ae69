"""`./run bench gpu` on a tiny model and the CPU, and on a machine without a GPU."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pkgutil import resolve_name

import pytest
import torch
import yaml
from packaging.utils import canonicalize_name
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.gpu.carry import NEEDED, THERE, closure
from benchmarks.gpu.command import TASKS
from benchmarks.gpu.faulty_handler import HEADER, FaultyHandler
from benchmarks.gpu.models import TINY, make_model
from benchmarks.gpu.pictures import distinct, encoded, photograph
from benchmarks.gpu.recovery import replace_handler
from benchmarks.gpu.served import load
from benchmarks.results import BenchmarkError
from benchmarks.serve.contender import Endpoint
from benchmarks.servers import noop_server
from newshelf.pipeline.workspace import ROOT
from newshelf.server.process import ProcessRef
from newshelf.serving.protocol import predict_isolated
from newshelf.serving.runtimes.base import Device
from newshelf.serving.settings import ServingSettings

IN_PROCESS = ("precision", "encoder", "product", "mixed", "finetuning")

# In a process of its own, which says what it has imported.
PROGRAM = """
import json, sys
from importlib.metadata import packages_distributions
from pathlib import Path
from benchmarks import suite
from benchmarks.__main__ import app

suite.WORKSPACES = Path(sys.argv[1])
try:
    app(sys.argv[2:])
except SystemExit as end:
    code = end.code
import benchmarks.gpu.recovery, benchmarks.gpu.served
known = packages_distributions()
found = {one for name in list(sys.modules) for one in known.get(name.partition(".")[0], ())}
Path(sys.argv[1], "imported.json").write_text(json.dumps(sorted(found)))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    words = ["gpu", "--device", "cpu", "--out", str(folder / "report.md")]
    words += [word for task in IN_PROCESS for word in ("--only", task)]
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, str(folder), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_task_has_a_module_that_runs_it():
    for name, module in TASKS.items():
        assert callable(resolve_name(module)), name


@pytest.mark.parametrize("task", IN_PROCESS)
def test_a_task_measures_all_of_its_goals(rehearsed, task):
    record = json.loads((rehearsed / "report" / f"{task}.json").read_text())
    assert record["failure"] is None
    result = record["result"]
    measured = {row["measure"] for row in result["rows"]}
    assert result["goals"]
    assert {goal["measure"] for goal in result["goals"]} <= measured


def test_on_the_cpu_all_answers_are_the_cpus(rehearsed):
    record = json.loads((rehearsed / "report" / "mixed.json").read_text())
    values = {row["measure"]: row["values"] for row in record["result"]["rows"]}
    for measure in ("wrong embeddings", "good ones refused", "bad ones answered"):
        assert values[measure] == [0], measure
    precision = json.loads((rehearsed / "report" / "precision.json").read_text())
    fp32 = [row for row in precision["result"]["rows"] if row["measure"].endswith("fp32")]
    assert min(value for row in fp32 for value in row["values"]) > 0.9999


def test_what_is_imported_is_there_or_is_carried(rehearsed):
    imported = json.loads((rehearsed / "imported.json").read_text())
    # Our own: what a library imports if it happens to be there need not be carried.
    direct = {
        canonicalize_name(line.partition("==")[0])
        for file in ROOT.glob("requirements*.in")
        for line in file.read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    needed = {canonicalize_name(name) for name in imported} & direct
    assert "pydantic" in needed
    assert needed <= closure((*THERE, "timm", "transformers")) | closure(NEEDED)


def test_without_a_gpu_the_report_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("benchmarks.suite.WORKSPACES", tmp_path)
    report = tmp_path / "report.md"
    found = CliRunner().invoke(app, ["gpu", "--out", str(report)])
    assert found.exit_code == 1
    assert report.read_text().count("no GPU: not measured**") == len(TASKS)


def test_the_packages_to_carry_are_printed_with_the_commands():
    found = CliRunner().invoke(app, ["gpu", "--carry"], env={"COLUMNS": "200"})
    assert found.exit_code == 0
    for name in ("onnxruntime-gpu", "torchserve", "cykooz-resizer", "pydantic-core"):
        assert f"\n{name}==" in found.output, name
    assert "\ntorch==" not in found.output
    assert "pip download --no-deps" in found.output


def test_pictures_differ_in_their_bytes_alone():
    picture = encoded(photograph((40, 30), 1))
    first, second = distinct(picture, 1), distinct(picture, 2)
    assert first != second
    assert len(first) == len(second)
    assert first[:2] == picture[:2]


def test_archives_are_packed_and_their_handler_is_replaced(rehearsed, tmp_path):
    model = make_model(rehearsed / "gpu", TINY, text=False, onnx=False, console=Console())
    mar = model.pack(tmp_path, "torchscript", "fp32", workers=2, batch=3)
    replace_handler(mar)
    with zipfile.ZipFile(mar) as file:
        names = set(file.namelist())
        assert b"class FaultyHandler" in file.read("encoder_handler.py")
        config = yaml.safe_load(file.read("model-config.yaml"))
    assert {"encoder.pt", "golden.json", "newshelf/serving/runtimes/bound.py"} <= names
    assert (config["minWorkers"], config["serving"]["max_forward_batch"]) == (2, 3)


def test_a_fault_costs_the_request_that_asks_for_it(rehearsed):
    model = make_model(rehearsed / "gpu", TINY, text=False, onnx=False, console=Console())
    settings = ServingSettings(runtime="torchscript", cache_bytes=0)
    predictor = FaultyHandler().load(model.folder, device=Device(), settings=settings)
    first, faulty, last = model.requests(3)
    rows = [first, replace(faulty, headers={HEADER: "memory"}), last]
    assert [answer.status for answer in predict_isolated(predictor, rows)] == [200, 500, 200]


def test_a_load_counts_what_all_of_its_processes_send():
    with noop_server() as url:
        endpoint = Endpoint(url, "/any", ProcessRef(0, 0.0, ""))
        found = load(endpoint, [b"one", b"two"], clients=40, seconds=0.3)
    assert found.per_second > 0
    assert 0 < found.p50_ms <= found.p99_ms


def test_a_load_with_wrong_answers_is_no_result(monkeypatch):
    endpoint = Endpoint("http://127.0.0.1:9", "/any", ProcessRef(0, 0.0, ""))
    with pytest.raises(BenchmarkError, match="wrong"):
        load(endpoint, [b"one"], clients=1, seconds=0.1)
