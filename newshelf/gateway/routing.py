"""Routing of a unit to a variant, by the rollouts that are served now."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from newshelf.rollout.assignment import assign
from newshelf.store.records import Assignment, TrafficSplit

_LOG = logging.getLogger(__name__)
_OUTSIDE = Assignment("default", "", bucket=0, counted=False, propensity=1.0)
"""Without a rollout: TorchServe's default version answers."""


@dataclass(frozen=True, slots=True)
class Routed:
    """The target of one request."""

    assigned: Assignment
    split: TrafficSplit | None
    """None when no rollout is served."""


class Router:
    """Keeps what the store said last: a store that is away changes nobody's variant."""

    def __init__(self, read: Callable[[], Sequence[TrafficSplit]]) -> None:
        self._read = read
        self._read_s = time.monotonic()
        self.current: Sequence[TrafficSplit] = ()

    @property
    def age_s(self) -> float:
        """Since the store was read."""
        return time.monotonic() - self._read_s

    async def refresh(self) -> None:
        """Read the store once; failures are logged and tried again later."""
        try:
            # The store may block, and requests must not wait for it.
            self.current = await asyncio.to_thread(self._read)
        except Exception as error:
            _LOG.warning(
                "the rollouts could not be read and stay as they were %.0f s ago: %s",
                self.age_s,
                error,
            )
            return
        self._read_s = time.monotonic()

    def route(self, unit: str) -> Routed:
        """Return the target of a unit's requests: the first rollout's that it takes part in."""
        if not unit:
            return Routed(_OUTSIDE, None)
        outside: Routed | None = None
        for split in self.current:
            routed = Routed(assign(split, unit), split)
            if routed.assigned.variant != "default":
                return routed
            outside = outside or routed
        return outside or Routed(_OUTSIDE, None)
