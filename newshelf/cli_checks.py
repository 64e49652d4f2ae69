"""``test`` and ``check``: the project's own tests and rules."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from newshelf.pipeline.workspace import ROOT

__all__ = ["run_checks", "run_tests"]

CHECKS: dict[str, tuple[str, ...]] = {
    "style": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("mypy",),
    # Without its cache, which goes on naming a module that was missing when it was filled.
    "imports": ("lint-imports", "--no-cache"),
    "spelling": ("codespell",),
    "prose": ("pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_prose.py"),
}


def run_tests(arguments: Sequence[str], *, quick: bool = False) -> int:
    """Run pytest on two processes; a test group that shares a server stays on one.

    Args:
        arguments: passed to pytest.
        quick: leave out the end-to-end tests.

    Returns:
        pytest's exit code.
    """
    # Two processes with as many threads each as there are cores would only wait for
    # each other.
    env = {"OMP_NUM_THREADS": "1", **os.environ}
    # A process that dies ends the run: pytest-xdist would replace it, and then wait for ever
    # for the tests it had been given (seen with 3.8.0).
    options: tuple[str, ...] = ("-n", "2", "--dist", "loadgroup", "--max-worker-restart", "0")
    if quick:
        options += ("--ignore", "tests/e2e")
    command = ("pytest", *options, *arguments)
    return subprocess.call([sys.executable, "-m", *command], cwd=ROOT, env=env)


def run_checks(console: Console) -> list[str]:
    """Run every check, whatever the others say.

    Returns:
        The names of those that failed.
    """
    failed = []
    for name, (program, *arguments) in CHECKS.items():
        console.rule(f"{name}: {program} {' '.join(arguments)}".rstrip(), align="left")
        beside = Path(sys.executable).with_name(program)
        if subprocess.call([str(beside), *arguments], cwd=ROOT) != 0:
            failed.append(name)
    return failed
