"""The memory of TorchServe's workers, as the kernel counts it."""

import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.serve.errors import BenchmarkError
from newshelf.server.process import ProcessRef, members

__all__ = ["proportional_bytes", "require_unshared", "worker_processes"]

_OURS = ("model_service_worker.py", "handlers.preloader")
"""What TorchServe starts, and what loads a model and forks its workers."""
_HEAVY = ("libtorch", "onnxruntime", "openvino")


def worker_processes(server: ProcessRef) -> list[int]:
    """The ids of a running TorchServe's processes that hold a model, or stand in for one."""
    found = []
    for process in members(server):
        try:
            if any(word.endswith(_OURS) for word in process.cmdline()):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return sorted(found)


def proportional_bytes(pids: Sequence[int]) -> int:
    """The processes' proportional set size together: a page that n share counts 1/n for each.

    Raises:
        BenchmarkError: the system does not tell (it takes Linux 4.14).
    """
    return sum(_proportional(pid) for pid in pids)


def _proportional(pid: int) -> int:
    path = Path("/proc") / str(pid) / "smaps_rollup"
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read ({error.strerror}): use Linux") from error
    values = {line.split()[0]: line.split()[1] for line in lines[1:]}
    return int(values["Pss:"]) * 1024


def require_unshared(workers: Sequence[int]) -> None:
    """Refuse to measure while another process has the workers' libraries loaded, too.

    It would take a share of their pages, and the first worker would look smaller than it is.

    Raises:
        BenchmarkError: with the other processes' ids.
    """
    ours = Path(sysconfig.get_path("purelib")).resolve()
    others = [
        process.pid
        for process in psutil.process_iter()
        if process.pid not in workers and _has_loaded(process.pid, ours)
    ]
    if os.getpid() in others:
        raise BenchmarkError(
            "this process has loaded the workers' libraries: measure memory alone, with "
            f"`./run bench serve --only memory` ({', '.join(sorted(_loaded_modules()))})"
        )
    if others:
        raise BenchmarkError(
            f"the processes {', '.join(map(str, others))} have loaded the workers' libraries, and "
            "would share their memory: end them, then measure again"
        )


def _loaded_modules() -> set[str]:
    return {"torch", "onnxruntime", "openvino"} & set(sys.modules)


def _has_loaded(pid: int, packages: Path) -> bool:
    try:
        text = (Path("/proc") / str(pid) / "maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        # It has ended, or belongs to somebody else.
        return False
    return any(
        str(packages) in line and any(name in line for name in _HEAVY) for line in text.splitlines()
    )
