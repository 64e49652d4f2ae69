"""Profiles a running server: sends requests that ask for their spans, and keeps both ends.

One request's way, on one clock: client, server, worker, and back.

TorchServe's own count of how long requests waited in its queue.

Where the time of many requests went, as a table.

Journeys in the Trace Event Format, which https://ui.perfetto.dev and chrome://tracing open.

One process holds the clients, a track for each; a client sends one request at a time, so a
track's requests follow one another. Every worker is a process with a track of batches. Arrows
lead from a request to its batch.

The format: "Trace Event Format", Google, 2016. Times are microseconds.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from newshelf.catalog.catalog import Catalog
from newshelf.errors import ServerError
from newshelf.server.client import Client
from newshelf.server.state import ServerState
from newshelf.serving.trace import SPANS_HEADER, STAGES, TRACE_HEADER, BatchTrace, Stage, read_trace
from newshelf.tuning.load import (
    Exchange,
    LoadRequest,
    LoadResult,
    ModelName,
    draw_requests,
    run_load,
)


@dataclass(frozen=True)
class Journey:
    """Moments are nanoseconds since the epoch, in the order in which they are named."""

    client: int
    sent_ns: int
    batch: BatchTrace
    """Its ``start_ns`` and ``end_ns`` lie in between."""
    end_ns: int
    """The answer was read."""

    @property
    def total_ns(self) -> int:
        """As the client sees it."""
        return self.end_ns - self.sent_ns

    @property
    def there_ns(self) -> int:
        """Until a worker began: sockets, TorchServe's frontend and its queue."""
        return self.batch.start_ns - self.sent_ns

    @property
    def back_ns(self) -> int:
        """From the worker's last line to the client's last byte."""
        return self.end_ns - self.batch.end_ns

    def stages_ns(self) -> dict[Stage, int]:
        """The time of the whole batch in each stage."""
        sums = dict.fromkeys(STAGES, 0)
        for span in self.batch.spans:
            sums[span.stage] += span.end_ns - span.start_ns
        return sums

    @property
    def between_ns(self) -> int:
        """In the handler, and in none of its stages."""
        return self.batch.end_ns - self.batch.start_ns - sum(self.stages_ns().values())


def journeys(exchanges: Sequence[Exchange]) -> list[Journey]:
    """Read what the workers told in the answers' headers.

    Raises:
        ServerError: an answer carried no trace, or none that this version reads.
    """
    return [_journey(exchange) for exchange in exchanges]


def _journey(exchange: Exchange) -> Journey:
    if exchange.header is None:
        raise ServerError(
            "the server tells no spans: its archives are of an older Newshelf, or something "
            "between drops the header; ./run serve makes new ones"
        )
    try:
        batch = read_trace(exchange.header)
    except ValueError as error:
        raise ServerError(f"the server's spans cannot be read: {error}") from error
    if not exchange.sent_ns <= batch.start_ns <= batch.end_ns <= exchange.end_ns:
        raise ServerError(
            "the worker's clock is not the client's: profile from the machine of the server, "
            "and not while its clock is being set"
        )
    return Journey(exchange.client, exchange.sent_ns, batch, exchange.end_ns)


_SAMPLE = re.compile(r"^(ts_\w+)\{(.*)\} (\S+)$", flags=re.MULTILINE)
_QUEUE, _REQUESTS = "ts_queue_latency_microseconds", "ts_inference_requests_total"
_LOOKS, _PAUSE_S = 20, 0.1


@dataclass(frozen=True)
class QueueCount:
    """Since the server's start."""

    requests: float
    waited_ms: float
    """Of all of them together, until they were put into a batch."""

    def since(self, before: "QueueCount") -> float | None:
        """Mean milliseconds of one request since then; None without one."""
        requests = self.requests - before.requests
        return (self.waited_ms - before.waited_ms) / requests if requests > 0 else None


def read_queue(client: Client, model: str) -> QueueCount:
    """Read the counters when they have settled: TorchServe counts after it has answered."""
    before = _read(client.metrics(), model)
    for _ in range(_LOOKS):
        time.sleep(_PAUSE_S)
        now = _read(client.metrics(), model)
        if now == before:
            break
        before = now
    return before


def _read(page: str, model: str) -> QueueCount:
    sums = {_QUEUE: 0.0, _REQUESTS: 0.0}
    for name, labels, value in _SAMPLE.findall(page):
        if name in sums and f'model_name="{model}"' in labels:
            sums[name] += float(value)
    return QueueCount(sums[_REQUESTS], sums[_QUEUE] / 1e3)


_FEWEST_WARM_UP = 20


@dataclass(frozen=True, eq=False)
class Profile:
    """What was measured."""

    model: ModelName
    clients: int
    load: LoadResult
    journeys: Sequence[Journey]
    queue_ms: float | None
    """Mean wait in TorchServe's queue, by its own count; None when it counted nothing."""

    @property
    def batch_size(self) -> float:
        """Of the batch that a request was in, on average."""
        return sum(one.batch.size for one in self.journeys) / len(self.journeys)


