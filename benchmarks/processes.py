"""Modules of the benchmarks as processes, which share nothing with this one; and threads."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.results import BenchmarkError
from newshelf.pipeline.workspace import ROOT

_SHOWN = 1500
"""Characters of a failed process's errors."""


def module_command(module: str, *words: str) -> list[str]:
    """Return the command line of a module, with ``module_environment`` from any folder."""
    return [sys.executable, "-P", "-m", module, *words]


def module_environment(threads: int | None = None) -> dict[str, str]:
    """Return this process's environment, with the threads of torch and NumPy."""
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return {**os.environ, "PYTHONPATH": str(ROOT), **limit}


def run_module(
    module: str, *words: str, given: str | None = None, threads: int | None = None
) -> str:
    """Run a module with ``given`` as its input, and return what it prints.

    Raises:
        BenchmarkError: it failed; with the end of its errors.
    """
    done = subprocess.run(
        module_command(module, *words),
        input=given,
        env=module_environment(threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip()[-_SHOWN:]
        raise BenchmarkError(f"{module} failed: {said}")
    return done.stdout


@contextmanager
def in_threads(work: Callable[[int, threading.Event], None], count: int = 1) -> Iterator[None]:
    """Run ``work(number, ended)`` in threads; the event is set when the block ends."""
    ended = threading.Event()
    threads = [threading.Thread(target=work, args=(number, ended)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
