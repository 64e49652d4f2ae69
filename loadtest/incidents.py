"""Incidents of a run: when something went wrong, what was lost, and how long recovery took.

A second is abnormal if requests failed, its p99 is far above the baseline, the server was
unreachable, or a worker was not ready. Adjacent abnormal seconds are one incident, which ends
after ``CALM_S`` normal seconds. The baseline is the median of the faster three quarters of the
run, so that a long incident does not become the baseline.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.record import RunRecord, ServerSample
from loadtest.timeline import Timeline, Totals

CALM_S = 3
"""Normal seconds after which an incident is over."""
_FAR = 5.0
"""Multiple of the baseline p99 that is slow. A queue alone reaches three times its median."""
_SPREADS = 8.0
"""Multiple of the spread of the p99 above the baseline that is slow; both must hold."""
_MORE_FAILURES = 0.01
"""Share of failed requests above the baseline that is abnormal."""
_COLLAPSE = 0.5
"""Share of the baseline throughput of a closed loop below which it has collapsed."""
_NORMAL = 1.4826
"""Ratio of standard to median absolute deviation in a normal distribution."""
_QUIET = 0.75
"""Share of the seconds that make the baseline."""
_READY = "READY"


@dataclass(frozen=True)
class Baseline:
    """Values of a normal second of a run."""

    p99_ms: float
    slow_ms: float
    """A second with a higher p99 is slow."""
    error_rate: float
    throughput: float
    """Right responses per second."""


@dataclass(frozen=True)
class WorkerChange:
    """A worker process that ended, started or was replaced."""

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
    """Abnormal seconds of a run."""

    start_s: int
    end_s: int
    """The first normal second after it, or the end of the run."""
    recovered: bool
    """Whether ``CALM_S`` normal seconds followed before the run ended."""
    signs: tuple[str, ...]
    """What was abnormal, in words."""
    errors: dict[str, int]
    """Lost requests by kind of error."""
    dropped: int
    """Requests never sent."""
    delayed: int
    """Right responses far slower than the baseline."""
    worst_ms: float
    """Latency of the slowest right response."""

    @property
    def recovery_s(self) -> int | None:
        """Seconds from its start to the first normal second; None if not recovered."""
        return self.end_s - self.start_s if self.recovered else None

    @property
    def lost(self) -> int:
        """Requests without the right response."""
        return sum(self.errors.values()) + self.dropped


def incidents(timeline: Timeline) -> list[Incident]:
    """Return all incidents of a run in order."""
    seconds = timeline.by_second()
    normal = baseline(timeline)
    signs = [_signs(second, normal, timeline.record.loop) for second in seconds]
    for at, text in _server_signs(timeline.record):
        if 0 <= at < len(signs):
            signs[at].append(text)
    return [
        _incident(start, end, len(seconds), seconds[start:end], signs[start:end], normal)
        for start, end in _groups([bool(text) for text in signs])
    ]


def baseline(timeline: Timeline) -> Baseline:
    """Return the values of the faster seconds."""
    seconds = [second for second in timeline.by_second() if second.intended]
    answered = [second for second in seconds if second.answered]
    p99s = np.sort([second.latency.percentile_ms(99) for second in answered])
    quiet = p99s[: math.ceil(len(p99s) * _QUIET)]
    p99 = float(np.median(quiet)) if len(quiet) else 0.0
    spread = float(np.median(np.abs(quiet - p99))) * _NORMAL if len(quiet) else 0.0
    rates = np.sort([second.error_rate for second in seconds])
    return Baseline(
        p99_ms=p99,
        slow_ms=max(_FAR * p99, p99 + _SPREADS * spread),
        error_rate=float(np.median(rates)) if len(rates) else 0.0,
        throughput=float(np.median([second.answered for second in answered])) if answered else 0.0,
    )


def worker_changes(record: RunRecord) -> list[WorkerChange]:
    """Return worker processes that ended or started between two samples of a reachable server."""
    found: list[WorkerChange] = []
    known: dict[tuple[str, str], int] | None = None
    for sample in record.server:
        if not sample.reachable:
            continue
        now = {(one.model, one.worker): one.pid for one in sample.workers if one.pid > 0}
        if known is not None:
            found += _changes(known, now, sample.at_s)
        # A worker that is away keeps its last process id, so its return is reported once.
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


def _signs(second: Totals, normal: Baseline, loop: str) -> list[str]:
    found = []
    if second.failed and second.error_rate > normal.error_rate + _MORE_FAILURES:
        found.append("requests failed")
    if second.answered and second.latency.percentile_ms(99) > normal.slow_ms:
        found.append("responses were slow")
    # In an open loop, the number of requests does not depend on the server.
    if loop == "closed" and second.answered < _COLLAPSE * normal.throughput:
        found.append("throughput collapsed")
    return found


def _server_signs(record: RunRecord) -> Iterable[tuple[int, str]]:
    for sample in record.server:
        at = math.floor(sample.at_s)
        if not sample.reachable:
            yield at, "the server was unreachable"
        yield from ((at, text) for text in _not_ready(sample))
    for change in worker_changes(record):
        yield math.floor(change.at_s), str(change)


def _not_ready(sample: ServerSample) -> Iterable[str]:
    for worker in sample.workers:
        if worker.status != _READY:
            yield f"worker {worker.worker} of {worker.model} was {worker.status.lower()}"


def _groups(abnormal: Sequence[bool]) -> list[tuple[int, int]]:
    """Return pairs of the first abnormal second and the one after the last."""
    places = [place for place, is_abnormal in enumerate(abnormal) if is_abnormal]
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
    normal: Baseline,
) -> Incident:
    whole = Totals.added(seconds, float(end - start))
    return Incident(
        start_s=start,
        end_s=end,
        recovered=length - end >= CALM_S,
        signs=tuple(dict.fromkeys(text for second in signs for text in second)),
        errors=dict(whole.errors),
        dropped=whole.dropped,
        delayed=whole.latency.above(normal.slow_ms),
        worst_ms=whole.latency.max_ms,
    )
