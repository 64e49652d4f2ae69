"""Supervision of a background process: ``python -m MODULE PLAN`` keeps ``… --child`` running.

Only the child loads the event store and what its work needs.
"""

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from newshelf.config import LogSettings
from newshelf.errors import NewshelfError
from newshelf.server.process import ProgramPlan, rotate_own

_CHILD = "--child"
_LOOK_S, _PAUSE_S = 0.2, 1.0


_AnyPlan = TypeVar("_AnyPlan", bound=ProgramPlan)


def run_supervised(
    module: str, read: Callable[[Path], _AnyPlan], work: Callable[[_AnyPlan], None]
) -> int:
    """Run the program ``python -m MODULE PLAN``; return its exit code."""
    arguments = sys.argv[1:]
    is_child = arguments[1:] == [_CHILD]
    if len(arguments) != 1 + is_child:
        print(f"usage: python -m {module} PLAN", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    try:
        plan = read(path)
        if is_child:
            log_to_stderr()
            work(plan)
        else:
            supervise(module, path, plan.logs)
    except NewshelfError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    return 0


def supervise(module: str, plan: Path, logs: LogSettings) -> None:
    """Keep a child running until SIGTERM or SIGINT."""
    ended = until_signalled()
    command = [sys.executable, "-P", "-m", module, str(plan), _CHILD]
    while not ended.is_set():
        child = subprocess.Popen(command)
        while child.poll() is None and not ended.wait(_LOOK_S):
            rotate_own(logs)
        if child.poll() is None:
            child.terminate()
            child.wait()
            return
        print(f"{module} ended with {child.returncode}", file=sys.stderr, flush=True)
        # A child that cannot start must not be restarted in a tight loop.
        ended.wait(_PAUSE_S)


def until_signalled() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    return ended


def log_to_stderr() -> None:
    """Log with times to standard error, without every request and migration."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    for verbose in ("httpx", "alembic"):
        logging.getLogger(verbose).setLevel(logging.WARNING)
