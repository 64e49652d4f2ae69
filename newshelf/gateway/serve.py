"""Runs the gateway: ``python -m newshelf.gateway.serve PLAN``.

One supervisor and as many processes as the settings say. They share one listening
socket, so that what waits to be accepted outlives a process that is killed; the supervisor
starts another in its place.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from newshelf.config import GatewaySettings
from newshelf.errors import NewshelfError
from newshelf.gateway.connections import Connections, LimitedHttp
from newshelf.gateway.keys import KeyFile
from newshelf.gateway.log import set_up_log
from newshelf.gateway.popular import read_popular
from newshelf.gateway.record import spool_of
from newshelf.gateway.supervisor import Supervisor
from newshelf.gateway.tracing import make_spans
from newshelf.rollout.store import EventStore
from newshelf.server.gateway_plan import GatewayPlan, read_plan
from newshelf.server.logs import rotate_own

__all__ = ["main", "run", "uvicorn_options"]

_METRICS = "PROMETHEUS_MULTIPROC_DIR"
_BACKLOG = 1024


def run(plan: GatewayPlan, worker: Callable[[GatewayPlan], object] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP replaces the processes one by one.

    Args:
        plan: settings and places.
        worker: makes the ASGI application in each process, and can be pickled; None makes
            the gateway's.
    """
    settings = plan.settings
    set_up_log()
    with tempfile.TemporaryDirectory(prefix="newshelf-metrics-") as folder:
        # Read by prometheus-client when the processes import it.
        os.environ[_METRICS] = folder
        config = uvicorn.Config(
            partial(worker or _worker, plan),
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.processes,
            **uvicorn_options(settings),
        )
        rotate = partial(rotate_own, plan.logs)
        Supervisor(config, [config.bind_socket()], settings, rotate).run()


def uvicorn_options(settings: GatewaySettings) -> dict[str, Any]:
    """How uvicorn serves HTTP, wherever it listens."""
    return {
        "loop": "uvloop",
        "http": partial(LimitedHttp, connections=Connections(settings)),
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "proxy_headers": False,
        "backlog": _BACKLOG,
        "timeout_keep_alive": settings.keep_alive_s,
        "timeout_graceful_shutdown": max(1, settings.max_timeout_ms // 1000),
    }


def main(arguments: list[str]) -> int:
    """The program; returns its exit code."""
    if len(arguments) != 1:
        print("usage: python -m newshelf.gateway.serve PLAN", file=sys.stderr)
        return 2
    try:
        plan = read_plan(Path(arguments[0]))
        # Once, here, with a message: a process could only die of it.
        _check(plan)
    except NewshelfError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    run(plan)
    return 0


def _worker(plan: GatewayPlan) -> object:
    # Metrics look for their folder when they are imported.
    from newshelf.gateway.worker import make_worker  # noqa: PLC0415

    set_up_log()
    return make_worker(plan)


def _check(plan: GatewayPlan) -> None:
    KeyFile(plan.api_keys).read()
    read_popular(plan.popular)
    make_spans(plan.settings.traces).close()
    EventStore.open(plan.store_url).close()
    spool = spool_of(plan)
    if spool is not None:
        spool.check()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
