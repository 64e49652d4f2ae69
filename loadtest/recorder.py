"""Observations of single requests, and the recorder that sums them up per second and kind."""

import base64
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from loadtest.record import KindSecond, empty_histogram, encoded

RIGHT = "right"
DROPPED = "dropped"
"""Outcomes beside the kinds of errors."""
_COLUMNS = 6
_MOST_US = 2**32 - 1
_US_PER_S = 1_000_000
Micros = NDArray[np.uint32]
_MOST_CPU_PERCENT = 90.0
_LEAST_SENT = 0.99
_P99 = 99.0
_US_PER_MS = 1000


@dataclass(frozen=True, eq=False)
class Block:
    """Requests whose fate is known, in any order."""

    kinds: list[str]
    outcomes: list[str]
    rows: NDArray[np.uint32]
    """``(n, 6)``: second of intended start, place in ``kinds``, place in ``outcomes``, and in
    microseconds: latency from the intended start, service time, lateness of the sending."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        rows = base64.b64encode(self.rows.astype("<u4").tobytes()).decode("ascii")
        return {"kinds": self.kinds, "outcomes": self.outcomes, "rows": rows}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Block":
        """Read what ``to_json`` made."""
        rows = np.frombuffer(base64.b64decode(table["rows"]), dtype="<u4").reshape(-1, _COLUMNS)
        return cls(list(table["kinds"]), list(table["outcomes"]), rows)


class Observations:
    """Collects a block."""

    def __init__(self) -> None:
        self._kinds: dict[str, int] = {}
        self._outcomes: dict[str, int] = {}
        self._rows = array("I")

    def add(
        self,
        second: int,
        kind: str,
        outcome: str,
        latency_us: int = 0,
        service_us: int = 0,
        lateness_us: int = 0,
    ) -> None:
        """One request. Durations above 71 minutes are taken for 71 minutes."""
        kinds, outcomes = self._kinds, self._outcomes
        self._rows.extend(
            (
                second,
                kinds.setdefault(kind, len(kinds)),
                outcomes.setdefault(outcome, len(outcomes)),
                min(latency_us, _MOST_US),
                min(service_us, _MOST_US),
                min(lateness_us, _MOST_US),
            )
        )

    def take(self) -> Block:
        """What was collected since the last time."""
        rows = np.array(self._rows, dtype=np.uint32).reshape(-1, _COLUMNS)
        self._rows = array("I")
        return Block(list(self._kinds), list(self._outcomes), rows)


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    at_s: float
    """Since the start of what is measured; negative while it warms up."""
    seconds: float
    """That will be measured."""
    intended: int
    right: int
    errors: int
    dropped: int
    late: int


@dataclass
class _Cell:
    """One kind of request in one second."""

    intended: int = 0
    late: int = 0
    dropped: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latency_us: list[Micros] = field(default_factory=list)
    service_us: list[Micros] = field(default_factory=list)


class Recorder:
    """Takes blocks of any generator, in any order."""

    def __init__(self, late_after_ms: float) -> None:
        self._late_after_us = late_after_ms * 1000
        self._open: dict[tuple[int, str], _Cell] = {}
        self._closed: list[KindSecond] = []
        self._totals: Counter[str] = Counter()
        self._sent_in: Counter[int] = Counter()
        self.lateness = empty_histogram()
        """Of every sending, in microseconds."""

    def add(self, block: Block) -> None:
        """Add what was seen."""
        rows = block.rows
        if not len(rows):
            return
        sent = rows[_is_not(block, rows, DROPPED)]
        _record_all(self.lateness, [sent[:, 5]])
        self._sent_in.update((sent[:, 0] + sent[:, 5] // _US_PER_S).tolist())
        places = rows[:, 0].astype(np.int64) * len(block.kinds) + rows[:, 1]
        for place in np.unique(places):
            second, kind = divmod(int(place), len(block.kinds))
            key = second, block.kinds[kind]
            self._fill(self._open.setdefault(key, _Cell()), block, rows[places == place])

    def close(self, before_second: int) -> None:
        """Put together the histograms of seconds of which nothing more will come."""
        for key in sorted(key for key in self._open if key[0] < before_second):
            self._closed.append(_summed(*key, self._open.pop(key)))

    def load(self) -> tuple[KindSecond, ...]:
        """All seconds, which closes them."""
        last = max((second for second, _ in self._open), default=0)
        self.close(last + 1)
        return tuple(sorted(self._closed, key=lambda part: (part.second, part.kind)))

    def progress(self, at_s: float, seconds: float) -> Progress:
        """The totals so far."""
        names = ("intended", "right", "errors", "dropped", "late")
        return Progress(at_s, seconds, **{name: self._totals[name] for name in names})

    def sent_in_time(self, seconds: float) -> float:
        """Of what was not dropped, the share that was sent before so many seconds were over."""
        sent = self.lateness.total_count
        # To the second, in the generator's favour; its lateness is judged beside.
        over = sum(number for at_s, number in self._sent_in.items() if at_s >= seconds)
        return 1 - over / sent if sent else 1.0

    def _fill(self, cell: _Cell, block: Block, rows: NDArray[np.uint32]) -> None:
        late = int(np.count_nonzero(rows[:, 5] > self._late_after_us))
        cell.intended += len(rows)
        cell.late += late
        self._totals.update(intended=len(rows), late=late)
        for place in np.unique(rows[:, 2]):
            outcome = block.outcomes[place]
            of_it = rows[rows[:, 2] == place]
            if outcome == RIGHT:
                cell.latency_us.append(of_it[:, 3])
                cell.service_us.append(of_it[:, 4])
                self._totals["right"] += len(of_it)
            elif outcome == DROPPED:
                cell.dropped += len(of_it)
                self._totals["dropped"] += len(of_it)
            else:
                cell.errors[outcome] += len(of_it)
                self._totals["errors"] += len(of_it)


def _is_not(block: Block, rows: NDArray[np.uint32], outcome: str) -> NDArray[np.bool_]:
    if outcome not in block.outcomes:
        return np.ones(len(rows), dtype=np.bool_)
    return np.asarray(rows[:, 2] != block.outcomes.index(outcome))


def _summed(second: int, kind: str, cell: _Cell) -> KindSecond:
    latency, service = empty_histogram(), empty_histogram()
    _record_all(latency, cell.latency_us)
    _record_all(service, cell.service_us)
    return KindSecond(
        second=second,
        kind=kind,
        intended=cell.intended,
        late=cell.late,
        dropped=cell.dropped,
        errors=dict(cell.errors),
        latency=encoded(latency),
        service=encoded(service),
    )


def _record_all(histogram: HdrHistogram, parts: Iterable[Micros]) -> None:
    """Record every value; what lies outside the histogram's range counts as its end."""
    least, most = histogram.lowest_trackable_value, histogram.highest_trackable_value
    for part in parts:
        values, counts = np.unique(np.clip(part, least, most), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            histogram.record_value(value, count)


def why_limited(
    *, cpu_percent: float, lateness: HdrHistogram, late_after_ms: float, sent_in_time: float
) -> str:
    """Say why what was measured is not the server's doing; an empty text when it is.

    Args:
        cpu_percent: of one core, of the busiest generator process.
        lateness: of every sending after its intended start, in microseconds.
        late_after_ms: the lateness that is still put up with, at the 99th percentile.
        sent_in_time: of the arrivals that were not dropped, the share that was sent before the
            run was over.
    """
    p99_ms = lateness.get_value_at_percentile(_P99) / _US_PER_MS if lateness.total_count else 0.0
    reasons = []
    if cpu_percent > _MOST_CPU_PERCENT:
        reasons.append(f"it used {cpu_percent:.0f} % of a core")
    if p99_ms > late_after_ms:
        reasons.append(
            f"one request in a hundred was sent {p99_ms:.1f} ms late or later "
            f"(at most {late_after_ms:g} ms are put up with)"
        )
    if sent_in_time < _LEAST_SENT:
        reasons.append(f"only {100 * sent_in_time:.1f} % of the requests were sent in time")
    if not reasons:
        return ""
    return (
        f"the generator was the limit: {'; '.join(reasons)}; "
        "use more processes, a lower rate or another machine"
    )
