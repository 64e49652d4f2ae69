"""Runs a controller until it is told to end: ``python -m newshelf.rollout.run PLAN``."""

import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from newshelf.errors import NewshelfError, Unavailable
from newshelf.rollout.controller import Controller, Timing
from newshelf.rollout.versions import PromotedFile, TorchServeVersions
from newshelf.server.controller import ControllerPlan, read_controller_plan
from newshelf.store.store import EventStore

_LOG = logging.getLogger(__name__)
_POLL_S = 3.0
"""Gateways read the splits each second; one that is busy may take a little longer."""
_REST = 4.0
"""Times as long as a look takes, at least, before the next: a look sums up the whole rollout."""


def timing_of(plan: ControllerPlan) -> Timing:
    """How long things take, by the settings."""
    settings = plan.settings
    return Timing(
        lease_s=settings.lease_s,
        drain_s=plan.longest_request_s + _POLL_S,
        load_s=settings.load_s,
        covariates_s=settings.covariate_days * 24 * 3600,
        look_s=settings.look_s,
        failed_looks=settings.failed_looks,
    )


def run(plan: ControllerPlan) -> None:
    """Look, decide and act at every tick, until SIGTERM or SIGINT.

    Args:
        plan: settings and places.

    Raises:
        SettingsError: the event store cannot be opened.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with EventStore.open(plan.store_url) as store:
        controller = Controller(
            store,
            TorchServeVersions(plan.torchserve, plan.model_store, plan.question),
            PromotedFile(plan.promoted),
            timing_of(plan),
            holder=f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
            clock=lambda: datetime.now(UTC),
        )
        _LOG.info("looks every %g s", plan.settings.tick_s)
        pause_s = 0.0
        while not ended.wait(pause_s):
            took_s = _look(controller)
            pause_s = max(plan.settings.tick_s, _REST * took_s)
        _release(controller)


def _look(controller: Controller) -> float:
    """One look; returns its seconds. What fails is told, and tried again at the next."""
    started_s = time.monotonic()
    try:
        controller.tick_all()
    except Unavailable as error:
        _LOG.warning("waits: %s", error.message)
    return time.monotonic() - started_s


def _release(controller: Controller) -> None:
    try:
        controller.release()
    except Unavailable as error:
        _LOG.warning("the leases run out by themselves: %s", error.message)


def main(arguments: list[str]) -> int:
    """The program; returns its exit code."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    for loud in ("httpx", "alembic"):
        logging.getLogger(loud).setLevel(logging.WARNING)
    try:
        run(read_controller_plan(Path(arguments[0])))
    except NewshelfError as error:
        _LOG.error("%s", error.message)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
