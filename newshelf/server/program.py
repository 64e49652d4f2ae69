"""Programs of Newshelf, ``python -m MODULE PLAN``: entry point, signals, heartbeats, log."""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from newshelf.errors import NewshelfError
from newshelf.files import read_model
from newshelf.server.process import ProgramPlan, beat

_BEAT_S = 0.5
_AnyPlan = TypeVar("_AnyPlan", bound=ProgramPlan)


def run_program(kind: type[_AnyPlan], work: Callable[[_AnyPlan], None]) -> int:
    """Run the program ``python -m MODULE PLAN``; return its exit code."""
    log_to_stderr()
    try:
        work(read_model(Path(sys.argv[1]), kind, "plan of this program"))
    except NewshelfError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    return 0


def until_signalled() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    return ended


def rest(ended: threading.Event, seconds: float) -> bool:
    """Wait like ``ended.wait(seconds)``, with heartbeats."""
    until_s = time.monotonic() + seconds
    while True:
        beat()
        left_s = until_s - time.monotonic()
        if left_s <= _BEAT_S:
            return ended.wait(max(0.0, left_s))
        if ended.wait(_BEAT_S):
            return True


def log_to_stderr() -> None:
    """Log with times to standard error, without every request and migration."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    for verbose in ("httpx", "alembic"):
        logging.getLogger(verbose).setLevel(logging.WARNING)
