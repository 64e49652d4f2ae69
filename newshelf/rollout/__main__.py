"""The controller's process: ``python -m newshelf.rollout PLAN``."""

import logging
import os
import sys
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event, Thread

from newshelf.errors import Unavailable
from newshelf.rollout.controller import Controller
from newshelf.rollout.versions import PromotedFile, TorchServeVersions
from newshelf.server.program import ControllerPlan, rest, run_program, until_signalled
from newshelf.server.webhooks import Webhooks
from newshelf.store.store import EventStore

_LOG = logging.getLogger(__name__)
_POLL_S = 3.0
"""Gateways read the splits each second; a busy one may take a little longer."""
_REST = 4.0
"""Least pause between two looks, as a multiple of a look: a look sums up the whole rollout."""


def run_controller(plan: ControllerPlan) -> None:
    """Run a controller until SIGTERM or SIGINT; ``SettingsError`` without an event store."""
    ended = until_signalled()
    with EventStore.open(plan.store_url) as store:
        controller = Controller(
            store,
            TorchServeVersions(plan.torchserve, plan.model_store, plan.question),
            PromotedFile(plan.promoted),
            plan.settings,
            Webhooks(plan.webhooks),
            drain_s=plan.longest_request_s + _POLL_S,
            host=plan.host,
            holder=f"{plan.host}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
            clock=lambda: datetime.now(UTC),
        )
        Thread(target=_stay_registered, args=(controller, ended), daemon=True).start()
        _LOG.info("looks every %g s", plan.settings.tick_s)
        pause_s = 0.0
        while not rest(ended, pause_s):
            started_s = time.monotonic()
            try:
                controller.tick_all()
            except Unavailable as error:
                _LOG.warning("the next look tries again: %s", error.message)
            pause_s = max(plan.settings.tick_s, _REST * (time.monotonic() - started_s))
        try:
            controller.release()
        except Unavailable as error:
            _LOG.warning("the leases will expire: %s", error.message)


def _stay_registered(controller: Controller, ended: Event) -> None:
    """Prolong the host's lease while a look takes long: its model server still serves."""
    pause_s = 0.0
    while not ended.wait(pause_s):
        with suppress(Unavailable):
            controller.register()
        pause_s = controller.settings.lease_s / 4


if __name__ == "__main__":
    sys.exit(run_program(ControllerPlan, run_controller))
