"""Simulated rollouts: the estimates of many of them, at every look.

Users come in turns to control and challenger, each with answers and a taste of their own. Only
sums are kept, so that a thousand rollouts of ten thousand users take seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newshelf.rollout.metrics.compare import LEAST_ACTIVE_UNITS
from newshelf.rollout.metrics.delta import log_lift, ratio_variance
from newshelf.rollout.power import needed_information
from newshelf.rollout.sequential import half_width

__all__ = ["ALPHA", "LOOK", "POWER", "Draw", "Looks", "clicks_of", "revenue_of", "simulate"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Draw = Callable[[np.random.Generator, tuple[int, int]], tuple[Floats, Floats]]
"""Numerator and denominator of that many users."""

LOOK = 100
"""Users between two looks, half of them in each variant."""
ALPHA, POWER = 0.05, 0.8
_ONE_LOOK_Z = 1.959964


@dataclass(frozen=True, eq=False)
class Looks:
    """``(rollouts, looks)`` each."""

    log: Floats
    """ln(challenger / control)."""
    variance: Floats
    enough: Bools
    """Where there are enough active users to say anything."""

    def half_width(self, effect: float) -> Floats:
        """Of the confidence sequence that is tuned to a relative effect."""
        tuned = needed_information(float(np.log1p(effect)), alpha=ALPHA, power=POWER)
        return half_width(self.variance, 1 / self.variance, tuned_at=tuned, alpha=ALPHA)

    def found(self, effect: float) -> Bools:
        """Where the sequence leaves "no effect" out."""
        found: Bools = (np.abs(self.log) > self.half_width(effect)) & self.enough
        return found

    def found_naively(self) -> Bools:
        """Where the 95 % interval that is meant for one look does."""
        found: Bools = (np.abs(self.log) > _ONE_LOOK_Z * np.sqrt(self.variance)) & self.enough
        return found


def clicks_of(rate: float) -> Draw:
    """Answers of ten products; each user's own rate of clicks varies around ``rate``."""

    def draw(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        shown = 10 * random.geometric(0.4, size=shape)
        taste = random.beta(20 * rate, 20 * (1 - rate), size=shape)
        return random.binomial(shown, taste).astype(np.float64), shown.astype(np.float64)

    return draw


def revenue_of(buyers: float) -> Draw:
    """A share of users buys, and what they pay is skewed."""

    def draw(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        paid = random.lognormal(3.0, 1.0, size=shape)
        return (random.random(shape) < buyers) * paid, np.ones(shape)

    return draw


def simulate(control: Draw, challenger: Draw, *, rollouts: int, looks: int, seed: int) -> Looks:
    """Run rollouts of ``looks`` × ``LOOK`` users each."""
    random = np.random.default_rng(seed)
    units = (LOOK // 2) * np.arange(1, looks + 1)
    (a, a_var, a_enough), (b, b_var, b_enough) = (
        _ratios(_sums(draw, random, rollouts, looks), units) for draw in (control, challenger)
    )
    enough = a_enough & b_enough
    with np.errstate(divide="ignore", invalid="ignore"):
        log, variance = log_lift(a, a_var, b, b_var)
    # Where nothing is said yet, it is nothing that is compared.
    return Looks(np.where(enough, log, 0.0), np.where(enough, variance, 1.0), enough)


def _sums(draw: Draw, random: np.random.Generator, rollouts: int, looks: int) -> Floats:
    """``(6, rollouts, looks)``: what the delta method needs, summed up to each look."""
    sums = np.zeros((6, rollouts, looks))
    for look in range(looks):
        top, bottom = draw(random, (rollouts, LOOK // 2))
        parts = (top, bottom, top**2, bottom**2, top * bottom, top > 0)
        sums[:, :, look] = [part.sum(axis=1) for part in parts]
    summed: Floats = np.cumsum(sums, axis=2)
    return summed


def _ratios(sums: Floats, units: NDArray[np.int64]) -> tuple[Floats, Floats, Bools]:
    top, bottom, tops, bottoms, products, active = sums
    mean_top, mean_bottom = top / units, bottom / units

    def spread(squares: Floats, one: Floats, other: Floats) -> Floats:
        found: Floats = (squares - units * one * other) / (units - 1)
        return found

    variance = ratio_variance(
        mean_top,
        mean_bottom,
        spread(tops, mean_top, mean_top),
        spread(bottoms, mean_bottom, mean_bottom),
        spread(products, mean_top, mean_bottom),
    )
    return top / bottom, variance / units, active >= LEAST_ACTIVE_UNITS
