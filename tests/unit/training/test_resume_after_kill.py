"""A real process, killed in the middle of a training, and another that goes on."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from newshelf.config import Settings
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.training.launch import TrainJob, run_job
from tests.unit.training.conftest import shop_events, shop_items

ROOT = Path(__file__).resolve().parents[3]
SLOW = """
import pickle, sys, time
from dataclasses import replace
from pathlib import Path
from rich.console import Console
from newshelf.nn import checkpoint
from newshelf.training import run
from newshelf.training.launch import run_job

job, stop_at = pickle.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2]

def pause(where):
    if where == stop_at:
        Path(sys.argv[1] + ".there").touch()
        time.sleep(600)

keep, save = run.Run.save, checkpoint._save
count = {}

def keeping(self, name, progress):
    keep(self, name, progress)
    count[name] = count.get(name, 0) + 1
    pause(f"{name} {count[name]}")

def saving(module, path):
    save(module, path)
    pause(path.name)

run.Run.save = keeping
checkpoint._save = saving
run_job(job, Console(width=200))
"""


@pytest.fixture
def job(write_catalog, tmp_path, tiny_settings) -> TrainJob:
    catalog = write_catalog(items=shop_items(48, tmp_path / "shop"), events=shop_events())
    settings: Settings = tiny_settings.model_copy(update={"seed": 11})
    return TrainJob(
        catalog=catalog.folder,
        settings=settings,
        out=tmp_path / "out",
        features=tmp_path / "features",
        state=tmp_path / "state",
        runs=tmp_path / "runs",
        identity="same",
    )


def start(job: TrainJob, folder: Path, stop_at: str) -> subprocess.Popen[str]:
    path = folder / "job.pickle"
    path.write_bytes(pickle.dumps(job))
    path.with_name("job.pickle.there").unlink(missing_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(path), stop_at],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_at(job: TrainJob, folder: Path, stop_at: str) -> str:
    """What it printed until then."""
    process = start(job, folder, stop_at)
    until = time.monotonic() + 120
    while not (folder / "job.pickle.there").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    return process.communicate()[0]


def finish(job: TrainJob, folder: Path) -> str:
    process = start(job, folder, "nowhere")
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 0, printed
    return printed


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def test_killed_again_and_again_it_ends_with_the_same_bytes(job, tmp_path, said):
    assert "resuming" not in kill_at(job, tmp_path, "source 2")
    assert not job.out.exists()
    # Half a checkpoint is written, and is none.
    printed = kill_at(job, tmp_path, "encoder.safetensors")
    assert "after epoch 2 of 3" in printed
    assert not job.out.exists()
    printed = finish(job, tmp_path)
    assert "resuming the training that began at" in printed
    assert "fine-tuning on the source category was done before" in printed
    whole = replace(job, out=tmp_path / "whole", state=tmp_path / "fresh")
    run_job(whole, said.console)
    assert "goes on" not in said.text
    broken = weights(job.out)
    assert broken == weights(whole.out)
    assert set(broken) >= {"encoder.safetensors", "scorer.safetensors", "embeddings.safetensors"}
    assert load_checkpoint(job.out).version == load_checkpoint(whole.out).version
    # One run, one folder of events, however often it was begun.
    assert len(list(job.runs.iterdir())) == 2


def test_killed_while_it_replaces_a_checkpoint_the_old_one_stays(job, tmp_path, said):
    run_job(job, said.console)
    before = weights(job.out)
    settings = job.settings.model_copy(update={"seed": 12})
    kill_at(replace(job, settings=settings, identity="other"), tmp_path, "scorer.safetensors")
    assert weights(job.out) == before
    load_checkpoint(job.out)
