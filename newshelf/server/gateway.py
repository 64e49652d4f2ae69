"""The gateway as a process: its start, and whether it answers."""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from newshelf.errors import ServerError
from newshelf.server.gateway_plan import GatewayPlan, write_plan
from newshelf.server.logs import ends_of
from newshelf.server.ports import require_port
from newshelf.server.process import ProcessRef, is_running, start_session
from newshelf.server.progress import OnWait, Progress

__all__ = ["GatewayState", "start_gateway", "wait_for_gateway"]

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
        [sys.executable, "-P", "-m", "newshelf.gateway.serve", path],
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
    progress = Progress(state.process, "the gateway", timeout_s, on_wait)
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
