"""Profile of a running server: where requests spend their time, as a table and as a trace.

Requests ask the workers for their spans, so that client and worker times are put together on
one clock; the wait in TorchServe's queue comes from TorchServe's own counters.

The trace is in the Trace Event Format (Google, 2016), which https://ui.perfetto.dev and
chrome://tracing open; times are microseconds. One process has a track per client, whose
requests follow one another; each worker is a process with a track of batches. Arrows lead from
a request to its batch.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtest.requests import Rendered
from loadtest.server_metrics import Counts, read_page
from loadtest.tuning.load import (
    ClosedLoopPlan,
    Exchange,
    LoadResult,
    ModelName,
    draw_requests,
    run_load,
)
from newshelf.catalog.catalog import Catalog
from newshelf.errors import ServerError
from newshelf.report.page import ReportTable
from newshelf.server.client import Client
from newshelf.server.state import ServerState
from newshelf.serving.trace import SPANS_HEADER, STAGES, TRACE_HEADER, BatchTrace, Stage, read_trace


@dataclass(frozen=True)
class RequestTimeline:
    """Times of a request, in nanoseconds since the epoch and in chronological order."""

    client: int
    sent_ns: int
    batch: BatchTrace
    """The batch in the worker."""
    end_ns: int
    """The response was read."""

    @property
    def total_ns(self) -> int:
        """Latency of the client."""
        return self.end_ns - self.sent_ns

    @property
    def to_worker_ns(self) -> int:
        """Time until the worker began: sockets, TorchServe's frontend and its queue."""
        return self.batch.start_ns - self.sent_ns

    @property
    def to_client_ns(self) -> int:
        """Time from the handler's end to the last byte that the client reads."""
        return self.end_ns - self.batch.end_ns

    def stages_ns(self) -> dict[Stage, int]:
        """Return the time of the whole batch in each stage."""
        sums = dict.fromkeys(STAGES, 0)
        for span in self.batch.spans:
            sums[span.stage] += span.end_ns - span.start_ns
        return sums

    @property
    def between_ns(self) -> int:
        """Time in the handler, outside its stages."""
        return self.batch.end_ns - self.batch.start_ns - sum(self.stages_ns().values())


def read_timelines(exchanges: Sequence[Exchange]) -> list[RequestTimeline]:
    """Read the workers' spans from the headers of responses."""
    return [_timeline(exchange) for exchange in exchanges]


def _timeline(exchange: Exchange) -> RequestTimeline:
    if exchange.header is None:
        raise ServerError(
            "the server returns no spans: its archives are of an older Newshelf (./run serve makes "
            "new ones), or a proxy drops the header"
        )
    try:
        batch = read_trace(exchange.header)
    except ValueError as error:
        raise ServerError(f"the server's spans cannot be read: {error}") from error
    if not exchange.sent_ns <= batch.start_ns <= batch.end_ns <= exchange.end_ns:
        raise ServerError(
            "the worker's clock is not the client's: profile on the server's machine, and not "
            "while its clock is adjusted"
        )
    return RequestTimeline(exchange.client, exchange.sent_ns, batch, exchange.end_ns)


_ATTEMPTS, _PAUSE_S = 20, 0.1


def read_queue(client: Client, model: str) -> Counts:
    """Read the counters once they are stable: TorchServe counts after it has answered."""
    before = read_page(client.metrics(), model)
    for _ in range(_ATTEMPTS):
        time.sleep(_PAUSE_S)
        now = read_page(client.metrics(), model)
        if now == before:
            break
        before = now
    return before


_LEAST_WARM_UP = 20


@dataclass(frozen=True, eq=False)
class Profile:
    """Measured times of many requests."""

    model: ModelName
    clients: int
    load: LoadResult
    requests: Sequence[RequestTimeline]
    queue_ms: float | None
    """Mean wait in TorchServe's queue, by its own counters; None if they counted nothing."""

    @property
    def batch_size(self) -> float:
        """Mean size of the batch of a request."""
        return sum(one.batch.size for one in self.requests) / len(self.requests)


