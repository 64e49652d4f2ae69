"""What a generator saw, request by request, in blocks of columns that cost little to keep."""

import base64
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DROPPED", "RIGHT", "Block", "Observations"]

RIGHT = "right"
DROPPED = "dropped"
"""Outcomes beside the kinds of errors."""

_COLUMNS = 6
_MOST_US = 2**32 - 1


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
