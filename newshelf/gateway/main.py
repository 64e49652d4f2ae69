"""The gateway's program: ``python -m newshelf.gateway.main PLAN``.

A supervisor and as many processes as the settings say. They share one listening socket, so
connections that wait to be accepted survive a killed process; the supervisor replaces it.
"""

import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from newshelf.config import GatewaySettings
from newshelf.errors import NewshelfError
from newshelf.files import secret_key
from newshelf.gateway.connections import Connections, LimitedHttp
from newshelf.gateway.fallback import read_popular
from newshelf.gateway.keys import KeyFile
from newshelf.gateway.observability import MULTIPROCESS_FOLDER, make_spans, set_up_log
from newshelf.gateway.placements import Placements
from newshelf.gateway.record import spool_of
from newshelf.server.gateway import GatewayPlan, read_plan
from newshelf.server.process import rotate_own
from newshelf.store.store import EventStore

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 30.0


@dataclass
class _Life:
    started_s: float = field(default_factory=time.monotonic)
    heard_s: float = field(default_factory=time.monotonic)
    asked: bool = False
    serves: bool = False
    ended: bool = False


class Supervisor(Multiprocess):
    """Replaces processes that end, send no heartbeat, or do not start in time.

    uvicorn's own waits five seconds for an answer and then kills the process, also one that is
    still importing; this one never waits for one process while it supervises the others. It calls
    ``each`` about twice a second.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        sockets: list[socket],
        settings: GatewaySettings,
        each: Callable[[], None],
    ) -> None:
        # Applies to processes that SIGHUP starts.
        config.timeout_worker_healthcheck = int(settings.worker_start_s)
        super().__init__(config, sockets)
        self._settings = settings
        self._each = each
        self._lives: dict[Process, _Life] = {}
        self._pause_s = 0.0
        self._served = False

    def keep_subprocess_alive(self) -> None:
        """See ``Multiprocess.run``, which calls it about twice a second."""
        self._each()
        lives, self._lives = self._lives, {}
        for index, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            life = lives.get(process) or _Life()
            self._lives[process] = life
            if process not in lives:
                _LOG.info("process %s starts", process.pid)
            self._check(process, life)
            if not life.ended or time.monotonic() - life.heard_s < self._pause_s:
                continue
            # Increasing pauses, for a process that cannot start.
            self._pause_s = min(max(1.0, 2 * self._pause_s), _LONGEST_PAUSE_S)
            self.processes[index] = Process(self.config, self.sockets)
            self.processes[index].start()

    def _check(self, process: Process, life: _Life) -> None:
        if life.ended:
            return
        now_s = time.monotonic()
        reason: str | None = None
        if process.process.is_alive():
            self._hear(process, life, now_s)
            if life.serves and now_s - life.heard_s > self._settings.worker_silence_s:
                reason = f"no heartbeat for {now_s - life.heard_s:.0f} s"
            elif not life.serves and now_s - life.started_s > self._settings.worker_start_s:
                reason = f"it did not serve within {now_s - life.started_s:.0f} s"
            if reason is None:
                return
            _LOG.error("process %s is killed: %s", process.pid, reason)
        process.kill()
        process.join()
        life.ended, life.heard_s = True, now_s
        _LOG.error("process %s ended with %s", process.pid, _exit(process.exitcode))
        if process.exitcode == STARTUP_FAILURE and not self._served:
            _LOG.error("no process can start: the gateway ends")
            self.should_exit.set()

    def _hear(self, process: Process, life: _Life, now_s: float) -> None:
        """Read answers to pings, and send the next one; never wait."""
        connection = process.parent_conn
        try:
            while connection.poll(0):
                started = bool(connection.recv())
                life.heard_s, life.asked = now_s, False
                if started and not life.serves:
                    life.serves = self._served = True
                    self._pause_s = 0.0
                    spent_s = now_s - life.started_s
                    _LOG.info("process %s serves after %.1f s", process.pid, spent_s)
            if not life.asked:
                connection.send(b"ping")
                life.asked = True
        except (OSError, EOFError):
            # It is ending; the next check notices.
            return


def _exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


_BACKLOG = 1024


def run(plan: GatewayPlan, worker: Callable[[GatewayPlan], object] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP replaces the processes one by one."""
    settings = plan.settings
    set_up_log()
    with tempfile.TemporaryDirectory(prefix="newshelf-metrics-") as folder:
        # prometheus-client reads it on import.
        os.environ[MULTIPROCESS_FOLDER] = folder
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
    """Return uvicorn's options for HTTP."""
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
    """Run the program, and return its exit code."""
    if len(arguments) != 1:
        print("usage: python -m newshelf.gateway.main PLAN", file=sys.stderr)
        return 2
    try:
        plan = read_plan(Path(arguments[0]))
        # Here, with a message: a process could only end.
        _check(plan)
    except NewshelfError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    run(plan)
    return 0


def _worker(plan: GatewayPlan) -> object:
    # prometheus-client looks for its folder on import.
    from newshelf.gateway.app import make_worker  # noqa: PLC0415

    set_up_log()
    return make_worker(plan)


def _check(plan: GatewayPlan) -> None:
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
