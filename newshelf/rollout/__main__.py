"""The controller's process: ``python -m newshelf.rollout PLAN``.

It supervises a child process, ``--child``, which runs the controller, and replaces a child that
ends. Only the child loads the event store and the statistics.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from newshelf.config import LogSettings
from newshelf.errors import NewshelfError, Unavailable
from newshelf.server.controller import ControllerPlan, read_controller_plan
from newshelf.server.process import rotate_own

if TYPE_CHECKING:
    from newshelf.rollout.controller import Controller

_LOG = logging.getLogger(__name__)
_CHILD = "--child"
_LOOK_S, _PAUSE_S = 0.2, 1.0
_POLL_S = 3.0
"""Gateways read the splits each second; a busy one may take a little longer."""
_REST = 4.0
"""Least pause between two looks, as a multiple of a look: a look sums up the whole rollout."""


def supervise(plan: Path, logs: LogSettings) -> None:
    """Keep a controller running until SIGTERM or SIGINT.

    Args:
        plan: a file of ``newshelf.server.controller``.
        logs: limits of the controller's log.
    """
    ended = _until_signalled()
    command = [sys.executable, "-P", "-m", "newshelf.rollout", str(plan), _CHILD]
    while not ended.is_set():
        child = subprocess.Popen(command)
        while child.poll() is None and not ended.wait(_LOOK_S):
            rotate_own(logs)
        if child.poll() is None:
            child.terminate()
            child.wait()
            return
        print(f"the controller ended with {child.returncode}", file=sys.stderr, flush=True)
        # A child that cannot start must not be restarted in a tight loop.
        ended.wait(_PAUSE_S)


def run_controller(plan: ControllerPlan) -> None:
    """Run a controller until SIGTERM or SIGINT.

    Args:
        plan: settings and paths.

    Raises:
        SettingsError: the event store cannot be opened.
    """
    # The supervisor does without them.
    from newshelf.rollout.controller import Controller, Timing  # noqa: PLC0415
    from newshelf.rollout.versions import PromotedFile, TorchServeVersions  # noqa: PLC0415
    from newshelf.store.store import EventStore  # noqa: PLC0415

    ended = _until_signalled()
    settings = plan.settings
    timing = Timing(
        lease_s=settings.lease_s,
        drain_s=plan.longest_request_s + _POLL_S,
        load_s=settings.load_s,
        covariates_s=settings.covariate_days * 24 * 3600,
        look_s=settings.look_s,
        failed_looks=settings.failed_looks,
    )
    with EventStore.open(plan.store_url) as store:
        controller = Controller(
            store,
            TorchServeVersions(plan.torchserve, plan.model_store, plan.question),
            PromotedFile(plan.promoted),
            timing,
            holder=f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
            clock=lambda: datetime.now(UTC),
        )
        _LOG.info("looks every %g s", settings.tick_s)
        pause_s = 0.0
        while not ended.wait(pause_s):
            pause_s = max(settings.tick_s, _REST * _look(controller))
        try:
            controller.release()
        except Unavailable as error:
            _LOG.warning("the leases will expire: %s", error.message)


def main(arguments: list[str]) -> int:
    """Run the program; return its exit code."""
    is_child = arguments[1:] == [_CHILD]
    if len(arguments) != 1 + is_child:
        print("usage: python -m newshelf.rollout PLAN", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    try:
        plan = read_controller_plan(path)
        if is_child:
            _set_up_logging()
            run_controller(plan)
        else:
            supervise(path, plan.logs)
    except NewshelfError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    return 0


def _until_signalled() -> threading.Event:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    return ended


def _look(controller: "Controller") -> float:
    """Look at all rollouts and return the seconds it took; the next look retries after errors."""
    started_s = time.monotonic()
    try:
        controller.tick_all()
    except Unavailable as error:
        _LOG.warning("the next look tries again: %s", error.message)
    return time.monotonic() - started_s


def _set_up_logging() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    for verbose in ("httpx", "alembic"):
        logging.getLogger(verbose).setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
