"""When something went wrong in a run, what was lost by it, and how long recovery took.

A second is unusual when requests failed, when its p99 is far above the run's usual, when the
server could not be reached, or when a worker was not ready. Unusual seconds that belong
together are one incident; it is over when ``CALM_S`` seconds have been usual again. The usual
is the median of the three quicker quarters of a run, so that a long incident does not become
it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.record import RunRecord, ServerSample
from loadtest.timeline import Timeline, Totals

CALM_S = 3
"""Usual seconds after which an incident is over."""
_FAR = 5.0
"""Times the usual p99: slow. A queue by itself wanders to three times its median."""
_SPREADS = 8.0
"""Times the usual spread of the p99 above it: slow; both must hold."""
_MORE_FAILURES = 0.01
"""Share of a second's requests above the usual: failing."""
_COLLAPSE = 0.5
"""Times the usual answers per second, of clients that wait for theirs: collapsed."""
_NORMAL = 1.4826
"""Of a normal distribution, standard deviation by median absolute deviation."""
_QUIET = 0.75
"""Share of the seconds that may be called usual."""
_READY = "READY"


@dataclass(frozen=True)
class Usual:
    """What most seconds of a run were like."""

    p99_ms: float
    slow_ms: float
    """A second with a higher p99 is slow."""
    error_rate: float
    throughput: float
    """Right answers per second."""


@dataclass(frozen=True)
class WorkerChange:
    """A worker process that ended, or was put in the place of one."""

    at_s: float
    """When it was first seen."""
    model: str
    worker: str
    ended: int | None
    """Process id."""
    started: int | None

    def __str__(self) -> str:
        whose = f"worker {self.worker} of {self.model}"
        if self.started is None:
            return f"{whose}: process {self.ended} ended"
        if self.ended is None:
            return f"{whose}: process {self.started} started"
        return f"{whose}: process {self.ended} ended, {self.started} is in its place"


@dataclass(frozen=True)
class Incident:
    """Seconds of a run in which something was wrong."""

    start_s: int
    end_s: int
    """The first usual second after it, or the end of the run."""
    recovered: bool
    """False when the run ended before it had been usual for ``CALM_S`` seconds."""
    signs: tuple[str, ...]
    """What was seen, in words."""
    errors: dict[str, int]
    """Requests lost, by kind of error."""
    dropped: int
    """Requests that were never sent."""
    delayed: int
    """Right answers that came later than the run's usual p99 by far."""
    worst_ms: float
    """The latest right answer."""

    @property
    def recovery_s(self) -> int | None:
        """Seconds from its start until all was usual again; None when that was not seen."""
        return self.end_s - self.start_s if self.recovered else None

    @property
    def lost(self) -> int:
        """Requests without the right answer."""
        return sum(self.errors.values()) + self.dropped


def incidents(timeline: Timeline) -> list[Incident]:
    """All incidents of a run, the first one first."""
    seconds = timeline.by_second()
    normal = usual(timeline)
    signs = [_signs(second, normal, timeline.record.loop) for second in seconds]
    for at, told in _server_signs(timeline.record):
        if 0 <= at < len(signs):
            signs[at].append(told)
    return [
        _incident(start, end, len(seconds), seconds[start:end], signs[start:end], normal)
        for start, end in _groups([bool(told) for told in signs])
    ]


def usual(timeline: Timeline) -> Usual:
    """What the quicker seconds were like."""
    seconds = [second for second in timeline.by_second() if second.intended]
    answered = [second for second in seconds if second.answered]
    p99s = np.sort([second.latency.percentile_ms(99) for second in answered])
    quiet = p99s[: math.ceil(len(p99s) * _QUIET)]
    p99 = float(np.median(quiet)) if len(quiet) else 0.0
    spread = float(np.median(np.abs(quiet - p99))) * _NORMAL if len(quiet) else 0.0
    rates = np.sort([second.error_rate for second in seconds])
    return Usual(
        p99_ms=p99,
        slow_ms=max(_FAR * p99, p99 + _SPREADS * spread),
        error_rate=float(np.median(rates)) if len(rates) else 0.0,
        throughput=float(np.median([second.answered for second in answered])) if answered else 0.0,
    )


def worker_changes(record: RunRecord) -> list[WorkerChange]:
    """Worker processes that ended or began between two samples in which the server answered."""
    found: list[WorkerChange] = []
    known: dict[tuple[str, str], int] | None = None
    for sample in record.server:
        if not sample.reachable:
            continue
        now = {(one.model, one.worker): one.pid for one in sample.workers if one.pid > 0}
        if known is not None:
            found += _changes(known, now, sample.at_s)
        # A worker that is away keeps its last process id, so that its return is told once.
        known = (known or {}) | now
        for place in [place for place in known if place not in now]:
            del known[place]
    return found


def _changes(
    known: dict[tuple[str, str], int], now: dict[tuple[str, str], int], at_s: float
) -> Iterable[WorkerChange]:
    for place in sorted(known.keys() | now.keys()):
        ended, started = known.get(place), now.get(place)
        if ended != started:
            yield WorkerChange(at_s, *place, ended, started)


def _signs(second: Totals, normal: Usual, loop: str) -> list[str]:
    found = []
    if second.failed and second.error_rate > normal.error_rate + _MORE_FAILURES:
        found.append("requests failed")
    if second.answered and second.latency.percentile_ms(99) > normal.slow_ms:
        found.append("answers were late")
    # With an open loop, as many requests are sent as were meant to be, come what may.
    if loop == "closed" and second.answered < _COLLAPSE * normal.throughput:
        found.append("few requests were answered")
    return found


def _server_signs(record: RunRecord) -> Iterable[tuple[int, str]]:
    for sample in record.server:
        at = math.floor(sample.at_s)
        if not sample.reachable:
            yield at, "the server could not be reached"
        yield from ((at, told) for told in _not_ready(sample))
    for change in worker_changes(record):
        yield math.floor(change.at_s), str(change)


def _not_ready(sample: ServerSample) -> Iterable[str]:
    for worker in sample.workers:
        if worker.status != _READY:
            yield f"worker {worker.worker} of {worker.model} was {worker.status.lower()}"


def _groups(unusual: Sequence[bool]) -> list[tuple[int, int]]:
    """Pairs of the first unusual second and the one after the last; calm ones between."""
    places = [place for place, is_unusual in enumerate(unusual) if is_unusual]
    found: list[tuple[int, int]] = []
    for place in places:
        if found and place - found[-1][1] < CALM_S:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found


def _incident(
    start: int,
    end: int,
    length: int,
    seconds: Sequence[Totals],
    signs: Sequence[Sequence[str]],
    normal: Usual,
) -> Incident:
    whole = Totals.added(seconds, float(end - start))
    return Incident(
        start_s=start,
        end_s=end,
        recovered=length - end >= CALM_S,
        signs=tuple(dict.fromkeys(told for second in signs for told in second)),
        errors=dict(whole.errors),
        dropped=whole.dropped,
        delayed=whole.latency.above(normal.slow_ms),
        worst_ms=whole.latency.max_ms,
    )
