"""Journeys in the Trace Event Format, which https://ui.perfetto.dev and chrome://tracing open.

One process holds the clients, a track for each; a client sends one request at a time, so a
track's requests follow one another. Every worker is a process with a track of batches. Arrows
lead from a request to its batch.

The format: "Trace Event Format", Google, 2016. Times are microseconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from newshelf.profiling.journey import Journey
from newshelf.serving.trace import BatchTrace

__all__ = ["trace_document"]

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
