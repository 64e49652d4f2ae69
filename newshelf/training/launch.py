r"""Training jobs, run by one process or by several through torchrun's launcher.

On one machine use ``./run train --processes 2``. On several machines, start this module on each
with torchrun; all need the same catalogue, and the first one writes the checkpoint::

    torchrun --nnodes 2 --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint HOST:29400 \
        -m newshelf.training.launch --catalog shop --settings configs/packaged.toml --out model
"""

import argparse
import hashlib
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import distributed as dist
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from newshelf import errors
from newshelf.catalog.catalog import read_catalog
from newshelf.config import Settings, load_settings
from newshelf.errors import NewshelfError, TrainingError
from newshelf.training.distributed import is_first
from newshelf.training.run import start_run
from newshelf.training.train import train


@dataclass(frozen=True)
class TrainJob:
    """Paths and settings of a training run, picklable for other processes."""

    catalog: Path
    settings: Settings
    out: Path
    """The checkpoint's folder."""
    features: Path
    """Cached features."""
    state: Path
    """Saved progress, from which a run is resumed."""
    runs: Path
    """The trackers' default folder."""
    identity: str
    """Of everything that affects the result; progress of another identity is not used."""
    strict: bool = False
    start: Path | None = None
    """Checkpoint of an earlier version, to start from."""


def run_job(job: TrainJob, console: Console) -> None:
    """Read the catalogue, train, and write the checkpoint.

    Raises:
        CatalogError: the catalogue cannot be used.
        SettingsError: the tracker cannot be used.
        TrainingError: there is not enough data, or a loss is not finite.
        WeightsError: a tower's weights cannot be used.
    """
    catalog = read_catalog(job.catalog, strict=job.strict)
    console.print(catalog.report.summary(console.width), markup=False)
    with start_run(
        job.settings, console, state=job.state, identity=job.identity, runs=job.runs
    ) as run:
        train(catalog, job.settings, job.out, job.features, run, start=job.start)


_PATIENCE = timedelta(days=2)
"""Timeout of the processes that wait while the first one computes features."""


def launch(job: TrainJob, processes: int, console: Console) -> None:
    """Train with ``processes`` processes of this machine; 1 is this process.

    Raises:
        TrainingError: a process failed, with its message.
        NewshelfError: as ``run_job``, with one process.
    """
    if processes == 1:
        run_job(job, console)
        return
    _silence_launcher()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        start_method="spawn",
    )
    try:
        elastic_launch(config, _work)(job)
    except ChildFailedError as error:
        raise TrainingError(_message(error)) from error
    except SignalException as error:
        raise KeyboardInterrupt from error


def _work(job: TrainJob) -> None:
    """Run the job in each process."""
    with _group():
        run_job(job, Console(highlight=False, soft_wrap=True, quiet=not is_first()))


@contextmanager
def _group() -> Iterator[None]:
    """Join the process group: gloo for tensors on the CPU, NCCL for those on GPUs."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _message(error: ChildFailedError) -> str:
    """Return the message of the process that failed first."""
    rank, failure = error.get_first_failure()
    message: Any = failure.message
    if isinstance(message, dict):
        message = message.get("message", message)
    kind, _, text = str(message).partition(": ")
    ours = issubclass(getattr(errors, kind, Exception), NewshelfError)
    return text if ours else f"process {rank} failed: {message}"


def _silence_launcher() -> None:
    """Silence the launcher: ``_message`` reports errors once, without stack traces."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed.elastic", "torch.multiprocessing")):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # Inherited by the processes; silences a warning about unused parameters.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _identity(catalog: Path, settings: Settings) -> str:
    """Return a digest of catalogue, settings and number of processes; code is not included."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    digest.update(os.environ["WORLD_SIZE"].encode())
    for path in sorted(catalog.rglob("*")):
        if path.is_file():
            stat = path.stat()
            name = path.relative_to(catalog)
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _main() -> None:
    """Run the command line that torchrun starts."""
    parser = argparse.ArgumentParser(prog="torchrun … -m newshelf.training.launch")
    parser.add_argument("--catalog", type=Path, required=True)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    if "RANK" not in os.environ:
        parser.error("start this with torchrun, or use ./run train")
    work = out.with_name(f"{out.name}.work")
    try:
        settings = load_settings(arguments.settings)
        job = TrainJob(
            catalog=arguments.catalog,
            settings=settings,
            out=out,
            features=work / "features",
            state=work / "training",
            runs=work / "runs",
            identity=_identity(arguments.catalog, settings),
        )
        _work(job)
        if os.environ["RANK"] == "0":
            shutil.rmtree(job.state, ignore_errors=True)
    except NewshelfError as error:
        sys.exit(f"error: {error.message}")


if __name__ == "__main__":
    _main()