def profile(
    state: ServerState, catalog: Catalog, model: ModelName, *, requests: int, clients: int
) -> Profile:
    """Send requests from concurrent clients, after a warm-up."""
    # One draw for both: the warm-up must not fill a cache with measured requests.
    warm_up = max(_LEAST_WARM_UP, clients, requests // 10)
    drawn = draw_requests(model, catalog, warm_up + requests)
    with Client(state) as client:
        _send(client, state, drawn[:warm_up], clients)
        before = read_queue(client, model)
        load = _send(client, state, drawn[warm_up:], clients)
        queue_ms = read_queue(client, model).since(before).queue_ms
    return Profile(model, clients, load, read_timelines(load.exchanges), queue_ms)


def _send(
    client: Client, state: ServerState, requests: Sequence[Rendered], clients: int
) -> LoadResult:
    plan = ClosedLoopPlan(
        state.inference_url,
        requests,
        clients,
        {**client.authorization(), TRACE_HEADER: "1"},
        count=len(requests),
        kept_header=SPANS_HEADER,
    )
    load = run_load(plan)
    if load.failures:
        failures = ", ".join(f"{kind}: {number}" for kind, number in load.failures.items())
        raise ServerError(
            f"of {len(requests)} requests, some failed ({failures}): the queue may be "
            f"full, so try fewer --clients; the server's log is {state.model_log}"
        )
    return load


_NS_PER_MS = 1e6
_LABELS: dict[Stage, str] = {
    "parse": "parse the requests",
    "decode": "decode pictures",
    "preprocess": "preprocess",
    "inference": "inference",
    "postprocess": "postprocess",
}


def breakdown_table(
    requests: Sequence[RequestTimeline], queue_ms: float | None, title: str
) -> ReportTable:
    """Return the parts of the latency in chronological order, and the whole request.

    A request waits for its whole batch, so each stage counts with the batch's time. The shares of
    the rows that are not indented add up to 1; the others are parts of the row above, with a mean.
    """

    def times(part: Callable[[RequestTimeline], int]) -> "np.ndarray[Any, np.dtype[np.float64]]":
        return np.array([part(one) for one in requests], dtype=np.float64) / _NS_PER_MS

    total_ms = times(lambda one: one.total_ns).mean()

    def row(name: str, part: Callable[[RequestTimeline], int]) -> list[str]:
        values = times(part)
        p99 = np.percentile(values, 99, method="inverted_cdf")
        figures = (f"{value:.3f}" for value in (values.mean(), np.median(values), p99))
        return [name, *figures, f"{values.mean() / total_ms:.1%}"]

    rows = [row("to the worker", lambda one: one.to_worker_ns)]
    if queue_ms is not None:
        socket_ms = times(lambda one: one.to_worker_ns).mean() - queue_ms
        for name, mean_ms in (("socket and frontend", socket_ms), ("TorchServe's queue", queue_ms)):
            rows.append([f"  {name}", f"{mean_ms:.3f}", "", "", f"{mean_ms / total_ms:.1%}"])
    rows += [row(_LABELS[stage], _stage(stage)) for stage in STAGES]
    rows.append(row("between the stages", lambda one: one.between_ns))
    rows.append(row("back to the client", lambda one: one.to_client_ns))
    rows.append(row("whole request", lambda one: one.total_ns))
    header = ("where", "mean ms", "median ms", "p99 ms", "share")
    inner = [at for at, cells in enumerate(rows) if cells[0].startswith(" ")]
    return ReportTable(title, header, rows, main_row=len(rows) - 1, dim_rows=inner)


def _stage(stage: Stage) -> Callable[[RequestTimeline], int]:
    return lambda one: one.stages_ns()[stage]


_CLIENTS = 1
"""Process id of the clients in the trace. No worker has 1; Perfetto reads 0 as the idle task."""
_BATCHES = 1

Event = dict[str, Any]


def trace_document(requests: Sequence[RequestTimeline], model: str) -> dict[str, Any]:
    """Return the trace, for ``json.dump``. Time starts with the first request."""
    base_ns = min((one.sent_ns for one in requests), default=0)
    batches = {(one.batch.worker, one.batch.start_ns): one.batch for one in requests}
    events = [
        *_names(requests, model),
        *(event for at, one in enumerate(requests) for event in _request(at, one, model, base_ns)),
        *(event for batch in batches.values() for event in _batch(batch, base_ns)),
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _names(requests: Sequence[RequestTimeline], model: str) -> Iterator[Event]:
    yield _name("process_name", _CLIENTS, 1, "clients")
    for client in sorted({one.client for one in requests}):
        yield _name("thread_name", _CLIENTS, client + 1, f"client {client + 1}")
    for worker in sorted({one.batch.worker for one in requests}):
        yield _name("process_name", worker, _BATCHES, f"{model} worker {worker}")
        yield _name("thread_name", worker, _BATCHES, "batches")


def _request(number: int, one: RequestTimeline, model: str, base_ns: int) -> Iterator[Event]:
    def part(name: str, start_ns: int, end_ns: int, **args: object) -> Event:
        return _slice(name, _CLIENTS, track, start_ns - base_ns, end_ns - start_ns, args)

    batch, track = one.batch, one.client + 1
    about = {"request": number, "batch size": batch.size, "worker": batch.worker}
    yield part(f"POST {model}", one.sent_ns, one.end_ns, **about)
    yield part("to the worker", one.sent_ns, batch.start_ns)
    yield part("in the worker", batch.start_ns, batch.end_ns)
    yield part("back", batch.end_ns, one.end_ns)
    arrow = {"name": "batch", "cat": "request", "id": number}
    start = _microseconds(batch.start_ns - base_ns)
    yield arrow | {"ph": "s", "pid": _CLIENTS, "tid": track, "ts": start}
    yield arrow | {"ph": "f", "bp": "e", "pid": batch.worker, "tid": _BATCHES, "ts": start}


def _batch(batch: BatchTrace, base_ns: int) -> Iterator[Event]:
    def part(name: str, start_ns: int, end_ns: int) -> Event:
        args = {"batch size": batch.size}
        return _slice(name, batch.worker, _BATCHES, start_ns - base_ns, end_ns - start_ns, args)

    yield part(f"batch of {batch.size}", batch.start_ns, batch.end_ns)
    for span in batch.spans:
        yield part(span.stage, span.start_ns, span.end_ns)


def _slice(
    name: str, pid: int, tid: int, start_ns: int, took_ns: int, args: Mapping[str, object]
) -> Event:
    return {
        "name": name,
        "cat": "newshelf",
        "ph": "X",
        "pid": pid,
        "tid": tid,
        "ts": _microseconds(start_ns),
        "dur": _microseconds(took_ns),
        "args": args,
    }


def _name(kind: str, pid: int, tid: int, name: str) -> Event:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}


def _microseconds(nanoseconds: int) -> float:
    return nanoseconds / 1e3
