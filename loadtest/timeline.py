"""A record of a run, read: totals of any kind of request, over the run or second by second."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from loadtest.latencies import Latencies
from loadtest.record import KindSecond, RunRecord

__all__ = ["Timeline", "Totals"]


@dataclass(frozen=True, eq=False)
class Totals:
    """What became of some of the requests."""

    seconds: float
    """Over which they were meant to start."""
    intended: int
    late: int
    dropped: int
    errors: Mapping[str, int]
    latency: Latencies
    service: Latencies

    @classmethod
    def of(cls, part: KindSecond) -> "Totals":
        """One second of one kind."""
        return cls(
            1.0,
            part.intended,
            part.late,
            part.dropped,
            part.errors,
            Latencies.read(part.latency),
            Latencies.read(part.service),
        )

    @classmethod
    def added(cls, parts: Iterable["Totals"], seconds: float) -> "Totals":
        """All of them together, over ``seconds``."""
        every = list(parts)
        errors: Counter[str] = Counter()
        for part in every:
            errors.update(part.errors)
        return cls(
            seconds,
            sum(part.intended for part in every),
            sum(part.late for part in every),
            sum(part.dropped for part in every),
            dict(errors.most_common()),
            Latencies.merged(part.latency for part in every),
            Latencies.merged(part.service for part in every),
        )

    @cached_property
    def answered(self) -> int:
        """Requests with the right answer."""
        return self.latency.count

    @property
    def failed(self) -> int:
        """Errors, and requests that were never sent since too many were under way."""
        return sum(self.errors.values()) + self.dropped

    @property
    def error_rate(self) -> float:
        """Share of the requests that failed, between 0 and 1; 0 without a request."""
        whole = self.answered + self.failed
        return self.failed / whole if whole else 0.0

    @property
    def throughput(self) -> float:
        """Right answers per second."""
        return self.answered / self.seconds


@dataclass(frozen=True, eq=False)
class Timeline:
    """One run, its histograms decoded once."""

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
        """Seconds, the last of which may not be whole."""
        last = max((second for _, second in self.parts), default=-1) + 1
        # A generator may end a moment late; a second of its own has begun by then.
        return max(math.ceil(self.record.seconds - 1e-6), last, 1)

    @cached_property
    def kinds(self) -> list[str]:
        """Kinds of request, in the order of their names."""
        return self.record.kinds()

    def total(self, kind: str | None = None) -> Totals:
        """Over the whole run, of one kind or all."""
        chosen = (part for (name, _), part in self.parts.items() if kind in (None, name))
        return Totals.added(chosen, self.record.seconds)

    def between(self, start: int, end: int, kind: str | None = None) -> Totals:
        """Of the seconds ``start`` to ``end``, the last one not included."""
        names = self.kinds if kind is None else [kind]
        chosen = (
            self.parts[name, second]
            for second in range(start, end)
            for name in names
            if (name, second) in self.parts
        )
        return Totals.added(chosen, float(max(end - start, 1)))

    def by_second(self, kind: str | None = None) -> list[Totals]:
        """(length,) second by second; empty ones too."""
        return [self.between(second, second + 1, kind) for second in range(self.length)]
