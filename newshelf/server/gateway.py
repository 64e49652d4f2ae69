"""The gateway as a process: its start, and whether it answers.

What one gateway is started with: written by who starts it, read by each of its processes.
"""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
from pydantic import BaseModel, ConfigDict, Field

from newshelf.config import GatewaySettings, Limits, LogSettings
from newshelf.errors import ServerError
from newshelf.files import read_model, write_private
from newshelf.server.ports import require_port
from newshelf.server.process import (
    OnWait,
    ProcessRef,
    StartupProgress,
    ends_of,
    is_running,
    start_session,
)


class GatewayPlan(BaseModel):
    """Settings, and where everything is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: GatewaySettings
    logs: LogSettings = LogSettings()
    limits: Limits = Limits()
    """Of one request, as the archives have them."""
    inference_url: Annotated[str, Field(pattern=r"^http://[^/]+$")]
    """TorchServe's."""
    management_url: Annotated[str, Field(pattern=r"^http://[^/]+$")] | None = None
    """To renew the token; None does not renew it."""
    torchserve_keys: Path | None = None
    """TorchServe's key file; None where it asks for no token."""
    api_keys: Path
    """The file of the gateway's own keys."""
    popular: Path
    """See ``newshelf.gateway.fallback``."""
    store_url: str
    """Of the event store."""
    spool: Path | None = None
    """The file that keeps what the event store cannot take; None does without."""
    spool_max_bytes: int = 256 * 2**20


def write_plan(path: Path, plan: GatewayPlan) -> None:
    """Write it; its owner alone can read it, since the store's URL may hold a password."""
    write_private(path, plan.model_dump_json(indent=2) + "\n")


def read_plan(path: Path) -> GatewayPlan:
    """Read what ``write_plan`` wrote, or what somebody wrote by hand.

    Raises:
        SettingsError: it cannot be read, or is no plan.
    """
    return read_model(path, GatewayPlan, "plan of a gateway")


_PLAN, _LOG = "gateway.json", "gateway.log"
_PAUSE_S = 0.5


@dataclass(frozen=True)
class GatewayState:
    """One started gateway: its supervisor, which ends its processes."""

    process: ProcessRef
    url: str
    log: str
    """The file of its output."""


def start_gateway(plan: GatewayPlan, *, root: Path, directory: Path) -> GatewayState:
    """Start the gateway's processes; they do not answer yet.

    Args:
        plan: settings and places; kept in ``directory``.
        root: the repository.
        directory: the server's.

    Raises:
        ServerError: the port is taken.
    """
    settings = plan.settings
    require_port(settings.host, settings.port, "gateway")
    path, log = directory / _PLAN, directory / _LOG
    write_plan(path, plan)
    process = start_session(
        [sys.executable, "-P", "-m", "newshelf.gateway.main", path],
        cwd=directory,
        env=_environment(os.environ, root),
        log=log,
        kept=plan.logs.kept,
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return GatewayState(process, f"http://{host}:{settings.port}", str(log))


def wait_for_gateway(
    state: GatewayState, *, timeout_s: float = 180.0, on_wait: OnWait = lambda _text: None
) -> None:
    """Wait until it answers, and the models behind it do.

    Args:
        state: the gateway.
        timeout_s: how long it may make no progress.
        on_wait: told now and then that it still waits.

    Raises:
        ServerError: it ended, or makes no progress; with the end of its log.
    """
    progress = StartupProgress(state.process, "the gateway", timeout_s, on_wait)
    said = "nothing"
    with httpx.Client(base_url=state.url, timeout=10.0, trust_env=False) as http:
        while is_running(state.process):
            try:
                response = http.get("/readyz?strict")
            except httpx.TransportError as error:
                said = repr(error)
            else:
                if response.status_code == httpx.codes.OK:
                    return
                said = response.text
            if progress.failed():
                raise ServerError(
                    f"the gateway is not ready and says: {said}\n{ends_of(Path(state.log))}"
                )
            time.sleep(_PAUSE_S)
    raise ServerError(f"the gateway ended while it started\n{ends_of(Path(state.log))}")


def _environment(environ: Mapping[str, str], root: Path) -> dict[str, str]:
    return {**environ, "PYTHONPATH": str(root)}
