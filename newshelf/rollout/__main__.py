"""The controller as a program: ``python -m newshelf.rollout PLAN``.

This process only watches: it starts a controller, and another one when that is killed.
"""

import signal
import subprocess
import sys
import threading
from pathlib import Path

from newshelf.config import LogSettings
from newshelf.errors import NewshelfError
from newshelf.server.controller import read_controller_plan
from newshelf.server.process import rotate_own

_LOOK_S, _PAUSE_S = 0.2, 1.0


def watch(plan: Path, logs: LogSettings) -> None:
    """Keep a controller running until SIGTERM or SIGINT.

    Args:
        plan: a file of ``newshelf.server.controller``.
        logs: how large its log gets.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    while not ended.is_set():
        child = subprocess.Popen([sys.executable, "-P", "-m", "newshelf.rollout.run", str(plan)])
        while child.poll() is None and not ended.wait(_LOOK_S):
            rotate_own(logs)
        if child.poll() is None:
            child.terminate()
            child.wait()
            return
        print(f"the controller ended with {child.returncode}", file=sys.stderr, flush=True)
        # One that cannot start would be started without end.
        ended.wait(_PAUSE_S)


def main(arguments: list[str]) -> int:
    """Run it; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m newshelf.rollout PLAN", file=sys.stderr)
        return 2
    try:
        plan = read_controller_plan(Path(arguments[0]))
    except NewshelfError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    watch(Path(arguments[0]), plan.logs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
