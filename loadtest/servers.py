"""Servers to measure against, in processes of their own, which print the port they took."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from newshelf.pipeline.workspace import ROOT

__all__ = ["known_server", "noop_server"]


def noop_server() -> AbstractContextManager[str]:
    """The address of ``loadtest.noop``, which does nothing, until the block ends."""
    return _server_of("loadtest.noop")


def known_server(**options: object) -> AbstractContextManager[str]:
    """The address of ``loadtest.known``, until the block ends.

    Args:
        options: its own, such as ``service_ms=20``.
    """
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return _server_of("loadtest.known", *words)


@contextmanager
def _server_of(module: str, *arguments: str) -> Iterator[str]:
    command = [sys.executable, "-P", "-m", module, *arguments]
    # Whatever the folder is that it is called from.
    found = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=found, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("the server's output was not piped")
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()
