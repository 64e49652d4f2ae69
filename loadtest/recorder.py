"""Outcomes of requests, and the recorder that sums them up per second and kind."""

import base64
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from loadtest.record import Generator, KindSecond, empty_histogram, encoded
from loadtest.requests import Rendered

RIGHT = "right"
FALLBACK = "fallback"
"""Right, but from the gateway's fallback."""
WRONG = "wrong answer"
DROPPED = "dropped"
"""Results of requests; others are a status or a kind of error."""
_COLUMNS = 6
_MAX_US = 2**32 - 1
_NS_PER_S = 1_000_000_000
_NS_PER_US = 1_000
_US_PER_MS = 1_000
_US_PER_S = 1_000_000
_MAX_CPU_PERCENT = 90.0
_MIN_SENT_IN_TIME = 0.99


class Outcome(NamedTuple):
    """One request and what became of it; times are those of ``time.monotonic_ns``."""

    request: Rendered
    intended_ns: int
    sent_ns: int
    end_ns: int
    result: str
    """One of the above, ``timeout``, the status or the name of an error."""
    status: int = 0
    """0 without a response."""
    size: int = 0
    """Bytes of the response's body."""
    header: str | None = None
    """The response header that the sender keeps."""


@dataclass(frozen=True, eq=False)
class Block:
    """Outcomes as columns, in any order."""

    kinds: list[str]
    results: list[str]
    rows: NDArray[np.uint32]
    """``(n, 6)``: second of the intended start, index into ``kinds``, index into ``results``,
    and in microseconds: latency from the intended start, service time, lateness of sending."""

    def counts(self) -> Counter[str]:
        """Return the number of outcomes by their result."""
        places, numbers = np.unique(self.rows[:, 2], return_counts=True)
        results = [self.results[place] for place in places]
        return Counter(dict(zip(results, numbers.tolist(), strict=True)))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        rows = base64.b64encode(self.rows.astype("<u4").tobytes()).decode("ascii")
        return {"kinds": self.kinds, "results": self.results, "rows": rows}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Block":
        """Read the output of ``to_json``."""
        rows = np.frombuffer(base64.b64decode(table["rows"]), dtype="<u4").reshape(-1, _COLUMNS)
        return cls(list(table["kinds"]), list(table["results"]), rows)


class Observations:
    """Collects outcomes into blocks, at little cost per request."""

    def __init__(self, start_ns: int = 0) -> None:
        """``start_ns`` is when the measurement starts, by ``time.monotonic_ns``."""
        self._start_ns = start_ns
        self._kinds: dict[str, int] = {}
        self._results: dict[str, int] = {}
        self._rows = array("I")

    def record(self, outcome: Outcome) -> None:
        """Add the outcome of a request, unless it was meant to start before the measurement."""
        second = (outcome.intended_ns - self._start_ns) // _NS_PER_S
        if second < 0:
            return
        if outcome.result == DROPPED:
            self.add(second, outcome.request.kind, DROPPED)
            return
        self.add(
            second,
            outcome.request.kind,
            outcome.result,
            (outcome.end_ns - outcome.intended_ns) // _NS_PER_US,
            (outcome.end_ns - outcome.sent_ns) // _NS_PER_US,
            (outcome.sent_ns - outcome.intended_ns) // _NS_PER_US,
        )

    def add(
        self,
        second: int,
        kind: str,
        result: str,
        latency_us: int = 0,
        service_us: int = 0,
        lateness_us: int = 0,
    ) -> None:
        """Add one row. Durations are capped at 71 minutes."""
        kinds, results = self._kinds, self._results
        self._rows.extend(
            (
                second,
                kinds.setdefault(kind, len(kinds)),
                results.setdefault(result, len(results)),
                min(latency_us, _MAX_US),
                min(service_us, _MAX_US),
                min(lateness_us, _MAX_US),
            )
        )

    def take(self) -> Block:
        """Return what was collected since the last call."""
        rows = np.array(self._rows, dtype=np.uint32).reshape(-1, _COLUMNS)
        self._rows = array("I")
        return Block(list(self._kinds), list(self._results), rows)


@dataclass(frozen=True)
class LoadProgress:
    """Progress of a run."""

    at_s: float
    """Since the start of the measurement; negative during warm-up."""
    seconds: float
    """Length of the measurement."""
    right: int
    errors: int
    dropped: int


