"""The supervisor of a server: ``python -m newshelf.server.supervisor PLAN``.

It replaces processes that end or give no sign of life: an answer to HTTP, whatever its status, or a
file that the process touches from the loop that does its work (``beat``).
"""

import logging
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

import httpx

from newshelf.config import LogSettings
from newshelf.errors import NewshelfError
from newshelf.server.client import Client
from newshelf.server.process import (
    HEARTBEAT,
    MARK,
    ProcessRef,
    ProgramPlan,
    Service,
    beat,
    exit_reason,
    is_running,
    rotate_large,
    started_s,
    stop_session,
)
from newshelf.server.program import run_program, until_signalled
from newshelf.server.state import STANDBY, SUPERVISOR, TORCHSERVE, ServerState, read_state
from newshelf.server.torchserve import SpareWorkers

_LOG = logging.getLogger(__name__)
_LOOK_S, _ANSWER_S, _WORKERS_S = 0.2, 1.0, 3.0
_STEADY_S, _LONGEST_PAUSE_S = 30.0, 30.0


@dataclass
class _Life:
    """The present process of a service."""

    began_s: float = field(default_factory=time.monotonic)
    heard_s: float = field(default_factory=time.monotonic)
    ready: bool = False
    stamp: int = 0
    failures: int = 0
    pause_s: float = 0.0


class Supervisor:
    """Keeps the services of a server running, also those that another supervisor started."""

    def __init__(self, state: ServerState, logs: LogSettings) -> None:
        self.state = state
        self._logs = logs
        self._lives = {n: _Life(ready=s.heartbeat.exists()) for n, s in state.services.items()}
        self._spares, self._workers_due_s = SpareWorkers(), 0.0

    def run(self, ended: Event) -> None:
        """Supervise until ``ended``, then drain the server."""
        looked_s = time.monotonic()
        while not ended.wait(_LOOK_S):
            # What a paused machine stopped together with this process was not silent.
            paused_s = time.monotonic() - looked_s - _LOOK_S
            for life in self._lives.values():
                life.heard_s += paused_s
            beat()
            self.look()
            looked_s = time.monotonic()
        self.state.drain()

    def look(self) -> None:
        """Start what is to be started, and end what has failed."""
        for name, service in self.state.services.items():
            if name == SUPERVISOR:
                continue
            life, ref = self._lives[name], self.state.processes.get(name)
            try:
                if ref is not None:
                    self._check(service, life, ref)
                elif time.monotonic() >= life.began_s + life.pause_s:
                    self.state = self.state.start(service)
                    life.began_s = life.heard_s = time.monotonic()
                    _LOG.info("%s starts: process %d", name, self.state.processes[name].pid)
            except (NewshelfError, OSError) as error:
                self._fail(name, life, f"could not be started: {error}")
        for log in {one.log for one in self.state.services.values() if one.log is not None}:
            rotate_large(log, self._logs)

    def _look_at_workers(self) -> None:
        self._workers_due_s = time.monotonic() + _WORKERS_S
        # TorchServe may end, hang or answer nonsense at any moment: its own check finds out.
        wrong = NewshelfError, httpx.HTTPError, LookupError, TypeError, ValueError
        with suppress(*wrong), Client(self.state, timeout_s=_ANSWER_S) as one:
            for model in self.state.models:
                self._spares.look(one, model)

    def _check(self, service: Service, life: _Life, ref: ProcessRef) -> None:
        now_s = time.monotonic()
        if not is_running(ref):
            reason = exit_reason(ref)
        elif _lives(service, life):
            if not life.ready:
                _LOG.info("%s answers after %.1f s", service.name, now_s - life.began_s)
            life.heard_s, life.ready = now_s, True
            if service.name == TORCHSERVE and now_s > self._workers_due_s:
                self._look_at_workers()
            return
        else:
            silent_s = now_s - life.heard_s
            if silent_s <= (service.silence_s if life.ready else service.start_s):
                return
            reason = f"gave no sign of life for {silent_s:.0f} s"
        # What it has started must not get in its successor's way.
        stop_session(ref, grace_s=0, orphans_s=0)
        self._fail(service.name, life, reason)

    def _fail(self, name: str, life: _Life, reason: str) -> None:
        now_s = time.monotonic()
        steady = life.ready and now_s - life.began_s > _STEADY_S
        life.failures = 1 if steady else life.failures + 1
        # None after the first failure, then 1, 2, 4 … seconds.
        life.pause_s = min(2 ** min(life.failures, 9) // 4, _LONGEST_PAUSE_S)
        life.began_s, life.ready, life.stamp = now_s, False, 0
        if name == TORCHSERVE:
            self._spares = SpareWorkers()
        _LOG.error("%s %s; starts again after %.0f s", name, reason, life.pause_s)
        self.state = self.state.without(name, reason)


def _lives(service: Service, life: _Life) -> bool:
    """Return whether there was a sign of life since the last one."""
    if service.url is None:
        with suppress(FileNotFoundError):
            before, life.stamp = life.stamp, service.heartbeat.stat().st_mtime_ns
            return life.stamp != before
    elif not life.ready or time.monotonic() - life.heard_s >= _ANSWER_S:
        with suppress(httpx.TransportError):
            httpx.get(service.url, timeout=_ANSWER_S, trust_env=False)
            return True
    return False


class SupervisorPlan(ProgramPlan):
    """Plan of a server's supervisor: the folder of the state."""

    directory: Path


def supervise(plan: SupervisorPlan) -> None:
    """Keep the services of a server running until SIGTERM or SIGINT, then drain it.

    There are two supervisors: the standby is one of the other's services, and takes over when that
    one ends or gives no sign of life.
    """
    ended = until_signalled()
    while (state := read_state(plan.directory)) is None or SUPERVISOR not in state.processes:
        # It is saved after this process has started.
        if ended.wait(_LOOK_S):
            return
    itself, other = state.services[SUPERVISOR], state.processes[SUPERVISOR]
    if other.pid != os.getpid():
        life, silent_s = _Life(), 0.0
        while is_running(other):
            if ended.wait(_LOOK_S):
                return
            beat()
            # Counted by looks: clocks may be set, and run while the machine is paused.
            silent_s = 0.0 if _lives(itself, life) else silent_s + _LOOK_S
            if silent_s > itself.silence_s:
                stop_session(other, grace_s=0)
        state = state.current().without(SUPERVISOR, "was replaced by its standby")
    os.environ[HEARTBEAT] = str(itself.heartbeat)
    me = ProcessRef(os.getpid(), started_s(os.getpid()), os.environ[MARK])
    changed = {"name": STANDBY, "heartbeat": itself.heartbeat.with_name(STANDBY)}
    services = {**state.services, STANDBY: itself.model_copy(update=changed)}
    processes = {name: one for name, one in state.processes.items() if name != STANDBY}
    state = replace(state, services=services, processes={**processes, SUPERVISOR: me})
    state.save()
    Supervisor(state, plan.logs).run(ended)


if __name__ == "__main__":
    sys.exit(run_program(SupervisorPlan, supervise))
