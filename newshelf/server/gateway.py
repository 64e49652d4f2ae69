"""The gateway's processes: the plan file that they read, their start, and their readiness."""

from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import Annotated

import httpx
from pydantic import Field

from newshelf.config import GatewaySettings, Limits
from newshelf.files import read_model
from newshelf.server.process import (
    ProgramPlan,
    Service,
    program,
    wait_for,
)
from newshelf.server.state import GATEWAY, ServerState

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that prometheus-client reads."""
_ANSWER_S = 5.0


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


def read_plan(path: Path) -> GatewayPlan:
    """Read a plan."""
    return read_model(path, GatewayPlan, "plan of a gateway")


def gateway_services(
    plan: GatewayPlan, plan_file: Path, listener: socket, *, log: Path | None, folder: Path
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
