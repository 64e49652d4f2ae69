"""Supervision of a background process: ``python -m MODULE PLAN`` keeps ``… --child`` running.

Only the child loads the event store and what its work needs.
"""

import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path

from newshelf.config import LogSettings
from newshelf.server.process import rotate_own

CHILD = "--child"
_LOOK_S, _PAUSE_S = 0.2, 1.0


def supervise(module: str, plan: Path, logs: LogSettings) -> None:
    """Keep a child running until SIGTERM or SIGINT.

    Args:
        module: that the child runs.
        plan: the file that it reads.
        logs: limits of its log.
    """
    ended = until_signalled()
    command = [sys.executable, "-P", "-m", module, str(plan), CHILD]
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
