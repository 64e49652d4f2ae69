"""Metrics of the server during a run: TorchServe's queue, batches and workers, once a second.

Queue times and batch sizes come from TorchServe's Prometheus page, worker processes from its
management API, and their memory and CPU time from the operating system, so the server must run
on this machine. An unreachable server is a sample, too.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtest.record import ServerSample, WorkerSample
from newshelf.errors import ServerError
from newshelf.server.client import Client
from newshelf.server.state import ServerState

_REQUESTS = "ts_inference_requests"
_QUEUE_US = "ts_queue_latency_microseconds"
_BATCH = "newshelf_batch_size"
"""``newshelf.serving.trace.BATCH_SIZE``."""
_PERIOD_S = 1.0
_TIMEOUT_S = 2.0
_JOIN_S = 30.0
_AWAY = (httpx.HTTPError, ServerError, OSError, ValueError, KeyError)
"""Raised when a server ends in the middle of a response."""


@dataclass(frozen=True)
class Counts:
    """Counters since the start of the server, of one model or all together."""

    requests: float = 0.0
    queued_us: float = 0.0
    """Total time of the requests in the queue."""
    batches: Mapping[float, float] = field(default_factory=dict)
    """Cumulative batches by the upper bounds of the histogram."""
    batched: float = 0.0
    """Requests in the batches."""

    def since(self, before: "Counts") -> "Counts":
        """Return the increase since ``before``; a counter that fell restarted with the server."""
        if self.requests < before.requests or self.batched < before.batched:
            return self
        return Counts(
            self.requests - before.requests,
            self.queued_us - before.queued_us,
            {bound: count - before.batches.get(bound, 0.0)
             for bound, count in self.batches.items()},
            self.batched - before.batched,
        )  # fmt: skip

    @property
    def queue_ms(self) -> float | None:
        """Mean time of a request in the queue; None without any."""
        return self.queued_us / self.requests / 1e3 if self.requests > 0 else None

    def batch_sizes(self) -> dict[int, int]:
        """Return batches by the upper bound of their size.

        Those above the last bound count by their mean size, which follows from the sum.
        """
        sizes: dict[int, int] = {}
        below, known = 0.0, 0.0
        for bound in sorted(self.batches):
            here = round(self.batches[bound] - below)
            below = self.batches[bound]
            if here <= 0:
                continue
            if math.isinf(bound):
                last = max(sizes, default=0)
                size = max(round((self.batched - known) / here), last + 1)
            else:
                size = math.floor(bound)
            sizes[size] = sizes.get(size, 0) + here
            known += here * size
        return sizes


def read_page(page: str, model: str | None = None) -> Counts:
    """Sum up the counters of all versions of one model, or of all models.

    Raises:
        ValueError: the text is not a Prometheus page.
    """
    totals: dict[str, float] = {}
    batches: dict[float, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            # TorchServe's own counters have the first label, those of handlers the second.
            owner = sample.labels.get("model_name") or sample.labels.get("ModelName")
            if model is not None and owner != model:
                continue
            # The parser adds the suffix to counters; TorchServe writes it only for some.
            name = sample.name.removesuffix("_total")
            totals[name] = totals.get(name, 0.0) + sample.value
            if name == f"{_BATCH}_bucket":
                bound = float(sample.labels["le"])
                batches[bound] = batches.get(bound, 0.0) + sample.value
    return Counts(
        totals.get(_REQUESTS, 0.0),
        totals.get(_QUEUE_US, 0.0),
        batches,
        totals.get(f"{_BATCH}_sum", 0.0),
    )


@dataclass(frozen=True)
class ServerSnapshot:
    """State of the server at one time."""

    counts: Counts
    workers: tuple[WorkerSample, ...] = ()


class TorchServeProbe:
    """Reads the state of a TorchServe on this machine."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._client = Client(state, timeout_s=_TIMEOUT_S)
        self._processes: dict[int, psutil.Process] = {}

    def look(self) -> ServerSnapshot | None:
        """Return metrics and workers, or None if one of the two ports does not respond."""
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
        return ServerSnapshot(counts, tuple(workers))

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
        """Return resident bytes and per cent of a core since the last call; zeros if it ended."""
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


class ServerWatch:
    """Context that samples a server in a thread.

    Example::

        with ServerWatch(TorchServeProbe(state)) as watch:
            record = run_load(plan, command=command)
        samples = watch.samples(record.started_at.timestamp())
    """

    def __init__(
        self,
        probe: TorchServeProbe,
        *,
        period_s: float = _PERIOD_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._probe = probe
        self._period_s = period_s
        self._clock = clock
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="server-watch", daemon=True)
        self._seen: list[ServerSample] = []
        """Their ``at_s`` is in seconds since the epoch."""
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
        """Return samples from ``start`` (seconds since the epoch) to ``seconds`` later."""
        return tuple(
            one.model_copy(update={"at_s": one.at_s - start})
            for one in self._seen
            if 0 <= one.at_s - start <= seconds
        )

    def look(self) -> None:
        """Take one sample."""
        at, look = self._clock(), self._probe.look()
        if look is None:
            self._seen.append(ServerSample(at_s=at, reachable=False))
            return
        # The start of the first counters is unknown.
        since = Counts() if self._before is None else look.counts.since(self._before)
        self._before = look.counts
        sample = ServerSample(
            at_s=at,
            reachable=True,
            queue_ms=since.queue_ms,
            batch_sizes=since.batch_sizes(),
            batched=round(since.batched),
            workers=look.workers,
        )
        self._seen.append(sample)

    def _run(self) -> None:
        try:
            due = time.monotonic()
            while not self._ended.is_set():
                self.look()
                # A slow sample delays the next one; none are made up for.
                due = max(due + self._period_s, time.monotonic())
                self._ended.wait(due - time.monotonic())
        except Exception as error:
            # Raised when the context exits: nobody would see it in the thread.
            self._failure = error
