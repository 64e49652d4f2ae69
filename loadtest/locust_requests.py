"""The requests that Locust's users of one process take turns with."""

import itertools
from collections.abc import Collection, Iterator
from pathlib import Path

from loadtest.engine import fresh_numbers
from loadtest.pool import draw_kinds, draw_pool
from loadtest.requests import Rendered
from loadtest.traffic import Kind, TrafficSettings

_EACH = 200
_MOST_PROCESSES = 64
"""Whose numbers do not meet; each draws every 64th."""


class Requests:
    """All users share the turns, so that no two send the same at the same time."""

    def __init__(
        self,
        catalog: Path,
        traffic: TrafficSettings,
        seed: tuple[int, int],
        kinds: Collection[Kind],
        *,
        mixed: bool,
    ) -> None:
        """Put them together.

        Args:
            catalog: folder that they are drawn from.
            traffic: what is sent.
            seed: equal seeds draw equal requests; the second is the process's.
            kinds: that are asked for by name.
            mixed: whether the mix is asked for, too.

        Raises:
            CatalogError: the catalogue has not what they need.
        """
        drawn = draw_kinds(catalog, traffic, seed, sorted(kinds), _EACH) if kinds else {}
        self._turns: dict[Kind, Iterator[Rendered]] = {
            kind: itertools.cycle(requests) for kind, requests in drawn.items()
        }
        pool = draw_pool(catalog, traffic, seed) if mixed else []
        self._mix = itertools.cycle(pool)
        self._numbers = fresh_numbers(seed[1], _MOST_PROCESSES)
        self.samples = [*(requests[0] for requests in drawn.values()), *pool]
        """Of what will be sent, for a look before the run."""

    def of(self, kind: Kind) -> Rendered:
        """The next one of this kind."""
        return next(self._turns[kind])

    def of_mix(self) -> Rendered:
        """The next one of the mix."""
        return next(self._mix)

    def number(self) -> int:
        """Makes a fresh request fresh."""
        return next(self._numbers)
