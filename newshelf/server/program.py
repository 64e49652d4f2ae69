"""Programs of Newshelf, ``python -m MODULE PLAN``: plans, entry point, signals, heartbeats, log."""

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypeVar

import httpx
from pydantic import Field

from newshelf.config import (
    EventWeights,
    GatewaySettings,
    Limits,
    RobotSettings,
    RolloutSettings,
    ShelfSettings,
    WebhookSettings,
)
from newshelf.errors import NewshelfError, SettingsError
from newshelf.files import read_model
from newshelf.server.process import ProgramPlan, Service, beat, program, wait_for
from newshelf.server.state import GATEWAY, ServerState

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that prometheus-client reads."""
_ANSWER_S = 5.0
_BEAT_S = 0.5
_AnyPlan = TypeVar("_AnyPlan", bound=ProgramPlan)


class GatewayPlan(ProgramPlan):
    """Settings of one gateway, and the files and addresses that it uses."""

    settings: GatewaySettings
    limits: Limits = Limits()
    """Limits of one request, as in the archives."""
    inference_url: Annotated[str, Field(pattern=r"^http://[^/]+$")]
    management_url: Annotated[str, Field(pattern=r"^http://[^/]+$")] | None = None
    """Of TorchServe, to renew the token; None does not renew it."""
    torchserve_keys: Path | None = None
    """TorchServe's key file; None if TorchServe asks for no token."""
    api_keys: Path
    """File of the gateway's own keys."""
    placements: Path | None = None
    """See ``newshelf.gateway.placements``; None for no placements."""
    words: Path | None = None
    """Index of the products' words (``newshelf.shelf.words``); None searches by embedding only."""
    drift: Path | None = None
    """Last report on drift, for the metrics; it need not exist."""
    rules: Path | None = None
    """File of the shop's rules, as the shelf reads it, to be shown."""
    retrain: Path | None = None
    """Folder of the records of retrainings, to be shown."""
    controller: str | None = None
    """Name under which a controller registers this host, empty for the host name; None if there is
    no controller."""
    popular: Path
    """Most popular items; see ``newshelf.gateway.fallback``."""
    store_url: str
    pseudonym_key: Path | None = None
    """File of the key of units' pseudonyms; None stores their ids."""
    known_shopper: tuple[str, ...] = ()
    """History of a shopper of the catalogue, whose view the shop window offers."""
    spool: Path | None = None
    """Buffers records while the event store is unavailable; None disables it."""
    spool_max_bytes: int = 256 * 2**20

    @property
    def url(self) -> str:
        """Its address."""
        host = self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.settings.port}"

    @property
    def cursor_key(self) -> Path:
        """File of the key that signs cursors."""
        return self.api_keys.with_name("cursor.key")


def read_gateway_plan(path: Path) -> GatewayPlan:
    """Read a plan."""
    return read_model(path, GatewayPlan, "plan of a gateway")


class ControllerPlan(ProgramPlan):
    """Settings of a controller, and the files and folders that it uses."""

    settings: RolloutSettings
    store_url: str
    torchserve: Path
    model_store: Path
    promoted: Path
    """File of the promoted version; see ``newshelf.rollout.versions``."""
    question: dict[str, object]
    """A request that every version of the recommender must answer with products."""
    longest_request_s: float
    """Seconds after which no gateway awaits an answer any more."""
    webhooks: WebhookSettings = WebhookSettings()
    host: str = Field(default_factory=socket.gethostname)
    """Name of this host, different from those of the store's other controllers."""


def read_controller_plan(path: Path) -> ControllerPlan:
    """Read a plan."""
    if not path.exists():
        raise SettingsError(
            f"there are no rollouts here: {path} is missing. ./run serve starts the gateway and "
            "the controller; --catalog or --workspace selects a server"
        )
    return read_model(path, ControllerPlan, "plan of a controller")


class ShelfPlan(ProgramPlan):
    """Settings of a shelf process, and the files and folders that it uses."""

    settings: ShelfSettings = ShelfSettings()
    event_weights: EventWeights = EventWeights()
    robots: RobotSettings = RobotSettings()
    store_url: str
    torchserve: Path
    model_store: Path
    folder: Path
    """Of all versions' shelves; TorchServe's workers read it."""
    rules: Path | None = None
    """File of merchandising rules, which need not exist."""
    max_picture_bytes: int = 5_000_000


def gateway_services(
    plan: GatewayPlan, plan_file: Path, listener: socket.socket, *, log: Path | None, folder: Path
) -> list[Service]:
    """Return the gateway's processes, which share a listening socket.

    Connections that wait to be accepted survive a killed process. ``folder`` gets the heartbeats,
    and the metrics that the processes share.
    """
    number = listener.fileno()
    return [
        program(
            name,
            "newshelf.gateway.main",
            plan_file,
            str(number),
            log=log,
            heartbeat=folder / name,
            start_s=plan.settings.worker_start_s,
            silence_s=plan.settings.worker_silence_s,
            env={MULTIPROCESS_FOLDER: str(folder)},
            sockets=(number,),
        )
        for name in (f"{GATEWAY}-{one}" for one in range(1, plan.settings.processes + 1))
    ]


def wait_for_gateway(state: ServerState, log: Path, *, timeout_s: float = 180.0) -> None:
    """Wait until the gateway and the models answer, or raise ``ServerError`` with its log."""
    url = f"{state.gateway.url}/readyz?strict" if state.gateway else ""

    def answers() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(url, timeout=_ANSWER_S, trust_env=False).is_success
        return False

    wait_for(answers, state.processes[f"{GATEWAY}-1"], "the gateway", timeout_s, log)


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
    beat()
    while (left_s := until_s - time.monotonic()) > _BEAT_S:
        if ended.wait(_BEAT_S):
            return True
        beat()
    return ended.wait(max(0.0, left_s))


def log_to_stderr() -> None:
    """Log with times to standard error, without every request and migration."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    for verbose in ("httpx", "alembic"):
        logging.getLogger(verbose).setLevel(logging.WARNING)
