"""Latencies as counts per value: what percentiles, means and curves are read from.

An ``HdrHistogram`` holds some twenty thousand counters, most of them zero; here only those
that counted something are kept, so that an hour of seconds fits into memory.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from loadtest.record import decoded

__all__ = ["Latencies"]

_US_PER_MS = 1e3
_Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Latencies:
    """How often each latency was seen; values differ by 0.1 % or more."""

    highest_us: _Ints
    """(N,) increasing: the largest latency that each count stands for, in microseconds."""
    middle_us: _Ints
    """(N,) the middle of what each count stands for."""
    counts: _Ints
    """(N,) above zero."""

    @classmethod
    def none(cls) -> "Latencies":
        """No latency at all."""
        empty = np.zeros(0, dtype=np.int64)
        return cls(empty, empty, empty)

    @classmethod
    def of(cls, histogram: HdrHistogram) -> "Latencies":
        """What ``histogram`` counted, in microseconds."""
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
    def read(cls, text: str) -> "Latencies":
        """What ``loadtest.record.encoded`` wrote.

        Raises:
            ValueError: it is no histogram.
        """
        return cls.of(decoded(text))

    @classmethod
    def merged(cls, parts: Iterable["Latencies"]) -> "Latencies":
        """All of them added up."""
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
        """How many there are."""
        return int(self.counts.sum())

    def percentile_ms(self, percent: float) -> float:
        """The latency that ``percent`` of them do not exceed; infinite without any.

        Rounded as HdrHistogram does: up to the largest value that its place stands for.
        """
        return self.percentiles_ms([percent])[0]

    def percentiles_ms(self, percents: Sequence[float]) -> list[float]:
        """Likewise, of several."""
        if not len(self.counts):
            return [float("inf")] * len(percents)
        reached = np.cumsum(self.counts)
        wanted = np.maximum(np.floor(np.array(percents) * reached[-1] / 100 + 0.5), 1)
        at = self.highest_us[np.searchsorted(reached, wanted)]
        return [float(value) for value in at / _US_PER_MS]

    @property
    def max_ms(self) -> float:
        """The largest; 0 without any."""
        return float(self.highest_us[-1] / _US_PER_MS) if len(self.counts) else 0.0

    @property
    def mean_ms(self) -> float:
        """Their mean; infinite without any, as the percentiles are."""
        if not len(self.counts):
            return float("inf")
        return float((self.middle_us * self.counts).sum() / self.counts.sum() / _US_PER_MS)

    def above(self, limit_ms: float) -> int:
        """How many are larger."""
        return int(self.counts[self.middle_us > limit_ms * _US_PER_MS].sum())

    def curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N,) share of requests that were at most so late, and (N,) milliseconds."""
        return np.cumsum(self.counts) / max(self.count, 1), self.highest_us / _US_PER_MS
