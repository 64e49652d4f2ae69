"""What the server does meanwhile: TorchServe's metrics and its workers, once a second.

TorchServe tells queue times and batch sizes on its Prometheus page, and its workers' processes
by its management port; their memory and processor time are read from the system, so the
server has to run on this machine. A server that is away is a sample, too.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import httpx
import psutil

from loadtest.metrics_page import Counts, read_page
from loadtest.record import ServerSample, WorkerSample
from newshelf.errors import ServerError
from newshelf.server.client import Client
from newshelf.server.state import ServerState

__all__ = ["Look", "Probe", "ServerWatch", "TorchServeProbe", "loaded_models"]

_PERIOD_S = 1.0
_TIMEOUT_S = 2.0
_JOIN_S = 30.0
_AWAY = (httpx.HTTPError, ServerError, OSError, ValueError, KeyError)
"""A server that ends half-way through an answer raises any of these."""


@dataclass(frozen=True)
class Look:
    """What was seen of the server at one moment."""

    counts: Counts
    workers: tuple[WorkerSample, ...] = ()


class Probe(Protocol):
    """Looks at a server."""

    def look(self) -> Look | None:
        """What there is now; None when it cannot be reached."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class TorchServeProbe:
    """Looks at a TorchServe that ``./run serve`` started on this machine."""

    def __init__(self, state: ServerState, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._state = state
        self._client = Client(state, timeout_s=timeout_s)
        self._processes: dict[int, psutil.Process] = {}

    def look(self) -> Look | None:
        """Metrics and workers, or None when one of the two ports does not answer."""
        try:
            counts = read_page(self._client.metrics())
            workers = [
                self._worker(model, worker)
                for model in self._state.models
                for version in self._client.describe(model)
                for worker in version["workers"]
            ]
        except _AWAY:
            return None
        self._forget_but({worker.pid for worker in workers})
        return Look(counts, tuple(workers))

    def close(self) -> None:
        """Close the connections."""
        self._client.__exit__(None, None, None)

    def _worker(self, model: str, table: Mapping[str, Any]) -> WorkerSample:
        pid = int(table["pid"])
        memory, cpu = self._used(pid)
        return WorkerSample(
            model=model,
            worker=str(table["id"]),
            # TorchServe writes -1 for a worker without a process.
            pid=max(pid, 0),
            status=str(table["status"]),
            memory_bytes=memory,
            cpu_percent=cpu,
        )

    def _used(self, pid: int) -> tuple[int, float]:
        """Resident bytes, and per cent of a core since the last look; zeros of one that ended."""
        if pid <= 0:
            return 0, 0.0
        try:
            process = self._processes.setdefault(pid, psutil.Process(pid))
            with process.oneshot():
                return process.memory_info().rss, process.cpu_percent()
        except psutil.Error:
            return 0, 0.0

    def _forget_but(self, pids: set[int]) -> None:
        for pid in self._processes.keys() - pids:
            del self._processes[pid]


@dataclass(frozen=True)
class _Seen:
    at: float
    """Seconds since the epoch."""
    sample: ServerSample
    """Its own ``at_s`` is not set yet."""


class ServerWatch:
    """Samples a server in a thread of its own until it is left.

    Example::

        with ServerWatch(TorchServeProbe(state)) as watch:
            record = run_load(plan, command=command)
        samples = watch.samples(record.started_at.timestamp())
    """

    def __init__(
        self,
        probe: Probe,
        *,
        period_s: float = _PERIOD_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._probe = probe
        self._period_s = period_s
        self._clock = clock
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="server-watch", daemon=True)
        self._seen: list[_Seen] = []
        self._before: Counts | None = None
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(_JOIN_S)
        self._probe.close()
        if self._failure is not None and error is None:
            raise self._failure

    def samples(self, start: float, seconds: float = float("inf")) -> tuple[ServerSample, ...]:
        """What was seen between ``start`` (seconds since the epoch) and ``seconds`` later."""
        return tuple(
            one.sample.model_copy(update={"at_s": one.at - start})
            for one in self._seen
            if 0 <= one.at - start <= seconds
        )

    def look(self) -> None:
        """Take one sample now."""
        at, look = self._clock(), self._probe.look()
        if look is None:
            self._seen.append(_Seen(at, ServerSample(at_s=0.0, reachable=False)))
            return
        # Since when the counters of the first look counted is not known.
        since = Counts() if self._before is None else look.counts.since(self._before)
        self._before = look.counts
        sample = ServerSample(
            at_s=0.0,
            reachable=True,
            queue_ms=since.queue_ms,
            batch_sizes=since.batch_sizes(),
            batched=round(since.batched),
            workers=look.workers,
        )
        self._seen.append(_Seen(at, sample))

    def _run(self) -> None:
        try:
            due = time.monotonic()
            while not self._ended.is_set():
                self.look()
                # A look that takes long delays the next one, and does not double it.
                due = max(due + self._period_s, time.monotonic())
                self._ended.wait(due - time.monotonic())
        except Exception as error:
            # Told by whoever leaves the watch: a thread has nobody to raise to.
            self._failure = error


def loaded_models(state: ServerState) -> dict[str, str]:
    """The archive of each model, which names its version."""
    return {model: archive.removesuffix(".mar") for model, archive in state.models.items()}
