"""Totals and percentiles of a recorded run, per kind of request and per second."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from loadtest.record import KindSecond, RunRecord, decoded

_US_PER_MS = 1e3
_Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Latencies:
    """Latencies as counts per value, with a resolution of 0.1 %.

    An ``HdrHistogram`` has some twenty thousand counters, most of them zero. Only nonzero ones
    are kept here, so that an hour of seconds fits into memory.
    """

    highest_us: _Ints
    """(N,) increasing: the largest latency of each bucket, in microseconds."""
    middle_us: _Ints
    """(N,) the middle of each bucket."""
    counts: _Ints
    """(N,) above zero."""

    @classmethod
    def none(cls) -> "Latencies":
        """Return no latencies."""
        empty = np.zeros(0, dtype=np.int64)
        return cls(empty, empty, empty)

    @classmethod
    def of(cls, histogram: HdrHistogram) -> "Latencies":
        """Return the counts of ``histogram``, which is in microseconds."""
        dense = np.ctypeslib.as_array(histogram.counts)
        index = np.flatnonzero(dense).astype(np.int64)
        half = histogram.sub_bucket_half_count
        # HdrHistogram's layout: the first bucket has twice as many places as the others.
        bucket = np.maximum((index >> histogram.sub_bucket_half_count_magnitude) - 1, 0)
        place = np.where(index < half, index, (index & (half - 1)) + half)
        shift = bucket + histogram.unit_magnitude
        lowest, width = place << shift, np.int64(1) << shift
        return cls(lowest + width - 1, lowest + (width >> 1), dense[index].astype(np.int64))

    @classmethod
    def merged(cls, parts: Iterable["Latencies"]) -> "Latencies":
        """Return the sum of all."""
        kept = [part for part in parts if len(part.counts)]
        if not kept:
            return cls.none()
        highest, place = np.unique(
            np.concatenate([part.highest_us for part in kept]), return_inverse=True
        )
        middle = np.zeros(len(highest), dtype=np.int64)
        middle[place] = np.concatenate([part.middle_us for part in kept])
        counts = np.zeros(len(highest), dtype=np.int64)
        np.add.at(counts, place, np.concatenate([part.counts for part in kept]))
        return cls(highest, middle, counts)

    @property
    def count(self) -> int:
        """Number of latencies."""
        return int(self.counts.sum())

    def percentile_ms(self, percent: float) -> float:
        """Return the latency that ``percent`` of them do not exceed; infinite without any.

        It is rounded up to the largest value of its bucket, as in HdrHistogram.
        """
        return self.percentiles_ms([percent])[0]

    def percentiles_ms(self, percents: Sequence[float]) -> list[float]:
        """Return several percentiles."""
        if not len(self.counts):
            return [float("inf")] * len(percents)
        reached = np.cumsum(self.counts)
        wanted = np.maximum(np.floor(np.array(percents) * reached[-1] / 100 + 0.5), 1)
        at = self.highest_us[np.searchsorted(reached, wanted)]
        return [float(value) for value in at / _US_PER_MS]

    @property
    def max_ms(self) -> float:
        """The largest latency; 0 without any."""
        return float(self.highest_us[-1] / _US_PER_MS) if len(self.counts) else 0.0

    @property
    def mean_ms(self) -> float:
        """The mean; infinite without any, like the percentiles."""
        if not len(self.counts):
            return float("inf")
        return float((self.middle_us * self.counts).sum() / self.counts.sum() / _US_PER_MS)

    def above(self, limit_ms: float) -> int:
        """Return the number above a limit."""
        return int(self.counts[self.middle_us > limit_ms * _US_PER_MS].sum())

    def curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (N,) cumulative shares of the requests, and (N,) milliseconds."""
        return np.cumsum(self.counts) / max(self.count, 1), self.highest_us / _US_PER_MS


@dataclass(frozen=True, eq=False)
class Totals:
    """Totals of a set of requests."""

    seconds: float
    """Seconds in which they were meant to start."""
    intended: int
    late: int
    dropped: int
    fallbacks: int
    errors: Mapping[str, int]
    latency: Latencies
    service: Latencies

    @classmethod
    def of(cls, part: KindSecond) -> "Totals":
        """Return the totals of one second of one kind."""
        return cls(
            1.0,
            part.intended,
            part.late,
            part.dropped,
            part.fallbacks,
            part.errors,
            Latencies.of(decoded(part.latency)),
            Latencies.of(decoded(part.service)),
        )

    @classmethod
    def added(cls, parts: Iterable["Totals"], seconds: float) -> "Totals":
        """Return the sum of all, over ``seconds``."""
        every = list(parts)
        errors: Counter[str] = Counter()
        for part in every:
            errors.update(part.errors)
        return cls(
            seconds,
            sum(part.intended for part in every),
            sum(part.late for part in every),
            sum(part.dropped for part in every),
            sum(part.fallbacks for part in every),
            dict(errors.most_common()),
            Latencies.merged(part.latency for part in every),
            Latencies.merged(part.service for part in every),
        )

    @cached_property
    def answered(self) -> int:
        """Requests with the right response."""
        return self.latency.count

    @property
    def failed(self) -> int:
        """Errors, and requests never sent."""
        return sum(self.errors.values()) + self.dropped

    @property
    def error_rate(self) -> float:
        """Share of failed requests, between 0 and 1; 0 without a request."""
        whole = self.answered + self.failed
        return self.failed / whole if whole else 0.0

    @property
    def fallback_rate(self) -> float:
        """Share of right responses that came from the fallback; 0 without any."""
        return self.fallbacks / self.answered if self.answered else 0.0

    @property
    def throughput(self) -> float:
        """Right responses per second."""
        return self.answered / self.seconds


@dataclass(frozen=True, eq=False)
class Timeline:
    """A run whose histograms are decoded once."""

    record: RunRecord
    parts: Mapping[tuple[str, int], Totals]
    """By kind and second."""

    @classmethod
    def of(cls, record: RunRecord) -> "Timeline":
        """Read ``record``."""
        gathered: dict[tuple[str, int], list[Totals]] = {}
        for part in record.load:
            gathered.setdefault((part.kind, part.second), []).append(Totals.of(part))
        parts = {
            place: found[0] if len(found) == 1 else Totals.added(found, 1.0)
            for place, found in gathered.items()
        }
        return cls(record, parts)

    @property
    def length(self) -> int:
        """Number of seconds; the last may be incomplete."""
        last = max((second for _, second in self.parts), default=-1) + 1
        # A generator may end slightly late, when another second has begun.
        return max(math.ceil(self.record.seconds - 1e-6), last, 1)

    @cached_property
    def kinds(self) -> list[str]:
        """Kinds of request, sorted."""
        return self.record.kinds()

    def total(self, kind: str | None = None) -> Totals:
        """Return the totals of the run, of one kind or all."""
        chosen = (part for (name, _), part in self.parts.items() if kind in (None, name))
        return Totals.added(chosen, self.record.seconds)

    def between(self, start: int, end: int, kind: str | None = None) -> Totals:
        """Return the totals of the seconds from ``start`` up to, not including, ``end``."""
        names = self.kinds if kind is None else [kind]
        chosen = (
            self.parts[name, second]
            for second in range(start, end)
            for name in names
            if (name, second) in self.parts
        )
        return Totals.added(chosen, float(max(end - start, 1)))

    def by_second(self, kind: str | None = None) -> list[Totals]:
        """Return (length,) totals of each second, empty ones included."""
        return [self.between(second, second + 1, kind) for second in range(self.length)]
