"""uvicorn's supervisor, with patience for slow machines, and a log of what it does."""

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from socket import socket

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from newshelf.config import GatewaySettings

__all__ = ["Supervisor"]

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 30.0


@dataclass
class _Life:
    """What is known of one process; times are of ``time.monotonic``."""

    started_s: float = field(default_factory=time.monotonic)
    heard_s: float = field(default_factory=time.monotonic)
    asked: bool = False
    serves: bool = False
    ended: bool = False


class Supervisor(Multiprocess):
    """Replaces processes that end, are silent for too long, or do not come up.

    uvicorn's own waits five seconds for an answer and then kills, also a process that still
    imports; this one waits for none while it looks after the others.

    Args:
        config: of uvicorn.
        sockets: on which the processes listen.
        settings: how long they may take.
        each: called about twice a second.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        sockets: list[socket],
        settings: GatewaySettings,
        each: Callable[[], None],
    ) -> None:
        # Of a process that SIGHUP has started.
        config.timeout_worker_healthcheck = int(settings.worker_start_s)
        super().__init__(config, sockets)
        self._settings = settings
        self._each = each
        self._lives: dict[Process, _Life] = {}
        self._pause_s = 0.0
        self._served = False
        """Whether any process ever did."""

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
            self._look(process, life)
            if not life.ended or time.monotonic() - life.heard_s < self._pause_s:
                continue
            # One that cannot start would otherwise be started without end.
            self._pause_s = min(max(1.0, 2 * self._pause_s), _LONGEST_PAUSE_S)
            self.processes[index] = Process(self.config, self.sockets)
            self.processes[index].start()

    def _look(self, process: Process, life: _Life) -> None:
        if life.ended:
            return
        now_s = time.monotonic()
        reason: str | None = None
        if process.process.is_alive():
            self._hear(process, life, now_s)
            if life.serves and now_s - life.heard_s > self._settings.worker_silence_s:
                reason = f"it gave no sign of life for {now_s - life.heard_s:.0f} s"
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
        """Read what has been answered, and ask again; never wait."""
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
            # It ends just now: the next look finds it so.
            return


def _exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
