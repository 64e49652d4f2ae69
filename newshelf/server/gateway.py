"""The gateway's process: the plan file that it reads, its start, and its readiness."""

import time
from pathlib import Path
from typing import Annotated

import httpx
from pydantic import Field

from newshelf.config import GatewaySettings, Limits
from newshelf.errors import ServerError
from newshelf.files import read_model
from newshelf.server.ports import require_port
from newshelf.server.process import (
    OnWait,
    ProgramPlan,
    StartupProgress,
    is_running,
    last_lines,
    start_program,
)
from newshelf.server.state import GatewayState

_PLAN, _LOG = "gateway.json", "gateway.log"
_PAUSE_S = 0.5


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
    spool: Path | None = None
    """Buffers records while the event store is unavailable; None disables it."""
    spool_max_bytes: int = 256 * 2**20

    @property
    def cursor_key(self) -> Path:
        """File of the key that signs cursors."""
        return self.api_keys.with_name("cursor.key")


def read_plan(path: Path) -> GatewayPlan:
    """Read a plan."""
    return read_model(path, GatewayPlan, "plan of a gateway")


def start_gateway(plan: GatewayPlan, *, root: Path, directory: Path) -> GatewayState:
    """Start the gateway's processes, without waiting until they answer."""
    settings = plan.settings
    require_port(settings.host, settings.port, "gateway")
    path, log = directory / _PLAN, directory / _LOG
    process = start_program("newshelf.gateway.main", plan, path, root=root, log=log)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return GatewayState(process, f"http://{host}:{settings.port}", str(log))


def wait_for_gateway(
    state: GatewayState, *, timeout_s: float = 180.0, on_wait: OnWait = lambda _text: None
) -> None:
    """Wait until the gateway and the models answer, or raise ``ServerError`` with its log."""
    progress = StartupProgress(state.process, "the gateway", timeout_s, on_wait)
    last_answer = "nothing"
    with httpx.Client(base_url=state.url, timeout=10.0, trust_env=False) as http:
        while is_running(state.process):
            try:
                response = http.get("/readyz?strict")
            except httpx.TransportError as error:
                last_answer = repr(error)
            else:
                if response.status_code == httpx.codes.OK:
                    return
                last_answer = response.text
            if progress.failed():
                raise ServerError(
                    f"the gateway is not ready and answers: {last_answer}\n"
                    + last_lines(Path(state.log))
                )
            time.sleep(_PAUSE_S)
    raise ServerError(f"the gateway ended while it started\n{last_lines(Path(state.log))}")
