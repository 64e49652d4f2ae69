"""When a batch was at work, told in a header to whoever asked for it.

A request with ``TRACE_HEADER`` gets ``SPANS_HEADER`` in its answer: one line of JSON with
the moments at which each stage of its batch began and ended. They are given as time since
the epoch, so that a client on the same machine can lay them beside its own.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from newshelf.serving.observe import STAGES, Span

__all__ = ["SPANS_HEADER", "TRACE_HEADER", "BatchTrace", "read_trace", "wants_trace", "write_trace"]

TRACE_HEADER = "x-newshelf-trace"
SPANS_HEADER = "x-newshelf-spans"
_CLOSE_NS = 20_000
"""Two spans of one stage with less than this between them are told as one: a batch of many
pictures would else have hundreds."""


@dataclass(frozen=True, slots=True)
class BatchTrace:
    """One batch in one worker; moments are nanoseconds since the epoch."""

    worker: int
    """The worker's process id."""
    size: int
    """Requests in the batch."""
    start_ns: int
    end_ns: int
    spans: tuple[Span, ...]
    """In order, not overlapping."""


def wants_trace(headers: Mapping[str, object]) -> bool:
    """Whether a request asks for its spans; header names are matched in any case."""
    return any(name.lower() == TRACE_HEADER for name in headers)


def write_trace(worker: int, size: int, start_ns: int, spans: Sequence[Span]) -> str:
    """The value of ``SPANS_HEADER`` for a batch that ends now.

    Args:
        worker: process id.
        size: requests in the batch.
        start_ns: when it began, as ``time.perf_counter_ns`` gives it, like the spans.
        spans: of its stages, in order.
    """
    end_ns = time.perf_counter_ns()
    # Read once per batch: the two clocks may drift apart over a worker's life.
    epoch_ns = time.time_ns() - end_ns
    told = {
        "worker": worker,
        "size": size,
        "start_ns": start_ns + epoch_ns,
        "took_ns": end_ns - start_ns,
        "spans": [
            [span.stage, span.start_ns - start_ns, span.end_ns - start_ns]
            for span in _joined(spans)
        ],
    }
    return orjson.dumps(told).decode()


def read_trace(value: str) -> BatchTrace:
    """Parse what ``write_trace`` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        told = orjson.loads(value)
        start_ns = int(told["start_ns"])
        spans = [
            Span(STAGES[STAGES.index(stage)], start_ns + begin, start_ns + end)
            for stage, begin, end in told["spans"]
        ]
        return BatchTrace(
            int(told["worker"]),
            int(told["size"]),
            start_ns,
            start_ns + int(told["took_ns"]),
            tuple(spans),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a trace of this version: {value[:200]!r}") from error


def _joined(spans: Iterable[Span]) -> list[Span]:
    joined: list[Span] = []
    for span in spans:
        last = joined[-1] if joined else None
        if last and last.stage == span.stage and span.start_ns - last.end_ns < _CLOSE_NS:
            joined[-1] = Span(last.stage, last.start_ns, span.end_ns)
        else:
            joined.append(span)
    return joined