class LoadRecorder:
    """Sums up blocks of any process, in any order, into lossless histograms."""

    def __init__(self, late_after_ms: float) -> None:
        """``late_after_ms`` is the lateness of sending above which a request counts as late."""
        self._late_after_ms = late_after_ms
        self._open: dict[tuple[int, str], list[Block]] = {}
        self._closed: list[KindSecond] = []
        self._totals: Counter[str] = Counter()
        self._sent_in: Counter[int] = Counter()
        self.lateness = empty_histogram()
        """Of every request sent, in microseconds."""

    def add(self, block: Block) -> None:
        """Add the outcomes of a block."""
        rows = block.rows
        if not len(rows):
            return
        sent = rows
        if DROPPED in block.results:
            sent = rows[rows[:, 2] != block.results.index(DROPPED)]
        _record_all(self.lateness, sent[:, 5])
        self._sent_in.update((sent[:, 0] + sent[:, 5] // _US_PER_S).tolist())
        places = rows[:, 0].astype(np.int64) * len(block.kinds) + rows[:, 1]
        for place in np.unique(places):
            second, kind = divmod(int(place), len(block.kinds))
            key = second, block.kinds[kind]
            here = replace(block, rows=rows[places == place])
            self._open.setdefault(key, []).append(here)
        self._totals.update(block.counts())

    def close(self, before_second: int) -> None:
        """Build the histograms of seconds that are complete."""
        for key in sorted(key for key in self._open if key[0] < before_second):
            self._closed.append(_summed(*key, self._open.pop(key), self._late_after_ms))

    def load(self) -> tuple[KindSecond, ...]:
        """Close all seconds and return them."""
        last = max((second for second, _ in self._open), default=0)
        self.close(last + 1)
        return tuple(sorted(self._closed, key=lambda part: (part.second, part.kind)))

    def progress(self, at_s: float, seconds: float) -> LoadProgress:
        """Return the totals so far."""
        right = self._totals[RIGHT] + self._totals[FALLBACK]
        dropped = self._totals[DROPPED]
        errors = self._totals.total() - right - dropped
        return LoadProgress(at_s, seconds, right, errors, dropped)

    def generator(self, cpu_percent: Sequence[float], seconds: float) -> Generator:
        """Describe the load's own side.

        ``cpu_percent`` is that of one core, of each process.
        """
        busiest = max(cpu_percent)
        limited = why_limited(
            cpu_percent=busiest,
            lateness=self.lateness,
            late_after_ms=self._late_after_ms,
            sent_in_time=self.sent_in_time(seconds),
        )
        return Generator(
            processes=len(cpu_percent),
            cpu_percent=busiest,
            lateness=encoded(self.lateness),
            limited=limited,
        )

    def sent_in_time(self, seconds: float) -> float:
        """Return the share of requests not dropped that were sent within ``seconds``."""
        sent = self.lateness.total_count
        # Rounded down to seconds; the generator's lateness is checked separately.
        over = sum(number for at_s, number in self._sent_in.items() if at_s >= seconds)
        return 1 - over / sent if sent else 1.0


def why_limited(
    *, cpu_percent: float, lateness: HdrHistogram, late_after_ms: float, sent_in_time: float
) -> str:
    """Say why the generator, not the server, limited the run; return "" if it did not.

    ``cpu_percent`` is that of the busiest process, of one core; ``lateness`` of every request sent,
    in microseconds.
    """
    p99_ms = lateness.get_value_at_percentile(99) / _US_PER_MS if lateness.total_count else 0.0
    reasons = []
    if cpu_percent > _MAX_CPU_PERCENT:
        reasons.append(f"it used {cpu_percent:.0f} % of a core")
    if p99_ms > late_after_ms:
        reasons.append(
            f"1 % of the requests were sent at least {p99_ms:.1f} ms late "
            f"(accepted: {late_after_ms:g} ms)"
        )
    if sent_in_time < _MIN_SENT_IN_TIME:
        reasons.append(f"only {100 * sent_in_time:.1f} % of the requests were sent in time")
    if not reasons:
        return ""
    return (
        f"the generator was the limit: {'; '.join(reasons)}; "
        "use more processes, a lower rate or another machine"
    )


def _summed(second: int, kind: str, blocks: Sequence[Block], late_after_ms: float) -> KindSecond:
    counts: Counter[str] = Counter()
    late = 0
    latency, service = empty_histogram(), empty_histogram()
    for block in blocks:
        counts.update(block.counts())
        late += int(np.count_nonzero(block.rows[:, 5] > late_after_ms * _US_PER_MS))
        answers = [at for at, result in enumerate(block.results) if result in {RIGHT, FALLBACK}]
        is_right = np.isin(block.rows[:, 2], answers)
        _record_all(latency, block.rows[is_right, 3])
        _record_all(service, block.rows[is_right, 4])
    intended = counts.total()
    del counts[RIGHT]
    return KindSecond(
        second=second,
        kind=kind,
        intended=intended,
        late=late,
        dropped=counts.pop(DROPPED, 0),
        fallbacks=counts.pop(FALLBACK, 0),
        errors=dict(counts),
        latency=encoded(latency),
        service=encoded(service),
    )


def _record_all(histogram: HdrHistogram, values: NDArray[np.uint32]) -> None:
    """Record every value, clipped to the range of the histogram."""
    least, most = histogram.lowest_trackable_value, histogram.highest_trackable_value
    clipped, counts = np.unique(np.clip(values, least, most), return_counts=True)
    for value, count in zip(clipped.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, count)
