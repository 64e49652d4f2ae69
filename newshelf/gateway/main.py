"""The gateway's program: ``python -m newshelf.gateway.main PLAN``.

It supervises as many processes as the settings say. They share one listening socket, whose number
is their second argument.
"""

import sys
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import uvicorn

from newshelf.config import GatewaySettings
from newshelf.errors import NewshelfError, ServerError
from newshelf.files import secret_key
from newshelf.gateway.connections import Connections, LimitedHttp
from newshelf.gateway.fallback import read_popular
from newshelf.gateway.keys import KeyFile
from newshelf.gateway.observability import make_spans, set_up_log
from newshelf.gateway.placements import Placements
from newshelf.gateway.record import spool_of
from newshelf.server.ports import Ports, listen
from newshelf.server.process import beat
from newshelf.server.program import (
    GatewayPlan,
    gateway_services,
    read_gateway_plan,
    until_signalled,
)
from newshelf.server.state import GATEWAY, ServerState, new_temp
from newshelf.server.supervisor import Supervisor
from newshelf.store.store import EventStore


def run(plan: GatewayPlan, path: Path) -> None:
    """Supervise the gateway's processes until SIGTERM or SIGINT."""
    check_plan(plan)
    ended, folder = until_signalled(), new_temp()
    with listen(plan.settings.host, plan.settings.port, GATEWAY) as listener:
        services = gateway_services(plan, path, listener, log=None, folder=folder)
        named = {one.name: one for one in services}
        alone = ServerState(folder, Ports(), folder, {}, "", services=named)
        Supervisor(alone, plan.logs).run(ended)


def serve(plan: GatewayPlan, listener: int) -> None:
    """Serve in this process, on a listening socket, until SIGTERM or SIGINT."""
    # The supervisor does without it.
    from newshelf.gateway.app import make_worker  # noqa: PLC0415

    async def notify() -> None:
        beat()

    config = uvicorn.Config(
        make_worker(plan),
        callback_notify=notify,
        timeout_notify=0,
        **uvicorn_options(plan.settings),
    )
    server = uvicorn.Server(config)
    server.run([socket(fileno=listener)])
    if not server.started:
        raise ServerError("the gateway could not start")


def uvicorn_options(settings: GatewaySettings) -> dict[str, Any]:
    """Return uvicorn's options for HTTP."""
    return {
        "loop": "uvloop",
        "http": partial(LimitedHttp, connections=Connections(settings)),
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": [str(one) for one in settings.trusted_proxies],
        "timeout_keep_alive": settings.keep_alive_s,
        "timeout_graceful_shutdown": max(1, settings.max_timeout_ms // 1000),
    }


def main(arguments: list[str]) -> int:
    """Run the program, and return its exit code."""
    try:
        path, *listener = arguments
        number = int(listener[0]) if listener else None
    except ValueError:
        print("usage: python -m newshelf.gateway.main PLAN", file=sys.stderr)
        return 2
    set_up_log()
    try:
        plan = read_gateway_plan(Path(path))
        run(plan, Path(path)) if number is None else serve(plan, number)
    except NewshelfError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    return 0


def check_plan(plan: GatewayPlan) -> None:
    """Raise a ``NewshelfError`` if the gateway could not start; migrate the store."""
    KeyFile(plan.api_keys).read()
    Placements(plan.placements, plan.limits.max_k)
    secret_key(plan.cursor_key)
    if plan.pseudonym_key is not None:
        secret_key(plan.pseudonym_key)
    read_popular(plan.popular)
    make_spans(plan.settings.traces).close()
    EventStore.open(plan.store_url).close()
    spool = spool_of(plan)
    if spool is not None:
        spool.check()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
