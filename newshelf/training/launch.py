r"""Training jobs, run by one process or by several.

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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from torch import distributed as dist
from torch.multiprocessing.spawn import ProcessException, spawn

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


# It tells which processes it ends after another one's error.
logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
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
    # Inherited by the processes; silences a warning about unused parameters.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with TemporaryDirectory() as folder:
        group = Path(folder) / "group"
        try:
            # Daemons end with this process, however it is ended.
            spawn(_work_here, (job, processes, group), nprocs=processes, daemon=True)
        except ProcessException as error:
            _, own, said = str(error).rpartition("\nnewshelf.errors.")
            last = said.strip().rpartition("\n")[2]
            message = said.partition(": ")[2].strip() if own else f"a process failed: {last}"
            raise TrainingError(message) from error


def _work_here(rank: int, job: TrainJob, processes: int, group: Path) -> None:
    """Run the job in one of this machine's processes, which meet in the file ``group``."""
    os.environ["LOCAL_RANK"] = str(rank)
    _work(job, init_method=group.as_uri(), rank=rank, world_size=processes)


def _work(job: TrainJob, **group: Any) -> None:
    """Run the job in each process; the environment describes the group unless given."""
    with _group(**group):
        run_job(job, Console(highlight=False, soft_wrap=True, quiet=not is_first()))


@contextmanager
def _group(**group: Any) -> Iterator[None]:
    """Join the process group: gloo for tensors on the CPU, NCCL for those on GPUs."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE, **group)
    try:
        yield
    finally:
        dist.destroy_process_group()


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