def profile(
    state: ServerState, catalog: Catalog, model: ModelName, *, requests: int, clients: int
) -> Profile:
    """Send ``requests`` from ``clients`` at a time, after a warm-up that is not kept.

    Raises:
        ServerError: a request failed, or the server tells no spans.
    """
    # One draw for both, so that the warm-up fills no cache with what is measured.
    warm_up = max(_FEWEST_WARM_UP, clients, requests // 10)
    drawn = draw_requests(model, catalog, warm_up + requests)
    with Client(state) as client:
        _send(client, state, drawn[:warm_up], clients)
        before = read_queue(client, model)
        load = _send(client, state, drawn[warm_up:], clients)
        queue_ms = read_queue(client, model).since(before)
    return Profile(model, clients, load, journeys(load.exchanges), queue_ms)


def _send(
    client: Client, state: ServerState, requests: Sequence[LoadRequest], clients: int
) -> LoadResult:
    load = run_load(
        state.inference_url,
        {**client.authorization(), TRACE_HEADER: "1"},
        requests,
        clients=clients,
        count=len(requests),
        kept_header=SPANS_HEADER,
    )
    if load.failures:
        raise ServerError(
            f"of {len(requests)} requests, some failed ({_told(load)}): with fewer --clients "
            f"the queue is not full; the server's log is {state.model_log}"
        )
    return load


def _told(load: LoadResult) -> str:
    return ", ".join(f"{kind}: {number}" for kind, number in load.failures.items())


_NS_PER_MS = 1e6
_WORDS: dict[Stage, str] = {
    "parse": "parse the requests",
    "decode": "decode pictures",
    "preprocess": "preprocess",
    "inference": "inference",
    "postprocess": "postprocess",
}


@dataclass(frozen=True)
class BreakdownRow:
    """One part of the way. The shares of the rows that are not ``within`` add up to 1."""

    name: str
    mean_ms: float
    share: float
    """Of the mean of the whole."""
    median_ms: float | None = None
    p99_ms: float | None = None
    """None where only a mean is known."""
    within: bool = False
    """A part of the row above."""


def break_down(journeys: Sequence[Journey], queue_ms: float | None) -> list[BreakdownRow]:
    """The parts in their order, and last the whole.

    A request waits for all of its batch, so the stages count with the batch's time.

    Args:
        journeys: at least one.
        queue_ms: the mean wait in TorchServe's queue; None when it is not known.
    """
    total_ms = _milliseconds(journeys, lambda one: one.total_ns).mean()

    def row(name: str, part: Callable[[Journey], int]) -> BreakdownRow:
        values = _milliseconds(journeys, part)
        return BreakdownRow(
            name,
            float(values.mean()),
            float(values.mean() / total_ms),
            float(np.median(values)),
            float(np.percentile(values, 99, method="inverted_cdf")),
        )

    there = row("to the worker", lambda one: one.there_ns)
    rows = [there]
    if queue_ms is not None:
        socket_ms = there.mean_ms - queue_ms
        rows.append(
            BreakdownRow("socket and frontend", socket_ms, socket_ms / total_ms, within=True)
        )
        rows.append(BreakdownRow("TorchServe's queue", queue_ms, queue_ms / total_ms, within=True))
    rows += [row(_WORDS[stage], _stage(stage)) for stage in STAGES]
    rows.append(row("between the stages", lambda one: one.between_ns))
    rows.append(row("back to the client", lambda one: one.back_ns))
    rows.append(row("whole request", lambda one: one.total_ns))
    return rows


def breakdown_table(rows: Sequence[BreakdownRow], title: str) -> Table:
    """For a terminal."""
    table = Table(title=title, title_justify="left")
    table.add_column("where")
    for heading in ("mean ms", "median ms", "p99 ms", "share"):
        table.add_column(heading, justify="right")
    for row in rows:
        if row is rows[-1]:
            table.add_section()
        table.add_row(
            f"  {row.name}" if row.within else row.name,
            _shown(row.mean_ms),
            _shown(row.median_ms),
            _shown(row.p99_ms),
            f"{row.share:.1%}",
            style="dim" if row.within else None,
        )
    return table


def _milliseconds(
    journeys: Sequence[Journey], part: Callable[[Journey], int]
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array([part(one) for one in journeys], dtype=np.float64) / _NS_PER_MS


def _stage(stage: Stage) -> Callable[[Journey], int]:
    return lambda one: one.stages_ns()[stage]


def _shown(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:.3f}"


_CLIENTS = 1
"""Stands for the clients' process, which has ended by then; no worker is process 1. Perfetto
takes 0 for the idle task."""
_BATCHES = 1

Event = dict[str, Any]


def trace_document(journeys: Sequence[Journey], model: str) -> dict[str, Any]:
    """The whole file, for ``json.dump``. Time starts with the first request."""
    base_ns = min((one.sent_ns for one in journeys), default=0)
    batches = {(one.batch.worker, one.batch.start_ns): one.batch for one in journeys}
    events = [
        *_names(journeys, model),
        *(event for at, one in enumerate(journeys) for event in _request(at, one, model, base_ns)),
        *(event for batch in batches.values() for event in _batch(batch, base_ns)),
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _names(journeys: Sequence[Journey], model: str) -> Iterator[Event]:
    yield _name("process_name", _CLIENTS, _track(0), "clients")
    for client in sorted({one.client for one in journeys}):
        yield _name("thread_name", _CLIENTS, _track(client), f"client {client + 1}")
    for worker in sorted({one.batch.worker for one in journeys}):
        yield _name("process_name", worker, _BATCHES, f"{model} worker {worker}")
        yield _name("thread_name", worker, _BATCHES, "batches")


def _request(number: int, one: Journey, model: str, base_ns: int) -> Iterator[Event]:
    def part(name: str, start_ns: int, end_ns: int, **args: object) -> Event:
        return _slice(name, _CLIENTS, track, start_ns - base_ns, end_ns - start_ns, args)

    batch, track = one.batch, _track(one.client)
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


def _track(client: int) -> int:
    return client + 1


def _microseconds(nanoseconds: int) -> float:
    return nanoseconds / 1e3
