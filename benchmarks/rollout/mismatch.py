"""Sample-ratio mismatches: how many are found, and how many are false alarms.

Shoppers are assigned by chance, the ramp adds some in most stages, and those that have seen the
challenger may come back more often. Only counts are kept: by how often shoppers come, and
whether they have come before. So thousands of rollouts of 50,000 shoppers take seconds.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from newshelf.rollout.sequential import MISMATCH_P, mismatch_log_evidence

Counts = NDArray[np.int64]

STAGES = ((0.01, 10), (0.05, 10), (0.1, 20), (0.25, 40), (0.5, 80), (0.5, 20))
"""Share of the units that see the challenger (as many are control), and looks, in turns: five
steps and the promotion, in which nobody joins."""
_CROWD = np.array([0.6, 0.3, 0.1])
"""Shares of shoppers with rare, occasional and frequent visits."""
_COMES = np.array([0.02, 0.03, 0.05])
"""Probability of a visit between two looks, for each kind of shopper."""
_MOST_P = 0.95
"""Largest probability of a visit."""


@dataclass(frozen=True)
class Mismatches:
    """Shares of rollouts in which any look finds a mismatch."""

    of_stage: float
    """By the units of the current stage."""
    since_began: float
    """By first appearances since the rollout began, the test in use."""


def simulate_mismatches(
    *,
    units: int,
    returning: float = 0.0,
    lost: float = 0.0,
    rollouts: int = 2000,
    seed: int = 1,
) -> Mismatches:
    """Run rollouts through all ``STAGES``.

    ``returning`` is how much more often those come who have seen the challenger (0.1: by a tenth),
    ``lost`` the share of its units that are never seen.
    """
    random = np.random.default_rng(seed)
    left = random.multinomial(2 * units, _CROWD, size=rollouts)
    control, challenger = (_Side(rollouts) for _ in range(2))
    found = np.zeros((2, rollouts), dtype=bool)
    taken = 0.0
    for share, looks in STAGES:
        part = (share - taken) / max(1 - 2 * taken, 1e-9)
        joined = random.multinomial(left, [part, part, 1 - 2 * part])
        left = joined[..., 2]
        control.begin_stage(joined[..., 0])
        challenger.begin_stage(random.binomial(joined[..., 1], 1 - lost))
        taken = share
        for _ in range(looks):
            control.come(random, 0.0)
            challenger.come(random, returning)
            for place, name in enumerate(("of_stage", "since_began")):
                evidence = mismatch_log_evidence(getattr(control, name), getattr(challenger, name))
                found[place] |= evidence > -math.log(MISMATCH_P)
    return Mismatches(*(float(one.mean()) for one in found))


class _Side:
    """One variant of all rollouts; ``(rollouts, kinds of shoppers)`` each."""

    def __init__(self, rollouts: int) -> None:
        nobody = np.zeros((rollouts, len(_CROWD)), dtype=np.int64)
        self._new, self._known, self._in_stage = nobody, nobody, nobody

    @property
    def of_stage(self) -> Counts:
        """``(rollouts,)`` units seen in this stage."""
        seen: Counts = self._in_stage.sum(axis=1)
        return seen

    @property
    def since_began(self) -> Counts:
        """``(rollouts,)`` units seen since the rollout began."""
        seen: Counts = self.of_stage + self._known.sum(axis=1)
        return seen

    def begin_stage(self, joined: Counts) -> None:
        """Begin a stage: its count starts at 0, and units join."""
        self._known = self._known + self._in_stage
        self._in_stage = np.zeros_like(self._known)
        self._new = self._new + joined

    def come(self, random: np.random.Generator, returning: float) -> None:
        """Simulate visits until the next look, first ones and repeated ones."""
        first = random.binomial(self._new, _COMES)
        again = random.binomial(self._known, np.minimum(_COMES * (1 + returning), _MOST_P))
        self._new = self._new - first
        self._known = self._known - again
        self._in_stage = self._in_stage + first + again


def run(console: Console) -> None:
    """Simulate and print."""
    table = Table("units a side", "returning", "lost", "test of the stage", "since it began")
    for units, returning, lost in (
        (20_000, 0.0, 0.0),
        (20_000, 0.1, 0.0),
        (50_000, 0.05, 0.0),
        (50_000, 0.1, 0.0),
        (20_000, 0.0, 0.05),
        (50_000, 0.0, 0.05),
        (50_000, 0.1, 0.05),
    ):
        found = simulate_mismatches(units=units, returning=returning, lost=lost, rollouts=10_000)
        table.add_row(
            f"{units:,}",
            f"{returning:+.0%}",
            f"{lost:.0%}",
            f"{found.of_stage:.2%}",
            f"{found.since_began:.2%}",
        )
    console.print(table)
