"""A p99 at its limit, checked for a week: false alarms of the latency guardrail.

Only the number of latencies above the limit matters, so only that is drawn: a thousand weeks
with 60,480 looks each take two minutes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from newshelf.rollout.sequential import level_when_halved, log_evidence_above
from newshelf.store.records import MOST_LATENCIES, halvings

Counts = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEVEL = 0.05 / 42
"""Level of one test of configs/rollout.yaml: seven stages, six guardrails."""
_P99 = 0.99
_FIRST_LOOK = 1000
"""Copies before a shadow's p99 is looked at (``shadow.min_requests``)."""
_SPREAD = 0.5
"""Standard deviation of the logarithm of a latency."""


@dataclass(frozen=True)
class Slow:
    """Shares of rollouts in which any look calls the p99 too slow."""

    before: float
    """By a new random sample at each look; of a shadow, by the p99 as measured."""
    now: float
    """By the lower bound on a sample that grows."""


def simulate_samples(
    *,
    requests: int = 600_000,
    looks: int = 3000,
    slow: float = 0.01,
    rollouts: int = 4000,
    seed: int = 1,
) -> Slow:
    """Simulate looks at one variant for a week.

    A share ``slow`` of the answers is above the limit; 0.01 is a p99 just within it.
    """
    random = np.random.default_rng(seed)
    last = halvings(requests)
    # Shares that the first halving removes, the second, …, and that remain.
    parts = np.array([2.0 ** -(number + 1) for number in range(last)] + [2.0**-last])
    every, above = (np.zeros((rollouts, last + 1), dtype=np.int64) for _ in range(2))
    fewest = [_fewest(level_when_halved(LEVEL, halved)) for halved in range(last + 1)]
    # The earlier code tested each new sample at the whole level.
    fewest_of_new = _fewest(LEVEL)
    found = np.zeros((2, rollouts), dtype=bool)
    each = requests // looks
    for look in range(1, looks + 1):
        new = random.multinomial(each, parts, size=rollouts)
        every += new
        above += random.binomial(new, slow)
        n, k = look * each, above.sum(axis=1)
        kept = halvings(n)
        if not kept:
            found[0] |= k >= fewest_of_new[n]
        else:
            drawn = random.hypergeometric(k, n - k, MOST_LATENCIES)
            found[0] |= drawn >= fewest_of_new[MOST_LATENCIES]
        found[1] |= above[:, kept:].sum(axis=1) >= fewest[kept][every[:, kept:].sum(axis=1)]
    return Slow(*(float(one.mean()) for one in found))


def simulate_shadow(
    *,
    relative: float = 0.96,
    copies: int = 20_000,
    looks: int = 720,
    rollouts: int = 2000,
    seed: int = 1,
) -> Slow:
    """Simulate looks at the copies of a shadow.

    ``relative`` is the challenger's true p99 as a multiple of the limit. Looks at fewer than 1,000
    copies are left out.
    """
    random = np.random.default_rng(seed)
    slow = float(norm.sf(norm.ppf(_P99) - math.log(relative) / _SPREAD))
    each = copies // looks
    n = each * np.arange(1, looks + 1)
    above = random.binomial(each, slow, size=(rollouts, looks)).cumsum(axis=1)
    seen = n >= _FIRST_LOOK
    measured = above > (1 - _P99) * (n - 1)
    surely = above >= _fewest(level_when_halved(LEVEL, 0))[n]
    return Slow(*(float((found & seen).any(axis=1).mean()) for found in (measured, surely)))


def _fewest(level: float) -> Counts:
    """Return ``(values + 1,)``: how many of n values above the limit refute that it is a p99."""
    n = np.arange(MOST_LATENCIES + MOST_LATENCIES // 10)
    low, high = np.ceil((1 - _P99) * n).astype(np.int64), n + 1
    while (low < high).any():
        middle = (low + high) // 2
        refutes = log_evidence_above(middle, n, 1 - _P99) >= -math.log(level)
        low, high = np.where(refutes, low, middle + 1), np.where(refutes, middle, high)
        low = np.minimum(low, high)
    fewest: Counts = low
    return fewest


def run(console: Console) -> None:
    """Simulate and print."""
    table = Table("", "promised", "before", "now", title="p99 said to be above its limit")
    # Every ten seconds, at one request per second.
    week = simulate_samples(requests=604_800, looks=60_480, rollouts=1000)
    table.add_row("a week at the limit", f"{LEVEL:.2%}", f"{week.before:.2%}", f"{week.now:.2%}")
    found = simulate_samples(slow=0.015, rollouts=500)
    table.add_row("a week, 1.5 % are above it", "–", f"{found.before:.1%}", f"{found.now:.1%}")
    for relative in (0.96, 1.0, 1.3):
        shadow = simulate_shadow(relative=relative)
        promised = f"{LEVEL:.2%}" if relative <= 1 else "–"
        name = f"shadow, p99 of {relative:.0%} of the limit"
        table.add_row(name, promised, f"{shadow.before:.1%}", f"{shadow.now:.1%}")
    console.print(table)
